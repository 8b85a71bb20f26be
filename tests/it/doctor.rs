//! `aigateway doctor`: finds nothing beside a gateway at work, and finds what is wrong.

use std::process::Output;

use serde_json::json;

use crate::gateway::Gateway;

fn doctor(gateway: &Gateway) -> Output {
    gateway.command("doctor").output().unwrap()
}

#[tokio::test]
async fn the_doctor_finds_nothing_beside_a_gateway_at_work_and_what_is_wrong_after_it() {
    let gateway = Gateway::start("").await;
    let mut jobs = Vec::new();
    for number in 0..30 {
        let prompt = if number % 3 == 0 { "[sandbox fail=provider_error]" } else { "a cat" };
        jobs.push(gateway.submit("/v1/3d/generations", &json!({ "prompt": prompt })).await);
        if number % 3 == 0 {
            let asked = doctor(&gateway);
            assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
        }
    }
    for job in &jobs {
        gateway.wait(job).await;
    }
    let asked = doctor(&gateway);
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "12 rules, no finding.\n");
    // One who can change the database by hand is at hand for PostgreSQL alone; the rules are tested on both by the store suite.
    let Some(database) = gateway.database() else { return };
    database.run("UPDATE budget_periods SET spent = spent + 1 WHERE kind = 'key'");
    let asked = doctor(&gateway);
    assert_eq!(asked.status.code(), Some(1));
    let words = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(words.starts_with("Broken: the counters of a scope") && words.contains("spent off by 1,"), "{words}");
    database.run("UPDATE budget_periods SET spent = spent - 1 WHERE kind = 'key'");
    assert!(doctor(&gateway).status.success());
}
