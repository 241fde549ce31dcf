//! Everything between a client and the workers: connections, limits, deadlines, framing, TLS.
//!
//! Workers wait in tiny_http's queue, but no client connects to it. The edge reads each request whole under limits and deadlines,
//! checks its framing, and hands it to the workers as a ticket. The worker's answer goes straight to the client's socket.
//!
//! # Why it exists
//!
//! What clients could do to this program, with 4 workers, when tiny_http 0.12 listened for them (`direct:`), and what they can do
//! to the edge. A healthy client asked through a worker at the same time and waited at most two seconds.
//!
//! | attack | tiny_http alone | the edge |
//! |---|---|---|
//! | `Content-Length` 10^12, then 10^15 | the process aborts at the second | 413, closed; peak 7 MB |
//! | 300 bodies that never come | the healthy client gets no answer | 5 of 5 answers, slowest 38 ms |
//! | a header field of 200 MB | takes it all: 195 MB of memory | 431 at 16 KiB; 7 MB |
//! | `Content-Length: 5x`, and a request behind it | both are served | one 400, closed |
//! | two lengths; a length and `chunked` | the request behind is served, both times | one 400, closed |
//! | a byte above 0x7F in a header field | closed without an answer | served |
//! | descriptors exhausted and given back | never accepts again | continues |
//! | 8 upgrades with half a body | no answer | 3 of 3, slowest 1 ms |
//! | 60 slow readers of a list of 4 MB | no answer | 5 of 5, slowest 1 ms; 127 MB at most |
//! | 100,000 pipelined requests, answers unread | 131 MB, no answer | 7 MB, 3 of 3 |
//!
//! tiny_http also leaves many of a burst of connections unserved until others end: its thread pool counts a thread as free until it
//! has woken up, and queues connections behind it.
//!
//! # The event loop
//!
//! One thread at a time owns every connection. A connection is in one of these states (`connection::ConnectionState`):
//!
//! | state | waits for | deadline | when that passes | next |
//! |---|---|---|---|---|
//! | Handshake | the client's TLS | `HEAD_TIMEOUT` | close | Head |
//! | Head, empty (idle) | the first byte | `KEEP_ALIVE_TIMEOUT` after the last answer | close | Head |
//! | Head | the rest of it | `HEAD_TIMEOUT` after its first byte | 408 | Body, Ready, Refused |
//! | Body | the rest of it | `BODY_TIMEOUT`, less if it is slow | 408 | Ready, Refused |
//! | Ready | the answer before it | none | | Head, Last |
//! | Refused | the answer before it | none | | Last |
//! | Last | the last answer | none | | Lingering |
//! | Ended | the answer under way | none | | closed |
//! | Lingering | the client's end | 2 s | close | closed |
//!
//! In each state bytes may wait to be sent (`outlet::Outgoing`): the rest of an answer, an answer over TLS, an interim response.
//! They are sent first, with deadlines of their own (`SEND_TIMEOUT`, and 4 KiB a second).
//!
//! The kernel reports each change of a socket once (`EPOLLET`), so a request costs no system call for waiting. The steps of a request:
//!
//! 1. The loop receives it, and hands all whole requests of a round to the workers (`tickets`). A single client's requests are served by
//!    the thread of the loop itself (`loop_threads`).
//! 2. A worker sends the answer with one system call and notes that it is sent (`outlet`).
//! 3. The loop reads that note when the next request has come. It is woken only if it already waits for the end of the answer, or
//!    has to send the rest of it.
//!
//! Nothing in the loop waits: sockets do not block, no lock is held during a system call, and log lines go to a queue. A round that
//! takes more than 10 ms is counted (`todo_api_edge_slow_rounds_total`).
//!
//! Measured on two cores that are shared with PostgreSQL, the load and other work: with one thread for each connection a request
//! for one task took 44 to 49 µs of CPU, with the loop 33 to 34. 9,900 idle connections take 15 MB and 23 threads in all. A TLS
//! handshake with an RSA key of 2,048 bits takes the loop up to a millisecond, so one is advanced in a round: while 770 a second
//! were made, 99 of 100 requests for `/health` were answered within 8 ms.
//!
//! # Threads
//!
//! | thread | number | does |
//! |---|---|---|
//! | `edge` | 2 | one runs the loop; the other waits to take its place while that one serves a request |
//! | `self-check` | 1 | sends requests to the server's own address |
//! | `certificate` | 1 with TLS | loads changed certificates |
//! | workers | `WORKERS`, and one more for every eight | serve requests |
//! | tiny_http's own | 5 | wait for connections, which do not come |
//!
//! # Modules
//!
//! - [`limits`]: resource limits
//! - `listener`, `accepting`, `admission`: listening sockets, new connections, their number
//! - `event_loop`, `timers`: the loop and its deadlines
//! - `loop_threads`: the threads that run it
//! - `connection`, `receiving`: a connection's state, and the requests in its bytes
//! - [`head`], [`body`]: framing (RFC 9112)
//! - [`client`]: the client of a request that came through proxies
//! - `tickets`: whole requests that wait for a worker
//! - `outlet`, `answers`: sending of answers, and their memory
//! - [`tls`], `transport`, `socket`: between a connection and its client
//! - `self_check`: checks that the server answers

