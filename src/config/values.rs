//! Readers of the kinds of value that several settings have.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use super::source::Source;

/// A whole number in this range; `None` where it is not set.
pub fn number(
    source: &Source,
    variable: &'static str,
    range: RangeInclusive<usize>,
) -> Result<Option<usize>, ConfigError> {
    within(source, variable, range, "a whole number")
}

/// A number in this range, maybe a fraction; `None` where it is not set.
pub fn decimal(
    source: &Source,
    variable: &'static str,
    range: RangeInclusive<f64>,
) -> Result<Option<f64>, ConfigError> {
    within(source, variable, range, "a number")
}

/// A time in seconds, from a tenth of one to a day.
pub fn seconds(
    source: &Source,
    variable: &'static str,
    default: Duration,
) -> Result<Duration, ConfigError> {
    Ok(decimal(source, variable, 0.1..=86_400.0)?.map_or(default, Duration::from_secs_f64))
}

/// On or off, in the usual words.
pub fn switch(source: &Source, variable: &'static str, default: bool) -> Result<bool, ConfigError> {
    match source.get(variable)?.as_deref() {
        None => Ok(default),
        Some("on" | "true" | "1" | "yes") => Ok(true),
        Some("off" | "false" | "0" | "no") => Ok(false),
        Some(_) => Err(ConfigError::new(variable, "must be on or off")),
    }
}

fn within<T: FromStr + PartialOrd + Display>(
    source: &Source,
    variable: &'static str,
    range: RangeInclusive<T>,
    kind: &str,
) -> Result<Option<T>, ConfigError> {
    let read = |text: String| {
        text.parse()
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                ConfigError::new(
                    variable,
                    format!("must be {kind} from {} to {}", range.start(), range.end()),
                )
            })
    };
    source.get(variable)?.map(read).transpose()
}
