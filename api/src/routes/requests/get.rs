//! `GET /v1/requests/{id}`: a request and how its cost came about. What can go wrong: 404, also for somebody else's request,
//! and for one that is under way and has nothing reserved. Tests at the end.

use aig_domain::price::{Breakdown, Price, PriceList, Unit, decimal};
use aig_domain::{Error, Nano};
use aig_store::{RequestDetail, RequestRow, SeenRequest};
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::middleware::auth::Caller;
use crate::routes::usage::recent::UsageRecord;
use crate::state::Api;

/// A request with its money. Amounts are in cents.
#[derive(Serialize, ToSchema)]
pub struct RequestRecord {
    /// Always `request`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The usage row.
    #[serde(flatten)]
    pub usage: UsageRecord,
    /// How the cost came about; null while it is not known, and for a model without a price.
    pub cost: Option<CostBreakdown>,
    /// What was reserved; null when nothing was, since no cap stood above the call.
    #[schema(value_type = Option<f64>)]
    pub reserved_cents: Option<Number>,
    /// `held`, `settled`, `released` or `uncertain`.
    pub reservation_state: Option<String>,
    /// What was given back.
    pub refunds: Vec<RefundRecord>,
    /// All of it together.
    #[schema(value_type = f64)]
    pub refunded_cents: Number,
}

/// A cost in its parts: `list_cents + margin_cents = total_cents`.
#[derive(Serialize, ToSchema)]
pub struct CostBreakdown {
    /// Always `usd`.
    #[schema(value_type = String)]
    pub currency: &'static str,
    /// One for each unit that was used and has a price.
    pub lines: Vec<CostLine>,
    /// The sum of the lines: what the provider asks.
    #[schema(value_type = f64)]
    pub list_cents: Number,
    /// The gateway's margin, in per cent.
    #[schema(value_type = f64)]
    pub margin_percent: Number,
    /// What that adds, the rounding of the total included.
    #[schema(value_type = f64)]
    pub margin_cents: Number,
    /// What was charged.
    #[schema(value_type = f64)]
    pub total_cents: Number,
    /// The list price that was in force, unit by unit.
    pub price: Vec<UnitPrice>,
}

/// What one unit added.
#[derive(Serialize, ToSchema)]
pub struct CostLine {
    /// `input`, `output`, `cached_input`, `image`, `video_second`, `music_second`, `mesh` or `request`.
    #[schema(value_type = String)]
    pub unit: &'static str,
    /// How much of it was used.
    #[schema(value_type = f64)]
    pub quantity: Number,
    /// The list price of `per` of it.
    #[schema(value_type = f64)]
    pub price_cents: Number,
    /// 1,000,000 for tokens, else 1.
    pub per: u32,
    /// What that comes to.
    #[schema(value_type = f64)]
    pub amount_cents: Number,
}

/// A list price.
#[derive(Serialize, ToSchema)]
pub struct UnitPrice {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: &'static str,
    /// The list price of `per` of it.
    #[schema(value_type = f64)]
    pub price_cents: Number,
    /// 1,000,000 for tokens, else 1.
    pub per: u32,
}

/// Something that was given back.
#[derive(Serialize, ToSchema)]
pub struct RefundRecord {
    /// What it is known by.
    pub reference: String,
    /// How much.
    #[schema(value_type = f64)]
    pub amount_cents: Number,
    /// When, in ISO 8601, UTC.
    pub created_at: String,
}

fn per(unit: Unit) -> u32 {
    if unit.is_token() { 1_000_000 } else { 1 }
}

impl CostBreakdown {
    /// Of what `row` was charged; `None` when its price does not tell.
    fn of(row: &RequestRow) -> Option<Self> {
        let price: Price = serde_json::from_str(row.price.as_deref()?).ok()?;
        let shown = price.breakdown(&row.used).filter(|shown| shown.total == row.cost)?;
        Some(Self::new(&shown, &price.list))
    }

