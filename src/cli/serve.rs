//! `todo-api serve`: the server, from start to stop.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::events::ServiceEvent;
use super::first_steps::first_steps;
use super::open_database::open_in_background;
use super::signals::take_signals;
use super::upkeep::keep_up;
use super::{CommandLine, Failure, build, no_thread, setup, spawn, supervisor, takeover};
use crate::api::App;
use crate::api::routes::routes;
use crate::config::{Config, Environment};
use crate::http::policy::Policy;
use crate::http::router::Router;
use crate::local_postgres::Supervised;
use crate::logging;
use crate::server::{Parts, Server, Sockets};
use crate::store::Store;
use crate::store::connector::Target;
use crate::store::opening::Opened;
use crate::sync::call_within;

commands! {
    "serve", "Answer requests (the default); makes a private PostgreSQL if no database is set", "", run;
}

/// The state of the main thread.
struct Service<'c> {
    config: &'c Config,
    target: Target,
    app: Arc<App>,
    /// Taken when the server starts to accept connections.
    not_started: Option<(Sockets, Parts)>,
    server: Option<Server>,
    private: Option<Supervised>,
    events: Sender<ServiceEvent>,
    inbox: Receiver<ServiceEvent>,
    /// Whether the thread that opens the database still runs.
    opening: bool,
}

/// Serves until SIGTERM or SIGINT.
fn run(line: &CommandLine) -> Result<(), Failure> {
    let config = &mut line.config()?;
    setup::logging(config);
    logging::log_panics();
    // Before anything is started, so that every signal is handled.
    let (events, inbox) = mpsc::channel();
    take_signals(events.clone())?;
    if let Err(problem) = setup::raise_descriptor_limit(config) {
        log::warn!("{problem}");
    }
    config.edge.connections = setup::connections(config);
    if let Some(file) = &config.origin.env_file {
        log::info!("settings are also read from {}", file.display());
    }
    supervisor::notify_for(config.process.startup_timeout, "STATUS=starting");

    config.process.self_check = build::self_check(config)?;
    let tls = build::tls(config)?;
    // Before the data directory and its secret are created: a server whose port is taken creates nothing.
    let sockets = Sockets::bind(config)?;
    let secret = setup::signing_secret(config)?;
    let settings = setup::store_settings(config)?;
    let target = settings.target.clone();
    let app = Arc::new(build::app(config, &secret, Store::new(settings))?);
    let (origins, hsts) = (&config.requests.origins, Some(config.requests.hsts));
    let in_development = config.process.environment == Environment::Development;
    let fail = events.clone();
    let parts = Parts {
        app: Arc::clone(&app),
        router: Router::new(routes()),
        tls,
        policy: Arc::new(Policy::new(origins, hsts, in_development)),
        on_alive: Arc::new(|| supervisor::notify("WATCHDOG=1")),
        on_failure: Box::new(move |reason| drop(fail.send(ServiceEvent::Failed(reason)))),
    };
    let mut service = Service {
        config,
        target,
        app,
        not_started: Some((sockets, parts)),
        server: None,
        private: None,
        events,
        inbox,
        opening: true,
    };
    // With sockets of systemd, clients wait in them until the database is open, so that a restart refuses no client.
    if !config.origin.activated {
        service.start_server()?;
    }
    supervisor::notify("STATUS=waiting for the database");
    open_in_background(config, &service.app, &service.events)?;
    let weak = Arc::downgrade(&service.app);
    spawn("upkeep", move || keep_up(&weak))?;
    let outcome = service.wait_for_stop();
    service.stop(outcome.is_ok());
    outcome
}

