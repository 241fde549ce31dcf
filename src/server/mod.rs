//! Puts the rooms together: the edge, tiny_http, worker threads; start, drain, stop.
//!
//! - `tiny_http_connection`: tiny_http's own connection to a client
//!
//! The way of a request: the edge reads it whole and hands it over as a ticket; tiny_http queues the ticket; a worker takes it
//! and lets the router find its handler; the answer leaves through the request's responder in one write. Where an address is
//! marked `direct:`, tiny_http reads the request itself and everything after that is the same.

mod tiny_http_connection;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::api::dispatch::{dispatch, dispatch_at_once};
use crate::api::{App, Handler};
use crate::config::{Config, Environment};
use crate::domain::address::{Address, Listen};
use crate::domain::networks::TrustedProxies;
use crate::edge::tls::Tls;
use crate::edge::{self, Bound, Edge, Immediate, OnAlive, OnFailure, TicketOffice};
use crate::http::policy::Policy;
use crate::http::request::Request;
use crate::http::responder::{Admission, Responder};
use crate::http::response::Response;
use crate::http::router::Router;
use crate::metrics;

/// While it stops, a worker that hears nothing for this long takes it that nothing more will come.
const QUIET: Duration = Duration::from_millis(100);

/// What a server is made of, beside its settings.
pub struct Parts {
    /// What the handlers work with.
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

/// Sockets that are bound. Clients wait in them until the server starts.
pub struct Sockets {
    guarded: Vec<(Bound, Socket)>,
    direct: Vec<(Bound, tiny_http::Listener)>,
}

impl Sockets {
    /// Takes the sockets that systemd has handed over or, without any, binds the addresses of `LISTEN`.
    ///
    /// # Errors
    /// An address cannot be bound; the text names it.
    pub fn bind(config: &Config) -> io::Result<Sockets> {
        let settings = &config.listening;
        let mut sockets = Sockets {
            guarded: Vec::new(),
            direct: Vec::new(),
        };
        if config.origin.activated {
            sockets.guarded = edge::inherited()?;
        }
        if sockets.guarded.is_empty() {
            for Listen { address, direct } in &settings.addresses {
                let mode = settings.socket_mode;
                if *direct {
                    sockets.direct.push(edge::bind_for_tiny_http(
                        address,
                        mode,
                        config.edge.send_time,
                    )?);
                } else {
                    sockets.guarded.push(edge::bind(address, mode)?);
                }
            }
        }
        Ok(sockets)
    }
}

/// A server at work.
pub struct Server {
    shared: Arc<Shared>,
    edge: Edge,
    direct: Vec<Bound>,
    queues: Vec<Arc<tiny_http::Server>>,
    // Ends when every worker has.
    finished: Receiver<()>,
}

/// What all workers share.
struct Shared {
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
        let (queue, line) = edge::private_tiny_http()?;
        let edge_options = edge::Options {
            limits: config.edge.clone(),
            tls: parts.tls,
            self_check: config.process.self_check,
            on_alive: parts.on_alive,
            workers,
            connections: parts.app.store.pool_size(),
            reveal_causes,
            policy: Arc::clone(&parts.policy),
        };
        let immediate = Box::new(AtOnce {
            router: Arc::clone(&router),
            policy: Arc::clone(&parts.policy),
        });
        let shared = Arc::new(Shared {
            max_body: config.edge.body,
            reveal_causes,
            policy: parts.policy,
            trusted_proxies: config.edge.trusted_proxies.clone(),
            app: parts.app,
            router,
            stopping: AtomicBool::new(false),
        });
        let edge = Edge::start(
            edge_options,
            sockets.guarded,
            line,
            immediate,
            parts.on_failure,
        )?;

        let (alive, finished) = mpsc::channel();
        let source = Source::Tickets(edge.tickets());
        let staff = workers + edge::reserve(workers);
        let mut queues = vec![start_workers(queue, staff, &shared, &source, &alive)?];
        let mut direct = Vec::new();
        for (bound, listener) in sockets.direct {
            let queue =
                tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
            queues.push(start_workers(
                queue,
                workers,
                &shared,
                &Source::Direct,
                &alive,
            )?);
            direct.push(bound);
        }
        Ok(Server {
            shared,
            edge,
            direct,
            queues,
            finished,
        })
    }

