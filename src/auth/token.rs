//! Bearer tokens: JWTs signed with HS256 (RFC 7519, RFC 8725).
//!
//! The algorithm is ours to choose, never the token's. The signature is the library's business; what the claims must say is
//! decided here, because the library takes a missing or odd claim more lightly than we do.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::user::UserId;
use crate::http::error::Unauthorized;

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: f64 = 10.0;
/// The last second of the year 9999, the latest that RFC 3339 can write.
const LATEST_EXPIRY: f64 = 253_402_300_799.0;
/// What our own tokens name as their issuer.
pub const ISSUER: &str = "todo-api";

/// Checks bearer tokens.
pub struct Verifier {
    // The first key is the current one; a second one is there during a rotation.
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl Verifier {
    /// A verifier for the current secret and, during a rotation, the one before it.
    pub fn new(secret: &str, previous: Option<&str>) -> Verifier {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let keys = std::iter::once(secret)
            .chain(previous)
            .map(|key| DecodingKey::from_secret(key.as_bytes()))
            .collect();
        Verifier { keys, validation }
    }

    /// Reads the value of an `Authorization` header field and answers whose token it is.
    ///
    /// # Errors
    /// Says what is wrong with the token; never repeats any of it.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<UserId, Unauthorized> {
        let value = authorization.ok_or(Unauthorized::Missing)?;
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(Unauthorized::Missing);
        }
        self.verify(token.trim())
    }

    /// Checks a token and answers whose it is.
    ///
    /// # Errors
    /// As [`Verifier::authenticate`].
    pub fn verify(&self, token: &str) -> Result<UserId, Unauthorized> {
        let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
        self.claims(token)?.check(now)
    }

    fn claims(&self, token: &str) -> Result<Claims, Unauthorized> {
        let mut refusal = Unauthorized::Invalid("it is not a JWT");
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                // RFC 7515, section 4.1.11: what `crit` names must be understood, and we understand none of it.
                Ok(data) if data.header.crit.is_some() => {
                    return Err(Unauthorized::Invalid(
                        "its header names an extension that is not understood here",
                    ));
                }
                Ok(data) => return Ok(data.claims),
                Err(error) => {
                    refusal = Unauthorized::Invalid(match error.kind() {
                        ErrorKind::InvalidSignature => "the signature does not match",
                        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                            "only HS256 is accepted"
                        }
                        _ => "it is not a JWT",
                    });
                }
            }
        }
        Err(refusal)
    }
}

/// The claims that are read. Each stays as it came until it is judged: absent, null and the wrong type are different faults.
#[derive(Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "sent")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    sub: Option<Value>,
    // Where there is no `sub`, these are tried in this order.
    #[serde(default)]
    user_id: Value,
    #[serde(default, rename = "userId")]
    user_id_camel: Value,
    #[serde(default)]
    id: Value,
}

/// Tells a claim that is `null` from one that is absent.
fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Claims {
    /// `now` in seconds since 1970.
    fn check(&self, now: f64) -> Result<UserId, Unauthorized> {
        let exp = self
            .exp
            .as_ref()
            .ok_or(Unauthorized::Invalid("the claim exp is missing"))?;
        let exp = exp
            .as_f64()
            .filter(|exp| (0.0..=LATEST_EXPIRY).contains(exp))
            .ok_or(Unauthorized::Invalid(
                "the claim exp must be a time in seconds",
            ))?;
        if let Some(nbf) = &self.nbf {
            let nbf = nbf.as_f64().ok_or(Unauthorized::Invalid(
                "the claim nbf must be a time in seconds",
            ))?;
            if nbf > now + LEEWAY_SECONDS {
                return Err(Unauthorized::Invalid("it is not valid yet"));
            }
        }
        let user = self.user()?;
        if exp <= now - LEEWAY_SECONDS {
            return Err(Unauthorized::Expired);
        }
        Ok(user)
    }

    fn user(&self) -> Result<UserId, Unauthorized> {
        let subject = match &self.sub {
            Some(sub) => sub.as_str(),
            None => [&self.user_id, &self.user_id_camel, &self.id]
                .into_iter()
                .find_map(Value::as_str),
        };
        subject
            .and_then(|id| UserId::parse(id).ok())
            .ok_or(Unauthorized::Invalid(
                "the claim sub must name a user in 1 to 255 characters",
            ))
    }
}

/// Makes bearer tokens.
pub struct Minter {
    key: EncodingKey,
}

impl Minter {
    /// A minter that signs with the current secret.
    pub fn new(secret: &str) -> Minter {
        Minter {
            key: EncodingKey::from_secret(secret.as_bytes()),
        }
    }

