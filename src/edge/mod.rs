//! What a stranger meets first.
//!
//! tiny_http is kept as the queue to the workers, but no stranger talks to it. The edge accepts connections, one thread each
//! from a bounded number, reads each request whole under bounds and deadlines, checks its framing, and hands it to the workers
//! as a ticket. The worker's answer goes straight to the client's socket.
//!
//! # Why this room exists
//!
//! What strangers did to this program, 4 workers, when tiny_http 0.12 listened for them (`direct:`), and what they do to the
//! edge. A healthy client asked through a worker meanwhile, with two seconds of patience.
//!
//! | attack | tiny_http alone | the edge |
//! |---|---|---|
//! | `Content-Length` 10^12, then 10^15 | the process aborts at the second | 413, closed; peak 7 MB |
//! | 300 bodies that never come | the healthy client gets no answer | 5 of 5 answers, slowest 38 ms |
//! | a header field of 200 MB | takes it all: 195 MB of memory | 431 at 16 KiB; 7 MB |
//! | `Content-Length: 5x`, and a request behind it | both are served | one 400, closed |
//! | two lengths; a length and `chunked` | the request behind is served, both times | one 400, closed |
//! | a byte above 0x7F in a header field | closed without an answer | served |
//! | descriptors exhausted and given back | never accepts again | goes on |
//! | 8 upgrades with half a body | no answer | 3 of 3, slowest 1 ms |
//! | 60 slow readers of a list of 4 MB | no answer | 5 of 5, slowest 1 ms; 127 MB at most |
//! | 100,000 pipelined requests, answers unread | 131 MB, no answer | 7 MB, 3 of 3 |
//!
//! A burst of connections also leaves many of them unserved until others end: tiny_http's thread pool counts a thread as free
//! until it has woken up, and queues connections behind it.
//!
//! # What it costs
//!
//! Measured by `scripts/bench` on two cores that are shared with PostgreSQL and the load: the single-task route through the edge
//! does 1.05 times tiny_http's own throughput at 32 connections, and at 256 and 1,000 as well. A request costs it one `recv`,
//! its answer one `send`, and the way to the workers a share of a `write` (see `tickets`).
//!
//! # The rooms
//!
//! - [`limits`]: resource limits
//! - `listener`, `acceptor`: listening sockets, and accepting whatever happens
//! - `connections`: who is connected, and what each connection is doing
//! - `reader`: a connection's thread
//! - [`head`], [`body`]: framing (RFC 9112)
//! - [`client`]: who a request comes from, when proxies stand between
//! - `tickets`: whole requests that wait for a worker
//! - `reply`, `flusher`, `answers`: how answers leave, and the memory they take
//! - [`tls`], `transport`, `socket`: what lies between
//! - [`tls_client`]: the other side of it, for a server that asks itself whether it is alive
//! - `self_check`: whether all of it still works

mod acceptor;
mod answers;
pub mod body;
pub mod client;
mod connections;
mod flusher;
pub mod head;
pub mod limits;
mod listener;
mod reader;
mod reply;
mod self_check;
mod socket;
mod tickets;
pub mod tls;
pub mod tls_client;
mod transport;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

pub use acceptor::Listener;
use acceptor::Peer;
use answers::Answers;
use connections::Connections;
use flusher::Flusher;
use limits::Budget;
pub use listener::{Bound, bind, bind_for_tiny_http, inherited};
use tickets::Tickets;
pub use tickets::reserve;
use tls::Tls;

use crate::config::EdgeLimits;
use crate::domain::address::Address;
use crate::domain::fair_budget::Holder;
use crate::http::policy::Policy;
use crate::http::request::Request;
use crate::http::responder::{Admission, Responder};
use crate::http::response::Response;
use crate::sync::lock;

/// How often tickets are looked at for their age.
const TICK: Duration = Duration::from_millis(100);
/// How often the certificate's files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);
/// While draining, how long an idle connection may still send one more request.
const LAST_REQUEST: Duration = Duration::from_secs(3);

/// What is answered at once, by the connection's own thread, even when every worker is stuck.
pub trait Immediate: Send + Sync {
    /// The answer, or `None` when the request is for the workers. What is to be known of the request in the log is told to the
    /// responder.
    fn answer(&self, request: &Request, responder: &mut Responder) -> Option<Response>;
}

