//! Log lines on standard error, one event per line, as text or JSON.
//!
//! An event is a sentence, with or without fields such as `request_id` and `client`. In text they follow the sentence as `name=value`.
//! A value with special characters is quoted, so that a client's text cannot look like another field.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::RwLock;
use std::thread;

use env_logger::{Builder, Logger};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serializer as _;
use serde::ser::SerializeMap;

use crate::domain::timestamp::Timestamp;
use crate::log_writer::{self, Class};
use crate::sync::unpoisoned;

/// The target of audit lines. They have the level info, and their own room in the queue of the writer.
pub const AUDIT_LOG: &str = "audit";

/// The target of access lines.
pub const ACCESS_LOG: &str = "todo_api::access";

static LOG: CurrentLog = CurrentLog(RwLock::new(None));

/// The logger, with settings that [`init`] replaces. The `log` crate itself drops the lines above its maximum level.
struct CurrentLog(RwLock<Option<LogSettings>>);

struct LogSettings {
    filter: Logger,
    as_json: bool,
    /// Whether standard error is the journal of systemd.
    journal: bool,
}

impl Log for CurrentLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let settings = unpoisoned(self.0.read());
        settings
            .as_ref()
            .is_some_and(|settings| settings.filter.enabled(metadata))
    }

    fn log(&self, record: &Record) {
        let settings = unpoisoned(self.0.read());
        let wanted = |settings: &&LogSettings| settings.filter.matches(record);
        let Some(settings) = settings.as_ref().filter(wanted) else {
            return;
        };
        let class = match record.level() {
            // Below `info` these crates print statements with their parameters: the contents of tasks, which are never logged.
            level if level > Level::Info && logger(record).ends_with("postgres") => return,
            _ if record.target() == AUDIT_LOG => Class::Audit,
            Level::Error => Class::Error,
            _ => Class::Ordinary,
        };
        // Writing to a Vec cannot fail.
        if let Ok(line) = settings.line(record) {
            log_writer::write(class, &line);
        }
    }

    fn flush(&self) {}
}

impl LogSettings {
    fn line(&self, record: &Record) -> io::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(256);
        if self.journal {
            // The priority of syslog (sd-daemon(3)).
            let priority = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            write!(line, "<{priority}>")?;
        }
        match self.as_json {
            true => write_json(&mut line, record),
            false => write_text(&mut line, record, self.journal),
        }?;
        Ok(line)
    }
}

/// The line of an event, as the logger with these settings writes it.
#[cfg(test)]
pub fn line(record: &Record, as_json: bool, journal: bool) -> io::Result<Vec<u8>> {
    let filter = Builder::new().build();
    let settings = LogSettings {
        filter,
        as_json,
        journal,
    };
    settings.line(record)
}

/// Starts logging. The environment variable `RUST_LOG` sets the levels per module. Without it, this program logs up to `level`, and
/// other crates log warnings and errors. Another call replaces these settings.
pub fn init(level: LevelFilter, as_json: bool) {
    let rust_log = std::env::var("RUST_LOG")
        .ok()
        .filter(|filters| !filters.is_empty());
    let filters = rust_log
        .unwrap_or_else(|| format!("warn,tiny_http=off,todo_api={level},{AUDIT_LOG}={level}"));
    let filter = Builder::new().parse_filters(&filters).build();
    log::set_max_level(filter.filter());
    *unpoisoned(LOG.0.write()) = Some(LogSettings {
        filter,
        as_json,
        journal: writes_to_journal(),
    });
    // It fails if the logger is set already.
    let _ = log::set_logger(&LOG);
}

/// The source of an event: the access log, this program, or another crate.
fn logger<'r>(record: &'r Record<'_>) -> &'r str {
    match record.target() {
        ACCESS_LOG => "access",
        target => target.split("::").next().unwrap_or_default(),
    }
}

fn write_text(out: &mut impl Write, record: &Record<'_>, journal: bool) -> io::Result<()> {
    if !journal {
        // The journal adds a timestamp itself.
        write!(out, "{} ", Timestamp::now())?;
    }
    write!(out, "{:<5} {}:", record.level(), logger(record))?;
    // If a write fails, so does the one of the line break, which is checked.
    let mut line = OneLine(&mut *out);
    if record.args().as_str() != Some("") {
        let _ = write!(line, " {}", record.args());
    }
    let _ = record.key_values().visit(&mut TextFields(&mut line));
    out.write_all(b"\n")
}

fn write_json(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::new(&mut *out);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("timestamp", &Timestamp::now())?;
    object.serialize_entry("level", record.level().as_str())?;
    object.serialize_entry("logger", logger(record))?;
    if record.args().as_str() != Some("") {
        object.serialize_entry("message", record.args())?;
    }
    let _ = record.key_values().visit(&mut JsonFields(&mut object));
    object.end()?;
    out.write_all(b"\n")
}

/// Writes fields as `name=value`.
struct TextFields<'w, W>(&'w mut OneLine<W>);

impl<'kvs, W: Write> VisitSource<'kvs> for TextFields<'_, W> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let plain = |text: &str| {
            let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:{}".contains(&byte);
            !text.is_empty() && text.bytes().all(fit)
        };
        for part in [" ", key.as_str(), "="] {
            self.0.write_str(part)?;
        }
        Ok(match value.to_borrowed_str() {
            Some(text) if plain(text) => self.0.write_str(text),
            Some(text) => write!(self.0, "{text:?}"),
            None => write!(self.0, "{value}"),
        }?)
    }
}

/// Writes fields as members of an object.
struct JsonFields<'m, M>(&'m mut M);

impl<'kvs, M: SerializeMap> VisitSource<'kvs> for JsonFields<'_, M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let name = key.as_str();
        let written = if let Some(text) = value.to_borrowed_str() {
            self.0.serialize_entry(name, text)
        } else if let Some(number) = value.to_u64() {
            self.0.serialize_entry(name, &number)
        } else if let Some(number) = value.to_f64() {
            self.0.serialize_entry(name, &number)
        } else {
            self.0.serialize_entry(name, &format_args!("{value}"))
        };
        // The end of the object reports the cause.
        written.map_err(|_| fmt::Error.into())
    }
}

/// Whether standard error is the journal of systemd (systemd.exec(5), JOURNAL_STREAM).
fn writes_to_journal() -> bool {
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    let stream = stderr.map(|stderr| format!("{}:{}", stderr.dev(), stderr.ino()));
    stream.is_some() && stream == std::env::var("JOURNAL_STREAM").ok()
}

/// Replaces line breaks by spaces.
struct OneLine<W>(W);

impl<W: Write> fmt::Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.as_bytes().split(|byte| b"\n\r".contains(byte));
        let out = &mut self.0;
        let written = out
            .write_all(parts.next().unwrap_or_default())
            .and_then(|()| {
                parts.try_for_each(|part| out.write_all(b" ").and_then(|()| out.write_all(part)))
            });
        written.map_err(|_: io::Error| fmt::Error)
    }
}

/// Logs panics.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("no message");
        log::error!("panic at {}: {text}", place.unwrap_or_default());
        // After a panic of the main thread the process ends.
        if thread::current().name() == Some("main") {
            log_writer::finish();
        }
    }));
}