    /// A token for a user that is good for `lifetime` from now.
    ///
    /// # Errors
    /// The library's own sentence, when it cannot sign; not known to happen with HS256.
    pub fn mint(
        &self,
        user: &UserId,
        email: Option<&str>,
        lifetime: Duration,
    ) -> Result<String, String> {
        let issued_at = OffsetDateTime::now_utc().unix_timestamp();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = MintedClaims {
            iss: ISSUER,
            sub: user.as_str(),
            email,
            iat: issued_at,
            exp: issued_at.saturating_add(lifetime),
            jti: Uuid::new_v4().simple().to_string(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .map_err(|error| error.to_string())
    }
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    iss: &'static str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    iat: i64,
    exp: i64,
    jti: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: f64 = 1_800_000_000.0;

    fn check(claims: Value) -> Result<String, Unauthorized> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.check(NOW).map(|user| user.as_str().to_owned())
    }

    #[test]
    fn the_subject_is_sub_or_the_first_of_its_stand_ins() {
        let later = NOW + 60.0;
        for (claims, user) in [
            (json!({"exp": later, "sub": "a", "id": "b"}), "a"),
            (json!({"exp": later, "user_id": "a", "id": "b"}), "a"),
            (
                json!({"exp": later, "user_id": 7, "userId": "b", "id": "c"}),
                "b",
            ),
            (
                json!({"exp": later, "id": "c", "email": "x@example.org", "aud": ["anyone"]}),
                "c",
            ),
        ] {
            assert_eq!(check(claims.clone()).as_deref(), Ok(user), "{claims}");
        }
        for claims in [
            json!({"exp": later}),
            json!({"exp": later, "sub": null, "id": "a"}),
            json!({"exp": later, "sub": "", "id": "a"}),
            json!({"exp": later, "sub": 7, "id": "a"}),
            json!({"exp": later, "sub": ["a"]}),
            json!({"exp": later, "sub": "a\u{0}"}),
            json!({"exp": later, "sub": "x".repeat(256)}),
        ] {
            assert!(
                matches!(check(claims.clone()), Err(Unauthorized::Invalid(_))),
                "{claims}"
            );
        }
    }

    #[test]
    fn times_are_numbers_within_reason() {
        let with_exp = |exp: Value| check(json!({"sub": "a", "exp": exp}));
        assert!(with_exp(json!(NOW - 9.0)).is_ok(), "within the leeway");
        assert_eq!(with_exp(json!(NOW - 10.0)), Err(Unauthorized::Expired));
        assert_eq!(with_exp(json!(NOW - 31.0)), Err(Unauthorized::Expired));
        for exp in [
            json!("1900000000"),
            json!(null),
            json!(1e300),
            json!(-1),
            json!([1]),
            json!(true),
            json!(253402300800_u64),
        ] {
            assert!(
                matches!(with_exp(exp.clone()), Err(Unauthorized::Invalid(_))),
                "{exp}"
            );
        }
        let with_nbf = |nbf: Value| check(json!({"sub": "a", "exp": NOW + 60.0, "nbf": nbf}));
        assert!(with_nbf(json!(NOW + 10.0)).is_ok(), "within the leeway");
        assert!(with_nbf(json!(NOW + 11.0)).is_err());
        assert!(with_nbf(json!("0")).is_err());
    }

    #[test]
    fn a_minted_token_names_its_user() {
        let user = UserId::parse("Zm9v").unwrap();
        let token = Minter::new(SECRET)
            .mint(&user, Some("z@example.org"), Duration::from_secs(60))
            .unwrap();
        assert_eq!(Verifier::new(SECRET, None).verify(&token), Ok(user.clone()));
        let other = "f".repeat(32);
        assert_eq!(
            Verifier::new(&other, Some(SECRET)).verify(&token),
            Ok(user),
            "the secret before still verifies"
        );
        assert_eq!(
            Verifier::new(&other, None).verify(&token),
            Err(Unauthorized::Invalid("the signature does not match"))
        );
    }

    #[test]
    fn the_scheme_has_no_case_and_a_token_must_follow() {
        let verifier = Verifier::new(SECRET, None);
        for value in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic Zm9v"),
            Some("BearerX"),
        ] {
            assert_eq!(
                verifier.authenticate(value),
                Err(Unauthorized::Missing),
                "{value:?}"
            );
        }
        for value in ["bearer x", "BEARER opaque-session-token", "Bearer a.b.c"] {
            assert_eq!(
                verifier.authenticate(Some(value)),
                Err(Unauthorized::Invalid("it is not a JWT")),
                "{value}"
            );
        }
    }
}
