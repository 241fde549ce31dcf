//! Tags: words by which a user groups tasks.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::value::RawValue;

use super::fields::{Field, string};
use super::shape::Shape;

/// Longest tag, in characters (Unicode scalar values).
pub const TAG_MAX: usize = 50;
/// Most tags of one task.
pub const TAGS_MAX: usize = 20;

/// A tag.
pub const TAG: Shape = Shape::Named {
    name: "Tag",
    meaning: "A tag: 1 to 50 characters after trimming, one line. Case counts.",
    example: "\"errands\"",
    shape: &Shape::Text {
        min: 1,
        max: TAG_MAX,
        pattern: r"^[ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]*[^\u0000-\u001F\u007F-\u009F\u2028\u2029 \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000][^\u0000-\u001F\u007F-\u009F\u2028\u2029]*$",
    },
};

/// The tags of a task.
pub const TAGS: Shape = Shape::List {
    of: &TAG,
    max: TAGS_MAX,
};

/// Tags in a query, separated by commas.
pub const TAGS_WITH_COMMAS: Shape = Shape::Text {
    min: 1,
    max: usize::MAX,
    pattern: r"^[ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]*[^\u0000-\u001F\u007F-\u009F\u2028\u2029 \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000,][^\u0000-\u001F\u007F-\u009F\u2028\u2029,]{0,49}(,[ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]*[^\u0000-\u001F\u007F-\u009F\u2028\u2029 \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000,][^\u0000-\u001F\u007F-\u009F\u2028\u2029,]{0,49}){0,19}$",
};

/// A tag: 1 to 50 characters after trimming, one line. Case counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(String);

impl Tag {
    /// Trims white space at both ends.
    ///
    /// # Errors
    /// Says what a tag must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Tag, &'static str> {
        let trimmed = text.trim();
        if trimmed.is_empty() || trimmed.chars().count() > TAG_MAX {
            return Err("must have 1 to 50 characters");
        }
        // Tags with white space at an end are refused too, so that a pattern can describe what is accepted.
        if text
            .chars()
            .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
        {
            return Err("must be one line without control characters");
        }
        Ok(Tag(trimmed.to_owned()))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tags of a task: at most 20, each once, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// Reads a list. Duplicates are removed.
    ///
    /// # Errors
    /// Says what tags must be, as the end of a sentence that starts with the field's name.
    pub fn parse(texts: &[String]) -> Result<Tags, &'static str> {
        let mut seen = HashSet::new();
        let mut tags = Vec::new();
        for text in texts {
            let tag = Tag::parse(text)
                .map_err(|_| "must each have 1 to 50 characters on one line, none of them a control character")?;
            if seen.insert(tag.clone()) {
                tags.push(tag);
            }
        }
        if tags.len() > TAGS_MAX {
            return Err("must have at most 20 entries");
        }
        Ok(Tags(tags))
    }

    /// The tags as texts.
    pub fn texts(&self) -> Vec<&str> {
        self.0.iter().map(Tag::as_str).collect()
    }
}

impl Field for Tag {
    fn from_json(json: &str) -> Result<Tag, &'static str> {
        Tag::parse(&string(json)?)
    }
}

impl Field for Tags {
    /// `null` means no tags.
    fn from_json(json: &str) -> Result<Tags, &'static str> {
        let texts: Option<Vec<&RawValue>> =
            serde_json::from_str(json).map_err(|_| "must be a list of strings")?;
        let texts: Vec<String> = texts
            .unwrap_or_default()
            .iter()
            .map(|text| string(text.get()))
            .collect::<Result<_, _>>()
            .map_err(|_| "must be a list of strings in valid Unicode")?;
        Tags::parse(&texts)
    }
}

/// A tag and how many tasks have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagCount {
    /// The tag.
    pub name: String,
    /// How many of the user's tasks have it.
    pub count: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(texts: &[&str]) -> Result<Tags, &'static str> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Tags::parse(&texts)
    }

    #[test]
    fn tags_are_trimmed_and_kept_once() {
        let read = tags(&[" home ", "Home", "home", "shop, later"]).unwrap();
        assert_eq!(read.texts(), ["home", "Home", "shop, later"]);
        assert!(tags(&["é".repeat(50).as_str()]).is_ok());
        for bad in ["", "  ", "a\nb", "a\0", "x\u{2028}y", &"x".repeat(51)] {
            assert!(tags(&["good", bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn more_than_twenty_tags_are_refused() {
        let many: Vec<String> = (0..21).map(|n| format!("t{n}")).collect();
        assert!(Tags::parse(&many[..20]).is_ok());
        assert_eq!(
            Tags::parse(&many).unwrap_err(),
            "must have at most 20 entries"
        );
        let same = vec!["same".to_owned(); 30];
        assert_eq!(Tags::parse(&same).unwrap().texts(), ["same"]);
    }
}
