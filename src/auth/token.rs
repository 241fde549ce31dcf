//! Bearer tokens: JWTs (RFC 7519, RFC 8725), and who they say is calling.
//!
//! The algorithm is the key's to choose, never the token's. The signature is the library's business; what header and claims must
//! say is decided here, because the library takes a missing or odd one more lightly than we do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;

use super::claims::{Claims, Signer, sent};
use super::cryptography;
use super::jwks::Keys;
use super::key_set::{self, Candidates};
use crate::http::error::{Error, Unauthorized};

pub use super::claims::{Expected, ISSUER, Origin, Session, Verified};
pub use super::minter::{Minter, SessionClaims};

/// Why a token does not let its bearer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not accepted.
    Unauthorized(Unauthorized),
    /// It cannot be judged right now; the cause, for the log.
    Unavailable(String),
}

impl From<Unauthorized> for TokenError {
    fn from(why: Unauthorized) -> TokenError {
        TokenError::Unauthorized(why)
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Error {
        match error {
            TokenError::Unauthorized(why) => Error::Unauthorized(why),
            TokenError::Unavailable(cause) => Error::Unavailable(cause),
        }
    }
}

/// Takes the token out of the value of an `Authorization` header field (RFC 6750, section 2.1); the scheme has no case.
///
/// # Errors
/// [`Unauthorized::Missing`] where there is no bearer token.
pub fn bearer(authorization: Option<&str>) -> Result<&str, Unauthorized> {
    let value = authorization.ok_or(Unauthorized::Missing)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    if !scheme.is_empty() && !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Unauthorized::OtherScheme);
    }
    if token.is_empty() {
        return Err(Unauthorized::Missing);
    }
    Ok(token)
}

/// Checks bearer tokens.
pub struct TokenVerifier {
    // The first is the current one; a second one is there during a rotation.
    secrets: Vec<DecodingKey>,
    keys: Option<Keys>,
    expected: Expected,
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
        }
    }

    /// The same verifier, which also accepts tokens signed with these keys of others.
    #[must_use]
    pub fn trusting(self, keys: Keys) -> TokenVerifier {
        TokenVerifier {
            keys: Some(keys),
            ..self
        }
    }

    /// The same verifier, which asks this of tokens that are not ours.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> TokenVerifier {
        TokenVerifier { expected, ..self }
    }

    /// Has the keys of others read again, where there are any.
    pub fn reload(&self) {
        if let Some(keys) = &self.keys {
            keys.reload();
        }
    }

    /// Checks a token and answers whose it is.
    ///
    /// # Errors
    /// Says what is wrong with the token; never repeats any of it.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let token = Token::split(token)?;
        let header: Header = token.header()?;
        let signer = self.check_signature(&token, &header)?;
        let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
        let claims = token.claims()?;
        Ok(claims.check(token.message, signer, &self.expected, now)?)
    }

    /// Finds the key for a token and answers whose it is, where the signature is that key's.
    fn check_signature(&self, token: &Token, header: &Header) -> Result<Signer, TokenError> {
        let named = header.algorithm()?;
        if named == "HS256" {
            token.check_signature(&self.secrets, Algorithm::HS256)?;
            return Ok(Signer::Secret);
        }
        let Some(keys) = &self.keys else {
            return Err(Unauthorized::Invalid("only HS256 is accepted").into());
        };
        let algorithm = key_set::algorithm(named).ok_or(Unauthorized::Invalid(
            "only HS256, EdDSA, ES256 and RS256 are accepted",
        ))?;
        let id = header.key_id()?;
        let set = keys
            .for_token(algorithm, id)
            .map_err(|cause| TokenError::Unavailable(cause.to_owned()))?;
        match set.candidates(algorithm, id) {
            Candidates::Keys(keys) => token.check_signature(keys, algorithm)?,
            Candidates::Unknown => {
                return Err(Unauthorized::Invalid("its key is not known here").into());
            }
            Candidates::TooMany => {
                return Err(Unauthorized::Invalid("its header must name its key (kid)").into());
            }
        }
        Ok(Signer::KeySet)
    }
}

const NO_JWT: Unauthorized = Unauthorized::Invalid("it is not a JWT");

/// A token in its three parts, still encoded (RFC 7515, section 7.1).
struct Token<'t> {
    /// The first two parts, which are signed.
    message: &'t str,
    header: &'t str,
    claims: &'t str,
    signature: &'t str,
}

impl<'t> Token<'t> {
    fn split(token: &'t str) -> Result<Token<'t>, Unauthorized> {
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

    fn header(&self) -> Result<Header, Unauthorized> {
        let header: Header = decode(self.header)?;
        header.check().map(|()| header)
    }

    /// To be read once the signature is known to be good.
    fn claims(&self) -> Result<Claims, Unauthorized> {
        decode(self.claims)
    }

    /// Whether the signature is by one of these keys with this algorithm.
    fn check_signature<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k DecodingKey>,
        algorithm: Algorithm,
    ) -> Result<(), Unauthorized> {
        let message = self.message.as_bytes();
        for key in keys {
            // It fails where the signature is no base64, or where the key is not one for the algorithm.
            match jsonwebtoken::crypto::verify(self.signature, message, key, algorithm) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => return Err(NO_JWT),
            }
        }
        Err(Unauthorized::Invalid("the signature does not match"))
    }
}

