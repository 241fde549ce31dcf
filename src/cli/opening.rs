//! Opens the server's database on a thread of its own, so that the server listens and signals are handled while it waits.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::serve::Event;
use super::{Failure, setup};
use crate::api::App;
use crate::config::Config;
use crate::store::Store;
use crate::store::opening::{OpenError, Opened};

/// Between two attempts to reach the database.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the private PostgreSQL, if no other database is set, and opens the store. Each step is reported as an event.
pub fn open_in_background(
    config: &Config,
    app: &Arc<App>,
    events: &Sender<Event>,
) -> Result<(), Failure> {
    let (config, app, events) = (config.clone(), Arc::clone(app), events.clone());
    let open = move || {
        // The receiver is gone only when the process is about to end; what is sent then is dropped, and with it stopped.
        let send = |event| drop(events.send(event));
        if config.database.url.is_none() {
            match setup::start_private(&config) {
                Ok(private) => send(Event::PrivateStarted(private)),
                Err(problem) => return send(Event::Opened(Err(problem))),
            }
        }
        let opened = open_store(&app.store, config.process.startup_timeout);
        if opened.is_ok() {
            // If it fails, the first request tries again and reports it.
            let _ = app.guard.warm_up(&app.store);
        }
        // The store is closed before the private PostgreSQL is stopped.
        drop(app);
        send(Event::Opened(opened));
    };
    thread::Builder::new()
        .name("open-database".to_owned())
        .spawn(open)
        .map(drop)
        .map_err(|error| format!("cannot start a thread: {error}").into())
}

/// Opens the store. An unreachable database is tried again until the timeout; a refusal is final.
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
