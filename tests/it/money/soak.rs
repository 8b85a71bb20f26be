//! A capped key under load while the processes are killed again and again, and its cap is raised after every kill so that there is
//! always something left to overspend. `bench/chaos` runs this for as long as it is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aig_domain::Nano;
use aig_testkit::eventually;
use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{A_VIDEO, CHAT, Priced, SubAccount, VIDEO, chat, refused, times, video};
use crate::gateway::Answer;
use crate::servers::is_distributed;
use crate::tenants::ask;

const LONG: Duration = Duration::from_mins(2);
/// Clients that send one request after the other.
const CLIENTS: usize = 24;
/// How long a client waits that got nothing: one that spins would only take the processors from those that pay.
const PAUSE: Duration = Duration::from_millis(50);
/// What is added to the cap after each kill, in videos: a call costs about as much.
const RAISE: usize = 100;

fn length() -> Duration {
    let seconds = std::env::var("AIG_TEST_SOAK_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// A call that costs as much as a video, and is under way for some time.
fn call(stream: bool) -> Value {
    let mut body = chat("[fake bound_usage words=5 head_delay=100 word_delay=20]", stream);
    body["max_tokens"] = 1200.into();
    body
}

/// What the clients were told.
#[derive(Default)]
struct Told {
    passed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// One client, until the time is over.
async fn client(priced: &RwLock<Priced>, number: usize, sub_account: &SubAccount, until: Instant, told: &Told) {
    let bodies = [(CHAT, call(false)), (VIDEO, video("x")), (CHAT, call(true))];
    let mut turn = number;
    while Instant::now() < until {
        turn += 1;
        let (path, body) = &bodies[turn % bodies.len()];
        let request = priced.read().await.request(turn, &sub_account.key, path, body);
        let answer = match request.send().await {
            Ok(response) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let text = response.text().await.ok();
                text.map(|text| Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text })
            }
            Err(_) => None,
        };
        let (count, again) = match answer {
            Some(answer) if answer.status == 402 => {
                refused(&answer, sub_account);
                (&told.refused, PAUSE)
            }
            Some(answer) if answer.status < 300 => (&told.passed, Duration::ZERO),
            // It was killed, or is not there yet.
            _ => (&told.failed, PAUSE),
        };
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(again).await;
    }
}

/// Kills what is next in turn until the time is over; gives the cap at the end, and how many kills there were.
async fn kills(priced: &RwLock<Priced>, sub_account: &SubAccount, mut cap: Nano, until: Instant) -> (Nano, usize) {
    let roles: &[&str] = if is_distributed() { &["api", "", "worker", "scheduler"] } else { &[""] };
    let mut kills = 0;
    while Instant::now() < until {
        // Now and then before the cap is reached, now and then after that.
        tokio::time::sleep(Duration::from_millis(300 + (kills as u64 * 137) % 1500)).await;
        let mut priced = priced.write().await;
        priced.gateway.kill_role(roles[kills % roles.len()]);
        priced.gateway.spawn().await;
        kills += 1;
        cap = cap.plus(times(A_VIDEO, RAISE));
        let path = format!("/v1/sub-accounts/{}", sub_account.id);
        let change: Value = json!({ "spend_cap_cents": cap.cents_json() });
        let patched = ask(&priced.gateway, &priced.gateway.key, Method::PATCH, &path, change).await;
        assert_eq!(patched.status, 200, "{}", patched.text);
    }
    (cap, kills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_a_cap_holds() {
    let priced = Priced::start().await;
    let chats = [priced.price_of(&call(false)).await, priced.price_of(&call(true)).await];
    let before = priced.chat.stats().billed;
    let cap = times(A_VIDEO, RAISE);
    let sub_account = priced.sub_account(cap).await;
    let (priced, told, until) = (RwLock::new(priced), Told::default(), Instant::now() + length());
    let clients = (0..CLIENTS).map(|number| client(&priced, number, &sub_account, until, &told));
    let (_, (cap, kills)) = join(join_all(clients), kills(&priced, &sub_account, cap, until)).await;
    let priced = priced.into_inner();

    let unended = "status IN ('queued', 'processing')";
    eventually("every job ends", LONG, || async { (priced.books.count("jobs", unended).await == 0).then_some(()) })
        .await
        .unwrap();
    let sums = priced.books.quiet(&sub_account.id).await;
    let (calls, media) = (priced.chat.stats().billed - before, priced.media.stats());
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (passed, refused, failed) = (load(&told.passed), load(&told.refused), load(&told.failed));
    let summary = format!(
        "{kills} kills, {passed} answers, {refused} refused, {failed} cut off; the providers billed {calls} calls and {} videos; \
         cap {cap:?}, {sums:?}",
        media.billed
    );
    // It was worth it: the cap stood in the way, kills met calls that were paid for, and things went on.
    let worth = kills >= 3 && refused > 0 && failed > 0 && passed > 100 && sums.uncertain > Nano::ZERO;
    assert!(worth, "{summary}");
    let used = sums.spent.plus(sums.uncertain);
    assert!(used <= cap, "overspent: {summary}");
    // The cheaper kind of call stands for all of them.
    let cheapest = chats.iter().min().unwrap();
    let billed = times(*cheapest, usize::try_from(calls).unwrap()).plus(times(A_VIDEO, media.billed as usize));
    assert!(billed <= used, "what the providers bill is on the books, charged or in doubt: {billed:?}, {summary}");
    assert!(media.creates.values().all(|count| *count == 1), "no video was made twice: {summary}");
    let jobs = async |what: &str| priced.books.count("jobs", what).await;
    let completed = jobs("status = 'completed'").await;
    // Among so many kills there may be three that meet the same job: it is given up, and what it may have cost is in doubt.
    let given_up = jobs("status = 'failed' AND error_code = 'poison'").await;
    assert_eq!(jobs("status = 'failed'").await, given_up, "{summary}");
    let made = media.billed as usize;
    assert!((made.saturating_sub(given_up)..=made).contains(&completed), "{completed}, {given_up} given up: {summary}");
    assert!(given_up * 100 <= made, "{given_up} given up: {summary}");
    priced.books.healthy().await;
    crate::servers::note(&summary);
}
