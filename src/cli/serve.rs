//! `todo-api serve`: the server, from start to stop.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::first_steps::first_steps;
use super::signals::{Signal, take_signals};
use super::upkeep::Upkeep;
use super::{Failure, setup, supervisor};
use crate::api::App;
use crate::api::limits::Limits;
use crate::api::routes::routes;
use crate::auth::guard::Guard;
use crate::auth::guessing::Guessing;
use crate::auth::hashing::Crew;
use crate::auth::issuer::Issuer;
use crate::auth::jwks::{Keys, Timing};
use crate::auth::token::Verifier;
use crate::config::{Config, Environment};
use crate::edge::tls::Tls;
use crate::http::policy::Policy;
use crate::http::router::Router;
use crate::local_postgres::LocalPostgres;
use crate::logging;
use crate::server::{Options, Server};
use crate::store::Store;
use crate::store::opening::{OpenError, Opened};

/// Between two tries to reach the database at start.
const RETRY: Duration = Duration::from_secs(1);
/// A store that is not open yet, and the private PostgreSQL behind it where there is one.
type Prepared = (Store, Option<LocalPostgres>);

/// What the main thread waits for, from the start on.
enum Event {
    /// SIGTERM, SIGINT or the end of the terminal, by the signal's name.
    Stop(&'static str),
    /// SIGHUP where no terminal is.
    Reload,
    /// A private PostgreSQL runs, where one is needed, or does not start.
    Prepared(Box<Result<Prepared, Failure>>),
    /// The database is there and has our tables, or never will.
    Opened(Result<Opened, String>),
    /// The server cannot go on.
    Failed(String),
}

impl From<Signal> for Event {
    fn from(signal: Signal) -> Event {
        match signal {
            Signal::Stop(name) => Event::Stop(name),
            Signal::Reload => Event::Reload,
        }
    }
}

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), Failure> {
    setup::logging(config);
    logging::log_panics();
    // Before anything is started, so that no signal finds us half made.
    let (events, inbox) = mpsc::channel();
    let signals = events.clone();
    // Nobody listens only when the process is about to end.
    take_signals(move |signal| drop(signals.send(signal.into())))
        .map_err(|error| Failure::Failed(format!("cannot take signals: {error}")))?;
    raise_descriptor_limit(config);
    if let Some(file) = &config.env_file {
        log::info!("settings are also read from {}", file.display());
    }
    supervisor::starting(config.startup_timeout);

    let tls = config
        .tls
        .as_ref()
        .map(|(certificate, key)| Tls::load(certificate, key))
        .transpose()
        .map_err(Failure::Failed)?;
    let secret = setup::signing_secret(config)?;
    let verifier = verifier(config, &secret)?;
    let Some((store, private)) = prepare(config, &events, &inbox)? else {
        log::info!("stopped");
        return Ok(());
    };
    let (accounts, visitors) = (&config.accounts, &config.visitors);
    let no_thread = |error: io::Error| Failure::Failed(format!("cannot start a thread: {error}"));
    let app = Arc::new(App {
        store,
        guard: Guard::new(verifier),
        limits: Limits::new(visitors.requests_per_user, visitors.requests_per_address),
        issuer: Issuer::new(&secret, config.token_lifetime, accounts.refresh_lifetime),
        hashing: Crew::for_hashing().map_err(no_thread)?,
        finishing: Crew::for_finishing().map_err(no_thread)?,
        guessing: Arc::new(Guessing::new(&accounts.limits)),
        metrics: visitors.metrics.clone(),
        registration_is_open: accounts.registration_is_open,
    });
    let options = Options {
        listen: config.listen.clone(),
        inherit: config.activated,
        socket_mode: config.socket_mode,
        workers: config.workers,
        limits: config.limits.clone(),
        tls: tls.map(Arc::new),
        self_check: self_check(config)?,
        on_alive: Arc::new(supervisor::alive),
        reveal_causes: config.environment == Environment::Development,
        policy: Arc::new(Policy::new(
            &config.visitors.origins,
            Some(config.visitors.tls_alone),
        )),
    };
    open_in_background(events.clone(), &app, config.startup_timeout)?;
    if config.activated {
        // Whoever knocks at a socket that systemd holds can wait there; so nobody is turned away while one server follows another.
        supervisor::waiting_for_database();
        let Some(opened) = wait_for_database(&inbox)? else {
            log::info!("stopped");
            return Ok(());
        };
        // It cannot be lost: this thread is the one that listens.
        let _ = events.send(Event::Opened(Ok(opened)));
    }
    let failures = events.clone();
    let on_failure = Box::new(move |reason| drop(failures.send(Event::Failed(reason))));
    let server = Server::start(options, Arc::clone(&app), Router::new(routes()), on_failure)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let addresses = server.urls();
    log::info!(
        "todo-api {} listens on {}",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", ")
    );
    if !config.activated {
        supervisor::waiting_for_database();
    }

    let upkeep = Upkeep::start(&app).map_err(no_thread)?;
    let reload = || {
        server.reload();
        app.guard.reload();
        setup::read_log_level_again(config);
    };
    let outcome = wait_for_stop(&inbox, reload, |opened| {
        announce(config, opened, &addresses, private.is_some());
    });
    drop(upkeep);
    supervisor::stopping(config.shutdown_timeout);
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

