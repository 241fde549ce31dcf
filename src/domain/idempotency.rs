//! The key with which a client repeats a request that must be done once.

use sha2::{Digest, Sha256};

/// Longest key, in characters.
pub const KEY_MAX: usize = 255;

/// A request that may be repeated: the client's key, and a digest of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeatable {
    key: String,
    digest: Vec<u8>,
}

impl Repeatable {
    /// Reads the value of an `Idempotency-Key` field: 1 to 255 visible ASCII characters.
    ///
    /// # Errors
    /// Says what a key must be, as the end of a sentence.
    pub fn parse(key: &str, body: &[u8]) -> Result<Repeatable, &'static str> {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=KEY_MAX).contains(&key.len()) {
            return Err("must be 1 to 255 visible ASCII characters, a UUID for example");
        }
        Ok(Repeatable {
            key: key.to_owned(),
            digest: Sha256::digest(body).to_vec(),
        })
    }

    /// As a request to another route than `POST /tasks`: the same body is then another request.
    pub fn on_route(mut self, route: &str) -> Repeatable {
        self.digest = Sha256::digest([route.as_bytes(), &self.digest].concat()).to_vec();
        self
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// SHA-256 of the body.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_characters() {
        let longest = "k".repeat(255);
        for key in [
            "k",
            "0190b7c6-0000-7000-8000-000000000000",
            "\"quoted\"",
            &longest,
        ] {
            assert_eq!(Repeatable::parse(key, b"").unwrap().key(), key);
        }
        for key in ["", "a b", "é", "a\tb", "\u{7f}", &"k".repeat(256)] {
            assert!(Repeatable::parse(key, b"").is_err(), "{key:?}");
        }
    }

    #[test]
    fn another_body_has_another_digest() {
        let digest = |body| Repeatable::parse("k", body).unwrap().digest;
        assert_eq!(digest(b"{}"), digest(b"{}"));
        assert_ne!(digest(b"{}"), digest(b"{ }"));
    }
}
