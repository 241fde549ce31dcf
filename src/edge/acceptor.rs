//! Accepts connections, and goes on accepting whatever happens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::Shared;
use super::connections::{Connection, Full};
use super::reader::{refused_request, serve};
use super::reply::PlainReply;
use super::socket::Socket;
use super::tls::Tls;
use super::transport::Transport;
use crate::http::error::Error;
use crate::http::request::{Client, Method, RequestId};
use crate::http::responder::Responder;
use crate::http::response::Framing;
use crate::metrics;

/// Stack of a connection's thread. Measured need: under 40 KiB, with TLS.
const STACK: usize = 256 * 1024;
/// After an error that will not go away by itself, when to try again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often such an error is mentioned in the log.
const REMINDER: Duration = Duration::from_secs(10);

/// A listening socket of either kind.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Makes accepting return at once where nobody waits.
    ///
    /// # Errors
    /// Not known to happen.
    pub fn never_block(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, address) = listener.accept()?;
                Ok((Socket::Tcp(socket), Peer::Tcp(address)))
            }
            Listener::Unix(listener) => {
                let (socket, address) = listener.accept()?;
                let name = std::os::linux::net::SocketAddrExt::as_abstract_name(&address)
                    .map(<[u8]>::to_vec);
                Ok((Socket::Unix(socket), Peer::Unix(name)))
            }
        }
    }
}

/// The other end of an accepted socket, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Address and port.
    Tcp(SocketAddr),
    /// The abstract name the other end has bound, if any.
    Unix(Option<Vec<u8>>),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Accepts until the server stops. The socket must not block: one that systemd has handed over may be shared with the process
/// that comes after this one, which may be quicker.
pub fn accept(shared: &Arc<Shared>, listener: &Listener, tls: Option<&Arc<Tls>>) {
    let mut mentioned: Option<Instant> = None;
    loop {
        let mut ready = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&shared.stop, PollFlags::IN),
        ];
        // When it is interrupted, accepting says whether there is anybody.
        let _ = poll(&mut ready, None);
        if shared.draining.load(Ordering::Relaxed) {
            return;
        }
        match listener.accept() {
            Ok((socket, peer)) => welcome(shared, socket, &peer, tls),
            // The connection was gone before it was taken, somebody else took it, or a signal came in between.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if mentioned.is_none_or(|when| when.elapsed() >= REMINDER) {
                    log::error!("cannot accept connections at the moment: {error}; trying again");
                    mentioned = Some(Instant::now());
                }
                // Mostly descriptors have run out. One that is idle is one that can be had.
                shared.connections.close_one_idle();
                thread::sleep(PAUSE);
            }
        }
    }
}

fn welcome(shared: &Arc<Shared>, socket: Socket, peer: &Peer, tls: Option<&Arc<Tls>>) {
    let own = shared.is_own(peer);
    let client = match peer {
        Peer::Tcp(address) => Client::Address(address.ip().to_canonical()),
        Peer::Unix(_) => Client::Local,
    };
    let trusted = shared.limits.trusted_proxies.trusts(client);
    let loopback = matches!(client, Client::Address(address) if address.is_loopback());
    let connection = Arc::new(Connection::new(socket, client, own));
    let id = match shared.connections.admit(&connection, !trusted && !loopback) {
        Ok(id) => id,
        Err(full) => {
            let (reason, cause) = match full {
                Full::Server => (
                    "CONNECTIONS",
                    "there are as many connections as there may be",
                ),
                Full::Address => (
                    "CONNECTIONS_PER_IP",
                    "the address has as many connections as it may have",
                ),
            };
            metrics::rejected(reason);
            return turn_away(shared, &connection, cause, tls.is_some());
        }
    };
    let (shared, served, tls) = (
        Arc::clone(shared),
        Arc::clone(&connection),
        tls.filter(|_| !own).cloned(),
    );
    let place = Place {
        shared: Arc::clone(&shared),
        id,
    };
    let spawned = thread::Builder::new()
        .name("connection".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let place = place;
            let transport = match tls.map(|tls| tls.accept()) {
                None => Transport::Plain,
                Some(Ok(tls)) => Transport::Tls(Box::new(tls)),
                Some(Err(error)) => return log::warn!("a TLS connection cannot be made: {error}"),
            };
            serve(&place.shared, &served, transport);
        });
    if let Err(error) = spawned {
        metrics::rejected("NO_THREAD");
        let shared = &shared;
        turn_away(
            shared,
            &connection,
            &format!("no thread can be started: {error}"),
            false,
        );
    }
}

/// A place among the connections, given up when it is dropped.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.leave(self.id);
    }
}

/// Answers 503 and closes, without a thread. To a TLS client, which would not understand that, it only closes.
fn turn_away(shared: &Arc<Shared>, connection: &Arc<Connection>, cause: &str, encrypted: bool) {
    if encrypted {
        return log::warn!("connection refused: {cause} client={}", connection.peer);
    }
    let request = refused_request(Method::Other, RequestId::from_header(None), connection.peer);
    let framing = Framing {
        close: true,
        fields: shared.policy.fields(None, false),
        ..Framing::default()
    };
    let reply = PlainReply {
        connection: Arc::clone(connection),
        shared: Arc::clone(shared),
        request_id: request.id.clone(),
        framing: framing.clone(),
    };
    Responder::new(&request, Box::new(reply), framing, shared.reveal_causes)
        .answer(Err(Error::Unavailable(cause.to_owned())));
    shared.flusher.see_off(Arc::clone(connection));
}