/// Decodes a part that holds a JSON object. Base64 with padding, line breaks or loose bits at its end is refused.
fn decode<T: DeserializeOwned>(part: &str) -> Result<T, Unauthorized> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| NO_JWT)?;
    // Serde takes a list for an object with its fields in order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(NO_JWT);
    }
    serde_json::from_slice(&json).map_err(|_| NO_JWT)
}

/// What is read of a token's header (RFC 7515, section 4.1). `jku`, `jwk`, `x5u` and `x5c`, by which a token would bring its own
/// key, are not. One that is there twice is refused by the reader.
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
    fn check(&self) -> Result<(), Unauthorized> {
        // RFC 7515, section 4.1.11: what `crit` names must be understood, and we understand none of it. RFC 7797 has `b64`
        // named there, and it changes what is signed.
        if self.crit.is_some() || self.b64.as_ref().is_some_and(|b64| *b64 != true) {
            return Err(Unauthorized::Invalid(
                "its header names an extension that is not understood here",
            ));
        }
        let is_ours = |typ: &Value| {
            typ.as_str().is_some_and(|typ| {
                ["JWT", "at+jwt", "application/jwt", "application/at+jwt"]
                    .iter()
                    .any(|known| typ.eq_ignore_ascii_case(known))
            })
        };
        // RFC 8725, section 3.11: JWTs of other kinds say so, such as `logout+jwt`, and let nobody in.
        if !self.typ.as_ref().is_none_or(is_ours) {
            return Err(Unauthorized::Invalid(
                "its header says that it is no access token",
            ));
        }
        Ok(())
    }

    fn algorithm(&self) -> Result<&str, Unauthorized> {
        self.alg
            .as_str()
            .ok_or(Unauthorized::Invalid("its header must name its alg"))
    }

    fn key_id(&self) -> Result<Option<&str>, Unauthorized> {
        let Some(kid) = &self.kid else {
            return Ok(None);
        };
        // One that is null names no key either, and is no reason to try them all.
        kid.as_str().map(Some).ok_or(Unauthorized::Invalid(
            "the kid in its header must be a text",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::user::UserId;
    use std::time::Duration;
    use uuid::Uuid;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn refused(why: Unauthorized) -> Result<Verified, TokenError> {
        Err(TokenError::Unauthorized(why))
    }

    #[test]
    fn a_minted_token_names_its_user() {
        let user = UserId::parse("Zm9v").unwrap();
        let token = Minter::new(SECRET)
            .mint(&user, Some("z@example.org"), Duration::from_secs(60))
            .unwrap();
        let verified = TokenVerifier::new(SECRET, None).verify(&token).unwrap();
        assert_eq!(
            (&verified.user, verified.email.as_deref(), verified.origin),
            (&user, Some("z@example.org"), Origin::Ours)
        );
        let Session::None(token_of_no_session) = &verified.session else {
            panic!()
        };
        let issued_at = token_of_no_session.issued_at.unwrap();
        assert_eq!(token_of_no_session.expires_at, issued_at + 60 + 10);
        let other = "f".repeat(32);
        assert_eq!(
            TokenVerifier::new(&other, Some(SECRET)).verify(&token),
            Ok(verified),
            "the secret before still verifies"
        );
        assert_eq!(
            TokenVerifier::new(&other, None).verify(&token),
            refused(Unauthorized::Invalid("the signature does not match"))
        );
    }

    #[test]
    fn a_sessions_token_is_the_same_for_the_same_claims() {
        let user = UserId::parse("Zm9v").unwrap();
        let claims = SessionClaims {
            user: &user,
            email: None,
            session: Uuid::now_v7(),
            jti: Uuid::new_v4(),
            issued_at: OffsetDateTime::now_utc().unix_timestamp(),
            lifetime: Duration::from_secs(60),
        };
        let minter = Minter::new(SECRET);
        let token = minter.mint_for_session(claims.clone()).unwrap();
        assert_eq!(minter.mint_for_session(claims.clone()).unwrap(), token);
        let verified = TokenVerifier::new(SECRET, None).verify(&token).unwrap();
        assert_eq!(verified.session, Session::Ours(claims.session));
        assert_eq!(
            (verified.user, verified.origin),
            (user.clone(), Origin::Ours)
        );
    }

    #[test]
    fn the_scheme_has_no_case_and_a_token_must_follow() {
        for value in [None, Some(""), Some("Bearer"), Some("Bearer ")] {
            assert_eq!(bearer(value), Err(Unauthorized::Missing), "{value:?}");
        }
        for value in ["Basic Zm9v", "BearerX"] {
            assert_eq!(
                bearer(Some(value)),
                Err(Unauthorized::OtherScheme),
                "{value:?}"
            );
        }
        let verifier = TokenVerifier::new(SECRET, None);
        for value in ["bearer x", "BEARER opaque-session-token", "Bearer a.b.c"] {
            assert_eq!(
                bearer(Some(value))
                    .map_err(TokenError::from)
                    .and_then(|token| verifier.verify(token)),
                refused(NO_JWT),
                "{value}"
            );
        }
    }
}
