//! The stream's sense of time and company, on a clock that tests move.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use aig_domain::budget::{Billing, OpenCall, Receipt};
use aig_domain::caps::Payer;
use aig_domain::json::RawObject;
use aig_domain::price::{Pico, Price, PriceList, Unit};
use aig_domain::{ErrorKind, Millis, Nano};
use aig_providers::{ChatCall, ChatProvider, ProviderError, ProviderErrorKind};
use aig_store::{CallEnd, MoneyEnd, NewCall};
use async_trait::async_trait;

use super::*;
use crate::ChatConfig;
use crate::bill::{Bill, Books, Terms};

const CONTENT: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
const END: &str =
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// What the upstream does next.
enum Act {
    Wait(Duration),
    Send(&'static str),
    Break,
    Forever,
}

/// An upstream that plays a script, and tells when its body is dropped.
struct Scripted {
    head: Duration,
    refusal: Option<(ProviderErrorKind, Billing)>,
    script: Mutex<Vec<Act>>,
    dropped: Arc<AtomicBool>,
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl ChatProvider for Scripted {
    fn takes_stream_options(&self) -> bool {
        true
    }

    async fn chat(&self, reservation: Reservation, _call: ChatCall) -> Result<ChatReply, ChatRefusal> {
        tokio::time::sleep(self.head).await;
        if let Some((kind, billing)) = self.refusal.clone() {
            return Err(ChatRefusal { receipt: reservation.receipt(billing), error: ProviderError::new(kind, "no") });
        }
        let script = std::mem::take(&mut *self.script.lock().unwrap());
        let guard = OnDrop(Arc::clone(&self.dropped));
        let body = stream::iter(script).filter_map(move |act| {
            let _alive = &guard;
            async move {
                match act {
                    Act::Wait(time) => {
                        tokio::time::sleep(time).await;
                        None
                    }
                    Act::Send(text) => Some(Ok(Bytes::from_static(text.as_bytes()))),
                    Act::Break => Some(Err(ProviderError::new(ProviderErrorKind::Unavailable, "broke"))),
                    Act::Forever => std::future::pending().await,
                }
            }
        });
        Ok(ChatReply { open: OpenCall::new(reservation), body: Box::pin(body) })
    }
}

struct Played {
    events: Events,
    books: Arc<Notebook>,
    dropped: Arc<AtomicBool>,
    must_end: CancellationToken,
    tracker: TaskTracker,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Books that keep what is written into them.
#[derive(Default)]
struct Notebook(Mutex<Vec<CallEnd>>);

#[async_trait]
impl Books for Notebook {
    fn now(&self) -> Millis {
        Millis(0)
    }

    #[expect(clippy::disallowed_methods, reason = "the test stands in for the ledger")]
    fn uncapped(&self, request_id: &str) -> Reservation {
        Reservation::mint(request_id.into(), Nano::ZERO)
    }

    async fn reserve(&self, call: NewCall) -> Result<Reservation, Error> {
        Ok(self.uncapped(&call.id))
    }

    fn receive(&self, receipt: Receipt) -> Billing {
        receipt.into_billing()
    }