/// Is told why the process cannot go on.
pub type OnFailure = Box<dyn Fn(String) + Send + Sync>;

/// Is told that the server has answered itself.
pub type OnAlive = Arc<dyn Fn() + Send + Sync>;

/// What the edge needs to know.
pub struct Options {
    /// The bounds.
    pub limits: EdgeLimits,
    /// Certificates, where TCP speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// How often the server checks itself; zero: never.
    pub self_check: Duration,
    /// Hears of every self-check that went well.
    pub on_alive: OnAlive,
    /// How many workers one holder may have.
    pub workers: usize,
    /// Connections to the database.
    pub connections: usize,
    /// Whether answers of 500 and over say why; for development only.
    pub reveal_causes: bool,
    /// What browsers are told with every answer.
    pub policy: Arc<Policy>,
}

/// What all parts of the edge share.
struct Shared {
    limits: EdgeLimits,
    reveal_causes: bool,
    policy: Arc<Policy>,
    immediate: Box<dyn Immediate>,
    connections: Connections,
    tickets: Tickets,
    flusher: Arc<Flusher>,
    bodies: Arc<Budget>,
    answers: Arc<Answers>,
    draining: AtomicBool,
    /// Readable once the acceptors are to end.
    stop: OwnedFd,
    /// The self-check's own ends of connections that are being made.
    own: Mutex<HashSet<Peer>>,
    on_failure: OnFailure,
    on_alive: OnAlive,
}

/// The edge at work.
pub struct Edge {
    shared: Arc<Shared>,
    listeners: Vec<Bound>,
    tls: Option<Arc<Tls>>,
}

/// Makes a tiny_http that only this process can reach, and the connection over which it is reached.
///
/// # Errors
/// There is no place for its socket: no temporary directory can be written.
pub fn private_tiny_http() -> io::Result<(tiny_http::Server, UnixStream)> {
    let directory = listener::PrivateDirectory::make()?;
    let path = directory.path().join("tickets");
    let server = tiny_http::Server::from_listener(UnixListener::bind(&path)?, None)
        .map_err(io::Error::other)?;
    let line = UnixStream::connect(&path)?;
    // The directory goes with this scope: nobody else will ever connect.
    Ok((server, line))
}

impl Edge {
    /// Starts to serve on these sockets. Requests come out of the far end of `line`; what makes it impossible to go on is told
    /// to `on_failure`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(
        options: Options,
        listeners: Vec<(Bound, Listener)>,
        line: UnixStream,
        immediate: Box<dyn Immediate>,
        on_failure: OnFailure,
    ) -> io::Result<Edge> {
        let Options {
            limits,
            tls,
            self_check,
            on_alive,
            workers,
            connections,
            reveal_causes,
            policy,
        } = options;
        let shared = Arc::new(Shared {
            connections: Connections::new(limits.connections, limits.connections_per_address),
            tickets: Tickets::new(line, workers + reserve(workers), connections),
            flusher: Flusher::start(limits.send_time)?,
            bodies: Budget::new(limits.bodies),
            answers: Answers::new(limits.answers),
            draining: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            own: Mutex::default(),
            limits,
            reveal_causes,
            policy,
            immediate,
            on_failure,
            on_alive,
        });
        let mut bounds = Vec::new();
        for (bound, listener) in listeners {
            let tls = tls.clone().filter(|_| matches!(listener, Listener::Tcp(_)));
            let accepting = Arc::clone(&shared);
            listener.never_block()?;
            spawn("acceptor", move || {
                acceptor::accept(&accepting, &listener, tls.as_ref())
            })?;
            bounds.push(bound);
        }
        let (ticking, certificate) = (Arc::clone(&shared), tls.clone());
        spawn("clock", move || tick(&ticking, certificate.as_deref()))?;
        if let Some(bound) = bounds.first().filter(|_| !self_check.is_zero()) {
            let (checking, address) = (Arc::clone(&shared), bound.address.clone());
            spawn("self-check", move || {
                self_check::run(&checking, &address, self_check)
            })?;
        }
        Ok(Edge {
            shared,
            listeners: bounds,
            tls,
        })
    }

    /// Where it listens, with the ports it was given.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|bound| &bound.address)
    }

    /// Where it listens, as clients write it.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.addresses()
            .map(|address| address.url(self.tls.is_some()))
    }

    /// Where workers take their tickets.
    pub fn tickets(&self) -> TicketOffice {
        TicketOffice(Arc::clone(&self.shared))
    }

    /// Loads the certificate again.
    pub fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// Stops: accepts no more connections, lets idle ones send one more request for a moment, and waits until all have ended, by
    /// `until` at the latest. Answers whether they have.
    pub fn drain(&self, until: Instant) -> bool {
        self.shared.draining.store(true, Ordering::Relaxed);
        // It fails only where it has been written to already.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        for bound in &self.listeners {
            bound.close();
        }
        let last_request = until.min(Instant::now() + LAST_REQUEST);
        loop {
            let now = Instant::now();
            if now >= last_request {
                self.shared.connections.close_idle();
            }
            if self.shared.connections.count() == 0 {
                return true;
            }
            if now >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where workers take their tickets.
#[derive(Clone)]
pub struct TicketOffice(Arc<Shared>);

/// A worker's place among those that serve a holder, given back when this is dropped.
pub struct Turn<'o> {
    office: &'o TicketOffice,
    holder: Option<Holder>,
}