mod accepting;
mod admission;
mod answers;
pub mod body;
pub mod client;
mod connection;
mod event_loop;
pub mod head;
pub mod limits;
mod listener;
mod loop_threads;
mod outlet;
mod receiving;
mod self_check;
mod socket;
mod tickets;
mod timers;
pub mod tls;
mod transport;

use std::io;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use answers::Answers;
use event_loop::{EdgeListener, EventLoop};
use limits::MemoryBudget;
pub use listener::{BoundSocket, bind, bind_for_tiny_http, inherited};
use loop_threads::LoopThreads;
use outlet::Mailbox;
pub use tickets::reserve;
use tickets::{Ticket, Tickets};
use tls::Tls;

use crate::config::EdgeLimits;
use crate::domain::address::Address;
use crate::domain::fair_budget::Holder;
use crate::http::policy::Policy;
use crate::http::request::Request;
use crate::http::responder::{Admit, Responder};
use crate::http::response::Response;
use crate::metrics;
use crate::sync::{holds_within, lock};

/// Time between two checks of the certificate's files.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);
/// While draining, how long an idle connection may still send one more request.
const LAST_REQUEST: Duration = Duration::from_secs(3);

/// Answers requests that need no worker, in the event loop, so it must not wait for anything. Returns `None` for requests for the
/// workers.
pub type Immediate = Box<dyn Fn(&Request, &mut Responder) -> Option<Response> + Send + Sync>;

/// Serves a request. Returns the responder if the user may have no more workers; the request then waits until one of them is done.
pub type Serve = Box<dyn Fn(&Request, Responder, &mut Admit) -> Option<Responder> + Send + Sync>;

/// Called with the reason when the process cannot continue.
pub type OnFailure = Box<dyn Fn(String) + Send + Sync>;

/// Called when the server has answered its own request.
pub type OnAlive = Arc<dyn Fn() + Send + Sync>;

/// Settings and parts of the edge.
pub struct EdgeOptions {
    /// The limits.
    pub limits: EdgeLimits,
    /// The certificates, if TCP connections use TLS.
    pub tls: Option<Arc<Tls>>,
    /// The time between two self-checks; zero: there are none.
    pub self_check: Duration,
    /// Called after each self-check that succeeded.
    pub on_alive: OnAlive,
    /// The number of workers that one holder may have.
    pub workers: usize,
    /// Connections to the database.
    pub connections: usize,
    /// Whether answers of 500 and over say why; for development only.
    pub reveal_causes: bool,
    /// The header fields for browsers.
    pub policy: Arc<Policy>,
    /// Answers requests that need no worker.
    pub immediate: Immediate,
    /// Serves those that need one.
    pub serve: Serve,
    /// Called if the edge cannot continue.
    pub on_failure: OnFailure,
}

/// The state that all parts of the edge share.
struct EdgeShared {
    options: EdgeOptions,
    tickets: Tickets,
    mailbox: Mailbox,
    bodies: Arc<MemoryBudget>,
    answers: Arc<Answers>,
    /// Set when the server stops: until when idle connections may send one more request.
    draining: OnceLock<Instant>,
    /// The self-check's end of the connection that it is making.
    own: Mutex<Option<SockAddr>>,
}

/// The running edge.
pub struct Edge {
    shared: Arc<EdgeShared>,
    /// The threads of the event loop; they end when it has drained.
    threads: Vec<JoinHandle<()>>,
    listeners: Vec<BoundSocket>,
}

/// Starts a tiny_http that nothing can connect to: workers sleep in its queue.
///
/// # Errors
/// No temporary directory for its socket can be written.
pub fn private_tiny_http() -> io::Result<tiny_http::Server> {
    let directory = listener::PrivateDirectory::make()?;
    let socket = UnixListener::bind(directory.path().join("bell"))?;
    // The directory is removed at the end of this scope, and the socket with it.
    tiny_http::Server::from_listener(socket, None).map_err(io::Error::other)
}