    async fn write(&self, end: CallEnd) {
        self.0.lock().unwrap().push(end);
    }
}

impl Played {
    /// The one end in the books.
    async fn end(self) -> CallEnd {
        drop(self.events);
        self.tracker.close();
        self.tracker.wait().await;
        let ends = std::mem::take(&mut *self.books.0.lock().unwrap());
        assert_eq!(ends.len(), 1, "each call ends once: {ends:?}");
        ends.into_iter().next().unwrap()
    }
}

async fn play(
    head: Duration,
    refusal: Option<(ProviderErrorKind, Billing)>,
    script: Vec<Act>,
) -> Result<Played, Error> {
    let dropped = Arc::new(AtomicBool::new(false));
    let provider = Scripted { head, refusal, script: Mutex::new(script), dropped: Arc::clone(&dropped) };
    let books = Arc::new(Notebook::default());
    let list = PriceList::default().with(Unit::Input, Pico(1000)).with(Unit::Output, Pico(1000));
    let terms = Terms {
        request_id: "req_1".into(),
        payer: Payer { account_id: "acc_1".into(), sub_account_id: None, key_id: "key_1".into(), tag: None },
        model: "up/m".into(),
        provider: "up".into(),
        price: Some(Price { list, margin_bp: 0 }),
        bound: None,
        owner: "api_1".into(),
        created_at: Millis(0),
        started: Instant::now(),
        longest: secs(600),
    };
    let call = Call {
        provider: Arc::new(provider),
        bill: Bill { books: books.clone(), terms },
        config: ChatConfig {
            keep_alive: secs(15),
            idle: secs(60),
            total: secs(600),
            head: secs(15),
            slow_reader: secs(60),
            capped_max_tokens: 4096,
        },
        request: ChatCall { body: Arc::new(RawObject::default()), stream: true, request_id: "req_1".into() },
        include_usage: true,
        request_bytes: 4,
    };
    let (must_end, tracker) = (CancellationToken::new(), TaskTracker::new());
    let events = run(call, must_end.clone(), &tracker).await?;
    Ok(Played { events, books, dropped, must_end, tracker })
}

/// Everything the client gets: the text, and the error at the end.
async fn read(events: &mut Events) -> (String, Option<Error>) {
    let mut text = String::new();
    while let Some(item) = events.next().await {
        match item {
            Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_comments_and_ends_at_the_idle_limit() {
    let script = vec![Act::Send(CONTENT), Act::Wait(secs(40)), Act::Send(CONTENT), Act::Forever];
    let begun = Instant::now();
    let mut played = play(secs(0), None, script).await.unwrap();
    let (text, error) = read(&mut played.events).await;
    // Two comments in the 40 s, then three more (at 15, 30 and 45 s) before the idle limit of 60 s: they do not reset it.
    assert_eq!(text.matches(": keep-alive\n\n").count(), 5, "{text}");
    assert_eq!(error.unwrap().kind, ErrorKind::ProviderTimeout);
    assert_eq!(begun.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn headers_wait_for_the_upstream_but_not_for_ever() {
    let begun = Instant::now();
    let mut quick = play(secs(3), None, vec![Act::Send(CONTENT), Act::Send(END)]).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    let (text, error) = read(&mut quick.events).await;
    assert!(text.starts_with(CONTENT) && text.ends_with("data: [DONE]\n\n") && error.is_none(), "{text}");

    let begun = Instant::now();
    let mut slow = play(secs(40), None, vec![Act::Send(END)]).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 15);
    let (text, error) = read(&mut slow.events).await;
    assert!(text.starts_with(": keep-alive\n\n: keep-alive\n\ndata: {") && error.is_none(), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_before_the_stream_begins_and_an_event_after() {
    let refusal = Some((ProviderErrorKind::RateLimited, Billing::NotSent));
    assert_eq!(play(secs(1), refusal.clone(), Vec::new()).await.err().unwrap().kind, ErrorKind::RateLimited);
    let mut late = play(secs(20), refusal, Vec::new()).await.unwrap();
    let (text, error) = read(&mut late.events).await;
    assert_eq!((text.as_str(), error.unwrap().kind), (": keep-alive\n\n", ErrorKind::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_breaks_ends_the_stream_with_an_error() {
    let mut played = play(secs(0), None, vec![Act::Send(CONTENT), Act::Break]).await.unwrap();
    let (text, error) = read(&mut played.events).await;
    assert_eq!((text.as_str(), error.unwrap().kind), (CONTENT, ErrorKind::Provider));
    let end = played.end().await;
    assert!(matches!(end.end, MoneyEnd::Charge(Nano(1..))), "what came is charged: {end:?}");
    let row = end.row.unwrap();
    assert_eq!((row.outcome, row.status, row.estimated), (RequestOutcome::Failed, 502, true));
}

#[tokio::test(start_paused = true)]
async fn every_end_is_in_the_books_once() {
    let play = async |refusal, script| {
        let mut played = play(secs(20), refusal, script).await.unwrap();
        read(&mut played.events).await;
        played.end().await
    };
    let refused = play(Some((ProviderErrorKind::RateLimited, Billing::NotSent)), Vec::new()).await;
    assert_eq!((refused.end, refused.row.unwrap().status), (MoneyEnd::Release, 429));
    let unknown = play(Some((ProviderErrorKind::Unavailable, Billing::MaybeBilled)), Vec::new()).await;
    assert_eq!((unknown.end, unknown.row.unwrap().outcome), (MoneyEnd::Uncertain, RequestOutcome::Uncertain));
    let whole = play(None, vec![Act::Send(CONTENT), Act::Send(END)]).await;
    assert_eq!((whole.end, whole.row.unwrap().outcome), (MoneyEnd::Charge(Nano(2)), RequestOutcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_pays_for_what_came_or_for_nothing() {
    let mut played = play(secs(0), None, vec![Act::Send(CONTENT), Act::Forever]).await.unwrap();
    assert!(played.events.next().await.unwrap().is_ok());
    let end = played.end().await;
    assert_eq!((end.end, end.row.unwrap().outcome), (MoneyEnd::Charge(Nano(2)), RequestOutcome::ClientLeft));
    let mut waits = play(secs(100), None, Vec::new()).await.unwrap();
    assert!(waits.events.next().await.unwrap().is_ok(), "a comment");
    assert_eq!(waits.end().await.end, MoneyEnd::Uncertain);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_the_upstream_with_it() {
    let mut played = play(secs(0), None, vec![Act::Send(CONTENT), Act::Forever]).await.unwrap();
    assert!(played.events.next().await.unwrap().is_ok());
    let left = Instant::now();
    drop(played.events);
    played.tracker.close();
    played.tracker.wait().await;
    assert!(played.dropped.load(Ordering::SeqCst));
    assert!(left.elapsed() < secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let script = std::iter::repeat_with(|| Act::Send(CONTENT)).take(100).chain([Act::Forever]).collect();
    let played = play(secs(0), None, script).await.unwrap();
    let begun = Instant::now();
    played.tracker.close();
    played.tracker.wait().await;
    assert!(played.dropped.load(Ordering::SeqCst));
    // Once for the events, once for the hope that it still takes an error.
    assert!(begun.elapsed() <= secs(121), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_longest_call_and_a_restart_end_with_an_error() {
    let script = std::iter::repeat_with(|| [Act::Send(CONTENT), Act::Wait(secs(50))]).take(20).flatten().collect();
    let begun = Instant::now();
    let mut endless = play(secs(0), None, script).await.unwrap();
    assert_eq!(read(&mut endless.events).await.1.unwrap().kind, ErrorKind::ProviderTimeout);
    assert_eq!(begun.elapsed().as_secs(), 600);

    let mut played = play(secs(0), None, vec![Act::Send(CONTENT), Act::Forever]).await.unwrap();
    assert!(played.events.next().await.unwrap().is_ok());
    played.must_end.cancel();
    assert_eq!(read(&mut played.events).await.1.unwrap().kind, ErrorKind::Unavailable);
}
