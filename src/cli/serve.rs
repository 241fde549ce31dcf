//! `todo-api serve`: the server, from start to stop.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use super::build::{app, no_thread, options};
use super::first_steps::first_steps;
use super::opening::open_in_background;
use super::signals::{Signal, take_signals};
use super::upkeep::Upkeep;
use super::{Call, Command, Failure, setup, supervisor};
use crate::api::App;
use crate::api::routes::routes;
use crate::config::Config;
use crate::http::router::Router;
use crate::local_postgres::{LocalPostgres, Supervised};
use crate::logging;
use crate::server::{Options, Server};
use crate::store::Store;
use crate::store::connector::Target;
use crate::store::opening::Opened;

pub const COMMAND: Command = Command {
    usage: "serve",
    about: "Answer requests (the default); makes a private PostgreSQL if no database is set",
    help: "",
    run,
};

/// What the main thread waits for.
pub enum Event {
    /// SIGTERM, SIGINT or the end of the terminal, by the signal's name.
    Stop(&'static str),
    /// SIGHUP without a terminal.
    Reload,
    /// The private PostgreSQL has started.
    PrivateStarted(LocalPostgres),
    /// The store is open, or will never be.
    Opened(Result<Opened, String>),
    /// The server cannot continue.
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

/// A server from start to stop, as the main thread has it.
struct Service<'c> {
    config: &'c Config,
    target: Target,
    app: Arc<App>,
    /// Taken when the server starts to listen.
    options: Option<Options>,
    server: Option<Server>,
    private: Option<Supervised>,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    /// Whether the thread that opens the database is at work.
    opening: bool,
}

/// Serves until SIGTERM or SIGINT.
fn run(call: &Call) -> Result<(), Failure> {
    let config = &call.config()?;
    setup::logging(config);
    logging::log_panics();
    // Before anything is started, so that every signal is handled.
    let (events, inbox) = mpsc::channel();
    let signals = events.clone();
    // The receiver is gone only when the process is about to end.
    take_signals(move |signal| drop(signals.send(signal.into())))
        .map_err(|error| format!("cannot take signals: {error}"))?;
    if let Err(problem) = setup::raise_descriptor_limit(config) {
        log::warn!("{problem}");
    }
    if let Some(file) = &config.origin.env_file {
        log::info!("settings are also read from {}", file.display());
    }
    supervisor::starting(config.process.startup_timeout);

    let options = Some(options(config)?);
    let secret = setup::signing_secret(config)?;
    let settings = setup::store_settings(config)?;
    let mut service = Service {
        config,
        target: settings.target.clone(),
        app: Arc::new(app(config, &secret, Store::new(settings))?),
        options,
        server: None,
        private: None,
        events,
        inbox,
        opening: true,
    };
    // With sockets of systemd, clients wait there until the database is open: none is refused while one server follows another.
    if !config.origin.activated {
        service.listen()?;
    }
    supervisor::waiting_for_database();
    open_in_background(config, &service.app, &service.events)?;
    let upkeep = Upkeep::start(&service.app).map_err(no_thread)?;
    let outcome = service.wait_for_stop();
    drop(upkeep);
    service.stop(outcome.is_ok());
    outcome
}

impl Service<'_> {
    /// Ends the process with a reason.
    fn on_failure(&self) -> impl Fn(String) + Send + Sync + 'static {
        let events = self.events.clone();
        move |reason| drop(events.send(Event::Failed(reason)))
    }

    fn listen(&mut self) -> Result<(), Failure> {
        let Some(options) = self.options.take() else {
            return Ok(());
        };
        let (on_failure, router) = (Box::new(self.on_failure()), Router::new(routes()));
        let server = Server::start(options, Arc::clone(&self.app), router, on_failure)
            .map_err(|error| error.to_string())?;
        log::info!(
            "todo-api {} listens on {}",
            env!("CARGO_PKG_VERSION"),
            server.urls().join(", ")
        );
        self.server = Some(server);
        Ok(())
    }

    /// Handles events until a signal asks to stop.
    fn wait_for_stop(&mut self) -> Result<(), Failure> {
        let mut ready = false;
        loop {
            match self.inbox.recv() {
                Ok(Event::Stop(signal)) => {
                    log::info!("{signal} received: finishing what is in flight");
                    return Ok(());
                }
                Ok(Event::Reload) => {
                    // The end of a reload says READY=1, which must not be said before the server is ready.
                    if ready {
                        supervisor::reloading();
                    }
                    self.reload();
                    if ready {
                        supervisor::reloaded();
                    }
                }
                Ok(Event::PrivateStarted(private)) => {
                    let supervised = Supervised::start(private, self.on_failure());
                    self.private = Some(supervised.map_err(no_thread)?);
                }
                Ok(Event::Opened(opened)) => {
                    self.opening = false;
                    let opened = opened?;
                    self.listen()?;
                    self.announce(&opened);
                    ready = true;
                }
                Ok(Event::Failed(reason)) => return Err(reason.into()),
                Err(_) => return Err("the thread for signals has ended".to_owned().into()),
            }
        }
    }

    fn reload(&self) {
        if let Some(server) = &self.server {
            server.reload();
        }
        self.app.guard.reload();
        setup::read_log_level_again(self.config);
    }

    /// Ends the server, closes the store and stops the private PostgreSQL. `drain`: requests in flight are answered before.
    fn stop(mut self, drain: bool) {
        let timeout = self.config.process.shutdown_timeout;
        let until = Instant::now() + timeout;
        supervisor::stopping(timeout);
        // A private PostgreSQL needs some of the time for itself.
        let for_requests = match self.private {
            Some(_) => timeout.mul_f64(0.75),
            None => timeout,
        };
        if let (true, Some(server)) = (drain, self.server.take())
            && !server.stop(for_requests)
        {
            log::warn!(
                "some requests did not finish within {} s",
                for_requests.as_secs_f64()
            );
        }
        if self.opening && self.config.database.url.is_none() && self.private.is_none() {
            log::info!("stopping PostgreSQL as soon as it has started");
            self.wait_for_private(until);
        }
        close(self.app, self.private, until);
        log::info!("stopped");
    }

    /// Waits for the private PostgreSQL that is being started, and stops it.
    fn wait_for_private(&self, until: Instant) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                // Dropping it stops it.
                Ok(Event::PrivateStarted(_) | Event::Opened(_))
                | Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return log::warn!(
                        "the private PostgreSQL is left behind; the next start ends it"
                    );
                }
            }
        }
    }

    /// Logs what is there, tells systemd, and with a private PostgreSQL prints how to try the server.
    fn announce(&self, opened: &Opened) {
        let config = self.config;
        if !opened.applied.is_empty() {
            log::info!("migrations applied: {}", opened.applied.join(", "));
        }
        let place = match &config.database.url {
            Some(_) => format!("{} at {}", self.target.database(), self.target.host()),
            None => format!("private, in {}", config.process.data_dir.display()),
        };
        log::info!(
            "ready: PostgreSQL {} ({place}), schema {} at version {}, {} workers",
            opened.server_version,
            config.database.schema.as_str(),
            opened.schema_version,
            config.process.workers
        );
        supervisor::ready(&format!(
            "ready: PostgreSQL {}, schema version {}",
            opened.server_version, opened.schema_version
        ));
        let urls = self.server.as_ref().map(Server::urls).unwrap_or_default();
        let address = urls.iter().find(|address| address.starts_with("http"));
        if let (None, Some(address)) = (&config.database.url, address) {
            let text = first_steps(config, address);
            // On a thread, because standard output may be a pipe that is full.
            let print = move || drop(io::stdout().write_all(text.as_bytes()));
            drop(thread::Builder::new().spawn(print));
        }
    }
}

/// Closes the connections of the pool, then stops the private PostgreSQL. Returns at `until` at the latest: PostgreSQL may be
/// frozen.
fn close(app: Arc<App>, private: Option<Supervised>, until: Instant) {
    let (done, closed) = mpsc::channel::<()>();
    let work = move || {
        let _done = done;
        drop(app);
        drop(private);
    };
    // If no thread can be started, the end of the process closes the connections.
    let started = thread::Builder::new().name("close".to_owned()).spawn(work);
    let left = until.saturating_duration_since(Instant::now());
    if started.is_ok() && closed.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
        log::warn!(
            "PostgreSQL did not stop in time; the next start ends a private PostgreSQL that is left running"
        );
    }
}
