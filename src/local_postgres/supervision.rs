//! Starts a private PostgreSQL again after it has ended by itself.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::LocalPostgres;
use crate::sync::holds_within;

/// Between two checks.
const INTERVAL: Duration = Duration::from_millis(500);
/// After this many failures within [`WINDOW`] PostgreSQL is not started again. An end and a failed start are failures.
const FAILURES: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Pause before the second start within [`WINDOW`]; the first has none.
const BACK_OFF: Duration = Duration::from_secs(2);
/// A PostgreSQL that is stopped (SIGSTOP) for longer than this is killed and started again. It accepts no connections, and only SIGKILL
/// ends it.
const STOPPED_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for PostgreSQL to stop, when this is dropped.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A private PostgreSQL that is started again when it ends. Dropping it stops it.
#[derive(Debug)]
pub struct Supervised {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Supervises on a thread of its own. `on_failure` is called with the reason after too many failures.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        postgres: LocalPostgres,
        on_failure: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Supervised> {
        let (stop, stops) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || supervise(postgres, &stops, on_failure))?;
        Ok(Supervised {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop = None;
        let thread = self.thread.take();
        if thread.is_some_and(|thread| !holds_within(STOP_LIMIT, || thread.is_finished())) {
            log::warn!("the private PostgreSQL still runs; the next start ends it");
        }
    }
}

/// Returns, with PostgreSQL stopped, when the other end of `stops` is dropped or after too many failures.
fn supervise(postgres: LocalPostgres, stops: &Receiver<()>, on_failure: impl FnOnce(String)) {
    let asked_to_stop = |wait| !matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
    let mut failures = Vec::new();
    let mut problem = "see its log, postgres.log in DATA_DIR".to_owned();
    let mut last_running = Instant::now();
    while !asked_to_stop(INTERVAL) {
        let what = match postgres.cluster.process_state() {
            None => "has ended",
            Some('T') if last_running.elapsed() > STOPPED_LIMIT => "is stopped by a signal",
            Some('T') => continue,
            Some(_) => {
                last_running = Instant::now();
                continue;
            }
        };
        failures.push(Instant::now());
        failures.retain(|at| at.elapsed() < WINDOW);
        if failures.len() >= FAILURES {
            return on_failure(format!(
                "the private PostgreSQL failed {FAILURES} times within {} s: {problem}",
                WINDOW.as_secs()
            ));
        }
        log::error!("the private PostgreSQL {what}; it is started again");
        if failures.len() > 1 && asked_to_stop(BACK_OFF) {
            return;
        }
        if let Err(error) = postgres.cluster.start(postgres.options) {
            problem = error;
        }
    }
}
