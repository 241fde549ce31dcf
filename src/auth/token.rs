//! Bearer tokens: JWTs (RFC 7519, RFC 8725).
//!
//! The key determines the algorithm, never the token. The library checks signatures only. This module checks header and claims,
//! because the library is less strict: it accepts a token without `exp`, for example.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;

use super::claims::{Claims, Signer, sent};
use super::cryptography;
use super::error::AuthError;
use super::guard::Sender;
use super::jwks::{KeySetUrl, Keys, Location, Timing};
use super::key_set::{self, Candidates, KeySet};
use super::opaque;
use super::token_cache::TokenCache;

use crate::config::{Secret, TokenSettings};

pub use super::claims::{Expected, ISSUER, TokenOrigin, TokenSession, Verified};
pub use super::minter::{Minter, NewToken};

/// Reads the token from an `Authorization` header field (RFC 6750, section 2.1). The scheme is case-insensitive.
///
/// # Errors
/// [`AuthError::NoToken`] if the field has no bearer token.
pub fn bearer(authorization: Option<&str>) -> Result<&str, AuthError> {
    let value = authorization.ok_or(AuthError::NoToken)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    if !scheme.is_empty() && !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::OtherScheme);
    }
    if token.is_empty() {
        return Err(AuthError::NoToken);
    }
    Ok(token)
}

/// Checks bearer tokens.
pub struct TokenVerifier {
    /// The current secret and, during a rotation, the one before it.
    secrets: Vec<DecodingKey>,
    keys: Option<Keys>,
    expected: Expected,
    cache: TokenCache,
}

impl TokenVerifier {
    /// A verifier for the current secret and, during a rotation, the one before it.
    pub fn new(secret: &str, previous: Option<&str>) -> TokenVerifier {
        cryptography::install();
        let secrets = std::iter::once(secret)
            .chain(previous)
            .map(|key| DecodingKey::from_secret(key.as_bytes()))
            .collect();
        TokenVerifier {
            secrets,
            keys: None,
            expected: Expected::default(),
            cache: TokenCache::default(),
        }
    }

    /// A verifier for the secret, with the other settings of tokens.
    ///
    /// # Errors
    /// The key set cannot be read; one sentence.
    pub fn of_settings(secret: &str, settings: &TokenSettings) -> Result<TokenVerifier, String> {
        let previous = settings.previous_secret.as_ref().map(Secret::expose);
        let verifier = TokenVerifier::new(secret, previous).expecting(Expected {
            issuers: settings.issuers.clone(),
            audiences: settings.audiences.clone(),
        });
        let location = match (&settings.key_set_file, &settings.key_set_url) {
            (Some(file), _) => Location::File(file.clone()),
            (None, Some(url)) => Location::Url(KeySetUrl::parse(url)?),
            (None, None) => return Ok(verifier),
        };
        if settings.audiences.is_empty() {
            log::warn!(
                "JWT_AUDIENCE is not set: tokens that the owner of the key set in {location} makes for other services are accepted here too"
            );
        }
        let keys = Keys::load(&location, Timing::default());
        let keys = keys.map_err(|problem| format!("{location}: {problem}"))?;
        Ok(verifier.trusting(keys))
    }

    /// Adds a key set of another issuer.
    #[must_use]
    pub fn trusting(self, keys: Keys) -> TokenVerifier {
        TokenVerifier {
            keys: Some(keys),
            ..self
        }
    }

