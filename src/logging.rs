//! Log lines: to standard error, one event a line, as text or JSON.
//!
//! An event is a sentence and, where there are any, fields beside it: `request_id`, `client` and such. In text they stand behind the
//! sentence, as `name=value`; a value that is not plain is quoted, so that no stranger's text can pass for another field.

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

/// The target of audit lines. They have a level of info and a room of their own in the queue of the writer.
pub const AUDIT_LOG: &str = "audit";

/// The target of access lines.
pub const ACCESS_LOG: &str = "todo_api::access";

static CURRENT: Current = Current(RwLock::new(None));

/// What is logged and how; [`init`] replaces it. `log` itself drops the lines above its maximum level.
struct Current(RwLock<Option<Settings>>);

struct Settings {
    filter: Logger,
    format: Format,
    /// Whether standard error is the journal's.
    journal: bool,
}

impl Current {
    fn read<T>(&self, read: impl FnOnce(&Settings) -> T) -> Option<T> {
        let current = unpoisoned(self.0.read());
        current.as_ref().map(read)
    }
}

impl Log for Current {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.read(|settings| settings.filter.enabled(metadata))
            .unwrap_or(false)
    }

    fn log(&self, record: &Record) {
        let line = self.read(|settings| {
            let wanted = settings.filter.matches(record) && !tells_contents(record);
            wanted.then(|| settings.line(record))
        });
        if let Some(Some(Ok(line))) = line {
            log_writer::write(class(record), &line);
        }
    }

    fn flush(&self) {}
}

impl Settings {
    /// The record as a line.
    fn line(&self, record: &Record) -> io::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(256);
        if self.journal {
            write!(line, "<{}>", priority(record.level()))?;
        }
        match self.format {
            Format::Text => write_text(&mut line, record, self.journal),
            Format::Json => write_json(&mut line, record),
        }?;
        Ok(line)
    }
}

/// The class of a record for the queue of the writer.
fn class(record: &Record) -> Class {
    match record.level() {
        _ if record.target() == AUDIT_LOG => Class::Audit,
        Level::Error => Class::Error,
        _ => Class::Ordinary,
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// Starts logging. `rust_log` (`RUST_LOG`) sets the levels per module. Without it, this program logs up to `level`, and other crates
/// warnings and errors. A later call replaces the settings of the one before.
pub fn init(rust_log: Option<&str>, level: LevelFilter, format: Format) {
    let default = format!("warn,tiny_http=off,todo_api={level},{AUDIT_LOG}={level}");
    let filter = Builder::new()
        .parse_filters(rust_log.unwrap_or(&default))
        .build();
    log::set_max_level(filter.filter());
    let settings = Settings {
        filter,
        format,
        journal: writes_to_journal(),
    };
    *unpoisoned(CURRENT.0.write()) = Some(settings);
    // It fails where the logger is set already.
    let _ = log::set_logger(&CURRENT);
}

/// Where an event comes from: the access log, this program, or another crate.
fn logger<'r>(record: &'r Record<'_>) -> &'r str {
    match record.target() {
        ACCESS_LOG => "access",
        target => target.split("::").next().unwrap_or_default(),
    }
}

fn write_text(out: &mut impl Write, record: &Record<'_>, journal: bool) -> io::Result<()> {
    if !journal {
        // The journal has a clock of its own.
        write!(out, "{} ", Timestamp::now())?;
    }
    write!(out, "{:<5} {}:", record.level(), logger(record))?;
    // Failing to write is told by the end of the line, too.
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

/// `name=value`, behind a sentence.
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

/// Members of an object.
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
        // It is told again by the end of the line.
        written.map_err(|_| fmt::Error.into())
    }
}

/// Whether standard error is the journal's: it then takes a priority at the start of a line (systemd.exec(5), JOURNAL_STREAM;
/// sd-daemon(3)).
fn writes_to_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
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
