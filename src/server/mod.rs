//! Composes the server of the edge, tiny_http and worker threads; starts, drains and stops it.
//!
//! - `tiny_http_connection`: tiny_http's own connection to a client
//!
//! The way of a request: the edge reads it whole and hands it over as a ticket; tiny_http wakes a worker; the worker takes the
//! ticket and calls the handler that the router finds; the request's responder sends the answer in one write. On an address marked
//! `direct:`, tiny_http reads and queues the request itself, and the rest is the same.

mod tiny_http_connection;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::api::dispatch::{dispatch, dispatch_at_once};
use crate::api::{App, Handler};
use crate::config::{Config, Environment};
use crate::domain::address::{Address, Listen};
use crate::domain::networks::TrustedProxies;
use crate::edge::tls::Tls;
use crate::edge::{self, BoundSocket, Edge, EdgeOptions, OnAlive, OnFailure, TicketOffice};
use crate::http::policy::Policy;
use crate::http::request::Request;
use crate::http::responder::{Admit, Responder};
use crate::http::router::Router;
use crate::metrics;
use crate::sync::holds_within;

/// While the server stops, a worker that gets no request for this long ends.
const QUIET: Duration = Duration::from_millis(100);

/// The parts of a server.
pub struct Parts {
    /// The state that handlers use.
    pub app: Arc<App>,
    /// The routes.
    pub router: Router<Handler>,
    /// Certificates, if TCP speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// The header fields for browsers.
    pub policy: Arc<Policy>,
    /// Called after every successful self-check.
    pub on_alive: OnAlive,
    /// Called with the reason when the server cannot continue.
    pub on_failure: OnFailure,
}

/// Listening sockets. Clients that connect before the server starts wait in them.
#[derive(Default)]
pub struct Sockets {
    guarded: Vec<(BoundSocket, Socket)>,
    direct: Vec<(BoundSocket, tiny_http::Listener)>,
}

impl Sockets {
    /// Takes the sockets that systemd has handed over or, without any, binds the addresses of `LISTEN`.
    ///
    /// # Errors
    /// An address cannot be bound; the text names it.
    pub fn bind(config: &Config) -> io::Result<Sockets> {
        let settings = &config.listening;
        let mut sockets = Sockets::default();
        if config.origin.activated {
            sockets.guarded = edge::inherited()?;
        }
        if sockets.guarded.is_empty() {
            for Listen { address, direct } in &settings.addresses {
                let (mode, send_time) = (settings.socket_mode, config.edge.send_time);
                if *direct {
                    let bound = edge::bind_for_tiny_http(address, mode, send_time)?;
                    sockets.direct.push(bound);
                } else {
                    sockets.guarded.push(edge::bind(address, mode)?);
                }
            }
        }
        Ok(sockets)
    }
}

/// A running server.
pub struct Server {
    shared: Arc<WorkerShared>,
    edge: Edge,
    direct: Vec<BoundSocket>,
    queues: Vec<Arc<tiny_http::Server>>,
    workers: Vec<JoinHandle<()>>,
}

/// The state that all workers share.
struct WorkerShared {
    max_body: usize,
    reveal_causes: bool,
    policy: Arc<Policy>,
    trusted_proxies: TrustedProxies,
    app: Arc<App>,
    router: Arc<Router<Handler>>,
    stopping: AtomicBool,
}

impl Server {
    /// Starts to accept connections and to answer requests.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: &Config, sockets: Sockets, parts: Parts) -> io::Result<Server> {
        let router = Arc::new(parts.router);
        let reveal_causes = config.process.environment == Environment::Development;
        let workers = config.process.workers;
        let bell = Arc::new(edge::private_tiny_http()?);
        let (health, policy) = (Arc::clone(&router), Arc::clone(&parts.policy));
        let shared = Arc::new(WorkerShared {
            max_body: config.edge.body,
            reveal_causes,
            policy: Arc::clone(&parts.policy),
            trusted_proxies: config.edge.trusted_proxies.clone(),
            app: parts.app,
            router,
            stopping: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let edge_options = EdgeOptions {
            limits: config.edge.clone(),
            tls: parts.tls,
            self_check: config.process.self_check,
            on_alive: parts.on_alive,
            workers,
            connections: shared.app.store.pool_size(),
            reveal_causes,
            policy: parts.policy,
            immediate: Box::new(move |request, responder| {
                let preflight = policy.preflight(request);
                preflight.or_else(|| dispatch_at_once(&health, request, responder))
            }),
            serve: Box::new(move |request, responder, admit| {
                serve(&serving, request, responder, admit)
            }),
            on_failure: parts.on_failure,
        };
        let edge = Edge::start(edge_options, sockets.guarded, Arc::clone(&bell))?;

        let (all, office) = (workers + edge::reserve(workers), Some(edge.tickets()));
        let mut started = start_workers(&bell, all, &shared, office)?;
        let mut queues = vec![bell];
        let mut direct = Vec::new();
        for (bound, listener) in sockets.direct {
            let queue = tiny_http::Server::from_listener(listener, None);
            let queue = queue.map_err(io::Error::other)?;
            let queue = Arc::new(queue);
            started.extend(start_workers(&queue, workers, &shared, None)?);
            queues.push(queue);
            direct.push(bound);
        }
        Ok(Server {
            shared,
            edge,
            direct,
            queues,
            workers: started,
        })
    }

    /// The addresses it listens on, with the real ports.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let direct = self.direct.iter().map(|bound| &bound.address);
        self.edge.addresses().chain(direct)
    }

