//! The accept loop against real sockets and a service that does as little as possible.

use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stopped(self) {
        self.stop.cancel();
        timeout(SOON, self.served).await.expect("the loop ends").unwrap();
    }
}

fn limits() -> ConnectionLimits {
    let ten = Duration::from_secs(10);
    ConnectionLimits { max_connections: 100, max_per_address: None, header_timeout: ten, write_timeout: ten }
}

#[expect(clippy::disallowed_methods, reason = "the test stands in for the role that owns the tracker")]
async fn start<F, R>(limits: ConnectionLimits, answer: F) -> Running
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = &'static str> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let stopping = stop.clone().cancelled_owned();
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(Response::new(Body::from(answer.await))) }
    });
    let served = tokio::spawn(async move { serve(listener, service, limits, &TaskTracker::new(), stopping).await });
    Running { address, stop, served }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer counts as its end.
    drop(timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection ends"));
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(running: &Running, request: &str) -> String {
    let mut stream = running.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn a_request_is_answered_and_knows_its_peer() {
    let running = start(limits(), |request| async move {
        if request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().is_loopback()) { "loopback" } else { "?" }
    })
    .await;
    let answer = ask(&running, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("loopback"), "{answer}");
    running.stopped().await;
}

#[tokio::test]
async fn slow_headers_and_silence_are_cut() {
    let limits = ConnectionLimits { header_timeout: Duration::from_millis(100), ..limits() };
    let running = start(limits, |_| async { "never" }).await;
    for sent in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = running.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("never"), "{answer}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let large: &'static str = Box::leak("x".repeat(32 * 1024 * 1024).into_boxed_str());
    let limits = ConnectionLimits { max_connections: 1, write_timeout: Duration::from_millis(100), ..limits() };
    let running = start(limits, move |_| async move { large }).await;
    let mut deaf = running.connect().await;
    deaf.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The only place is free again, so that somebody who reads is answered.
    let answer = ask(&running, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > large.len());
    drop(deaf);
    running.stopped().await;
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_431() {
    let running = start(limits(), |_| async { "never" }).await;
    let many = "a: b\r\n".repeat(101);
    let large = format!("a: {}\r\n", "b".repeat(33 * 1024));
    let huge = format!("a: {}\r\n", "b".repeat(200 * 1024));
    for headers in [many, large, huge] {
        let answer = ask(&running, &format!("GET / HTTP/1.1\r\n{headers}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{} bytes: {answer}", headers.len());
    }
    let answer = ask(&running, &format!("GET / HTTP/1.1\r\nconnection: close\r\n{}\r\n", "a: b\r\n".repeat(90))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.stopped().await;
}

#[tokio::test]
async fn nonsense_is_400_and_the_loop_goes_on() {
    let running = start(limits(), |_| async { "fine" }).await;
    for nonsense in ["\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\na\0b: c\r\n\r\n"] {
        assert!(ask(&running, nonsense).await.starts_with("HTTP/1.1 400"), "{nonsense:?}");
    }
    assert!(ask(&running, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.ends_with("fine"));
    running.stopped().await;
}

#[tokio::test]
async fn at_the_limit_new_connections_wait_their_turn() {
    let limits = ConnectionLimits { max_connections: 1, ..limits() };
    let running = start(limits, |_| async { "fine" }).await;
    let holder = running.connect().await;
    let mut second = running.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "the second was served while the first held the only slot");
    drop(holder);
    assert!(read_to_end(&mut second).await.ends_with("fine"));
    running.stopped().await;
}

#[tokio::test]
async fn an_address_over_its_own_limit_is_closed_and_others_are_not() {
    let addresses = Addresses::default();
    let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
    let first = addresses.enter(here, Some(1));
    assert!(first.is_some() && addresses.enter(here, Some(1)).is_none() && addresses.enter(there, Some(1)).is_some());
    drop(first);
    assert!(addresses.enter(here, Some(1)).is_some());
    assert!(addresses.0.lock().unwrap().is_empty(), "closed connections leave nothing behind");

    let running = start(ConnectionLimits { max_per_address: Some(1), ..limits() }, |_| async { "fine" }).await;
    let holder = running.connect().await;
    let mut second = running.connect().await;
    assert_eq!(read_to_end(&mut second).await, "");
    drop(holder);
    running.stopped().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way_and_closes_idle_connections() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&asked), Arc::clone(&go));
    let running = start(limits(), move |_| {
        let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
        async move {
            seen.notify_one();
            wait.notified().await;
            "finished"
        }
    })
    .await;
    let mut idle = running.connect().await;
    let mut busy = running.connect().await;
    busy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    timeout(SOON, asked.notified()).await.unwrap();
    running.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(!running.served.is_finished());
    go.notify_one();
    assert!(read_to_end(&mut busy).await.ends_with("finished"));
    running.stopped().await;
}

#[tokio::test]
async fn an_upload_that_is_refused_unread_still_gets_its_answer() {
    let running = start(limits(), |_| async { "refused" }).await;
    let mut stream = running.connect().await;
    let mut request = b"POST / HTTP/1.1\r\ncontent-length: 8000000\r\n\r\n".to_vec();
    request.resize(request.len() + 8_000_000, b'x');
    stream.write_all(&request).await.expect("no reset while sending");
    drop(stream.shutdown().await);
    let answer = read_to_end(&mut stream).await;
    assert!(answer.ends_with("refused"), "{answer}");
    running.stopped().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_handler() {
    struct Gone(Arc<AtomicUsize>, Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.notify_one();
        }
    }
    let (count, dropped, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (guard, seen) = ((Arc::clone(&count), Arc::clone(&dropped)), Arc::clone(&asked));
    let running = start(limits(), move |_| {
        let (gone, seen) = (Gone(Arc::clone(&guard.0), Arc::clone(&guard.1)), Arc::clone(&seen));
        async move {
            let _gone = gone;
            seen.notify_one();
            std::future::pending().await
        }
    })
    .await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    timeout(SOON, asked.notified()).await.unwrap();
    drop(stream);
    timeout(SOON, dropped.notified()).await.expect("the handler is dropped");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    running.stopped().await;
}

#[test]
fn only_shortages_make_accept_pause() {
    assert_eq!(pause_after(&io::ErrorKind::ConnectionAborted.into()), None);
    assert!(pause_after(&io::Error::from_raw_os_error(24)).is_some(), "EMFILE");
}