    /// Where it listens, with the ports it was given.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.edge
            .addresses()
            .chain(self.direct.iter().map(|bound| &bound.address))
    }

    /// Where it listens, as clients write it.
    pub fn urls(&self) -> Vec<String> {
        let direct = self.direct.iter().map(|bound| bound.address.to_string());
        self.edge.urls().chain(direct).collect()
    }

    /// Loads the TLS certificate again.
    pub fn reload(&self) {
        self.edge.reload();
    }

    /// Stops: accepts no more connections, answers the requests in flight with `Connection: close`, and ends.
    ///
    /// Answers whether everything was done within `timeout`.
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
        loop {
            match self
                .finished
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return drained,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// What tiny_http's requests are.
#[derive(Clone)]
enum Source {
    /// Calls for tickets.
    Tickets(TicketOffice),
    /// What a client has sent.
    Direct,
}

/// What needs no worker.
struct AtOnce {
    router: Arc<Router<Handler>>,
    policy: Arc<Policy>,
}

impl Immediate for AtOnce {
    fn answer(&self, request: &Request, responder: &mut Responder) -> Option<Response> {
        self.policy
            .preflight(request)
            .or_else(|| dispatch_at_once(&self.router, request, responder))
    }
}

/// Starts workers on a queue. Each holds a copy of `alive` until it ends.
fn start_workers(
    queue: tiny_http::Server,
    workers: usize,
    shared: &Arc<Shared>,
    source: &Source,
    alive: &Sender<()>,
) -> io::Result<Arc<tiny_http::Server>> {
    let queue = Arc::new(queue);
    metrics::workers_started(workers);
    for number in 0..workers {
        let (queue, shared) = (Arc::clone(&queue), Arc::clone(shared));
        let (source, alive) = (source.clone(), alive.clone());
        let run = move || {
            let _alive = alive;
            work(&queue, &shared, &source);
        };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(run)?;
    }
    Ok(queue)
}

fn work(queue: &tiny_http::Server, shared: &Shared, source: &Source) {
    let stopping = || shared.stopping.load(Ordering::Relaxed);
    loop {
        let next = if stopping() {
            queue.recv_timeout(QUIET)
        } else {
            queue.recv().map(Some)
        };
        match next {
            Ok(Some(request)) => answer(shared, source, request, stopping()),
            Ok(None) => break,
            Err(_) if stopping() => queue.unblock(),
            // The end of a direct listener, while the server drains.
            Err(error) => log::debug!("tiny_http has stopped accepting: {error}"),
        }
    }
    queue.unblock();
}

fn answer(shared: &Shared, source: &Source, called: tiny_http::Request, last: bool) {
    let _busy = metrics::Busy::begin();
    match source {
        Source::Tickets(office) => {
            // Dropped unused: tiny_http has nothing to say on the private connection.
            drop(called.into_writer());
            office.drain(|request, responder, turn| serve(shared, request, responder, turn));
        }
        Source::Direct => {
            let Some((request, responder)) = tiny_http_connection::receive(called, shared, last)
            else {
                return;
            };
            if let Some(response) = shared.policy.preflight(&request) {
                return responder.answer(Ok(response));
            }
            serve(
                shared,
                &request,
                responder,
                &mut tiny_http_connection::AdmitAll,
            );
        }
    }
}

/// Answers one request. The responder comes back when the request has to wait.
fn serve(
    shared: &Shared,
    request: &Request,
    responder: Responder,
    admission: &mut dyn Admission,
) -> Option<Responder> {
    // A panic is a 500 for this request alone: unwinding drops the responder, and that answers.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        dispatch(&shared.app, &shared.router, request, responder, admission)
    }));
    outcome.unwrap_or_else(|_| {
        log::error!(request_id = request.id.as_str(); "a handler panicked");
        None
    })
}
