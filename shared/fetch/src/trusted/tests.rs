//! Against real sockets: what a failed request tells about whether it was sent.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

/// Sends a request to a server that reads its head and then does `act`.
async fn with_server<F>(
    head_timeout: Duration,
    act: impl FnOnce(TcpStream) -> F,
) -> Result<Response<BodyStream>, SendError>
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(socket.read(&mut head).await.unwrap() > 0);
        act(socket).await;
    };
    let client = TrustedClient::new(&TrustedConfig::default()).unwrap();
    let (answer, ()) = tokio::join!(client.send(get(&url), head_timeout), serve);
    answer
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let client = TrustedClient::new(&TrustedConfig::default()).unwrap();
    assert!(matches!(client.send(get(&url), SOON).await, Err(SendError::NotSent(_))));
    assert!(matches!(client.send(get("http://no-such-host.invalid/"), SOON).await, Err(SendError::NotSent(_))));
}

#[tokio::test]
async fn a_request_that_was_read_may_have_been_sent() {
    let closed = with_server(SOON, |socket| async move { drop(socket) }).await;
    assert!(matches!(closed, Err(SendError::MaybeSent(_))));
    let garbage =
        with_server(SOON, |mut socket| async move { socket.write_all(b"what?\r\n\r\n").await.unwrap() }).await;
    assert!(matches!(garbage, Err(SendError::MaybeSent(_))));
    let silent = with_server(Duration::from_millis(50), |mut socket| async move {
        // Until the client gives up and closes.
        let _ = socket.read(&mut [0; 10]).await;
    })
    .await;
    assert!(matches!(silent, Err(SendError::Timeout)));
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection_at_once() {
    let (told, closed) = tokio::sync::oneshot::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(socket.read(&mut head).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await.unwrap();
        let ended = tokio::time::timeout(SOON, socket.read(&mut head)).await;
        told.send(matches!(ended, Ok(Ok(0) | Err(_)))).unwrap();
    };
    let client = TrustedClient::new(&TrustedConfig::default()).unwrap();
    let exchange = async {
        let mut body = client.send(get(&url), SOON).await.unwrap().into_body();
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        drop(body);
        assert!(closed.await.unwrap(), "the server sees the end of the connection");
    };
    tokio::join!(serve, exchange);
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_in_size_and_time() {
    let endless = || -> BodyStream { Box::pin(stream::repeat(Ok(Bytes::from_static(b"0123456789")))) };
    assert_eq!(read_bounded(endless(), 25, SOON).await, Err(BodyError::TooLarge(25)));
    let silent = || -> BodyStream { Box::pin(stream::pending()) };
    assert_eq!(read_bounded(silent(), 25, SOON).await, Err(BodyError::Total(SOON)));
    let mut idle = with_idle_timeout(silent(), SOON);
    assert_eq!(idle.next().await, Some(Err(BodyError::Idle(SOON))));
    assert_eq!(idle.next().await, None);
}
