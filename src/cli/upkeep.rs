//! The server's upkeep, on a thread of its own: every hour it removes rows, and new tables get statistics.

use std::sync::Weak;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::api::App;

/// Time from the start to the first upkeep. It is short, because some servers are restarted often.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// Time between two upkeeps.
const PERIOD: Duration = Duration::from_secs(60 * 60);
/// Time between two looks at tables without statistics.
const LOOK: Duration = Duration::from_secs(5);

/// Does the upkeep until the application has ended.
pub fn keep_up(app: &Weak<App>) {
    let mut next = Instant::now() + FIRST;
    let (mut is_analyzed, mut was_asked) = (false, false);
    loop {
        let left = next.saturating_duration_since(Instant::now());
        sleep(if is_analyzed { left } else { left.min(LOOK) });
        let Some(app) = app.upgrade() else {
            return;
        };
        // Without requests the database may be suspended. Upkeep would wake it.
        let is_awake = app.store.take_asked();
        was_asked |= is_awake;
        if !is_awake && Instant::now() < next {
            continue;
        }
        if is_awake && !is_analyzed {
            is_analyzed = app.store.analyze_new_tables().unwrap_or_else(|error| {
                log::debug!("new tables get no statistics now: {error}");
                true
            });
        }
        if Instant::now() >= next {
            next = Instant::now() + PERIOD;
            if std::mem::take(&mut was_asked) {
                remove(&app);
            }
        }
        // Upkeep's own statements do not count.
        app.store.take_asked();
    }
}

fn remove(app: &App) {
    match app.store.maintain() {
        Ok(Some(done)) if !done.is_nothing() => log::info!("upkeep: {done}"),
        Ok(_) => {}
        Err(error) => log::warn!("upkeep failed: {error}; the next attempt is in an hour"),
    }
}
