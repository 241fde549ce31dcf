//! SIGTERM, SIGINT and SIGHUP.

use std::io::{self, IsTerminal};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::events::ServiceEvent;
use super::{Failure, spawn};
use crate::log_writer;

/// Two signals within this time count as one: timeout(1) sends a signal to the process and then to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// Sends an event for every signal. A second request to stop ends the process at once.
pub fn take_signals(events: Sender<ServiceEvent>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("cannot take signals: {error}"))?;
    // When its terminal is closed, the server and its private PostgreSQL must stop. Checked now, while the terminal exists.
    let in_terminal = io::stdin().is_terminal();
    spawn("signals", move || {
        let mut asked: Option<Instant> = None;
        for signal in signals.forever() {
            let (name, event) = match signal {
                SIGHUP if in_terminal => ("SIGHUP", ServiceEvent::Stop("SIGHUP")),
                SIGHUP => ("SIGHUP", ServiceEvent::Reload),
                SIGINT => ("SIGINT", ServiceEvent::Stop("SIGINT")),
                _ => ("SIGTERM", ServiceEvent::Stop("SIGTERM")),
            };
            if signal != SIGHUP {
                match asked {
                    None => asked = Some(Instant::now()),
                    Some(first) if first.elapsed() < ONE_SIGNAL => continue,
                    Some(_) => {
                        log::warn!("{name} received again: ending at once");
                        log_writer::finish();
                        std::process::exit(1);
                    }
                }
            }
            // There is no receiver only while the process ends.
            let _ = events.send(event);
        }
    })
}
