-- Tenants and money. Amounts are nano-USD, periods are calendar months in UTC, written as 202611.

-- A sub-account is an account with a parent. It has keys, jobs and a webhook secret of its own; its parent pays and sees all.
ALTER TABLE accounts ADD COLUMN parent_id TEXT;
ALTER TABLE accounts ADD COLUMN external_ref TEXT;
ALTER TABLE accounts ADD COLUMN rate_limit_rpm BIGINT;
ALTER TABLE accounts ADD COLUMN default_tag TEXT;
-- A JSON list of model ids, `*` standing for anything; null allows all.
ALTER TABLE accounts ADD COLUMN allowed_models TEXT;
ALTER TABLE accounts ADD COLUMN deleted_at BIGINT;
CREATE INDEX accounts_by_parent ON accounts (parent_id, created_at, id) WHERE parent_id IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN name TEXT;
ALTER TABLE api_keys ADD COLUMN allowed_models TEXT;
ALTER TABLE api_keys ADD COLUMN rate_limit_rpm BIGINT;
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
-- What its cap, its rate limit and its spending are counted under: its own id, and after a rotation that of the first key, so
-- that a new key brings no new budget. Null: its own id.
ALTER TABLE api_keys ADD COLUMN budget_id TEXT;
-- The key that dies when this one is first used.
ALTER TABLE api_keys ADD COLUMN replaces TEXT;
CREATE INDEX api_keys_by_account ON api_keys (account_id, created_at, id);

-- Hard monthly caps. A scope without a row has none.
CREATE TABLE caps (
    -- acc_…, sa_…, key_…, or tag:<account>:<tag>
    scope TEXT NOT NULL PRIMARY KEY,
    -- What a tag budget is known by; null for the others.
    id TEXT UNIQUE,
    -- The account that pays, never a sub-account.
    account_id TEXT NOT NULL,
    tag TEXT,
    cap BIGINT NOT NULL CHECK (cap >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX caps_by_account ON caps (account_id, created_at, id);

-- What was spent in each scope and period, and what is promised to work under way. Rows appear with the first use.
CREATE TABLE budget_periods (
    scope TEXT NOT NULL,
    period BIGINT NOT NULL,
    -- account | sub_account | key | tag
    kind TEXT NOT NULL,
    account_id TEXT NOT NULL,
    spent BIGINT NOT NULL CHECK (spent >= 0),
    held BIGINT NOT NULL CHECK (held >= 0),
    -- May have been billed upstream: never charged, and counted against the cap until the period ends.
    uncertain BIGINT NOT NULL CHECK (uncertain >= 0),
    requests BIGINT NOT NULL,
    PRIMARY KEY (scope, period)
);
CREATE INDEX budget_periods_by_account ON budget_periods (account_id, kind, period, scope);

-- A reservation is the promise for one job, or for one chat call with a cap above it. Its account is the one that pays.
ALTER TABLE reservations ADD COLUMN sub_account_id TEXT;
ALTER TABLE reservations ADD COLUMN key_id TEXT;
ALTER TABLE reservations ADD COLUMN tag TEXT;
-- Null: written before there was money; it counts nowhere.
ALTER TABLE reservations ADD COLUMN period BIGINT;
-- job | chat
ALTER TABLE reservations ADD COLUMN kind TEXT;
ALTER TABLE reservations ADD COLUMN charged BIGINT;
-- The prices it was made with, as JSON.
ALTER TABLE reservations ADD COLUMN price TEXT;
-- A chat call has ended by then, or nobody will ever say how. Jobs have none: their end is in the same transaction.
ALTER TABLE reservations ADD COLUMN expires_at BIGINT;
-- The process that makes the call.
ALTER TABLE reservations ADD COLUMN owner TEXT;
CREATE INDEX reservations_expiring ON reservations (expires_at) WHERE state = 'held' AND expires_at IS NOT NULL;

-- What was charged, given back or corrected. Rows are only ever added.
CREATE TABLE ledger (
    -- The job or chat call.
    subject TEXT NOT NULL,
    -- charge | refund | adjust
    kind TEXT NOT NULL,
    -- Empty for the one charge; else what makes a repeated refund or correction the same one.
    ref TEXT NOT NULL,
    account_id TEXT NOT NULL,
    sub_account_id TEXT,
    key_id TEXT NOT NULL,
    tag TEXT,
    period BIGINT NOT NULL,
    -- Charges and refunds are positive; a correction may be either.
    amount BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (subject, kind, ref)
);

-- One row for each request that reached a provider, or might have.
CREATE TABLE requests (
    id TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL,
    sub_account_id TEXT,
    key_id TEXT NOT NULL,
    tag TEXT,
    -- chat | job
    kind TEXT NOT NULL,
    job_id TEXT,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    -- The HTTP status of a chat call; of a job 200, or what its error would be.
    status BIGINT NOT NULL,
    -- completed | failed | client_left | uncertain
    outcome TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    -- What was used, as JSON: tokens, seconds, meshes. Whether we counted it ourselves.
    used TEXT NOT NULL,
    -- Those of its numbers that are summed up.
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    estimated BOOLEAN NOT NULL,
    -- The prices it was charged at, as JSON; null for a model without any.
    price TEXT,
    cost BIGINT NOT NULL
);
CREATE INDEX requests_by_account ON requests (account_id, created_at, id);
CREATE INDEX requests_by_sub_account ON requests (sub_account_id, created_at, id) WHERE sub_account_id IS NOT NULL;
CREATE INDEX requests_by_time ON requests (created_at);

-- What a job costs when it completes, and the account that pays for it, which sees the jobs of its sub-accounts.
ALTER TABLE jobs ADD COLUMN price BIGINT;
ALTER TABLE jobs ADD COLUMN payer_id TEXT;
CREATE INDEX jobs_by_payer ON jobs (payer_id, created_at, id);
CREATE INDEX jobs_by_payer_status ON jobs (payer_id, status, created_at, id);
-- No release came before this one, so no large table is rewritten here.
UPDATE jobs SET payer_id = account_id, price = 0;

-- Imported list prices, a row per model and unit, and those that were replaced.
CREATE TABLE prices (
    model TEXT NOT NULL,
    -- input | output | cached_input | image | video_second | music_second | mesh | request
    unit TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    valid_until BIGINT,
    -- Pico-USD (10⁻¹² dollar) per unit.
    amount BIGINT NOT NULL CHECK (amount >= 0),
    -- Such as the name of the imported file.
    source TEXT NOT NULL,
    PRIMARY KEY (model, unit, valid_from)
);
-- Limits of imported models, for the most that a call may cost.
CREATE TABLE model_limits (
    model TEXT NOT NULL PRIMARY KEY,
    max_input_tokens BIGINT,
    max_output_tokens BIGINT,
    updated_at BIGINT NOT NULL
);
