//! SIGTERM, SIGINT and SIGHUP, and what they ask for.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::log_writer;

/// Signals that come closer together than this are one: timeout(1) sends its own to the process and then to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// What a signal asks for.
pub enum Signal {
    /// SIGTERM, SIGINT or the end of the terminal, by the signal's name.
    Stop(&'static str),
    /// SIGHUP where no terminal is.
    Reload,
}

/// Tells of every signal from a thread of its own. Whoever asks twice to stop is not kept waiting.
///
/// # Errors
/// The signals or the thread cannot be had.
pub fn take_signals(tell: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    // Whose terminal is closed is to end, and a private PostgreSQL with it. Asked now: later the terminal is gone.
    let in_terminal = io::stdin().is_terminal();
    let forward = move || {
        let mut asked: Option<Instant> = None;
        for signal in signals.forever() {
            let name = match signal {
                SIGHUP => {
                    tell(if in_terminal {
                        Signal::Stop("SIGHUP")
                    } else {
                        Signal::Reload
                    });
                    continue;
                }
                SIGINT => "SIGINT",
                _ => "SIGTERM",
            };
            match asked {
                None => {
                    asked = Some(Instant::now());
                    tell(Signal::Stop(name));
                }
                Some(first) if first.elapsed() < ONE_SIGNAL => {}
                Some(_) => {
                    log::warn!("{name} received again: ending at once");
                    log_writer::finish();
                    std::process::exit(1);
                }
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(forward)
        .map(drop)
}