    fn new(shown: &Breakdown, list: &PriceList) -> Self {
        let lines = shown.lines.iter().map(|line| CostLine {
            unit: line.unit.as_str(),
            quantity: line.quantity_json(),
            price_cents: line.unit.cents_json(line.price),
            per: per(line.unit),
            amount_cents: line.amount.cents_json(),
        });
        let price = list.iter().map(|(unit, price)| UnitPrice {
            unit: unit.as_str(),
            price_cents: unit.cents_json(price),
            per: per(unit),
        });
        Self {
            currency: "usd",
            lines: lines.collect(),
            list_cents: shown.list.cents_json(),
            margin_percent: decimal::json(shown.margin_bp.into(), 2),
            margin_cents: shown.margin.cents_json(),
            total_cents: shown.total.cents_json(),
            price: price.collect(),
        }
    }
}

impl From<RequestDetail> for RequestRecord {
    fn from(detail: RequestDetail) -> Self {
        let (usage, cost) = match &detail.request {
            SeenRequest::Ended(row) => (UsageRecord::from(row.as_ref()), CostBreakdown::of(row)),
            SeenRequest::Open(open) => {
                // Without a usage row, the reservation is all there is to tell how it ended.
                let outcome = match detail.reservation.as_ref().map(|it| it.state.as_str()) {
                    Some("uncertain") => "uncertain",
                    Some("settled") => "completed",
                    Some("released") => "failed",
                    _ => "running",
                };
                (UsageRecord::open(open, outcome), None)
            }
        };
        let refunded = detail.refunds.iter().fold(Nano::ZERO, |sum, refund| sum.plus(refund.amount));
        let refund = |refund: aig_store::Refund| RefundRecord {
            reference: refund.reference,
            amount_cents: refund.amount.cents_json(),
            created_at: refund.at.iso(),
        };
        Self {
            object: "request",
            usage,
            cost,
            reserved_cents: detail.reservation.as_ref().map(|it| Nano(it.amount).cents_json()),
            reservation_state: detail.reservation.map(|it| it.state),
            refunds: detail.refunds.into_iter().map(refund).collect(),
            refunded_cents: refunded.cents_json(),
        }
    }
}

/// The 404 of a request that does not exist for the caller.
fn no_such_request() -> Error {
    let message = "There is no such request. GET /v1/usage/recent lists yours of the last 90 days; a chat call without a cap \
        above it is known only when it has ended.";
    Error::not_found(message)
}

/// Read a request and its cost.
#[utoipa::path(
    get,
    path = "/v1/requests/{id}",
    params(("id" = String, Path, description = "`req_…`, the `X-Request-Id` of an answer.")),
    responses((status = 200, description = "The request.", body = RequestRecord)),
)]
pub async fn handler(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RequestRecord>, ApiError> {
    let found = api.app.store.request(caller.jobs(), &id).await?;
    Ok(Json(found.ok_or_else(no_such_request)?.into()))
}

#[cfg(test)]
mod tests {
    use aig_domain::price::{Pico, Used};

    use super::*;

    #[test]
    fn a_cost_is_shown_unit_by_unit() {
        let list = PriceList::default().with(Unit::Input, Pico(1_000_000)).with(Unit::Output, Pico(4_000_000));
        let price = Price { list, margin_bp: 550 };
        let used = Used { input_tokens: 10, output_tokens: 5, requests: 1, ..Used::default() };
        let shown = CostBreakdown::new(&price.breakdown(&used).unwrap(), &list);
        let expected = serde_json::json!({
            "currency": "usd",
            "lines": [
                {"unit": "input", "quantity": 10, "price_cents": 100, "per": 1_000_000, "amount_cents": 0.001},
                {"unit": "output", "quantity": 5, "price_cents": 400, "per": 1_000_000, "amount_cents": 0.002},
            ],
            "list_cents": 0.003, "margin_percent": 5.5, "margin_cents": 0.000_165, "total_cents": 0.003_165,
            "price": [
                {"unit": "input", "price_cents": 100, "per": 1_000_000},
                {"unit": "output", "price_cents": 400, "per": 1_000_000},
            ],
        });
        assert_eq!(serde_json::to_value(shown).unwrap(), expected);
    }
}
