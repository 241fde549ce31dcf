//! Time zones, as clients name them.

use std::fmt;

use super::shape::Shape;

/// Longest name of a time zone, in bytes; the longest of the IANA database has 32.
const NAME_MAX: usize = 64;

/// The meaning of the query parameter `tz`.
pub const ZONE_MEANING: &str = "The zone in which days begin and end; UTC by default. A name that PostgreSQL does not know is 400.";

/// A time zone in the API's description.
pub const ZONE: Shape = Shape::Named {
    name: "Zone",
    meaning: "A time zone: an IANA name (Europe/Berlin) or an offset from UTC (+02:00).",
    example: "",
    shape: &Shape::Text {
        min: 1,
        max: NAME_MAX,
        pattern: r"^([A-Za-z]+|[A-Za-z0-9_][A-Za-z0-9_+-]*/[A-Za-z0-9_+/-]*|[+ -](0[0-9]|1[0-4])(:?[0-5][0-9])?)$",
    },
};

/// A time zone: an IANA name or an offset from UTC.
// It is in the form that PostgreSQL understands. PostgreSQL decides whether a name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(String);

impl Zone {
    /// Reads an IANA name (`Europe/Berlin`) or an offset (`Z`, `+02:00`, `-0330`).
    ///
    /// A `+` that was not encoded arrives as a space, and is read as `+`.
    ///
    /// # Errors
    /// Says what a zone must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Zone, &'static str> {
        const MUST: &str =
            "must be the IANA name of a time zone (Europe/Berlin) or an offset (+02:00)";
        if matches!(text, "Z" | "z") {
            return Ok(Zone::default());
        }
        if text.starts_with(['+', '-', ' ']) {
            return offset(text).ok_or(MUST);
        }
        let fit =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+');
        // Without a slash, a digit or a sign would make it a POSIX zone, in which UTC+2 is west of UTC.
        let plain = text.contains('/') || text.bytes().all(|byte| byte.is_ascii_alphabetic());
        // Other files beside the IANA database on a machine: its local zone, and copies with other rules.
        let area = text.split('/').next().unwrap_or_default();
        let local = [
            "localtime",
            "posixrules",
            "posix",
            "right",
            "factory",
            "systemv",
        ]
        .iter()
        .any(|name| area.eq_ignore_ascii_case(name));
        if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fit) && plain && !local {
            Ok(Zone(text.to_owned()))
        } else {
            Err(MUST)
        }
    }

    /// The zone for PostgreSQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Zone {
        Zone("UTC".to_owned())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The part of an offset in angle brackets is the text of the client.
        let shown = self
            .0
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'));
        f.write_str(shown.map_or(self.0.as_str(), |(offset, _)| offset))
    }
}

/// A POSIX zone with a fixed offset. The sign is inverted, because POSIX counts westwards.
fn offset(text: &str) -> Option<Zone> {
    let (sign, turned) = if text.starts_with('-') {
        ('-', '+')
    } else {
        ('+', '-')
    };
    let digits = text.get(1..)?;
    let (hours, minutes) = match digits.len() {
        2 => (digits, "00"),
        4 => digits.split_at_checked(2)?,
        5 => digits.split_once(':')?,
        _ => return None,
    };
    let number = |part: &str, below: u8| {
        let fit = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse()
            .ok()
            .filter(|number: &u8| fit && *number < below)
    };
    // The extreme zones are 14 hours east and 12 hours west of UTC.
    let (hours, minutes) = (number(hours, 15)?, number(minutes, 60)?);
    Some(Zone(format!(
        "<{sign}{hours:02}:{minutes:02}>{turned}{hours:02}:{minutes:02}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets_are_told_apart() {
        for (text, zone, shown) in [
            ("Europe/Berlin", "Europe/Berlin", "Europe/Berlin"),
            ("Etc/GMT+3", "Etc/GMT+3", "Etc/GMT+3"),
            ("UTC", "UTC", "UTC"),
            ("Z", "UTC", "UTC"),
            ("+02:00", "<+02:00>-02:00", "+02:00"),
            (" 0545", "<+05:45>-05:45", "+05:45"),
            ("-03", "<-03:00>+03:00", "-03:00"),
        ] {
            let read = Zone::parse(text).unwrap();
            assert_eq!((read.as_str(), read.to_string().as_str()), (zone, shown));
        }
        for text in [
            "",
            "UTC+2",
            "EST5EDT",
            "+2",
            "+15:00",
            "+02:60",
            "+ä0",
            "Europe/Zürich",
            "a'b/c",
            "A/B C",
            "localtime",
            "posixrules",
            "right/Europe/Berlin",
            "Posix/UTC",
            "+2:000",
        ] {
            assert!(Zone::parse(text).is_err(), "{text}");
        }
    }
}
