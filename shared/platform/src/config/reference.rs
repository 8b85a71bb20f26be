//! The list of all settings, for people. `docs/configuration.md` is made from it; a test fails when that page is stale.

use std::fmt::Write as _;

/// One setting.
struct Setting {
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

const ENVIRONMENT: &[Setting] = &[
    setting(
        "--data-dir, AIG_DATA_DIR",
        "the XDG data folder",
        "Holds everything that has no URL of its own: `gateway.db`, `files`, `secret-key`, `first-key`, `admin-key`, and `url` while a server listens.",
    ),
    setting("--listen, AIG_LISTEN", "127.0.0.1:8080", "Where the API listens. Port 0 takes any free one."),
    setting("--config, AIG_CONFIG", "./aigateway.toml, else the one in the data folder", "The file described below."),
    setting(
        "AIG_PUBLIC_URL",
        "http:// and the address listened on",
        "What links are made of. Must be set when listening on a wildcard address.",
    ),
    setting("AIG_MEDIA_URL", "the public URL", "What links to results are made of."),
    setting("AIG_DATABASE_URL", "sqlite: in the data folder", "`sqlite:/path` or `postgres://…`."),
    setting(
        "AIG_FILES_URL",
        "file: in the data folder",
        "Where results are kept: `file:///path`, or `s3://bucket/folder?endpoint=https://host&region=name`.",
    ),
    setting("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY", "none", "The keys of the bucket."),
    setting("AIG_BROKER_URL", "memory:", "`memory:`, or RabbitMQ as `amqp://user:password@host:5672/vhost`."),
    setting("AIG_CACHE_URL", "memory:", "Rate limits and signals: `memory:`, or Redis as `redis://host:6379`."),
    setting(
        "AIG_PREFIX",
        "aigateway.",
        "What the names of queues and cache keys begin with, so that installations can share servers.",
    ),
    setting(
        "AIG_HEALTH_LISTEN",
        "nowhere",
        "Where `worker` and `scheduler` answer `/healthz`, `/readyz` and `/metrics`.",
    ),
    setting(
        "AIG_SECRET_KEY, AIG_SECRET_KEY_FILE",
        "`secret-key` in the data folder",
        "`kid:base64(32 bytes)`, comma list: the first writes, all read.",
    ),
    setting(
        "AIG_PRIVATE_TARGETS",
        "127.0.0.0/8,::1/128 when listening on loopback, else none",
        "Networks that tenants' URLs may reach, by http and on any port. `none` closes all.",
    ),
    setting("AIG_LOG", "info", "Which log lines are written, such as `info,aig_worker=debug`."),
    setting("AIG_LOG_FORMAT", "text on a terminal, else json", "`text` or `json`."),
];

const FILE: &[Setting] = &[
    setting(
        "listen, public_url, media_url, database_url, broker_url, cache_url, files_url, prefix, health_listen, private_targets, log",
        "",
        "As the variables of those names.",
    ),
    setting("[providers.NAME] kind", "", "`openai` (chat completions) or `aigateway` (jobs of another gateway)."),
    setting("[providers.NAME] base_url", "", "`openai`: with `/v1`; `aigateway`: without."),
    setting("[providers.NAME] api_key_env", "none", "The environment variable that holds the key."),
    setting("[providers.NAME] models", "", "A list of the provider's names, or \"*\". A model's id is `NAME/name`."),
    setting(
        "[providers.NAME] quirks",
        "[]",
        "`no_stream_options`: it refuses `stream_options`; usage is then estimated. `max_completion_tokens`: it refuses `max_tokens` (known of OpenAI and Azure).",
    ),
    setting(
        "[providers.NAME] idempotent_submit",
        "false",
        "`aigateway` only: it honours `Idempotency-Key`, so that a submit whose answer was lost may be repeated.",
    ),
    setting("[defaults] chat, video, music, 3d", "the sandbox's", "The model of requests that name none."),
    setting(
        "[models.\"NAME/m\"] deadline_seconds",
        "video and 3d 1800, music 900",
        "When a job of this model is given up.",
    ),
    setting(
        "[models.\"NAME/m\"] input_cents_per_million, output_cents_per_million, cached_input_cents_per_million",
        "see below",
        "List prices of tokens, in US cents per million. A decimal such as 15, 0.375 or \"0.375\", with at most 4 decimal places. Cached input without a price costs what input does.",
    ),
    setting(
        "[models.\"NAME/m\"] cents_per_image, cents_per_video_second, cents_per_music_second, cents_per_mesh, cents_per_request",
        "see below",
        "List prices of everything else, in US cents. A price per request is added to the others, and stands for those that are missing.",
    ),
    setting(
        "[models.\"NAME/m\"] max_input_tokens, max_output_tokens",
        "see below",
        "How many tokens a call of this model may take: bounds what it may cost.",
    ),
    setting(
        "[prices] margin_percent",
        "5",
        "What is added to every list price, from 0 to 1000; two decimal places. 0 for a gateway of one's own.",
    ),
    setting("[prices] reload_interval_ms", "30000 (at least 50)", "How often a server reads the imported prices."),
    setting("[server] max_connections", "10000", "The most connections at once."),
    setting("[server] max_connections_per_address", "off", "The most connections of one address."),
    setting("[server] header_timeout_seconds", "10", "How long a client may take to send its request's head."),
    setting("[server] body_timeout_seconds", "60", "How long a client may take to send its request's body."),
    setting("[server] max_chat_body_bytes", "20971520", "The largest body of a chat request."),
    setting("[server] max_job_body_bytes", "1048576", "The largest body of a job request."),
    setting(
        "[tiers] unlimited, free, paid, enterprise",
        "0, 10, 600, 30000",
        "How many requests that cost money a key may make a minute, by the tier of its account; 0 sets no limit.",
    ),
    setting("[chat] keep_alive_seconds", "15", "After this much silence a stream's client gets a comment."),
    setting("[chat] idle_seconds", "60", "After this much silence of the upstream a call is given up."),
    setting("[chat] total_seconds", "600", "The longest call."),
    setting("[chat] head_seconds", "15", "A stream's response headers go out at the latest after this."),
    setting("[chat] slow_reader_seconds", "60", "A client that reads nothing of its answer for this long is cut off."),
    setting(
        "[chat] capped_default_max_tokens",
        "4096",
        "The most tokens that an answer may have where a cap stands above the request and its client sets no limit.",
    ),
    setting("[worker] queues", "[]: all", "The queues that a worker serves: `video`, `music`, `3d`, `webhook`."),
    setting("[worker] concurrency", "32", "Steps at once, per queue of jobs."),
    setting("[worker] webhook_concurrency", "64", "Webhook deliveries at once."),
    setting("[worker] parked_limit", "10000", "Jobs that wait between polls."),
    setting("[worker] max_result_bytes", "2147483648", "The largest result."),
    setting("[tasks] dispatch_interval_ms", "1000 (at least 10)", "How often due tasks are looked for."),
    setting("[tasks] rescue_interval_ms", "5000 (at least 50)", "How often tasks of dead workers are looked for."),
    setting(
        "[tasks] retain_interval_ms",
        "60000 (at least 50)",
        "How often results whose time is over are looked for.",
    ),
    setting("[tasks] lease_ms", "60000 (at least 3000)", "How long a worker's lease is good on PostgreSQL."),
    setting("[tasks] submit_attempts", "8 (at least 1)", "How often a submit is tried before the job fails."),
];

const PRICES: &str = "
## Whose price counts

The first of these that has a price for a model is its whole price list:

1. `[models.\"NAME/m\"]` in `aigateway.toml`. What it leaves out has no price; nothing is filled in from below.
2. The sandbox's own list.
3. The catalogue that `aigateway catalog import FILE` read from LiteLLM's `model_prices_and_context_window.json`. A model `NAME/m`
   has the price of the entry `NAME/m`, else that of the entry `m`: `openai/gpt-4o` finds `gpt-4o`, and a provider that the
   configuration calls `azure` finds `azure/gpt-4o`. A model that costs you something else, such as one on a server of your
   own, needs a price of its own in `aigateway.toml`, which may be 0.

A model without a price cannot be used under a cap. Token limits are looked for in the same order, one by one. Prices that change apply
to what is accepted from then on; what is under way keeps its own.
";

/// The page.
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n<!-- Made from shared/platform/src/config/reference.rs; `UPDATE=1 cargo test -p aig-platform` writes it. -->\n\n\
         A flag goes before a variable, a variable before the file. An unknown or wrong setting is an error that names the line.\n",
    );
    for (title, settings) in [("Flags and environment", ENVIRONMENT), ("aigateway.toml", FILE)] {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {title}\n\n| setting | default | meaning |\n|---|---|---|\n");
        for Setting { name, default, meaning } in settings {
            let _ = writeln!(page, "| `{name}` | {default} | {meaning} |");
        }
    }
    page.push_str(PRICES);
    page
}