    /// Adds rules for tokens of other issuers.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> TokenVerifier {
        TokenVerifier { expected, ..self }
    }

    /// The configured key set.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Checks a token and returns its claims.
    ///
    /// # Errors
    /// Says what is wrong with the token.
    pub fn verify(&self, token: &str, sender: &Sender) -> Result<Verified, AuthError> {
        let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
        let hash = opaque::hash(token);
        let keys = self.keys.as_ref().and_then(Keys::current);
        if let Some(verified) = self.cache.get(&hash, keys.as_ref()) {
            return verified.check_times(now).map(|()| verified);
        }
        let token = Token::split(token)?;
        let header: Header = token.header()?;
        let keys = self.check_signature(&token, &header, sender)?;
        let signer = keys.as_ref().map_or(Signer::Secret, |_| Signer::KeySet);
        let verified = token
            .claims()?
            .check(token.message, signer, &self.expected)?;
        verified.check_times(now)?;
        self.cache.insert(hash, &verified, keys);
        Ok(verified)
    }

    /// Finds the key of a token and checks the signature. Returns the key set if the key is in it.
    fn check_signature(
        &self,
        token: &Token,
        header: &Header,
        sender: &Sender,
    ) -> Result<Option<Arc<KeySet>>, AuthError> {
        let named = header.algorithm()?;
        if named == "HS256" {
            token.check_signature(&self.secrets, Algorithm::HS256)?;
            return Ok(None);
        }
        let Some(keys) = &self.keys else {
            return Err(AuthError::Invalid("only HS256 is accepted"));
        };
        let algorithm = key_set::algorithm(named).ok_or(AuthError::Invalid(
            "only HS256, EdDSA, ES256 and RS256 are accepted",
        ))?;
        let id = header.key_id()?;
        let set = keys.for_token(algorithm, id, sender)?;
        match set.candidates(algorithm, id) {
            Candidates::Keys(keys) => token.check_signature(keys, algorithm)?,
            Candidates::Unknown => return Err(AuthError::Invalid("its key is not known here")),
            Candidates::TooMany => {
                return Err(AuthError::Invalid("its header must name its key (kid)"));
            }
        }
        Ok(Some(set))
    }
}

const NO_JWT: AuthError = AuthError::Invalid("it is not a JWT");

/// A token in its three parts, still encoded (RFC 7515, section 7.1).
struct Token<'t> {
    /// The first two parts, which are signed.
    message: &'t str,
    header: &'t str,
    claims: &'t str,
    signature: &'t str,
}

impl<'t> Token<'t> {
    fn split(token: &'t str) -> Result<Token<'t>, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or(NO_JWT)?;
        let (header, claims) = message.split_once('.').ok_or(NO_JWT)?;
        if claims.contains('.') {
            return Err(NO_JWT);
        }
        Ok(Token {
            message,
            header,
            claims,
            signature,
        })
    }

    fn header(&self) -> Result<Header, AuthError> {
        let header: Header = decode(self.header)?;
        header.check().map(|()| header)
    }

    /// Reads the claims, after the check of the signature.
    fn claims(&self) -> Result<Claims, AuthError> {
        decode(self.claims)
    }

    /// Checks that one of these keys has signed the token with this algorithm.
    fn check_signature<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k DecodingKey>,
        algorithm: Algorithm,
    ) -> Result<(), AuthError> {
        let message = self.message.as_bytes();
        for key in keys {
            // An error means that the signature is not base64, or that the key is for another algorithm.
            match jsonwebtoken::crypto::verify(self.signature, message, key, algorithm) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => return Err(NO_JWT),
            }
        }
        Err(AuthError::Invalid("the signature does not match"))
    }
}

/// Decodes a part that is a JSON object. Base64 with padding, line breaks or unused bits at its end is refused.
fn decode<T: DeserializeOwned>(part: &str) -> Result<T, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| NO_JWT)?;
    // Serde would accept a list of the values.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(NO_JWT);
    }
    serde_json::from_slice(&json).map_err(|_| NO_JWT)
}

/// The members of a token's header that are read (RFC 7515, section 4.1). `jku`, `jwk`, `x5u` and `x5c` are not read, because they
/// would let a token bring its own key. Serde refuses a member that occurs twice.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: Value,
    #[serde(default, deserialize_with = "sent")]
    typ: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    crit: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    b64: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    kid: Option<Value>,
}

impl Header {
    fn check(&self) -> Result<(), AuthError> {
        // RFC 7515, section 4.1.11: a token with an extension that the server does not implement is refused, and the server
        // implements none. `b64` (RFC 7797) is one that changes the signed text.
        if self.crit.is_some() || self.b64.as_ref().is_some_and(|b64| *b64 != true) {
            return Err(AuthError::Invalid(
                "its header names an extension that is not understood here",
            ));
        }
        let types = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
        let lower_case = |typ: &Value| typ.as_str().map(str::to_ascii_lowercase);
        // RFC 8725, section 3.11: JWTs of other kinds, such as `logout+jwt`, are not access tokens.
        if let Some(typ) = &self.typ
            && !lower_case(typ).is_some_and(|typ| types.contains(&typ.as_str()))
        {
            return Err(AuthError::Invalid(
                "its header says that it is no access token",
            ));
        }
        Ok(())
    }

