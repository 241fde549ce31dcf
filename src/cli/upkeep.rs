//! The server's hourly upkeep, on a thread of its own.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::api::App;

/// After the start; a server that is started again and again does it, too.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// Between two times.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// The thread; it ends when this is dropped.
pub struct Upkeep {
    _stop: Sender<()>,
}

impl Upkeep {
    /// Starts it.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(app: &Arc<App>) -> io::Result<Upkeep> {
        let (stop, stopped) = mpsc::channel();
        let app = Arc::downgrade(app);
        thread::Builder::new()
            .name("upkeep".to_owned())
            .spawn(move || keep_up(&app, &stopped))?;
        Ok(Upkeep { _stop: stop })
    }
}

fn keep_up(app: &Weak<App>, stopped: &Receiver<()>) {
    let mut wait = FIRST;
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = PERIOD;
        let Some(app) = app.upgrade() else {
            return;
        };
        // A database that nobody has asked anything since may sleep on.
        if !app.store.take_asked() {
            continue;
        }
        match app.store.maintain() {
            Ok(Some(done)) if !done.is_nothing() => log::info!("upkeep: {done}"),
            Ok(_) => {}
            Err(error) => {
                log::warn!("upkeep could not be done: {error}; it is tried again in an hour")
            }
        }
        app.store.take_asked();
    }
}
