//! Log lines: to standard error, one event a line.

use std::io::Write;

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
            // Whatever a line quotes, it stays one line.
            let text = record.args().to_string().replace(['\n', '\r'], " ");
            writeln!(
                out,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {:<5} {}: {text}",
                now.year(),
                u8::from(now.month()),
                now.day(),
                now.hour(),
                now.minute(),
                now.second(),
                now.millisecond(),
                record.level(),
                record.target().split("::").next().unwrap_or_default(),
            )
        });
    // A second start (in tests) keeps the first.
    let _ = builder.try_init();
    Ok(())
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
