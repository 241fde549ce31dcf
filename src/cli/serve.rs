//! `todo-api serve`: the server, from start to stop.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, setup};
use crate::api::App;
use crate::api::routes::routes;
use crate::auth::token::Verifier;
use crate::config::{Config, Environment};
use crate::edge::tls::Tls;
use crate::http::router::Router;
use crate::logging;
use crate::server::{Options, Server};
use crate::store::Store;
use crate::store::migrations::{OpenError, Opened};

/// Between two tries to reach the database at start.
const RETRY: Duration = Duration::from_secs(1);
/// Descriptors beside connections: the pool's, listening sockets, log, event loops.
const SPARE_DESCRIPTORS: u64 = 64;

/// What the server waits for while it serves.
enum Event {
    /// SIGTERM or SIGINT, by name.
    Stop(&'static str),
    /// SIGHUP.
    Reload,
    /// It cannot go on.
    Failed(String),
}

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    logging::init(
        environment("RUST_LOG").as_deref(),
        environment("LOG_LEVEL").as_deref(),
    )
    .map_err(Failure::Failed)?;
    logging::log_panics();
    // Before anything is started, so that no signal finds us half made.
    let (events, inbox) = mpsc::channel();
    take_signals(events.clone())
        .map_err(|error| Failure::Failed(format!("cannot take signals: {error}")))?;
    raise_descriptor_limit(config);

    let tls = config
        .tls
        .as_ref()
        .map(|(certificate, key)| Tls::load(certificate, key))
        .transpose()
        .map_err(Failure::Failed)?;
    let secret = setup::signing_secret(config)?;
    let verifier = Verifier::new(
        &secret,
        config
            .previous_secret
            .as_ref()
            .map(|secret| secret.expose()),
    );
    let (store, private) = setup::store(config)?;
    let app = Arc::new(App { store, verifier });
    let options = Options {
        listen: config.listen.clone(),
        inherit: config.activated,
        socket_mode: config.socket_mode,
        workers: config.workers,
        limits: config.limits.clone(),
        tls: tls.map(Arc::new),
        self_check: config.self_check,
        reveal_causes: config.environment == Environment::Development,
    };
    let on_failure = Box::new(move |reason| drop(events.send(Event::Failed(reason))));
    let server = Server::start(options, Arc::clone(&app), Router::new(routes()), on_failure)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let addresses: Vec<String> = server.addresses().map(ToString::to_string).collect();
    log::info!(
        "todo-api {} listens on {}",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", ")
    );

    let outcome =
        open_store(&app.store, config.startup_timeout, &inbox).and_then(|opened| match opened {
            Some(opened) => {
                announce(config, &opened, &addresses, private.is_some());
                wait_for_stop(&server, &inbox)
            }
            None => Ok(()),
        });
    if outcome.is_ok() && !server.stop(config.shutdown_timeout) {
        log::warn!(
            "some requests did not finish within {} s",
            config.shutdown_timeout.as_secs_f64()
        );
    }
    // The last owner closes the connections of the pool, and then PostgreSQL may stop.
    drop(app);
    drop(private);
    log::info!("stopped");
    outcome
}

/// Turns signals into events.
fn take_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let forward = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => Event::Reload,
                SIGINT => Event::Stop("SIGINT"),
                _ => Event::Stop("SIGTERM"),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(forward)
        .map(drop)
}

/// A connection is a descriptor, and the limit a shell gives is mostly lower than the one it may give.
fn raise_descriptor_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    // It fails only where the system forbids what it says is allowed; the check below then tells.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let wanted = config.limits.connections as u64 + u64::from(config.pool_size) + SPARE_DESCRIPTORS;
    if let Some(allowed) = getrlimit(Resource::Nofile)
        .current
        .filter(|allowed| *allowed < wanted)
    {
        log::warn!(
            "{allowed} descriptors are allowed, and MAX_CONNECTIONS needs {wanted}: raise the limit (ulimit -n, LimitNOFILE=), or lower MAX_CONNECTIONS"
        );
    }
}

fn wait_for_stop(server: &Server, inbox: &Receiver<Event>) -> Result<(), Failure> {
    loop {
        match inbox.recv() {
            Ok(Event::Stop(signal)) => {
                log::info!("{signal} received: finishing what is in flight");
                return Ok(());
            }
            Ok(Event::Reload) => server.reload(),
            Ok(Event::Failed(reason)) => return Err(Failure::Failed(reason)),
            Err(_) => return Err(Failure::Failed("signals are taken no more".to_owned())),
        }
    }
}

/// Opens the store, trying again while the database is late. `None` when a signal asked to stop meanwhile.
fn open_store(
    store: &Store,
    timeout: Duration,
    inbox: &Receiver<Event>,
) -> Result<Option<Opened>, Failure> {
    let until = Instant::now() + timeout;
    loop {
        let problem = match store.open() {
            Ok(opened) => return Ok(Some(opened)),
            Err(OpenError::Refused(problem)) => return Err(Failure::Failed(problem)),
            Err(OpenError::Unreachable(problem)) => problem,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Failed(format!(
                "the database could not be reached within {} s: {problem}; check DATABASE_URL, and that PostgreSQL runs and lets this machine in",
                timeout.as_secs_f64()
            )));
        }
        log::warn!(
            "waiting for the database, {:.0} s more: {problem}",
            left.as_secs_f64()
        );
        match inbox.recv_timeout(RETRY.min(left)) {
            Ok(Event::Stop(_)) => return Ok(None),
            Ok(Event::Failed(reason)) => return Err(Failure::Failed(reason)),
            Ok(Event::Reload) | Err(_) => {}
        }
    }
}

/// Says what is there and, in development, how to try it.
fn announce(config: &Config, opened: &Opened, addresses: &[String], private: bool) {
    if !opened.applied.is_empty() {
        log::info!("migrations applied: {}", opened.applied.join(", "));
    }
    let place = match &config.database {
        Some(target) => format!("{} at {}", target.database(), target.host()),
        None => format!("private, in {}", config.data_dir.display()),
    };
    log::info!(
        "ready: PostgreSQL {} ({place}), schema {} at version {}, {} workers",
        opened.server_version,
        config.schema.as_str(),
        opened.schema_version,
        config.workers
    );
    if let (true, Some(address)) = (
        private,
        addresses.iter().find(|address| address.starts_with("http")),
    ) {
        println!(
            "\ntodo-api is at {address}; its data lies in {data}. To try it, paste in another terminal:\n\n  \
             export TOKEN=$({token} token --user me)\n  \
             curl -X POST {address}/api/tasks -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"title\": \"Buy milk\"}}'\n  \
             curl {address}/api/tasks -H \"Authorization: Bearer $TOKEN\"\n",
            data = config.data_dir.display(),
            token = this_program(config),
        );
    }
}

/// How this program is called from a shell in the same directory, with what a token depends on.
fn this_program(config: &Config) -> String {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "todo-api".to_owned());
    if std::env::var_os("DATA_DIR").is_some() {
        format!("DATA_DIR={} {program}", config.data_dir.display())
    } else {
        program
    }
}