    /// The same addresses as URLs.
    pub fn urls(&self) -> Vec<String> {
        let direct = self.direct.iter().map(|bound| bound.address.to_string());
        self.edge.urls().chain(direct).collect()
    }

    /// Loads the TLS certificate again.
    pub fn reload(&self) {
        self.edge.reload();
    }

    /// Stops: accepts no more connections, answers the requests in flight with `Connection: close`, and ends the workers. Returns
    /// whether that was done within `timeout`.
    pub fn stop(self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        for bound in &self.direct {
            bound.close();
        }
        let drained = self.edge.drain(until);
        self.shared.stopping.store(true, Ordering::Relaxed);
        for queue in &self.queues {
            // Wakes one worker, and each wakes the next.
            queue.unblock();
        }
        let left = until.saturating_duration_since(Instant::now());
        holds_within(left, || self.workers.iter().all(JoinHandle::is_finished)) && drained
    }
}

/// Starts workers that sleep in a queue of tiny_http's. With an `office` they take tickets there when they are woken; without one they
/// get clients' requests from the queue.
fn start_workers(
    queue: &Arc<tiny_http::Server>,
    workers: usize,
    shared: &Arc<WorkerShared>,
    office: Option<TicketOffice>,
) -> io::Result<Vec<JoinHandle<()>>> {
    metrics::workers_started(workers);
    let start = |number: usize| {
        let (queue, shared) = (Arc::clone(queue), Arc::clone(shared));
        let office = office.clone();
        let run = move || {
            match office {
                Some(office) => serve_tickets(&queue, &shared, &office),
                None => serve_queue(&queue, &shared),
            }
            // The server stops: wakes the next worker.
            queue.unblock();
        };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(run)
    };
    (0..workers).map(start).collect()
}

fn serve_tickets(bell: &tiny_http::Server, shared: &WorkerShared, office: &TicketOffice) {
    while !shared.stopping.load(Ordering::Relaxed) {
        // Nothing connects to this tiny_http: its queue holds no request, and waiting there ends with an error when it is unblocked.
        drop(bell.recv());
        office.drain();
    }
}

fn serve_queue(queue: &tiny_http::Server, shared: &WorkerShared) {
    let stopping = || shared.stopping.load(Ordering::Relaxed);
    loop {
        let next = if stopping() {
            queue.recv_timeout(QUIET)
        } else {
            queue.recv().map(Some)
        };
        match next {
            Ok(Some(received)) => answer(shared, received, stopping()),
            Ok(None) => break,
            Err(_) if stopping() => queue.unblock(),
            // A direct listener was closed, because the server drains.
            Err(error) => log::debug!("tiny_http has stopped accepting: {error}"),
        }
    }
}

fn answer(shared: &WorkerShared, received: tiny_http::Request, last: bool) {
    let _busy = metrics::Busy::begin();
    if let Some((request, responder)) = tiny_http_connection::receive(received, shared, last) {
        match shared.policy.preflight(&request) {
            Some(response) => responder.answer(Ok(response)),
            // tiny_http itself has queued the request, so the workers are not shared out among users.
            None => drop(serve(shared, &request, responder, &mut |_| true)),
        }
    }
}

/// Answers one request. Returns the responder if the request has to wait.
fn serve(
    shared: &WorkerShared,
    request: &Request,
    responder: Responder,
    admit: &mut Admit,
) -> Option<Responder> {
    // After a panic this request alone is answered 500: unwinding drops the responder, which answers.
    let result = catch_unwind(AssertUnwindSafe(|| {
        dispatch(&shared.app, &shared.router, request, responder, admit)
    }));
    result.unwrap_or_else(|_| {
        log::error!(request_id = request.id.as_str(); "a handler panicked");
        None
    })
}