/// What checks bearer tokens: with the secret, and with the keys of others where they are configured.
fn verifier(config: &Config, secret: &str) -> Result<Verifier, Failure> {
    let previous = config
        .previous_secret
        .as_ref()
        .map(|secret| secret.expose());
    let verifier = Verifier::new(secret, previous).expecting(config.tokens.expected.clone());
    let Some(location) = &config.tokens.key_set else {
        return Ok(verifier);
    };
    if config.tokens.expected.audiences.is_empty() {
        log::warn!(
            "JWT_AUDIENCE is not set: tokens that the owner of the key set in {location} makes for other services are accepted here too"
        );
    }
    Keys::load(location, Timing::default())
        .map(|keys| verifier.trusting(keys))
        .map_err(|problem| Failure::Failed(format!("{location}: {problem}")))
}

/// Does what may take long on a thread of its own, so that signals are heard meanwhile, and tells what came of it.
fn in_background(
    events: Sender<Event>,
    work: impl FnOnce() -> Event + Send + 'static,
) -> Result<(), Failure> {
    thread::Builder::new()
        .name("start".to_owned())
        // Where nobody listens any more, the process is about to end.
        .spawn(move || drop(events.send(work())))
        .map(drop)
        .map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))
}

fn open_in_background(
    events: Sender<Event>,
    app: &Arc<App>,
    timeout: Duration,
) -> Result<(), Failure> {
    let app = Arc::clone(app);
    in_background(events, move || {
        let opened = open_store(&app.store, timeout);
        if opened.is_ok() {
            // Where it fails, the first request tries again and tells.
            let _ = app.guard.warm_up(&app.store);
        }
        Event::Opened(opened)
    })
}

/// Waits until the database is there; `None` when a signal asked to stop before.
fn wait_for_database(inbox: &Receiver<Event>) -> Result<Option<Opened>, Failure> {
    loop {
        match inbox.recv() {
            Ok(Event::Opened(Ok(opened))) => return Ok(Some(opened)),
            Ok(Event::Opened(Err(reason)) | Event::Failed(reason)) => {
                return Err(Failure::Failed(reason));
            }
            Ok(Event::Stop(signal)) => {
                log::info!("{signal} received before the database was there");
                return Ok(None);
            }
            Ok(Event::Reload | Event::Prepared(_)) => {}
            Err(_) => return Err(deaf()),
        }
    }
}

