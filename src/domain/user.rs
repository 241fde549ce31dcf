//! Ids of users.

use std::fmt;

use uuid::Uuid;

/// Longest user id, in characters (Unicode scalar values).
pub const USER_ID_MAX: usize = 255;

/// The opaque name of a user: 1 to 255 characters, no control characters.
///
/// It may be a UUID made here, the 32 letters and digits of another issuer, or an id of any other system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(String);

impl UserId {
    /// Reads an id from a token.
    ///
    /// # Errors
    /// Says what a user id must be, as the end of a sentence.
    pub fn parse(id: &str) -> Result<UserId, &'static str> {
        if id.is_empty() || id.chars().count() > USER_ID_MAX {
            return Err("must have 1 to 255 characters");
        }
        if id.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        Ok(UserId(id.to_owned()))
    }

    /// An id that was checked before it was stored.
    pub fn from_store(id: String) -> UserId {
        UserId(id)
    }

    /// An id for an account made here: a UUID of version 7.
    pub fn new_local() -> UserId {
        UserId(Uuid::now_v7().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_opaque() {
        for id in [
            "u",
            "0190b7c6-0000-7000-8000-000000000000",
            "Zm9v|bar baz/ü",
            &"x".repeat(255),
        ] {
            assert_eq!(UserId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn empty_long_and_controlled_ids_are_refused() {
        for id in ["", &"x".repeat(256), "a\0b", "a\nb"] {
            assert!(UserId::parse(id).is_err(), "{id:?}");
        }
    }
}
