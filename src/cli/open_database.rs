//! Opens the server's database on a thread of its own. The server listens and handles signals while it waits.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::events::ServiceEvent;
use super::{Failure, setup, spawn};
use crate::api::App;
use crate::config::Config;
use crate::store::Store;
use crate::store::opening::{OpenError, Opened};

/// Between two attempts to reach the database.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the private PostgreSQL, if no other database is configured, and opens the store. Sends an event after each step.
pub fn open_in_background(
    config: &Config,
    app: &Arc<App>,
    events: &Sender<ServiceEvent>,
) -> Result<(), Failure> {
    let (config, app, events) = (config.clone(), Arc::clone(app), events.clone());
    spawn("open-database", move || {
        // There is no receiver only while the process ends. Then a private PostgreSQL in the event is dropped, which stops it.
        let send = |event| drop(events.send(event));
        if config.database.url.is_none() {
            match setup::start_private(&config) {
                Ok(private) => send(ServiceEvent::PrivateStarted(private)),
                Err(problem) => return send(ServiceEvent::Opened(Err(problem))),
            }
        }
        let opened = open_store(&app.store, config.process.startup_timeout);
        if opened.is_ok() {
            // If it fails, the first request tries again and reports it.
            let _ = app.guard.warm_up(&app.store);
        }
        // The store is closed before the private PostgreSQL is stopped.
        drop(app);
        send(ServiceEvent::Opened(opened));
    })
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
            let seconds = timeout.as_secs_f64();
            return Err(format!(
                "the database could not be reached within {seconds} s: {problem}; check DATABASE_URL, and that PostgreSQL runs and accepts connections from this machine"
            ));
        }
        let seconds = left.as_secs_f64().ceil();
        log::warn!("waiting for the database, {seconds:.0} s more: {problem}");
        thread::sleep(RETRY.min(left));
    }
}
