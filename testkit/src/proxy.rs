//! A TCP proxy that fails on command: put it between the code under test and a server to take the server away, freeze it
//! or make it slow, without touching the server, which other tests use too.
//!
//! Promises: a fault begins at once, also on connections that are open; nothing that was sent is lost or reordered when a
//! stall or a latency ends; the address stays the same through all faults. Tests: at the end of this file.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How much one direction of a connection holds back, in pieces of at most [`PIECE`] bytes.
const HELD: usize = 256;
const PIECE: usize = 16 * 1024;

/// What the proxy does to its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    #[default]
    Pass,
    /// A server that is gone: open connections are closed, new ones are closed as soon as they come.
    Refuse,
    /// A server that is frozen: connections are accepted and stay open, nothing is forwarded in either direction.
    Stall,
    /// A server that is far away: every piece arrives this much later, in each direction.
    Latency(Duration),
}

/// What the proxy has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Connections accepted, those that were refused included.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes forwarded to the server.
    pub to_server: u64,
    /// Bytes forwarded from the server.
    pub from_server: u64,
}

#[derive(Clone, Default)]
struct Counts(Arc<Mutex<ProxyStats>>);

impl Counts {
    fn change(&self, change: impl FnOnce(&mut ProxyStats)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Tells every connection what to do; `cut` is raised to close those that are open.
#[derive(Clone, Copy, Default)]
struct Orders {
    mode: Mode,
    cut: u64,
}

/// A running proxy; it ends, with all its connections, when this is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Counts,
    task: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`, such as `127.0.0.1:5672`.
    ///
    /// # Errors
    /// When no port is free.
    #[expect(clippy::disallowed_methods, reason = "a fake ends with its handle; nothing waits for it")]
    pub async fn start(target: impl Into<String>) -> anyhow::Result<Self> {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (orders, receiver) = watch::channel(Orders::default());
        let counts = Counts::default();
        let counted = counts.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                counted.change(|seen| seen.accepted += 1);
                connections.spawn(connection(client, target.clone(), receiver.clone(), counted.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, orders, counts, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with its host and port replaced by the proxy's: `scheme://user@host:port/path` keeps all but `host:port`.
    pub fn url_of(&self, url: &str) -> String {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
        let start = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
        format!("{}{}{}", &url[..start], self.address, &url[end..])
    }

    /// From now on `mode` holds, on open connections too.
    pub fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| {
            orders.mode = mode;
            orders.cut += u64::from(mode == Mode::Refuse);
        });
    }

    /// Closes the connections that are open. New ones are treated by the mode.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cut += 1);
    }

    /// What it has seen so far.
    pub fn stats(&self) -> ProxyStats {
        *self.counts.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(client: TcpStream, target: String, mut orders: watch::Receiver<Orders>, counts: Counts) {
    let begun = *orders.borrow_and_update();
    if begun.mode == Mode::Refuse {
        return;
    }
    counts.change(|seen| seen.open += 1);
    let mut ended = orders.clone();
    tokio::select! {
        _ = ended.wait_for(|now| now.cut != begun.cut) => {}
        () = relay(client, target, &mut orders, &counts) => {}
    }
    counts.change(|seen| seen.open -= 1);
}

async fn relay(client: TcpStream, target: String, orders: &mut watch::Receiver<Orders>, counts: &Counts) {
    // A frozen server still accepts: its kernel does. So does this one, and connects once it thaws.
    if thawed(orders).await.is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect(&target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // Else tests are only slower.
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = |bytes| counts.change(|seen| seen.to_server += bytes);
    let down = |bytes| counts.change(|seen| seen.from_server += bytes);
    tokio::join!(
        direction(from_client, to_server, orders.clone(), up),
        direction(from_server, to_client, orders.clone(), down)
    );
}

/// Waits while the mode is [`Mode::Stall`]; the latency, or `None` when the proxy has ended.
async fn thawed(orders: &mut watch::Receiver<Orders>) -> Option<Duration> {
    let mode = orders.wait_for(|now| now.mode != Mode::Stall).await.ok()?.mode;
    Some(if let Mode::Latency(latency) = mode { latency } else { Duration::ZERO })
}

/// Forwards one direction to its end. What was read waits in a line until it is due, so that a latency delays every piece
/// and slows none down.
async fn direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut orders: watch::Receiver<Orders>,
    counted: impl Fn(u64),
) {
    let (line, mut due) = mpsc::channel::<(Instant, Bytes)>(HELD);
    let mut reading = orders.clone();
    let read = async move {
        while let Some(latency) = thawed(&mut reading).await {
            let mut piece = BytesMut::with_capacity(PIECE);
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(_) if line.send((Instant::now() + latency, piece.freeze())).await.is_err() => break,
                Ok(_) => {}
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if thawed(&mut orders).await.is_none() || to.write_all(&piece).await.is_err() {
                break;
            }
            counted(piece.len() as u64);
        }
        // Says "end of stream" to the other side; if that side is gone already, it knows.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    #[expect(clippy::disallowed_methods, reason = "a test's server")]
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut read, mut write) = socket.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        address
    }

    async fn round_trip(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        socket.write_all(text).await?;
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back).await?;
        assert_eq!(back, text);
        Ok(())
    }

    const LONG: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn passes_and_counts() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        round_trip(&mut socket, &vec![7; 100_000]).await.unwrap();
        let expected = ProxyStats { accepted: 1, open: 1, to_server: 100_000, from_server: 100_000 };
        crate::eventually("all is counted", LONG, async || (proxy.stats() == expected).then_some(())).await.unwrap();
        drop(socket);
        crate::eventually("it is closed", LONG, async || (proxy.stats().open == 0).then_some(())).await.unwrap();
    }

    #[tokio::test]
    async fn refuses_and_cuts() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let socket = async || TcpStream::connect(proxy.address()).await.unwrap();
        let mut first = socket().await;
        round_trip(&mut first, b"before").await.unwrap();
        proxy.cut();
        assert!(tokio::time::timeout(LONG, round_trip(&mut first, b"cut")).await.unwrap().is_err());
        let mut second = socket().await;
        round_trip(&mut second, b"a cut leaves new connections alone").await.unwrap();
        proxy.set(Mode::Refuse);
        assert!(tokio::time::timeout(LONG, round_trip(&mut second, b"open")).await.unwrap().is_err());
        assert!(tokio::time::timeout(LONG, round_trip(&mut socket().await, b"new")).await.unwrap().is_err());
        proxy.set(Mode::Pass);
        round_trip(&mut socket().await, b"after").await.unwrap();
    }

    #[tokio::test]
    async fn a_stall_holds_everything_back_and_loses_nothing() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Mode::Stall);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        for socket in [&mut old, &mut new] {
            socket.write_all(b"during").await.unwrap();
            let mut byte = [0];
            assert!(tokio::time::timeout(SHORT, socket.read(&mut byte)).await.is_err(), "it is open, and silent");
        }
        proxy.set(Mode::Pass);
        for socket in [&mut old, &mut new] {
            let mut back = [0; 6];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"during");
        }
    }

    #[tokio::test]
    async fn a_latency_delays_pieces_side_by_side() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Mode::Latency(SHORT));
        let begun = Instant::now();
        round_trip(&mut socket, &vec![7; 200_000]).await.unwrap();
        let took = begun.elapsed();
        // 200 kB are thirteen pieces and more; one after the other they would take over a second.
        assert!(took >= SHORT * 2 && took < Duration::from_millis(600), "{took:?}");
    }

    #[tokio::test]
    async fn its_address_replaces_the_hosts_in_an_url() {
        let proxy = FaultProxy::start("127.0.0.1:9").await.unwrap();
        assert_eq!(proxy.url_of("amqp://a:b@c:5672/%2f"), format!("amqp://a:b@{}/%2f", proxy.address()));
    }
}