/// Makes the store and starts the private PostgreSQL where one is needed, which takes seconds, or minutes where it has to recover.
/// `None` when a signal asked to stop meanwhile.
fn prepare(
    config: &Config,
    events: &Sender<Event>,
    inbox: &Receiver<Event>,
) -> Result<Option<Prepared>, Failure> {
    let settings = config.clone();
    in_background(events.clone(), move || {
        Event::Prepared(Box::new(setup::store(&settings)))
    })?;
    let mut stop_by = None;
    loop {
        let event = match stop_by {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(by) => inbox.recv_timeout(Instant::saturating_duration_since(&by, Instant::now())),
        };
        match event {
            Ok(Event::Prepared(prepared)) if stop_by.is_none() => return prepared.map(Some),
            // What has started is dropped, and with it stopped.
            Ok(Event::Prepared(_)) => return Ok(None),
            Ok(Event::Stop(signal)) => {
                log::info!("{signal} received: stopping PostgreSQL as soon as it has started");
                supervisor::stopping(config.shutdown_timeout);
                stop_by = Some(Instant::now() + config.shutdown_timeout);
            }
            Err(RecvTimeoutError::Timeout) => {
                log::warn!("the private PostgreSQL is left behind; the next start finds it");
                return Ok(None);
            }
            Ok(Event::Failed(reason)) => return Err(Failure::Failed(reason)),
            Ok(Event::Reload | Event::Opened(_)) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(deaf()),
        }
    }
}

fn deaf() -> Failure {
    Failure::Failed("signals are taken no more".to_owned())
}

fn raise_descriptor_limit(config: &Config) {
    if let (Some(allowed), wanted) = setup::descriptors(config)
        && allowed < wanted
    {
        log::warn!(
            "{allowed} descriptors are allowed, and MAX_CONNECTIONS needs {wanted}: raise the limit (ulimit -n, LimitNOFILE=), or lower MAX_CONNECTIONS"
        );
    }
}

/// How often the server checks itself: as it is set, but twice in a watchdog's time at least.
fn self_check(config: &Config) -> Result<Duration, Failure> {
    let Some(watchdog) = supervisor::watchdog() else {
        return Ok(config.self_check);
    };
    if !config.activated && config.listen.iter().all(|listen| listen.direct) {
        return Err(Failure::Failed(
            "LISTEN names direct: addresses alone, where the server cannot check itself for systemd's watchdog: name another, or remove WatchdogSec= from the unit"
                .to_owned(),
        ));
    }
    Ok(match config.self_check {
        Duration::ZERO => watchdog / 2,
        often => often.min(watchdog / 2),
    })
}

/// Waits for the end; tells of the database when it is there.
fn wait_for_stop(
    inbox: &Receiver<Event>,
    reload: impl Fn(),
    announce: impl Fn(&Opened),
) -> Result<(), Failure> {
    let mut ready = false;
    loop {
        match inbox.recv() {
            Ok(Event::Stop(signal)) => {
                log::info!("{signal} received: finishing what is in flight");
                return Ok(());
            }
            Ok(Event::Reload) => {
                // Who is not ready yet must not say so by the way.
                if ready {
                    supervisor::reloading();
                }
                reload();
                if ready {
                    supervisor::reloaded();
                }
            }
            Ok(Event::Opened(Ok(opened))) => {
                ready = true;
                announce(&opened);
                supervisor::ready(&format!(
                    "ready: PostgreSQL {}, schema version {}",
                    opened.server_version, opened.schema_version
                ));
            }
            Ok(Event::Opened(Err(reason)) | Event::Failed(reason)) => {
                return Err(Failure::Failed(reason));
            }
            Ok(Event::Prepared(_)) => {}
            Err(_) => return Err(deaf()),
        }
    }
}

/// Opens the store, trying again while the database is late.
fn open_store(store: &Store, timeout: Duration) -> Result<Opened, String> {
    let until = Instant::now() + timeout;
    loop {
        let problem = match store.open(until) {
            Ok(opened) => return Ok(opened),
            Err(OpenError::Refused(problem)) => return Err(problem),
            Err(OpenError::Unreachable(problem)) => problem,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!(
                "the database could not be reached within {} s: {problem}; check DATABASE_URL, and that PostgreSQL runs and lets this machine in",
                timeout.as_secs_f64()
            ));
        }
        log::warn!(
            "waiting for the database, {:.0} s more: {problem}",
            left.as_secs_f64().ceil()
        );
        thread::sleep(RETRY.min(left));
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
        // Whoever has closed standard output does not want to read this.
        let _ = io::stdout().write_all(first_steps(config, address).as_bytes());
    }
}
