//! Against real sockets on this machine, which the policy opens or does not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn fetcher(nets: &[&str]) -> UntrustedFetcher {
    UntrustedFetcher::new(UrlPolicy::new(nets.iter().map(|net| net.parse().unwrap()).collect())).unwrap()
}

/// Posts to a server that answers with `answer` and then keeps the connection open. Gives how many connections it saw.
async fn post_to(
    host: &str,
    fetcher: &UntrustedFetcher,
    answer: &[u8],
    timeout: Duration,
) -> Result<Answer, FetchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{host}:{}/hook", listener.local_addr().unwrap().port());
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        // The client may hang up in the middle.
        let _ = socket.write_all(answer).await;
        let _ = socket.read(&mut request).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = fetcher.post(&url, vec![("aig-attempt", "1".into())], Bytes::from_static(b"{}"), timeout) => answer,
        () = serve => unreachable!(),
    }
}

#[tokio::test]
async fn an_answer_is_read_with_its_wish_to_wait() {
    let answer = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno";
    let answer = post_to("127.0.0.1", &fetcher(&["127.0.0.0/8"]), answer, SOON).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (503, Some(7)));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let answer = post_to("127.0.0.1", &fetcher(&["127.0.0.0/8"]), answer, SOON).await.unwrap();
    assert_eq!(answer.status, 302);
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    // `localhost` leads into the listed network.
    assert!(post_to("localhost", &fetcher(&["127.0.0.0/8", "::1/128"]), ok, SOON).await.is_ok());
    // Here only another network is listed: the text passes, the address does not.
    let policy = UrlPolicy::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let refused = judged(&policy, Reach::Listed, vec!["127.0.0.1:0".parse().unwrap()]);
    assert!(refused.is_err());
    // One internal address among public ones spoils the name: that is how rebinding begins.
    let mixed = vec!["8.8.8.8:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    assert!(judged(&policy, Reach::Public, mixed).is_err());
    assert!(judged(&policy, Reach::Public, vec!["8.8.8.8:0".parse().unwrap()]).is_ok());
}

#[tokio::test]
async fn private_addresses_are_refused_without_a_connection() {
    let refused = fetcher(&[]).post("https://127.0.0.1/", Vec::new(), Bytes::new(), SOON).await;
    assert!(matches!(refused, Err(FetchError::Refused(UrlRefused::Address))));
}

#[tokio::test]
async fn silence_is_cut_and_a_status_counts_however_its_body_goes_on() {
    let silent = post_to("127.0.0.1", &fetcher(&["127.0.0.0/8"]), b"", Duration::from_millis(100)).await;
    assert!(matches!(silent, Err(FetchError::Timeout)), "{silent:?}");
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let began = std::time::Instant::now();
    let half = post_to("127.0.0.1", &fetcher(&["127.0.0.0/8"]), half, SOON).await.unwrap();
    assert_eq!(half.status, 200);
    assert!(began.elapsed() < SOON, "it is not waited for");
    let mut huge = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n".to_vec();
    huge.extend(vec![b'x'; 200_000]);
    let huge = post_to("127.0.0.1", &fetcher(&["127.0.0.0/8"]), &huge, SOON).await.unwrap();
    assert_eq!(huge.status, 200);
}
