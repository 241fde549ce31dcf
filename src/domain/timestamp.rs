//! Moments and calendar dates as JSON shows them (RFC 3339).

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};
use time::{Date, Month, OffsetDateTime, Time};

/// Microseconds of a second and of a day.
const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROS;
/// The beginning of 1970 as a Julian day, as `time` counts.
const UNIX_DAY: i32 = 2_440_588;
/// The years 1 to 9999, in microseconds since the beginning of 1970.
const RANGE: RangeInclusive<i64> = -62_135_596_800 * MICROS..=253_402_300_800 * MICROS - 1;

/// A moment in UTC, with the precision of PostgreSQL, a microsecond.
///
/// Shown with six digits and `Z`: `2026-01-31T09:30:00.000000Z`. Years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Microseconds since the beginning of 1970.
    micros: i64,
}

impl Timestamp {
    /// The clock of this machine.
    pub fn now() -> Timestamp {
        Timestamp::from(OffsetDateTime::now_utc())
    }

    /// Reads RFC 3339 and its common variants: a space or small `t` in the middle, no seconds, up to nine digits of fraction
    /// (what is finer than a microsecond is cut off), an offset with or without its colon. Without an offset it is taken as UTC.
    ///
    /// Returns `None` for anything else, and for a moment outside the years 1 to 9999.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let (date, rest) = text.split_at_checked(10)?;
        let date = parse_date(date)?;
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let clock_end = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        let (clock, offset) = rest.split_at_checked(clock_end)?;
        let moment = date.with_time(parse_clock(clock)?).assume_utc();
        let seconds = moment.unix_timestamp().checked_sub(parse_offset(offset)?)?;
        Timestamp::from_micros(seconds * MICROS + i64::from(moment.microsecond()))
    }

    /// The moment this many microseconds after the beginning of 1970, or before it if negative; `None` outside the years 1 to
    /// 9999.
    pub fn from_micros(micros: i64) -> Option<Timestamp> {
        RANGE.contains(&micros).then_some(Timestamp { micros })
    }

    /// As [`Timestamp::from_micros`]; outside the years 1 to 9999 their first or last moment.
    pub fn nearest(micros: i64) -> Timestamp {
        Timestamp {
            micros: micros.clamp(*RANGE.start(), *RANGE.end()),
        }
    }

    /// Microseconds since the beginning of 1970.
    pub fn micros(self) -> i64 {
        self.micros
    }

    /// The moment, in UTC.
    pub fn as_utc(self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(self.micros)
    }

    /// The text, in ASCII. It is written digit by digit for speed, because every task has two or three timestamps and every log
    /// line has one.
    pub fn digits(self) -> [u8; 27] {
        let days = self.micros.div_euclid(DAY) as i32;
        // A day has fewer seconds than 32 bits hold.
        let seconds = (self.micros.rem_euclid(DAY) / MICROS) as u32;
        let micros = self.micros.rem_euclid(MICROS) as u32;
        // Every day of these years has a date.
        let date = Date::from_julian_day(UNIX_DAY + days).unwrap_or(Date::MIN);
        let (year, month, day) = date.to_calendar_date();
        let (year, month) = (year.unsigned_abs(), u8::from(month));
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (at, pair) in [
            (0, year / 100),
            (2, year % 100),
            (5, month.into()),
            (8, day.into()),
            (11, seconds / 3600),
            (14, seconds / 60 % 60),
            (17, seconds % 60),
            (20, micros / 10_000),
            (22, micros / 100 % 100),
            (24, micros % 100),
        ] {
            if let Some([tens, units]) = text.get_mut(at..at + 2) {
                *tens += (pair / 10) as u8;
                *units += (pair % 10) as u8;
            }
        }
        text
    }
}