impl TicketOffice {
    /// Notes that a private request has woken a worker.
    pub fn woken(&self) {
        self.0.tickets.woken();
    }

    /// Serves tickets until none is left whose holder may have one more worker. `serve` returns the responder when the user may
    /// have no more workers; the request then waits until one of that user's is done.
    pub fn drain(&self, serve: impl Fn(&Request, Responder, &mut Turn<'_>) -> Option<Responder>) {
        loop {
            let ticket = self.0.tickets.take().unwrap_or_else(|error| {
                self.0.broken(&error);
                None
            });
            let Some(mut ticket) = ticket else {
                return;
            };
            let mut turn = Turn {
                office: self,
                holder: ticket.holder,
            };
            if let Some(responder) = serve(&ticket.request, ticket.responder, &mut turn) {
                ticket.responder = responder;
                ticket.holder = ticket.responder.holder();
                self.0.tickets.put_back(ticket);
            }
        }
    }
}

impl Admission for Turn<'_> {
    fn admit(&mut self, user: Option<Holder>) -> bool {
        let admitted = self.office.0.tickets.pass(self.holder, user);
        if admitted {
            self.holder = user;
        }
        admitted
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.office.0.tickets.done(self.holder);
    }
}

impl Shared {
    /// Tells that the process cannot go on.
    fn fail(&self, reason: String) {
        (self.on_failure)(reason);
    }

    /// Tells that tickets cannot be called any more.
    fn broken(&self, error: &io::Error) {
        self.fail(format!("the way to the workers is broken: {error}"));
    }

    fn is_own(&self, peer: &Peer) -> bool {
        self.own().contains(peer)
    }

    /// Makes the acceptor know this peer for ours, until what is returned is dropped.
    fn announce_own(&self, peer: Peer) -> Announced<'_> {
        self.own().insert(peer.clone());
        Announced { shared: self, peer }
    }

    fn own(&self) -> std::sync::MutexGuard<'_, HashSet<Peer>> {
        lock(&self.own)
    }
}

struct Announced<'s> {
    shared: &'s Shared,
    peer: Peer,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.shared.own().remove(&self.peer);
    }
}

/// Looks at what grows old, until the server stops.
fn tick(shared: &Shared, tls: Option<&Tls>) {
    let mut certificate_checked = Instant::now();
    // Tickets grow old while draining, too.
    while !(shared.draining.load(Ordering::Relaxed) && shared.connections.count() == 0) {
        thread::sleep(TICK);
        shared.tickets.expire(shared.limits.queue_time);
        if certificate_checked.elapsed() >= CERTIFICATE_CHECK {
            certificate_checked = Instant::now();
            if let Some(tls) = tls {
                tls.reload_if_changed();
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
}
