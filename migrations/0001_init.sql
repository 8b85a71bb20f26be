-- The first schema. One text for SQLite and PostgreSQL; the rules are in README.md beside this file.
-- Times are Unix milliseconds, money is nano-USD.

-- What exists at most once per installation, such as the first account.
CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Recognises the secret key of the installation, so that a process with another one refuses to start.
CREATE TABLE secret_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL
);

CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    tier TEXT NOT NULL,
    -- Sealed with the installation's secret key. The previous one still signs until its time.
    webhook_secret TEXT NOT NULL,
    webhook_secret_previous TEXT,
    webhook_secret_previous_until BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    -- The part of the key that finds it; the whole key is stored as an HMAC under the pepper of `kid`.
    public_id TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL,
    kid TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    modality TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    status TEXT NOT NULL,
    params TEXT NOT NULL,
    tag TEXT,
    metadata TEXT,
    webhook_url TEXT,
    progress BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    completed_at BIGINT,
    cancelled_at BIGINT,
    deadline_at BIGINT NOT NULL,
    expires_at BIGINT,
    error_code TEXT,
    error_message TEXT,
    result TEXT,
    cost BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX jobs_by_account ON jobs (account_id, created_at, id);
CREATE INDEX jobs_by_status ON jobs (account_id, status, created_at, id);
CREATE INDEX jobs_with_result ON jobs (expires_at) WHERE result IS NOT NULL;

-- The row is the task; the broker only rings a bell.
CREATE TABLE tasks (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    -- The job, or the webhook event.
    ref_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    -- ready | waiting (until run_at) | running (by worker) | done | buried
    state TEXT NOT NULL,
    priority BIGINT NOT NULL,
    fair_seq BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    phase TEXT NOT NULL,
    provider_task TEXT,
    attempt BIGINT NOT NULL,
    crash_count BIGINT NOT NULL,
    worker TEXT,
    -- Which claim took it, to be found again after a commit whose outcome is not known.
    claim_id TEXT,
    lease_epoch BIGINT NOT NULL,
    ended_at BIGINT,
    last_error TEXT
);
CREATE INDEX tasks_ready ON tasks (queue, priority, fair_seq, run_at) WHERE state = 'ready';
CREATE INDEX tasks_waiting ON tasks (run_at) WHERE state = 'waiting';
CREATE INDEX tasks_running ON tasks (worker) WHERE state = 'running';
CREATE INDEX tasks_ended ON tasks (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX tasks_ref ON tasks (ref_id);

-- Fairness: a tenant's next task comes after all that were claimed so far and after the tenant's own.
CREATE TABLE queue_cursors (
    queue TEXT NOT NULL PRIMARY KEY,
    claimed_seq BIGINT NOT NULL
);
CREATE TABLE queue_tenants (
    queue TEXT NOT NULL,
    account_id TEXT NOT NULL,
    last_seq BIGINT NOT NULL,
    PRIMARY KEY (queue, account_id)
);

CREATE TABLE idempotency (
    account_id TEXT NOT NULL,
    route TEXT NOT NULL,
    idem_key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job_id TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, route, idem_key)
);
CREATE INDEX idempotency_expiring ON idempotency (expires_at);

CREATE TABLE reservations (
    -- The id of the job it pays for.
    id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    amount BIGINT NOT NULL,
    -- held | settled | released | uncertain
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);

CREATE TABLE webhook_events (
    id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    url TEXT NOT NULL,
    -- The exact bytes of every attempt.
    body TEXT NOT NULL,
    -- pending | delivered | given_up
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX webhook_events_by_job ON webhook_events (job_id);
CREATE INDEX webhook_events_ended ON webhook_events (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    event_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    at BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    status BIGINT,
    error TEXT,
    PRIMARY KEY (event_id, attempt)
);

-- One row per process incarnation and role; a task belongs to a live one.
CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL
);