impl From<OffsetDateTime> for Timestamp {
    /// Truncates to microseconds.
    fn from(moment: OffsetDateTime) -> Timestamp {
        Timestamp::nearest(moment.unix_timestamp() * MICROS + i64::from(moment.microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a calendar date `YYYY-MM-DD` of the years 1 to 9999; `None` for anything else.
pub fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = Month::try_from(u8::try_from(digits(parts.next()?, 2)?).ok()?).ok()?;
    let day = u8::try_from(digits(parts.next()?, 2)?).ok()?;
    if year == 0 {
        return None;
    }
    Date::from_calendar_date(i32::try_from(year).ok()?, month, day).ok()
}

/// Shows a calendar date as `YYYY-MM-DD`.
pub fn format_date(date: Date) -> String {
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`.
fn parse_clock(text: &str) -> Option<Time> {
    let mut parts = text.splitn(3, ':');
    let hour = u8::try_from(digits(parts.next()?, 2)?).ok()?;
    let minute = u8::try_from(digits(parts.next()?, 2)?).ok()?;
    let seconds = parts.next().unwrap_or("00");
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let second = u8::try_from(digits(second, 2)?).ok()?;
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    // Six digits are kept: "5" is 500,000 µs, "123456789" is 123,456 µs.
    let micros = digits(format!("{fraction:0<6}").get(..6)?, 6)?;
    fraction
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    Time::from_hms_micro(hour, minute, second, micros).ok()
}

/// Reads an empty text, `Z`, `±HH`, `±HHMM` or `±HH:MM`; returns seconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let text = text.get(1..)?;
    let (hours, minutes) = match text.len() {
        2 => (text, "00"),
        4 => text.split_at_checked(2)?,
        5 => text.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

/// Reads exactly `length` ASCII digits, at most nine.
fn digits(text: &str, length: usize) -> Option<u32> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        let moment = Timestamp::parse(text)?;
        Some(
            serde_json::to_value(moment)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned(),
        )
    }

    #[test]
    fn timestamps_come_back_in_utc_with_six_digits() {
        for (sent, answered) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000000Z"),
            ("2026-01-31t09:30:00z", "2026-01-31T09:30:00.000000Z"),
            ("2026-01-31 09:30:00", "2026-01-31T09:30:00.000000Z"),
            ("2026-01-31T09:30", "2026-01-31T09:30:00.000000Z"),
            ("2026-01-31T09:30:00.5+02:00", "2026-01-31T07:30:00.500000Z"),
            ("2026-01-31T23:30:00-0130", "2026-02-01T01:00:00.000000Z"),
            (
                "2026-01-31T09:30:00.123456789Z",
                "2026-01-31T09:30:00.123456Z",
            ),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(shown(sent).as_deref(), Some(answered), "{sent}");
        }
    }

    #[test]
    fn text_that_is_not_a_timestamp_is_refused() {
        for text in [
            "",
            "2026",
            "2026-01-31",
            "2026-02-30T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T09:60Z",
            "2026-01-31T09:30:00+24:00",
            "2026-01-31T09:30:00 Z",
            "2026-01-31T09:30:00.Z",
            "+026-01-31T09:30Z",
            "2026-01-31T09:30:00.1234567890Z",
            "2026-01-31T9:30",
            "2026-01-31X09:30",
            "2026-01-31T09:30:00Zjunk",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "0001-01-01T00:00:00+01:00",
            "２０２６-01-31T09:30Z",
            "2026-01-31T09:30:00.12345é",
            "2026-01-31T09:30:00.1 3",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
            let _ = parse_date(&text);
        }

        #[test]
        fn a_printed_timestamp_is_read_back(seconds in -62_135_596_800_i64..253_402_300_800, micros in 0_i64..1_000_000) {
            let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap() + time::Duration::microseconds(micros);
            let moment = Timestamp::from(moment);
            let text = serde_json::to_value(moment).unwrap();
            prop_assert_eq!(Timestamp::parse(text.as_str().unwrap()), Some(moment));
            prop_assert_eq!(Timestamp::from_micros(moment.micros()), Some(moment));
        }

        #[test]
        fn dates_are_read_back(day in 1_721_426_i32..=5_373_484) {
            let date = Date::from_julian_day(day).unwrap();
            prop_assert_eq!(parse_date(&format_date(date)), Some(date));
        }
    }
}
