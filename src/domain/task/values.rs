//! The types of a task's fields, which cannot hold a wrong value.

use time::{Date, Duration, Time};

use crate::domain::fields::{Field, string};
use crate::domain::shape::Shape;
use crate::domain::timestamp::{Timestamp, parse_date};

/// Longest title, in characters (Unicode scalar values).
pub const TITLE_MAX: usize = 200;
/// Longest description, in characters (Unicode scalar values).
pub const DESCRIPTION_MAX: usize = 2_000;

pub(super) const TITLE: Shape = Shape::Named {
    name: "Title",
    meaning: "The title of a task: 1 to 200 characters after trimming, one line.",
    example: "\"Buy milk\"",
    shape: &Shape::Text {
        min: 1,
        max: TITLE_MAX,
        pattern: r"^[^\u0000-\u001F\u007F-\u009F\u2028\u2029]*$",
    },
};

pub(super) const DESCRIPTION: Shape = Shape::Named {
    name: "Description",
    meaning: "The description of a task: up to 2,000 characters, newlines and tabs among them.",
    example: "\"2 litres\"",
    shape: &Shape::Text {
        min: 0,
        max: DESCRIPTION_MAX,
        pattern: r"^([^\u0000-\u0008\u000B-\u001F\u007F-\u009F]|\r\n)*$",
    },
};

/// How much a task matters.
pub const PRIORITY: Shape = Shape::Named {
    name: "Priority",
    meaning: "How much a task matters, in rising order.",
    example: "\"medium\"",
    shape: &Shape::OneOf(&["low", "medium", "high"]),
};

/// A plain date or a moment.
pub const DUE: Shape = Shape::Named {
    name: "Due",
    meaning: "A plain date, which ends with that day, or a moment with its offset.",
    example: "",
    shape: &Shape::Either(&[Shape::Date, Shape::Moment]),
};

/// The title of a task: 1 to 200 characters after trimming, one line.
// The default, an empty title, exists only in a task whose title is not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// Trims white space at both ends; keeps the rest as it came.
    ///
    /// # Errors
    /// Says what a title must be, as the end of a sentence that starts with the field's name.
    pub fn parse(text: &str) -> Result<Title, &'static str> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > TITLE_MAX {
            return Err("must have 1 to 200 characters");
        }
        // U+2028 and U+2029 break lines too.
        if text
            .chars()
            .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
        {
            return Err("must be one line without control characters");
        }
        Ok(Title(text.to_owned()))
    }

    /// The title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for Title {
    fn from_json(json: &str) -> Result<Title, &'static str> {
        Title::parse(&string(json)?)
    }
}

/// The description of a task: up to 2,000 characters, newlines and tabs among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

impl Description {
    /// Turns CRLF into LF; keeps the rest as it came.
    ///
    /// # Errors
    /// Says what a description must be, as the end of a sentence that starts with the field's name.
    pub fn parse(text: &str) -> Result<Description, &'static str> {
        let text = text.replace("\r\n", "\n");
        if text.chars().count() > DESCRIPTION_MAX {
            return Err("must have at most 2000 characters");
        }
        if text
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t')
        {
            return Err("must not contain control characters other than newline and tab");
        }
        Ok(Description(text))
    }

    /// The description as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for Description {
    fn from_json(json: &str) -> Result<Description, &'static str> {
        Description::parse(&string(json)?)
    }
}

/// How much a task matters, in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The lowest.
    Low,
    /// The default.
    #[default]
    Medium,
    /// The highest.
    High,
}

impl Priority {
    /// Reads the name that JSON shows.
    ///
    /// # Errors
    /// Says which names there are, as the end of a sentence.
    pub fn parse(name: &str) -> Result<Priority, &'static str> {
        match name {
            "low" => Ok(Priority::Low),
            "medium" => Ok(Priority::Medium),
            "high" => Ok(Priority::High),
            _ => Err("must be low, medium or high"),
        }
    }

    /// The name that JSON shows.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
        }
    }

    /// The rank by which the database keeps and sorts it: 0, 1 or 2.
    pub fn rank(self) -> i16 {
        self as i16
    }

    /// The priority of a rank; of any other number the nearest one.
    pub fn of_rank(rank: i64) -> Priority {
        match rank {
            ..=0 => Priority::Low,
            1 => Priority::Medium,
            2.. => Priority::High,
        }
    }
}

impl Field for Priority {
    fn from_json(json: &str) -> Result<Priority, &'static str> {
        Priority::parse(&string(json)?)
    }
}

/// When a task is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At a moment.
    At(Timestamp),
    /// On a day, which ends in the zone of the request.
    On(Date),
}

impl Due {
    /// Reads a plain date `YYYY-MM-DD` or a timestamp (see [`Timestamp::parse`]).
    ///
    /// # Errors
    /// Says what a due date must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Due, &'static str> {
        parse_date(text)
            .map(Due::On)
            .or_else(|| Timestamp::parse(text).map(Due::At))
            .ok_or("must be a date (2026-01-31) or a timestamp with offset (2026-01-31T09:30:00Z)")
    }

    /// The moment by which tasks are sorted: a plain date counts as its last microsecond in UTC.
    pub fn moment(self) -> Timestamp {
        match self {
            Due::At(moment) => moment,
            Due::On(date) => {
                let last = Time::MIDNIGHT - Duration::microseconds(1);
                Timestamp::from(date.with_time(last).assume_utc())
            }
        }
    }
}

impl Field for Due {
    fn from_json(json: &str) -> Result<Due, &'static str> {
        Due::parse(&string(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn titles_are_trimmed_and_counted_in_characters() {
        assert_eq!(Title::parse("  milk \n").unwrap().as_str(), "milk");
        assert!(Title::parse(&"é".repeat(200)).is_ok());
        assert!(Title::parse(&"👩".repeat(201)).is_err());
        for text in [
            "",
            " \t\n",
            "two\nlines",
            "nul\0",
            "bell\u{7}",
            "c1\u{85}x",
            "line\u{2028}separator",
        ] {
            assert!(Title::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn descriptions_keep_newlines_and_tabs() {
        assert_eq!(Description::parse("a\r\nb\tc").unwrap().as_str(), "a\nb\tc");
        assert_eq!(Description::parse("").unwrap().as_str(), "");
        // Counted after CRLF became LF.
        assert!(Description::parse(&"\r\n".repeat(2_000)).is_ok());
        assert!(Description::parse(&"x".repeat(2_001)).is_err());
        for text in ["nul\0", "cr\ralone", "esc\u{1b}"] {
            assert!(Description::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_plain_due_date_stays_plain() {
        assert!(matches!(Due::parse("2026-02-28"), Ok(Due::On(_))));
        assert!(matches!(
            Due::parse("2026-02-28T10:00+01:00"),
            Ok(Due::At(_))
        ));
        for text in ["", "tomorrow", "2026-02-29", "28.02.2026", "2026-2-8"] {
            assert!(Due::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_title_is_never_empty_long_or_several_lines(text in any::<String>()) {
            if let Ok(title) = Title::parse(&text) {
                prop_assert!((1..=200).contains(&title.as_str().chars().count()));
                prop_assert!(!title.as_str().chars().any(char::is_control));
                prop_assert_eq!(title.as_str(), text.trim());
            }
        }

        #[test]
        fn a_description_changes_in_nothing_but_its_line_ends(text in any::<String>()) {
            if let Ok(description) = Description::parse(&text) {
                prop_assert_eq!(description.as_str(), text.replace("\r\n", "\n"));
            }
        }
    }
}
