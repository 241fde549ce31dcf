//! The server's hourly upkeep, on a thread of its own.

use std::sync::Weak;
use std::thread::sleep;
use std::time::Duration;

use crate::api::App;

/// Time from the start to the first upkeep. It is short, because some servers are restarted often.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// Time between two upkeeps.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// Removes rows that are no longer needed, every hour, until the application has ended.
pub fn keep_up(app: &Weak<App>) {
    let mut wait = FIRST;
    loop {
        sleep(wait);
        wait = PERIOD;
        let Some(app) = app.upgrade() else {
            return;
        };
        // Without requests the database may be suspended. Upkeep would wake it.
        if !app.store.take_asked() {
            continue;
        }
        match app.store.maintain() {
            Ok(Some(done)) if !done.is_nothing() => log::info!("upkeep: {done}"),
            Ok(_) => {}
            Err(error) => log::warn!("upkeep failed: {error}; the next attempt is in an hour"),
        }
        // Upkeep's own statements do not count.
        app.store.take_asked();
    }
}
