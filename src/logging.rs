//! Log lines: to standard error, one event a line.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{PoisonError, RwLock};
use std::thread;

use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::domain::timestamp::Timestamp;
use crate::http::responder::ACCESS_LOG;
use crate::log_writer::{self, LogWriter};

static CURRENT: Current = Current(RwLock::new(None));

/// The logger, which a new level replaces. Lines that nobody asks for never come here: `log` itself drops them.
struct Current(RwLock<Option<Logger>>);

impl Current {
    fn with<T>(&self, ask: impl FnOnce(&Logger) -> T) -> Option<T> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(ask)
    }
}

impl Log for Current {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.with(|logger| logger.enabled(metadata))
            .unwrap_or(false)
    }

    fn log(&self, record: &Record) {
        self.with(|logger| logger.log(record));
    }

    fn flush(&self) {
        self.with(Log::flush);
    }
}

/// Starts logging. `rust_log` (`RUST_LOG`) says what is logged, per module; where it is not set, `level` says how much of ours.
/// Of other crates nothing below a warning: what they tell is not for the people who run this. A later call replaces what was
/// said before.
pub fn init(rust_log: Option<&str>, level: LevelFilter) {
    let default = format!("warn,tiny_http=off,todo_api={level}");
    let logger = Builder::new()
        .parse_filters(rust_log.unwrap_or(&default))
        .target(match LogWriter::start() {
            Ok(writer) => Target::Pipe(Box::new(writer)),
            // Without a thread for it, each line is written by whoever says it.
            Err(_) => Target::Stderr,
        })
        .format(|out, record| {
            if tells_contents(record) {
                return Ok(());
            }
            let name = match record.target() {
                ACCESS_LOG => "access",
                target => target.split("::").next().unwrap_or_default(),
            };
            write!(out, "{} {:<5} {name}: ", Timestamp::now(), record.level())?;
            // Failing to write is told by the end of the line, too.
            let _ = write!(OneLine(&mut *out), "{}", record.args());
            out.write_all(b"\n")
        })
        .build();
    log::set_max_level(logger.filter());
    *CURRENT.0.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
    // It fails where it is set already.
    let _ = log::set_logger(&CURRENT);
}

/// Whether a line may hold what people have written: below `info` the PostgreSQL crates print statements with their parameters.
/// No level shows that.
fn tells_contents(record: &Record) -> bool {
    let name = record.target().split("::").next().unwrap_or_default();
    record.level() > Level::Info && matches!(name, "postgres" | "tokio_postgres")
}

/// Whatever a line quotes, it stays one line.
struct OneLine<W>(W);

impl<W: Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.split(['\n', '\r']);
        let write = |part: &str, out: &mut W| out.write_all(part.as_bytes());
        let written = write(parts.next().unwrap_or_default(), &mut self.0).and_then(|()| {
            parts.try_for_each(|part| {
                write(" ", &mut self.0).and_then(|()| write(part, &mut self.0))
            })
        });
        written.map_err(|_: io::Error| fmt::Error)
    }
}

/// Lets a panic be a line of the log.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        log::error!("panic at {place}: {}", text.unwrap_or("no message"));
        // The main thread's is the process's last word.
        if thread::current().name() == Some("main") {
            log_writer::finish();
        }
    }));
}
