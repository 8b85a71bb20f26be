//! `GET /v1/balance`: what the calling key and its account have spent this month, and what their caps leave. A sub-account's
//! key is told nothing about the account above it. What can go wrong: nothing.

use aig_domain::caps::{Balance, Scope, ScopeKind};
use aig_domain::{Month, Nano};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::state::Api;

/// This month, in cents. The figures are those of the key's owner: its account or its sub-account.
#[derive(Serialize, ToSchema)]
pub struct BalanceRecord {
    /// Always `balance`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The month in UTC, such as `2026-11`.
    pub month: String,
    /// Always `usd`.
    #[schema(value_type = String)]
    pub currency: &'static str,
    /// What was charged, less what was given back.
    #[schema(value_type = f64)]
    pub spent_cents: Number,
    /// What is promised to requests under way.
    #[schema(value_type = f64)]
    pub held_cents: Number,
    /// What may have been billed upstream: not charged, and counted against the cap until the month ends.
    #[schema(value_type = f64)]
    pub uncertain_cents: Number,
    /// The owner's monthly cap; null for no cap.
    #[schema(value_type = Option<f64>)]
    pub cap_cents: Option<Number>,
    /// The least that is left below any cap in `scopes`; null when none has one. The caps of tags come on top.
    #[schema(value_type = Option<f64>)]
    pub remaining_cents: Option<Number>,
    /// When the caps have room again, in Unix seconds.
    pub resets_at: i64,
    /// The owner and the key, one by one.
    pub scopes: Vec<ScopeBalance>,
}

/// How one scope stands this month, in cents.
#[derive(Serialize, ToSchema)]
pub struct ScopeBalance {
    /// `account`, `sub_account` or `key`.
    #[schema(value_type = String)]
    pub scope: &'static str,
    /// Its id; of rotated keys that of the first.
    pub id: String,
    /// Its cap; null for no cap.
    #[schema(value_type = Option<f64>)]
    pub cap_cents: Option<Number>,
    /// What was charged, less what was given back.
    #[schema(value_type = f64)]
    pub spent_cents: Number,
    /// What is promised to requests under way.
    #[schema(value_type = f64)]
    pub held_cents: Number,
    /// What may have been billed upstream.
    #[schema(value_type = f64)]
    pub uncertain_cents: Number,
    /// What is left below the cap; null without one.
    #[schema(value_type = Option<f64>)]
    pub remaining_cents: Option<Number>,
}

impl ScopeBalance {
    fn new(scope: Scope, balance: &Balance) -> Self {
        Self {
            scope: scope.kind.as_str(),
            id: scope.id,
            cap_cents: balance.cap.map(Nano::cents_json),
            spent_cents: balance.spent.cents_json(),
            held_cents: balance.held.cents_json(),
            uncertain_cents: balance.uncertain.cents_json(),
            remaining_cents: balance.left().map(Nano::cents_json),
        }
    }
}

/// The scopes that the caller may see: its owner and its key. What lies above a sub-account is the parent's, tags included.
fn scopes(caller: &Caller) -> [Scope; 2] {
    let kind = if caller.key.is_of_sub_account() { ScopeKind::SubAccount } else { ScopeKind::Account };
    [Scope { kind, id: caller.account_id.clone() }, Scope { kind: ScopeKind::Key, id: caller.key.budget_id.clone() }]
}

/// Read this month's balance.
#[utoipa::path(
    get,
    path = "/v1/balance",
    responses((status = 200, description = "The balance.", body = BalanceRecord)),
)]
pub async fn handler(State(api): State<Api>, caller: Caller) -> Result<Json<BalanceRecord>, ApiError> {
    let month = Month::of(api.app.clock.now());
    let [owner, key] = scopes(&caller);
    let of_owner = api.app.store.balance(&owner.id, month).await?;
    let of_key = api.app.store.balance(&key.id, month).await?;
    let remaining = [of_owner.left(), of_key.left()].into_iter().flatten().min();
    Ok(Json(BalanceRecord {
        object: "balance",
        month: month.to_string(),
        currency: "usd",
        spent_cents: of_owner.spent.cents_json(),
        held_cents: of_owner.held.cents_json(),
        uncertain_cents: of_owner.uncertain.cents_json(),
        cap_cents: of_owner.cap.map(Nano::cents_json),
        remaining_cents: remaining.map(Nano::cents_json),
        resets_at: month.ends().unix_seconds(),
        scopes: vec![ScopeBalance::new(owner, &of_owner), ScopeBalance::new(key, &of_key)],
    }))
}
