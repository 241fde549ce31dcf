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
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::dispatch::{dispatch, dispatch_at_once};
use crate::api::{App, Handler};
use crate::config::EdgeLimits;
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

/// What a server needs to know.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Sockets handed over by systemd come in its place.
    pub listen: Vec<Listen>,
    /// Whether to look for sockets handed over by systemd.
    pub inherit: bool,
    /// Mode of the files of Unix sockets.
    pub socket_mode: u32,
    /// Threads that answer requests.
    pub workers: usize,
    /// What a stranger may take of us.
    pub limits: EdgeLimits,
    /// Certificates, where TCP speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// How often the server checks itself; zero: never.
    pub self_check: Duration,
    /// Hears of every such check that went well.
    pub on_alive: OnAlive,
    /// Whether answers of 500 and over say why; for development only.
    pub reveal_causes: bool,
    /// What browsers are told with every answer.
    pub policy: Arc<Policy>,
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
    /// Starts to listen and to answer. What makes it impossible to go on is told to `on_failure`.
    ///
    /// # Errors
    /// An address cannot be listened on, or a thread cannot be started; the text names the address.
    pub fn start(
        options: Options,
        app: Arc<App>,
        router: Router<Handler>,
        on_failure: OnFailure,
    ) -> io::Result<Server> {
        let router = Arc::new(router);
        let mut guarded = if options.inherit {
            edge::inherited()?
        } else {
            Vec::new()
        };
        let mut direct = Vec::new();
        if guarded.is_empty() {
            for Listen {
                address,
                direct: trusted,
            } in &options.listen
            {
                if *trusted {
                    direct.push(edge::bind_for_tiny_http(
                        address,
                        options.socket_mode,
                        options.limits.send_time,
                    )?);
                } else {
                    guarded.push(edge::bind(address, options.socket_mode)?);
                }
            }
        }
        let (queue, line) = edge::private_tiny_http()?;
        let shared = Arc::new(Shared {
            max_body: options.limits.body,
            reveal_causes: options.reveal_causes,
            policy: Arc::clone(&options.policy),
            trusted_proxies: options.limits.trusted_proxies.clone(),
            app,
            router: Arc::clone(&router),
            stopping: AtomicBool::new(false),
        });
        let edge_options = edge::Options {
            limits: options.limits,
            tls: options.tls,
            self_check: options.self_check,
            on_alive: options.on_alive,
            workers: options.workers,
            connections: shared.app.store.pool_size(),
            reveal_causes: options.reveal_causes,
            policy: options.policy,
        };
        let immediate = AtOnce {
            router,
            policy: Arc::clone(&shared.policy),
        };
        let edge = Edge::start(edge_options, guarded, line, Box::new(immediate), on_failure)?;

        let (alive, finished) = mpsc::channel();
        let mut queues = Vec::new();
        let mut staff =
            |queue: tiny_http::Server, workers: usize, source: Source| -> io::Result<()> {
                let queue = Arc::new(queue);
                metrics::workers_started(workers);
                for number in 0..workers {
                    let (queue, shared, alive, source) = (
                        Arc::clone(&queue),
                        Arc::clone(&shared),
                        alive.clone(),
                        source.clone(),
                    );
                    thread::Builder::new()
                        .name(format!("worker-{number}"))
                        .spawn(move || {
                            let _alive = alive;
                            work(&queue, &shared, &source);
                        })?;
                }
                queues.push(queue);
                Ok(())
            };
        let workers = options.workers;
        staff(
            queue,
            workers + edge::reserve(workers),
            Source::Tickets(edge.tickets()),
        )?;
        let mut bounds = Vec::new();
        for (bound, listener) in direct {
            staff(
                tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?,
                workers,
                Source::Direct,
            )?;
            bounds.push(bound);
        }
        Ok(Server {
            shared,
            edge,
            direct: bounds,
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
