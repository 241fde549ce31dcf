//! Log lines: to standard error, one event a line.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use env_logger::{Builder, Target};
use time::OffsetDateTime;

/// Says nothing of other crates below a warning: what they tell is not for the people who run this.
const DEFAULT_LEVEL: &str = "info";

/// Starts logging. `RUST_LOG` says what is logged, per module; where it is not set, `LOG_LEVEL` says how much of ours.
///
/// # Errors
/// A sentence when `LOG_LEVEL` is no level.
pub fn init(rust_log: Option<&str>, level: Option<&str>) -> Result<(), String> {
    let level = level.unwrap_or(DEFAULT_LEVEL);
    if level.parse::<log::LevelFilter>().is_err() {
        return Err("LOG_LEVEL must be error, warn, info, debug or trace".to_owned());
    }
    let default = format!("warn,tiny_http=off,todo_api={level},access={level}");
    let mut builder = Builder::new();
    builder
        .parse_filters(rust_log.unwrap_or(&default))
        .target(Target::Stderr)
        .format(|out, record| {
            let now = OffsetDateTime::now_utc();
            write!(
                out,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {:<5} {}: ",
                now.year(),
                u8::from(now.month()),
                now.day(),
                now.hour(),
                now.minute(),
                now.second(),
                now.millisecond(),
                record.level(),
                record.target().split("::").next().unwrap_or_default(),
            )?;
            // Failing to write is told by the end of the line, too.
            let _ = write!(OneLine(&mut *out), "{}", record.args());
            out.write_all(b"\n")
        });
    // A second start (in tests) keeps the first.
    let _ = builder.try_init();
    Ok(())
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
    }));
}
