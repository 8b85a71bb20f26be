//! Prices: imported beside a running server, set by the operator, and refused when they cannot be meant.

use std::process::Output;

use aig_testkit::eventually;
use serde_json::{Value, json};

use crate::gateway::{Gateway, SOON};

const TOML: &str = "[providers.up]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:1/v1'\nmodels = ['gpt-x', 'own']\n\
    [models.'up/own']\ncents_per_request = '0.5'\n[prices]\nreload_interval_ms = 50\n";

/// Imports a file in which a token of `gpt-x` and of `own` costs `usd`.
fn import(gateway: &Gateway, usd: &str, flags: &[&str]) -> Output {
    let path = gateway.path().join("prices.json");
    let entry = format!(r#"{{"mode":"chat","input_cost_per_token":{usd},"output_cost_per_token":{usd}}}"#);
    std::fs::write(&path, format!(r#"{{"gpt-x":{entry},"own":{entry}}}"#)).unwrap();
    gateway.command("catalog").arg("import").arg(path).args(flags).output().unwrap()
}

async fn pricing(gateway: &Gateway, model: &str) -> Value {
    gateway.get(&format!("/v1/models/{model}")).await.body["pricing"].clone()
}

async fn comes_to_cost(gateway: &Gateway, cents: Value) {
    let expected = json!({"unit": "token", "input_cents_per_million": cents, "output_cents_per_million": cents});
    eventually("the price is taken up", SOON, || async {
        (pricing(gateway, "up/gpt-x").await == expected).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn imported_prices_reach_a_running_server() {
    let mut gateway = Gateway::start(TOML).await;
    assert_eq!(pricing(&gateway, "up/gpt-x").await, Value::Null);
    let run = import(&gateway, "1.5e-07", &[]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    comes_to_cost(&gateway, json!(15)).await;
    assert_eq!(
        pricing(&gateway, "up/own").await,
        json!({"unit": "request", "cents": 0.5}),
        "the operator's goes first"
    );

    // A price per million, written where one per token belongs.
    let run = import(&gateway, "0.15", &[]);
    assert_eq!(run.status.code(), Some(1));
    let words = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(words.contains("gpt-x input: 15000000 cents is more than 1000 USD per million"), "{words}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("nothing was imported"));
    let run = import(&gateway, "3e-07", &["--dry-run"]);
    assert!(run.status.success() && String::from_utf8_lossy(&run.stdout).contains("15 ->           30"));
    let run = import(&gateway, "1e-9", &["--force"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    comes_to_cost(&gateway, json!(0.1)).await;

    gateway.terminate();
    gateway.ended().await;
    gateway.spawn().await;
    comes_to_cost(&gateway, json!(0.1)).await;
}
