//! A TCP proxy that breaks connections in the ways of networks and servers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How the proxy treats bytes. A connection that was silenced or held stays dead when the mode changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They arrive.
    Open,
    /// They vanish; nobody is told.
    Silent,
    /// Connections are closed, new ones at once.
    Closed,
    /// They arrive, except a commit: it is kept, and its sender loses the connection.
    HoldCommit,
}

/// Stands in front of PostgreSQL; stops when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// And how often connections were silenced.
    mode: watch::Sender<(Mode, u64)>,
    /// How many commits are held, and whether they may go on.
    held: watch::Sender<(usize, bool)>,
    _stop: DropGuard,
}

struct Line {
    upstream: SocketAddr,
    mode: watch::Receiver<(Mode, u64)>,
    held: watch::Sender<(usize, bool)>,
}

impl Proxy {
    /// Listens on `port`, 0 for any.
    pub async fn start(upstream: SocketAddr, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (mode, held, stop) =
            (watch::Sender::new((Mode::Open, 0)), watch::Sender::new((0, false)), CancellationToken::new());
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Line { upstream, mode: mode.subscribe(), held: held.clone() });
        let (tracker, stopped) = (TaskTracker::new(), stop.clone());
        let accepting = tracker.clone();
        tracker.spawn(async move {
            while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (line, stopped) = (Arc::clone(&line), stopped.clone());
                accepting.spawn(async move { stopped.run_until_cancelled(line.serve(client)).await });
            }
        });
        Self { address, mode, held, _stop: stop.drop_guard() }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_modify(|(now, silenced)| {
            *now = mode;
            *silenced += u64::from(mode == Mode::Silent);
        });
    }

    /// Returns when a commit is held.
    pub async fn commit_is_held(&self) {
        self.held.subscribe().wait_for(|(count, _)| *count > 0).await.unwrap();
    }

    /// Lets the held commits through to the server.
    pub fn release_commits(&self) {
        self.held.send_modify(|(_, go)| *go = true);
    }
}

impl Line {
    async fn serve(&self, mut client: TcpStream) {
        let mut mode = self.mode.clone();
        let born = mode.borrow().1;
        let mut server = TcpStream::connect(self.upstream).await.unwrap();
        let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            let (now, silenced) = *mode.borrow_and_update();
            if now == Mode::Silent || silenced != born {
                // The sockets stay open, and nothing moves any more.
                std::future::pending::<()>().await;
            }
            if now == Mode::Closed {
                return;
            }
            tokio::select! {
                biased;
                _ = mode.changed() => {}
                read = client.read(&mut up) => {
                    let Ok(count @ 1..) = read else { return };
                    if now == Mode::HoldCommit && up[..count].windows(7).any(|bytes| bytes == b"COMMIT\0") {
                        drop(client);
                        self.held.send_modify(|(held, _)| *held += 1);
                        self.held.subscribe().wait_for(|(_, go)| *go).await.unwrap();
                        server.write_all(&up[..count]).await.unwrap();
                        // Until the server has answered: a connection that is gone could stop it.
                        assert!(server.read(&mut down).await.unwrap() > 0);
                        return;
                    }
                    if server.write_all(&up[..count]).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut down) => {
                    let Ok(count @ 1..) = read else { return };
                    if client.write_all(&down[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
