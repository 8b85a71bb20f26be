//! The upstream of the chat calls: the fake of `testkit/`, asked once and then replayed byte for byte.
//!
//! The fake makes every answer anew and takes longer for it than nginx takes to pass it on, so that no proxy behind the same
//! load would ever be busy. A replay costs one read and one write. It is a process of its own (`aig-bench upstream`).

use std::fmt::Write as _;

use aig_testkit::OpenaiFake;
use anyhow::Context as _;
use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::http1::{self, address};
use crate::table::say;

/// The path of chat calls.
pub const PATH: &str = "/v1/chat/completions";

/// What all chat calls ask for. `up/` is the provider's name in the gateway's configuration.
pub fn question(words: u32, stream: bool) -> serde_json::Value {
    let mut body = serde_json::json!({
        "model": "up/fake",
        "messages": [
            { "role": "system", "content": "You are a helpful assistant that answers in one short paragraph of plain text." },
            { "role": "user", "content": format!("Why is the sky blue at noon and red in the evening? [fake words={words}]") },
        ],
        "max_tokens": 256,
    });
    if stream {
        body["stream"] = true.into();
        body["stream_options"] = serde_json::json!({ "include_usage": true });
    }
    body
}

/// Says its URL and answers until it is killed.
pub async fn run(words: u32, stream: bool) -> anyhow::Result<()> {
    let answer = record(words, stream).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("http://{}", listener.local_addr()?));
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        // An error here is a client that left.
        let answer = answer.clone();
        connections.spawn(async move { serve(socket, answer).await.is_ok() });
        while connections.try_join_next().is_some() {}
    }
}

/// The fake's answer as it goes over the wire; a stream has a chunk for each event.
async fn record(words: u32, stream: bool) -> anyhow::Result<Bytes> {
    let fake = OpenaiFake::start().await?;
    let (status, body) = http1::post(address(&fake.url())?, PATH, &question(words, stream)).await?;
    anyhow::ensure!(status == StatusCode::OK, "the fake refuses: {status}");
    let body = std::str::from_utf8(&body)?;
    let mut wire = String::from("HTTP/1.1 200 OK\r\n");
    if stream {
        wire.push_str("content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for event in body.split_inclusive("\n\n") {
            write!(wire, "{:x}\r\n{event}\r\n", event.len())?;
        }
        wire.push_str("0\r\n\r\n");
    } else {
        write!(wire, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(wire.into())
}

async fn serve(mut socket: TcpStream, answer: Bytes) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut read = BytesMut::with_capacity(16 * 1024);
    loop {
        let size = loop {
            match request_size(&read)? {
                Some(size) if size <= read.len() => break size,
                _ if socket.read_buf(&mut read).await? == 0 => return Ok(()),
                _ => {}
            }
        };
        read.advance(size);
        socket.write_all(&answer).await?;
    }
}

/// The length of the request at the start of `read`, once its head is there.
fn request_size(read: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let length = read[..end].split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    });
    let length: usize = std::str::from_utf8(length.context("a request without a length")?)?.trim().parse()?;
    Ok(Some(end + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_at_their_length() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nx: y\r\n\r\n{}POST";
        assert_eq!(request_size(request).unwrap(), Some(request.len() - 4));
        assert_eq!(request_size(&request[..30]).unwrap(), None);
        assert!(request_size(b"GET / HTTP/1.1\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn the_recording_is_what_the_fake_says() {
        let whole = record(3, false).await.unwrap();
        assert!(whole.starts_with(b"HTTP/1.1 200 OK\r\n") && whole.ends_with(b"}"));
        let stream = String::from_utf8(record(3, true).await.unwrap().to_vec()).unwrap();
        // The role, three words, the stop, the usage, [DONE].
        assert_eq!(stream.matches("\n\n\r\n").count(), 7);
        assert!(stream.ends_with("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), "{stream}");
    }
}
