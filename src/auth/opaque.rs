//! Tokens without content: refresh tokens and personal API tokens. Each has 256 random bits. So the database stores a plain SHA-256 of
//! it: unlike a password, such a token cannot be guessed from its hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use uuid::Uuid;

/// The first characters of a personal API token.
pub const API_TOKEN_PREFIX: &str = "todo_";
/// The first characters of a refresh token.
const REFRESH_TOKEN_PREFIX: &str = "refresh_";
/// Length of 256 bits in base64.
const RANDOM_LENGTH: usize = 43;
/// Length of the part of an API token that lists show. It has 48 of the 256 bits.
const SHOWN: usize = API_TOKEN_PREFIX.len() + 8;

/// A new personal API token.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_api_token() -> Result<String, String> {
    random().map(|bytes| text(API_TOKEN_PREFIX, &bytes))
}

/// Whether a text has the form of an API token.
pub fn looks_like_api_token(text: &str) -> bool {
    let random = text.strip_prefix(API_TOKEN_PREFIX).unwrap_or_default();
    random.len() == RANDOM_LENGTH
        && random
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The part of an API token that lists show, so that its owner recognises it.
pub fn shown_part(api_token: &str) -> &str {
    api_token.get(..SHOWN).unwrap_or(api_token)
}

/// A new refresh token.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_refresh_token() -> Result<String, String> {
    random().map(|bytes| text(REFRESH_TOKEN_PREFIX, &bytes))
}

/// The hash of a token.
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// Derives the next refresh token from a refresh token. The same token always gives the same successor. So a client that sends a token
/// twice gets the same answer, and the database stores no usable token.
pub struct Succession {
    key: [u8; 32],
}

/// The tokens that follow a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The next refresh token.
    pub refresh_token: String,
    /// The id (`jti`) of its access token.
    pub token_id: Uuid,
}

impl Succession {
    /// Uses a key that is derived from the secret that signs access tokens.
    pub fn new(secret: &str) -> Succession {
        Succession {
            key: mac(secret.as_bytes(), b"todo-api refresh token succession"),
        }
    }

    /// The tokens that follow this refresh token.
    pub fn after(&self, refresh_token: &str) -> Successor {
        let next = mac(&self.key, format!("token {refresh_token}").as_bytes());
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
            mac(&self.key, format!("id {refresh_token}").as_bytes());
        let id = uuid::Builder::from_custom_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
        Successor {
            refresh_token: text(REFRESH_TOKEN_PREFIX, &next),
            token_id: id.into_uuid(),
        }
    }
}

/// HMAC-SHA256 (RFC 2104).
fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = [0; 32];
    mac.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    mac
}

fn random() -> Result<[u8; 32], String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes for a token: {error}"))?;
    Ok(bytes)
}

fn text(prefix: &str, bytes: &[u8; 32]) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_different() {
        let tokens = [
            new_api_token().unwrap(),
            new_api_token().unwrap(),
            new_refresh_token().unwrap(),
        ];
        assert!(
            tokens[0].starts_with("todo_") && tokens[0].len() == 48,
            "{}",
            tokens[0]
        );
        assert!(tokens[0] != tokens[1] && tokens[2].starts_with("refresh_"));
        assert_eq!(shown_part(&tokens[0]).len(), 13);
        assert_eq!(shown_part("todo_"), "todo_");
        assert!(looks_like_api_token(&tokens[0]) && !looks_like_api_token(&tokens[2]));
        assert!(!looks_like_api_token("todo_x") && !looks_like_api_token(""));
    }

    #[test]
    fn a_successor_follows_from_token_and_key() {
        let (ours, theirs) = (
            Succession::new("one secret"),
            Succession::new("another secret"),
        );
        let next = ours.after("refresh_a");
        assert_eq!(next, ours.after("refresh_a"));
        assert_ne!(next.refresh_token, ours.after("refresh_b").refresh_token);
        assert_ne!(next.refresh_token, theirs.after("refresh_a").refresh_token);
        assert_ne!(next.token_id, ours.after("refresh_b").token_id);
        assert_ne!(ours.after(&next.refresh_token).refresh_token, "refresh_a");
    }
}
