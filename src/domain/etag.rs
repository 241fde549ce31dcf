//! Entity tags (RFC 9110, section 8.8.3), which name a state of a task.

use std::fmt;

use super::fields::{Field, string};
use super::timestamp::Timestamp;

/// The strong entity tag of a task, shown as `"3-65f1c2a9b4e00"`: its version, and when it was made, in hexadecimal microseconds
/// since 1970. The second part distinguishes a task from an earlier one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag {
    /// The task's version.
    pub version: i64,
    /// When the task was made.
    pub created_at: Timestamp,
}

impl ETag {
    /// Reads the text between the quotes; `None` if this server never made it.
    fn parse(opaque: &str) -> Option<ETag> {
        let (version, created_at) = opaque.split_once('-')?;
        let micros = u64::from_str_radix(created_at, 16).ok()?.cast_signed();
        let tag = ETag {
            version: version.parse().ok()?,
            created_at: Timestamp::from_micros(micros)?,
        };
        // Compared byte by byte (RFC 9110, section 8.8.3.2): `+3` is not `3`.
        (tag.opaque() == opaque).then_some(tag)
    }

    fn opaque(&self) -> String {
        format!("{}-{:x}", self.version, self.created_at.micros())
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.opaque())
    }
}

/// The value of an `If-Match` or `If-None-Match` field (RFC 9110, sections 13.1.1 and 13.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: any state.
    Any,
    /// A list. Tags that this server never made match nothing and are left out.
    OneOf {
        /// The strong tags.
        strong: Vec<ETag>,
        /// The weak tags, marked with `W/`.
        weak: Vec<ETag>,
    },
}

impl EntityTags {
    /// Reads all fields with this name; `None` if there is none.
    ///
    /// # Errors
    /// Says what the field must be, as the end of a sentence that starts with its name.
    pub fn from_fields(
        fields: impl Iterator<Item = impl AsRef<str>>,
    ) -> Result<Option<EntityTags>, &'static str> {
        let mut there = false;
        let (mut strong, mut weak) = (Vec::new(), Vec::new());
        for field in fields {
            let field = field.as_ref();
            there = true;
            if field.trim_matches([' ', '\t']) == "*" {
                return Ok(Some(EntityTags::Any));
            }
            read_list(field, &mut strong, &mut weak)
                .ok_or("must be * or entity tags in double quotes, as the ETag field has them")?;
        }
        Ok(there.then_some(EntityTags::OneOf { strong, weak }))
    }

    /// Strong comparison, for `If-Match`: a weak tag never matches.
    pub fn match_strongly(&self, tag: ETag) -> bool {
        match self {
            EntityTags::Any => true,
            EntityTags::OneOf { strong, .. } => strong.contains(&tag),
        }
    }

    /// Weak comparison, for `If-None-Match`.
    pub fn match_weakly(&self, tag: ETag) -> bool {
        match self {
            EntityTags::Any => true,
            EntityTags::OneOf { strong, weak } => strong.contains(&tag) || weak.contains(&tag),
        }
    }
}

impl Field for EntityTags {
    fn from_json(json: &str) -> Result<EntityTags, &'static str> {
        let tags = EntityTags::from_fields(std::iter::once(string(json)?))?;
        tags.ok_or("must be there")
    }
}

/// Reads `[W/]"…"` separated by commas. Empty elements are allowed (RFC 9110, section 5.6.1.2).
fn read_list(field: &str, strong: &mut Vec<ETag>, weak: &mut Vec<ETag>) -> Option<()> {
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(());
        }
        let (tags, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (&mut *weak, quoted),
            None => (&mut *strong, rest),
        };
        let (opaque, behind) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.extend(ETag::parse(opaque));
        rest = behind.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(version: i64) -> ETag {
        ETag {
            version,
            created_at: Timestamp::parse("2026-01-31T09:30:00Z").unwrap(),
        }
    }

    fn tags(fields: &[&str]) -> Result<Option<EntityTags>, &'static str> {
        EntityTags::from_fields(fields.iter().copied())
    }

    #[test]
    fn lists_are_read_and_weak_tags_kept_apart() {
        let (one, two, three) = (tag(1), tag(2), tag(3));
        let read = tags(&[
            &format!(" {one} ,,W/{two},\"foreign, with a comma\""),
            &format!("{three}"),
        ])
        .unwrap()
        .unwrap();
        assert!(read.match_strongly(one) && read.match_strongly(three));
        assert!(!read.match_strongly(two) && read.match_weakly(two));
        assert!(!read.match_weakly(tag(4)));
        assert_eq!(tags(&["*"]).unwrap(), Some(EntityTags::Any));
        assert_eq!(tags(&[]).unwrap(), None);
    }

    #[test]
    fn a_tag_is_compared_byte_by_byte() {
        let shown = tag(1).to_string();
        for other in [
            shown.replace("\"1", "\"+1"),
            shown.replace("\"1", "\"01"),
            shown.to_uppercase(),
        ] {
            assert!(
                !tags(&[&other]).unwrap().unwrap().match_strongly(tag(1)),
                "{other}"
            );
        }
    }

    #[test]
    fn a_malformed_list_of_tags_is_refused() {
        for field in [
            "1",
            "\"1",
            "1\"",
            "\"a\" \"b\"",
            "w/\"a\"",
            "*, \"a\"",
            "\"a\"x",
        ] {
            assert!(tags(&[field]).is_err(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_read_back(version in 1..=i64::MAX, micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let tag = ETag { version, created_at: Timestamp::from_micros(micros).unwrap() };
            prop_assert!(tags(&[&tag.to_string()]).unwrap().unwrap().match_strongly(tag));
        }

        #[test]
        fn no_field_makes_the_reader_panic(field in any::<String>()) {
            let _ = tags(&[&field]);
        }
    }
}
