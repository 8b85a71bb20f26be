//! The endpoints: one file each, always in the same order: request, response, what can go wrong, handler, tests.

/// Chat completions.
pub mod chat {
    pub mod create;
}

/// The catalogue of models.
pub mod models {
    pub mod get;
    pub mod list;
}

/// Video clips.
pub mod videos {
    pub mod create;
}

/// Music.
pub mod audio_music {
    pub mod create;
}

/// 3D meshes.
pub mod three_d {
    pub mod create;
}

/// Jobs of any kind.
pub mod jobs {
    pub mod cancel;
    pub mod create;
    pub mod delete;
    pub mod events;
    pub mod get;
    pub mod list;
}

/// Results of jobs.
pub mod files {
    pub mod get;
    pub mod public;
    pub mod serve;
    pub mod signed;
}

/// The secret that signs the webhooks of an account.
pub mod webhook_secret {
    pub mod get;
    pub mod rotate;
}

/// Sub-accounts: customers of an account, with keys and limits of their own.
pub mod sub_accounts {
    pub mod create;
    pub mod delete;
    pub mod get;
    pub mod list;
    pub mod update;
    pub mod usage;
}

/// API keys.
pub mod keys {
    pub mod create;
    pub mod delete;
    pub mod list;
    pub mod rotate;
}

/// Caps on tags.
pub mod budgets {
    pub mod create;
    pub mod delete;
    pub mod list;
    pub mod update;
}

/// What was used, and what it cost.
pub mod usage {
    pub mod by_sub_account;
    pub mod by_tag;
    pub mod recent;
}

/// Single requests.
pub mod requests {
    pub mod get;
}

/// What is spent and what is left.
pub mod balance {
    pub mod get;
}

/// For those who run the gateway.
pub mod ops {
    pub mod healthz;
    pub mod metrics;
    pub mod openapi;
    pub mod readyz;
}
