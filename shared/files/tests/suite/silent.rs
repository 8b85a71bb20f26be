//! A server that is away, silent or slow costs a bounded time and a bounded memory.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aig_domain::Secret;
use aig_files::{Files as _, Incoming, S3Config, S3Files};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};

use crate::support::{MIB, body};

fn files_at(listener: &TcpListener) -> S3Files {
    let config = S3Config {
        url: format!("s3://my-files?endpoint=http://{}", listener.local_addr().unwrap()),
        access_key_id: Some(Secret::new("id")),
        secret_access_key: Some(Secret::new("secret")),
    };
    S3Files::open(&config).unwrap()
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_at_once() {
    let files = files_at(&TcpListener::bind("127.0.0.1:0").unwrap());
    let begun = Instant::now();
    let error = files.check().await.unwrap_err().to_string();
    assert!(error.contains("S3 cannot be reached") && error.contains("refused"), "{error}");
    assert!(files.put("a", body(&["x"]), 9).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// The time is not the machine's: it jumps to the next deadline while everybody waits.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    // Connections are made by the system; nobody takes them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let files = files_at(&silent);
    let mut begun = Instant::now();
    let mut took = |limit: u64| {
        let took = begun.elapsed();
        begun = Instant::now();
        took <= Duration::from_secs(limit)
    };
    assert!(files.check().await.is_err() && took(6));
    assert!(files.size("a").await.is_err() && took(21));
    assert!(files.read("a", 0..1).await.is_err() && took(21));
    assert!(files.delete("a").await.is_err() && took(21));
    assert!(files.put("a", body(&["x"]), 9).await.is_err() && took(61));
    let large: Incoming = Box::pin(stream::iter([Ok(Bytes::from(vec![0; 20 * MIB]))]));
    assert!(files.put("a", large, u64::MAX).await.is_err() && took(61));
}

/// Answers the begin of an upload, and nothing after it.
fn begin_only(listener: TcpListener) {
    let serve = |stream: TcpStream| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.starts_with("POST ") && line.contains("?uploads") {
            let answer = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>a</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            return reader.into_inner().write_all((head + answer).as_bytes());
        }
        std::io::copy(&mut reader.by_ref(), &mut std::io::sink()).map(drop)
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
}

#[tokio::test]
async fn a_slow_server_slows_the_source_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let files = files_at(&listener);
    begin_only(listener);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let source = stream::repeat_with(|| Ok(Bytes::from(vec![0; MIB]))).take(100);
    let source = source.inspect(move |_| {
        count.fetch_add(MIB, Ordering::SeqCst);
    });
    let mut put = files.put("a", Box::pin(source), u64::MAX);
    // Two parts on their way, one being filled.
    let full = async {
        while taken.load(Ordering::SeqCst) < 24 * MIB {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        stored = &mut put => panic!("{stored:?}"),
        () = full => {}
    }
    assert!(timeout(Duration::from_millis(300), put).await.is_err());
    assert!(taken.load(Ordering::SeqCst) <= 25 * MIB, "{} bytes were taken", taken.load(Ordering::SeqCst));
}