impl Service<'_> {
    fn start_server(&mut self) -> Result<(), Failure> {
        if let Some((sockets, parts)) = self.not_started.take() {
            let server = Server::start(self.config, sockets, parts)?;
            let (version, urls) = (env!("CARGO_PKG_VERSION"), server.urls().join(", "));
            log::info!("todo-api {version} listens on {urls}");
            self.server = Some(server);
        }
        Ok(())
    }

    /// Handles events until a signal asks to stop.
    fn wait_for_stop(&mut self) -> Result<(), Failure> {
        let mut ready = false;
        loop {
            match self.inbox.recv()? {
                ServiceEvent::Stop(signal) => {
                    log::info!("{signal} received: finishing requests in flight");
                    return Ok(());
                }
                ServiceEvent::Reload => {
                    // A reload ends with READY=1, which must not be sent before the server is ready.
                    if ready {
                        supervisor::notify_reloading();
                    }
                    self.reload();
                    if ready {
                        supervisor::notify("READY=1");
                    }
                }
                ServiceEvent::PrivateStarted(private) => {
                    let events = self.events.clone();
                    let fail = move |reason| drop(events.send(ServiceEvent::Failed(reason)));
                    self.private = Some(Supervised::start(private, fail).map_err(no_thread)?);
                }
                ServiceEvent::Opened(opened) => {
                    self.opening = false;
                    let opened = opened?;
                    self.start_server()?;
                    self.announce(&opened);
                    ready = true;
                }
                ServiceEvent::Failed(reason) => return Err(reason.into()),
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

    /// Ends the server, closes the store and stops the private PostgreSQL. `drain`: requests in flight are answered first.
    fn stop(mut self, drain: bool) {
        let timeout = self.config.process.shutdown_timeout;
        let until = Instant::now() + timeout;
        supervisor::notify_for(timeout, "STOPPING=1\nSTATUS=finishing requests in flight");
        // The rest of the time is for the private PostgreSQL.
        let share = if self.private.is_some() { 0.75 } else { 1.0 };
        let for_requests = timeout.mul_f64(share);
        if let (true, Some(server)) = (drain, self.server.take())
            && !server.stop(for_requests)
        {
            let seconds = for_requests.as_secs_f64();
            log::warn!("some requests did not finish within {seconds} s");
        }
        if self.opening && self.config.database.url.is_none() && self.private.is_none() {
            log::info!("stopping PostgreSQL as soon as it has started");
            self.wait_for_private(until);
        }
        // Closes the pool before the private PostgreSQL is stopped. On a thread, because PostgreSQL may hang.
        let (app, private) = (self.app, self.private);
        drop((self.server, self.not_started));
        // If no thread can be started, the end of the process closes the connections.
        let close = move || drop((app, private));
        if matches!(call_within(time_left(until), "close", close), Ok(None)) {
            log::warn!(
                "PostgreSQL did not stop in time; the next start ends a private PostgreSQL that still runs"
            );
        }
        log::info!("stopped");
    }

    /// Waits for the private PostgreSQL that is being started, and stops it.
    fn wait_for_private(&self, until: Instant) {
        loop {
            match self.inbox.recv_timeout(time_left(until)) {
                // Dropping it stops it.
                Ok(ServiceEvent::PrivateStarted(_) | ServiceEvent::Opened(_))
                | Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return log::warn!("the private PostgreSQL still runs; the next start ends it");
                }
            }
        }
    }

    /// Reports to the log and to systemd that the server is ready. With a private PostgreSQL it prints how to try the server.
    fn announce(&self, opened: &Opened) {
        let config = self.config;
        if !opened.applied.is_empty() {
            log::info!("migrations applied: {}", opened.applied.join(", "));
        }
        if let Some(table) = &opened.waiting_tasks {
            log::info!("{}", takeover::offer(table));
        }
        let (postgres, version) = (&opened.server_version, opened.schema_version);
        let place = match &config.database.url {
            Some(_) => format!("{} at {}", self.target.database(), self.target.host()),
            None => format!("private, in {}", config.process.data_dir.display()),
        };
        log::info!(
            "ready: PostgreSQL {postgres} ({place}), schema {} at version {version}, {} workers",
            config.database.schema.as_str(),
            config.process.workers
        );
        supervisor::notify(&format!(
            "READY=1\nSTATUS=ready: PostgreSQL {postgres}, schema version {version}"
        ));
        let urls = self.server.as_ref().map(Server::urls).unwrap_or_default();
        let address = urls.iter().find(|address| address.starts_with("http"));
        if let (None, Some(address)) = (&config.database.url, address) {
            let text = first_steps(config, address);
            // On a thread, because standard output may be a full pipe. The server works without these lines.
            let _ = spawn("print", move || {
                drop(io::stdout().write_all(text.as_bytes()));
            });
        }
    }
}

fn time_left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
