//! Parsers of values. An error is the end of a sentence that starts with the variable's name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Secret;
use crate::domain::address::parse_list;

type Parsed<T> = Result<T, String>;

/// `None` without a value.
pub fn optional<T>(parse: impl Fn(&str) -> Parsed<T>) -> impl Fn(&str) -> Parsed<Option<T>> {
    move |text| match text {
        "" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// Any text.
pub fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

/// A path.
pub fn path(text: &str) -> Parsed<PathBuf> {
    Ok(PathBuf::from(text))
}

/// A number in this range.
pub fn number<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        text.parse()
            .ok()
            // Rust also accepts a plus sign.
            .filter(|number| range.contains(number) && !text.starts_with('+'))
            .ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
    }
}

/// Seconds, with or without a fraction, from 0.1 to a day.
pub fn seconds(text: &str) -> Parsed<Duration> {
    number(0.1..=86_400.0)(text).map(Duration::from_secs_f64)
}

/// A time, as a number of units; the unit is in seconds.
pub fn times(unit: f64, range: RangeInclusive<f64>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| number(range.clone())(text).map(|count| Duration::from_secs_f64(count * unit))
}

/// One of these words.
pub fn one_of<T: Copy + 'static>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("must be {}", words.join(" or "))
        })
    }
}

/// `on` or `off`, or one of their usual synonyms.
pub fn switch(text: &str) -> Parsed<bool> {
    match text {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

/// A parser of the module that owns the type.
pub fn by<T>(parse: impl Fn(&str) -> Result<T, &'static str>) -> impl Fn(&str) -> Parsed<T> {
    move |text| parse(text).map_err(str::to_owned)
}

/// A host for `LISTEN`: an IP address or `localhost`.
pub fn host(text: &str) -> Parsed<String> {
    parse_list(&socket_address(text, "0"))
        .map(|_| text.to_owned())
        .map_err(|_| "must be an IP address or localhost".to_owned())
}

/// Host and port in the form of `LISTEN`.
pub fn socket_address(host: &str, port: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A file mode in octal digits.
pub fn file_mode(text: &str) -> Parsed<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "must be a file mode in octal, such as 0660".to_owned())
}

/// A secret of at least so many bytes, without spaces at its ends.
pub fn secret(bytes: usize) -> impl Fn(&str) -> Parsed<Secret> {
    move |text| {
        if text.trim().len() < bytes {
            return Err(format!(
                "must have at least {bytes} bytes; `openssl rand -hex {bytes}` makes a good one"
            ));
        }
        Ok(Secret::new(text.to_owned()))
    }
}

/// Comma-separated values; none without a value.
pub fn list(text: &str) -> Parsed<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
    // An empty entry is a mistake, and must not weaken a check.
    if values.iter().any(String::is_empty) {
        return Err("must be one value, or several with commas between them".to_owned());
    }
    Ok(values)
}
