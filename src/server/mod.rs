//! Puts the rooms together: listeners, tiny_http, worker threads; start, drain, stop.
//!
//! - `direct`: tiny_http's own connection to a client
//! - `listener`: listening sockets
//!
//! The way of a request: tiny_http queues it; a worker reads it whole, takes tiny_http's writer out of its hands, and lets the
//! router find its handler; the answer leaves through the request's responder in one write.

mod direct;
mod listener;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::dispatch::dispatch;
use crate::api::{App, Handler};
use crate::config::listen::Address;
use crate::http::router::Router;

/// While it stops, a worker that hears nothing for this long takes it that nothing more will come.
const QUIET: Duration = Duration::from_millis(100);

/// What a server needs to know.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: Vec<Address>,
    /// Threads that answer requests, for each address.
    pub workers: usize,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Whether answers of 500 and over say why; for development only.
    pub reveal_causes: bool,
}

/// A server at work.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<listener::Bound>,
    // Ends when every worker has.
    finished: Receiver<()>,
}

/// What all workers of all addresses share.
struct Shared {
    options: Options,
    app: Arc<App>,
    router: Router<Handler>,
    stopping: AtomicBool,
}

impl Server {
    /// Starts to listen and to answer.
    ///
    /// # Errors
    /// An address cannot be listened on, or a thread cannot be started; the text names the address.
    pub fn start(options: Options, app: Arc<App>, router: Router<Handler>) -> io::Result<Server> {
        let addresses = options.listen.clone();
        let shared = Arc::new(Shared {
            options,
            app,
            router,
            stopping: AtomicBool::new(false),
        });
        let (alive, finished) = mpsc::channel();
        let mut listeners = Vec::new();
        for address in &addresses {
            let (bound, listener) = listener::bind(address)?;
            listeners.push(bound);
            let server =
                tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
            let server = Arc::new(server);
            for number in 0..shared.options.workers {
                let (server, shared, alive) =
                    (Arc::clone(&server), Arc::clone(&shared), alive.clone());
                thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || work(&server, &shared, &alive))?;
            }
        }
        Ok(Server {
            shared,
            listeners,
            finished,
        })
    }

    /// Where it listens, with the ports it was given.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|bound| &bound.address)
    }

    /// Stops: accepts no more connections, answers the requests in flight with `Connection: close`, and ends.
    ///
    /// Answers whether everything was done within `timeout`.
    pub fn stop(self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        self.shared.stopping.store(true, Ordering::Relaxed);
        for bound in &self.listeners {
            // Ends tiny_http's accepting, which wakes one worker of that address, and each wakes the next.
            bound.close();
        }
        loop {
            match self
                .finished
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

fn work(server: &tiny_http::Server, shared: &Shared, _alive: &Sender<()>) {
    let stopping = || shared.stopping.load(Ordering::Relaxed);
    loop {
        let next = if stopping() {
            server.recv_timeout(QUIET)
        } else {
            server.recv().map(Some)
        };
        match next {
            Ok(Some(request)) => answer(shared, request, stopping()),
            Ok(None) => break,
            Err(_) if stopping() => server.unblock(),
            Err(error) => log::error!("accepting connections has ended: {error}"),
        }
    }
    server.unblock();
}

fn answer(shared: &Shared, request: tiny_http::Request, last: bool) {
    let Some((request, responder)) = direct::receive(request, &shared.options, last) else {
        return;
    };
    // A panic is a 500 for this request alone: unwinding drops the responder, and that answers.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        dispatch(&shared.app, &shared.router, &request, responder)
    }));
    if outcome.is_err() {
        log::error!("a handler panicked request_id={}", request.id.as_str());
    }
}
