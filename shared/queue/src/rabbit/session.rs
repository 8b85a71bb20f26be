//! One connection to RabbitMQ from its opening to its end, with the queues declared.
//!
//! Promises: opening ends within [`OPEN`]; a session that is dropped leaves no socket and no thread of the library behind,
//! even when the broker is silent. The library cannot promise that: its thread waits for the broker for ever. So the session
//! keeps a second handle of the socket and shuts the socket down. Tests: `tests/suite/outages.rs`.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aig_domain::Secret;
use futures_util::StreamExt as _;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::{AsyncTcpStream, TLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{BrokerError, topology};

/// The end of one try to connect and to declare the queues.
const OPEN: Duration = Duration::from_secs(5);
/// How long a good-bye to the broker may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the connection is looked at, should it end without an event.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds. A broker that says nothing for twice as long is gone.
const HEARTBEAT: u16 = 15;
/// The library keeps 64 times as much in buffers. A message has at most some 3 kB.
const FRAME_MAX: u32 = 16 * 1024;

/// Reads the URL and adds our defaults to it.
pub(super) fn uri(url: &Secret) -> Result<AMQPUri, BrokerError> {
    let mut uri: AMQPUri = url.expose().parse().map_err(|_| BrokerError::Url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    Ok(uri)
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
}

impl Purpose {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A connection whose queues are declared.
pub(super) struct Session {
    connection: Connection,
    /// For publishing: one channel per queue, in confirm mode. The library gives a returned message to whichever confirm of its
    /// channel comes next: of 8,000 messages to two queues on one channel, 53 that were returned were told as published.
    channels: Vec<Channel>,
    socket: Socket,
    broken: CancellationToken,
    reason: OnceLock<String>,
}

impl Session {
    pub(super) async fn open(purpose: Purpose, shared: &Shared) -> Result<Self, BrokerError> {
        let opening = async {
            let (connection, socket) = connect(purpose, &shared.uri).await?;
            let mut channels = Vec::with_capacity(shared.queues.len());
            for queue in &shared.queues {
                let channel = connection.create_channel().await?;
                topology::declare(&channel, &queue.wire).await?;
                if purpose == Purpose::Publish {
                    channel.confirm_select(ConfirmSelectOptions::default()).await?;
                    channels.push(channel);
                }
            }
            Ok(Self { connection, channels, socket, broken: CancellationToken::new(), reason: OnceLock::new() })
        };
        let late = || BrokerError::Unavailable(format!("connecting took more than {} s", OPEN.as_secs()));
        timeout(OPEN, opening).await.unwrap_or_else(|_| Err(late()))
    }

    /// The channel for publishing to the queue at this place of the list.
    pub(super) fn channel(&self, queue: usize) -> Option<&Channel> {
        self.channels.get(queue)
    }

    /// A channel for something else.
    pub(super) async fn new_channel(&self) -> Result<Channel, BrokerError> {
        Ok(self.connection.create_channel().await?)
    }

    /// Whether the broker has told us to send nothing, since it is short of memory or disk. The connection is sound.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says that the session is of no more use; its supervisor then opens another.
    pub(super) fn give_up(&self, reason: impl Into<String>) {
        // Only the first reason is kept: the others follow from it.
        let _ = self.reason.set(reason.into());
        self.broken.cancel();
    }

    /// Waits until the connection is lost or given up; gives the reason.
    pub(super) async fn ended(&self) -> String {
        let mut events = pin!(self.connection.events_listener());
        let mut reason = "the connection was lost".to_owned();
        while self.connection.status().connected() {
            tokio::select! {
                () = self.broken.cancelled() => return self.reason.get().cloned().unwrap_or_default(),
                () = tokio::time::sleep(LOOK) => {}
                event = events.next() => match event {
                    Some(Event::Error(error)) => reason = error.to_string(),
                    Some(Event::ConnectionBlocked(why)) => {
                        tracing::warn!(why, "RabbitMQ takes no messages; jobs are accepted and wait for its recovery");
                    }
                    Some(Event::ConnectionUnblocked) => tracing::info!("RabbitMQ takes messages again"),
                    Some(_) => {}
                    None => break,
                },
            }
        }
        reason
    }

    /// Says good-bye if the broker listens, and ends the connection in any case.
    pub(super) async fn close(&self) {
        // An error here is a connection that is closed already.
        let _ = timeout(FAREWELL, self.connection.close(200, "bye".into())).await;
        self.socket.shut();
    }
}

/// A second handle of a connection's socket. The socket is shut down with it.
#[derive(Default)]
struct Socket(Arc<Mutex<Handle>>);

#[derive(Default)]
struct Handle {
    stream: Option<TcpStream>,
    shut: bool,
}

impl Socket {
    fn shut(&self) {
        let mut handle = lock(&self.0);
        handle.shut = true;
        if let Some(stream) = handle.stream.take() {
            // An error here is a socket that is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shut();
    }
}

fn lock(handle: &Mutex<Handle>) -> MutexGuard<'_, Handle> {
    handle.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(purpose: Purpose, uri: &AMQPUri) -> lapin::Result<(Connection, Socket)> {
    let socket = Socket::default();
    let handle = Arc::clone(&socket.0);
    let runtime = lapin::runtime::default_runtime()?;
    let own = runtime.clone();
    // Runs on the library's thread, which nobody can cancel: hence its own end.
    let dial = async move |uri: AMQPUri, _| {
        let dialling = async {
            let to = own.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&own, to).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let second = plain.get_ref().as_fd().try_clone_to_owned()?;
                let mut handle = lock(&handle);
                if handle.shut {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                handle.stream = Some(second.into());
            }
            match uri.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, TLSConfig::default()).await,
            }
        };
        Ok(timeout(OPEN, dialling).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
    };
    let name = format!("aigateway {}, process {}", purpose.as_str(), std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connection = Connection::connector(uri.clone(), runtime, dial, properties).await?;
    Ok((connection, socket))
}