    fn algorithm(&self) -> Result<&str, AuthError> {
        self.alg
            .as_str()
            .ok_or(AuthError::Invalid("its header must name its alg"))
    }

    fn key_id(&self) -> Result<Option<&str>, AuthError> {
        let Some(kid) = &self.kid else {
            return Ok(None);
        };
        // With `null` the server would have to try all keys, as without `kid`.
        kid.as_str()
            .map(Some)
            .ok_or(AuthError::Invalid("the kid in its header must be a text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::user::UserId;
    use std::time::Duration;
    use uuid::Uuid;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn verify(verifier: &TokenVerifier, token: &str) -> Result<Verified, AuthError> {
        let sender = Sender {
            holder: None,
            admit: &|| true,
        };
        verifier.verify(token, &sender)
    }

    #[track_caller]
    fn assert_invalid(result: &Result<Verified, AuthError>, text: &str) {
        assert!(
            matches!(result, Err(AuthError::Invalid(why)) if *why == text),
            "{result:?}"
        );
    }

    #[test]
    fn a_minted_token_names_its_user() {
        let user = UserId::parse("Zm9v").unwrap();
        let token = Minter::new(SECRET)
            .mint(&user, Some("z@example.org"), Duration::from_secs(60))
            .unwrap();
        let verified = verify(&TokenVerifier::new(SECRET, None), &token).unwrap();
        assert_eq!(
            (&verified.user, verified.email.as_deref(), verified.origin),
            (&user, Some("z@example.org"), TokenOrigin::Ours)
        );
        let TokenSession::None(token_of_no_session) = &verified.session else {
            panic!()
        };
        let issued_at = token_of_no_session.issued_at.unwrap();
        assert_eq!(token_of_no_session.expires_at, issued_at + 60 + 10);
        let other = "f".repeat(32);
        assert_eq!(
            verify(&TokenVerifier::new(&other, Some(SECRET)), &token).unwrap(),
            verified,
            "the secret before still verifies"
        );
        let refused = verify(&TokenVerifier::new(&other, None), &token);
        assert_invalid(&refused, "the signature does not match");
    }

    #[test]
    fn the_token_of_a_session_is_the_same_for_the_same_claims() {
        let user = UserId::parse("Zm9v").unwrap();
        let new = NewToken {
            user: &user,
            email: None,
            session: Some(Uuid::now_v7()),
            jti: Uuid::new_v4(),
            issued_at: OffsetDateTime::now_utc().unix_timestamp(),
            lifetime: Duration::from_secs(60),
        };
        let minter = Minter::new(SECRET);
        let token = minter.sign(&new).unwrap();
        assert_eq!(minter.sign(&new).unwrap(), token);
        let verified = verify(&TokenVerifier::new(SECRET, None), &token).unwrap();
        assert_eq!(verified.session, TokenSession::Ours(new.session.unwrap()));
        assert_eq!(
            (verified.user, verified.origin),
            (user.clone(), TokenOrigin::Ours)
        );
    }

    #[test]
    fn the_scheme_has_no_case_and_a_token_must_follow() {
        for value in [None, Some(""), Some("Bearer"), Some("Bearer ")] {
            assert!(
                matches!(bearer(value), Err(AuthError::NoToken)),
                "{value:?}"
            );
        }
        for value in ["Basic Zm9v", "BearerX"] {
            assert!(
                matches!(bearer(Some(value)), Err(AuthError::OtherScheme)),
                "{value:?}"
            );
        }
        let verifier = TokenVerifier::new(SECRET, None);
        for value in ["bearer x", "BEARER opaque-session-token", "Bearer a.b.c"] {
            let token = bearer(Some(value)).unwrap();
            assert_invalid(&verify(&verifier, token), "it is not a JWT");
        }
    }
}