impl Edge {
    /// Starts to serve on these sockets. Workers sleep in `bell`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(
        options: EdgeOptions,
        listeners: Vec<(BoundSocket, Socket)>,
        bell: Arc<tiny_http::Server>,
    ) -> io::Result<Edge> {
        let threads = options.workers + reserve(options.workers);
        let self_check = options.self_check;
        let shared = Arc::new(EdgeShared {
            tickets: Tickets::new(bell, threads, options.connections),
            mailbox: Mailbox::new()?,
            bodies: MemoryBudget::new(options.limits.bodies),
            answers: Answers::new(options.limits.answers),
            draining: OnceLock::new(),
            own: Mutex::default(),
            options,
        });
        let watch = |(bound, socket): (BoundSocket, Socket)| {
            let is_tcp = matches!(bound.address, Address::Tcp(_));
            let tls = shared.options.tls.clone().filter(|_| is_tcp);
            (bound, EdgeListener { socket, tls })
        };
        let (bounds, watched): (Vec<_>, Vec<_>) = listeners.into_iter().map(watch).unzip();
        let event_loop = EventLoop::new(Arc::clone(&shared), watched)?;
        let loop_threads = Arc::new(LoopThreads::new(event_loop)?);
        let mut threads = Vec::new();
        for _ in 0..2 {
            let loop_threads = Arc::clone(&loop_threads);
            let office = TicketOffice(Arc::clone(&shared));
            threads.push(spawn("edge", move || {
                if catch_unwind(AssertUnwindSafe(|| loop_threads.work(&office))).is_err() {
                    (office.0.options.on_failure)("the event loop has panicked".to_owned());
                }
            })?);
        }
        if let Some(tls) = shared.options.tls.clone() {
            spawn("certificate", move || {
                loop {
                    thread::sleep(CERTIFICATE_CHECK);
                    tls.reload_if_changed();
                }
            })?;
        }
        if let Some(bound) = bounds.first().filter(|_| !self_check.is_zero()) {
            let (checking, address) = (Arc::clone(&shared), bound.address.clone());
            spawn("self-check", move || {
                self_check::run(&checking, &address, self_check)
            })?;
        }
        Ok(Edge {
            shared,
            threads,
            listeners: bounds,
        })
    }

    /// The addresses it listens on, with the real ports.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|bound| &bound.address)
    }

    /// The same addresses as URLs.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        let encrypted = self.shared.options.tls.is_some();
        self.addresses().map(move |address| address.url(encrypted))
    }

    /// The office where workers take their tickets.
    pub fn tickets(&self) -> TicketOffice {
        TicketOffice(Arc::clone(&self.shared))
    }

    /// Loads the certificate again.
    pub fn reload(&self) {
        if let Some(tls) = &self.shared.options.tls {
            tls.reload();
        }
    }

    /// Stops: accepts no more connections, lets idle ones send one more request for [`LAST_REQUEST`], and waits until all have ended,
    /// by `until` at the latest. Returns whether they have.
    pub fn drain(&self, until: Instant) -> bool {
        let last_request = until.min(Instant::now() + LAST_REQUEST);
        self.shared.draining.get_or_init(|| last_request);
        self.shared.mailbox.wake();
        for bound in &self.listeners {
            bound.close();
        }
        let left = until.saturating_duration_since(Instant::now());
        holds_within(left, || self.threads.iter().all(JoinHandle::is_finished))
    }
}

/// The office where workers take their tickets.
#[derive(Clone)]
pub struct TicketOffice(Arc<EdgeShared>);

/// A worker that serves a holder, given back when this is dropped.
struct TakenWorker<'o> {
    office: &'o TicketOffice,
    holder: Option<Holder>,
}

impl TicketOffice {
    /// Called by a worker that the bell has woken. Serves tickets until none is left whose holder may have one more worker.
    pub fn drain(&self) {
        self.0.tickets.woken();
        while let Some(ticket) = self.0.tickets.take() {
            self.serve(ticket);
        }
    }

    fn serve(&self, mut ticket: Ticket) {
        let _busy = metrics::Busy::begin();
        let mut worker = TakenWorker {
            office: self,
            holder: ticket.holder,
        };
        let mut admit = |user| worker.pass_to(user);
        let serve = &self.0.options.serve;
        if let Some(responder) = serve(&ticket.request, ticket.responder, &mut admit) {
            ticket.responder = responder;
            ticket.holder = ticket.responder.holder();
            self.0.tickets.put_back(ticket);
        }
    }
}

impl TakenWorker<'_> {
    /// Counts the worker for the user from here on. False if the user may have no more workers.
    fn pass_to(&mut self, user: Option<Holder>) -> bool {
        let admitted = self.office.0.tickets.pass(self.holder, user);
        if admitted {
            self.holder = user;
        }
        admitted
    }
}

impl Drop for TakenWorker<'_> {
    fn drop(&mut self) {
        self.office.0.tickets.done(self.holder);
    }
}

impl EdgeShared {
    fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Whether this is the self-check's end of its connection.
    fn is_own(&self, peer: &SockAddr) -> bool {
        lock(&self.own).as_ref() == Some(peer)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
