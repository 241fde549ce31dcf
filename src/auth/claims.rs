//! The claims of a token (RFC 7519, section 4).
//!
//! A claim is read as any JSON value and checked afterwards, because absent, null and of a wrong type are different errors.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AuthError;
use super::opaque;
use crate::domain::session::{SessionlessToken, TokenId, TokenRefusal};
use crate::domain::user::UserId;

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: f64 = 10.0;
/// The last second of the year 9999, the latest that RFC 3339 can write.
const LATEST_TIME: f64 = 253_402_300_799.0;
/// Longest email address that is shown (RFC 5321, section 4.5.3.1.3).
const EMAIL_MAX: usize = 254;

/// The issuer of this server's own tokens.
pub const ISSUER: &str = "todo-api";

/// The claims of a token whose signature is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The user of the token.
    pub user: UserId,
    /// The user's email address. It is shown, and nothing depends on it.
    pub email: Option<String>,
    /// The claim `iat`, in whole seconds since 1970, if it is a time.
    pub issued_at: Option<i64>,
    /// The claim `nbf`, in seconds since 1970.
    not_before: Option<f64>,
    /// The claim `exp`, in seconds since 1970.
    expires_at: f64,
    /// The session of the token.
    pub session: TokenSession,
    /// Who has made the token.
    pub origin: TokenOrigin,
}

impl Verified {
    /// Checks that the token is valid now; `now` in seconds since 1970.
    ///
    /// # Errors
    /// The token has expired, or is not valid yet.
    pub fn check_times(&self, now: f64) -> Result<(), AuthError> {
        let why = if self
            .not_before
            .is_some_and(|start| start > now + LEEWAY_SECONDS)
        {
            TokenRefusal::Invalid("it is not valid yet")
        } else if self.expires_at <= now - LEEWAY_SECONDS {
            TokenRefusal::Expired
        } else {
            return Ok(());
        };
        Err(AuthError::Refused(why, self.user.clone()))
    }
}

/// The session of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSession {
    /// A session of this server. Only its own tokens have one.
    Ours(Uuid),
    /// No session of this server.
    None(SessionlessToken),
}

/// Who has made a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// This server, with a session or, for scripts, without one.
    Ours,
    /// Another issuer that has the secret.
    SharedSecret,
    /// The owner of a key in the configured key set.
    KeySet,
}

/// The configured rules for tokens of other issuers. An empty list allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The accepted values of the claim `iss`.
    pub issuers: Vec<String>,
    /// The accepted values of the claim `aud`.
    pub audiences: Vec<String>,
}

/// The kind of key that has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The secret, which this server and front ends share.
    Secret,
    /// A key of the key set.
    KeySet,
}

/// The claims that are read. Serde refuses a claim that occurs twice.
#[derive(Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "sent")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "sent")]
    sub: Option<Value>,
    // Without `sub`, the first of these that is a string names the user, in this order.
    #[serde(default)]
    user_id: Value,
    #[serde(default, rename = "userId")]
    user_id_camel: Value,
    #[serde(default)]
    id: Value,
    /// Better Auth's cookie cache names its user in `user.id` alone.
    #[serde(default)]
    user: Value,
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    #[serde(default, deserialize_with = "sent")]
    sid: Option<Value>,
    #[serde(default)]
    iat: Value,
    #[serde(default)]
    jti: Value,
    #[serde(default)]
    email: Value,
}

/// Reads a member that is there, as `null` too. An absent one is `None` by `#[serde(default)]`.
pub fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Claims {
    /// Checks the claims of a token whose signature is valid, except the times; `message` is the signed text.
    ///
    /// # Errors
    /// Says which claim is wrong, with the user if that claim is another one.
    pub fn check(
        &self,
        message: &str,
        signer: Signer,
        expected: &Expected,
    ) -> Result<Verified, AuthError> {
        let verified = self.verified(message, signer, expected);
        verified.map_err(|error| match (error, self.user()) {
            (AuthError::Invalid(why), Ok(user)) => {
                AuthError::Refused(TokenRefusal::Invalid(why), user)
            }
            (error, _) => error,
        })
    }

    fn verified(
        &self,
        message: &str,
        signer: Signer,
        expected: &Expected,
    ) -> Result<Verified, AuthError> {
        const NBF: AuthError = AuthError::Invalid("the claim nbf must be a time in seconds");
        let not_before = self.nbf.as_ref().map(|nbf| nbf.as_f64().ok_or(NBF));
        let not_before = not_before.transpose()?;
        let exp = self
            .exp
            .as_ref()
            .ok_or(AuthError::Invalid("the claim exp is missing"))?;
        let expires_at = time(exp).ok_or(AuthError::Invalid(
            "the claim exp must be a time in seconds",
        ))?;
        let origin = match signer {
            Signer::Secret if self.iss == ISSUER => TokenOrigin::Ours,
            Signer::Secret => TokenOrigin::SharedSecret,
            Signer::KeySet => TokenOrigin::KeySet,
        };
        if origin != TokenOrigin::Ours {
            self.check_expected(expected)?;
        }
        let user = self.user()?;
        // A time that is out of range or no number counts as absent.
        let issued_at = time(&self.iat).map(|iat| iat.floor() as i64);
        let session = match &self.sid {
            // The `sid` of another issuer names no session of this server.
            Some(sid) if origin == TokenOrigin::Ours => TokenSession::Ours(session(sid)?),
            _ => TokenSession::None(SessionlessToken {
                id: self.token_id(&user, signer, message),
                issued_at,
                expires_at: (expires_at + LEEWAY_SECONDS).ceil() as i64,
            }),
        };
        Ok(Verified {
            user,
            email: self.email(),
            issued_at,
            not_before,
            expires_at,
            session,
            origin,
        })
    }

    /// The id by which `logout` refuses the token: from its `jti` or, without one, from the signed text. The signature is left out,
    /// because an ECDSA signature has a second valid form. User, kind of key and issuer are included, because a `jti` is unique only
    /// for its issuer.
    fn token_id(&self, user: &UserId, signer: Signer, message: &str) -> TokenId {
        let named = match self.jti.as_str().filter(|jti| !jti.is_empty()) {
            Some(jti) => json!([user.as_str(), signer == Signer::KeySet, self.iss, jti]),
            None => json!([user.as_str(), message]),
        };
        opaque::hash(&named.to_string())
    }

    fn check_expected(&self, expected: &Expected) -> Result<(), AuthError> {
        let accepts = |accepted: &[String], claim: &Value| {
            accepted.is_empty() || accepted.iter().any(|one| claim == one)
        };
        if !accepts(&expected.issuers, &self.iss) {
            return Err(AuthError::Invalid(
                "the claim iss does not name an issuer that is accepted here",
            ));
        }
        // RFC 7519, section 4.1.3: one audience may stand without a list.
        let audiences = self
            .aud
            .as_array()
            .map_or(std::slice::from_ref(&self.aud), Vec::as_slice);
        if !expected.audiences.is_empty()
            && !audiences
                .iter()
                .any(|audience| accepts(&expected.audiences, audience))
        {
            return Err(AuthError::Invalid(
                "the claim aud does not name an audience that is accepted here",
            ));
        }
        Ok(())
    }

    fn user(&self) -> Result<UserId, AuthError> {
        let subject = match &self.sub {
            Some(sub) => sub.as_str(),
            None => {
                let nested = self.user.get("id").unwrap_or_default();
                [&self.user_id, &self.user_id_camel, &self.id, nested]
                    .into_iter()
                    .find_map(Value::as_str)
            }
        };
        subject
            .and_then(|id| UserId::parse(id).ok())
            .ok_or(AuthError::Invalid(
                "the claim sub must name a user in 1 to 255 characters",
            ))
    }

    /// The email address. It is only shown, so one that cannot be an address counts as absent.
    fn email(&self) -> Option<String> {
        self.email
            .as_str()
            .filter(|email| !email.is_empty() && email.len() <= EMAIL_MAX)
            .filter(|email| !email.chars().any(char::is_control))
            .map(str::to_owned)
    }
}

/// A time in seconds since 1970, up to the year 9999.
fn time(claim: &Value) -> Option<f64> {
    claim
        .as_f64()
        .filter(|time| (0.0..=LATEST_TIME).contains(time))
}

fn session(sid: &Value) -> Result<Uuid, AuthError> {
    sid.as_str()
        .and_then(|sid| sid.parse().ok())
        .ok_or(AuthError::Invalid("the claim sid must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn judge(claims: Value, signer: Signer, expected: &Expected) -> Result<Verified, AuthError> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        let verified = claims.check("message", signer, expected)?;
        verified.check_times(NOW).map(|()| verified)
    }

    fn check(claims: Value) -> Result<String, AuthError> {
        judge(claims, Signer::Secret, &Expected::default())
            .map(|verified| verified.user.as_str().to_owned())
    }

    #[test]
    fn the_user_is_sub_or_the_first_of_its_substitutes() {
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
            (json!({"exp": later, "id": "a", "user": {"id": "b"}}), "a"),
            (
                json!({"exp": later, "session": {"id": "s"}, "user": {"id": "b", "name": "B"}}),
                "b",
            ),
        ] {
            assert_eq!(check(claims.clone()).unwrap(), user, "{claims}");
        }
        for claims in [
            json!({"exp": later}),
            json!({"exp": later, "sub": null, "id": "a"}),
            json!({"exp": later, "sub": null, "user": {"id": "a"}}),
            json!({"exp": later, "user": "a"}),
            json!({"exp": later, "user": {"id": 7}}),
            json!({"exp": later, "user": ["a"]}),
            json!({"exp": later, "user": [{"id": "a"}]}),
            json!({"exp": later, "sub": "", "id": "a"}),
            json!({"exp": later, "sub": 7, "id": "a"}),
            json!({"exp": later, "sub": ["a"]}),
            json!({"exp": later, "sub": "a\u{0}"}),
            json!({"exp": later, "sub": "x".repeat(256)}),
        ] {
            assert!(
                matches!(check(claims.clone()), Err(AuthError::Invalid(_))),
                "{claims}"
            );
        }
    }

    #[test]
    fn times_are_numbers_within_reason() {
        let with_exp = |exp: Value| check(json!({"sub": "a", "exp": exp}));
        assert!(with_exp(json!(NOW - 9.0)).is_ok(), "within the leeway");
        for expired in [NOW - 10.0, NOW - 31.0] {
            let refused = with_exp(json!(expired));
            assert!(
                matches!(&refused, Err(AuthError::Refused(TokenRefusal::Expired, user)) if user.as_str() == "a"),
                "{refused:?}"
            );
        }
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
                matches!(
                    with_exp(exp.clone()),
                    Err(AuthError::Refused(TokenRefusal::Invalid(_), _))
                ),
                "{exp}"
            );
        }
        let with_nbf = |nbf: Value| check(json!({"sub": "a", "exp": NOW + 60.0, "nbf": nbf}));
        assert!(with_nbf(json!(NOW + 10.0)).is_ok(), "within the leeway");
        assert!(with_nbf(json!(NOW + 11.0)).is_err());
        assert!(with_nbf(json!("0")).is_err());
    }

    #[test]
    fn a_session_is_read_from_own_tokens_only() {
        let sid = "0190b7c6-0000-7000-8000-000000000000";
        let of = |iss: &str, sid: Value, signer| {
            let claims = json!({"sub": "a", "exp": NOW + 60.0, "iss": iss, "sid": sid});
            judge(claims, signer, &Expected::default())
                .map(|verified| (verified.origin, verified.session))
        };
        assert_eq!(
            of(ISSUER, json!(sid), Signer::Secret).unwrap(),
            (TokenOrigin::Ours, TokenSession::Ours(sid.parse().unwrap()))
        );
        for (iss, sid, signer, expected) in [
            (
                "https://app.example",
                json!(sid),
                Signer::Secret,
                TokenOrigin::SharedSecret,
            ),
            (
                "https://app.example",
                json!(7),
                Signer::Secret,
                TokenOrigin::SharedSecret,
            ),
            // A token of the key set is never one of this server.
            (ISSUER, json!(sid), Signer::KeySet, TokenOrigin::KeySet),
        ] {
            let (origin, session) = of(iss, sid, signer).unwrap();
            assert_eq!(origin, expected);
            assert!(matches!(session, TokenSession::None(_)), "{session:?}");
        }
        for odd in [json!(null), json!(7), json!(""), json!("sid"), json!([sid])] {
            assert!(of(ISSUER, odd.clone(), Signer::Secret).is_err(), "{odd}");
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_in_tokens_of_other_issuers() {
        let one_of = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let expected = Expected {
            issuers: one_of(&["https://app.example", "https://id.example"]),
            audiences: one_of(&["todo", "https://api.example"]),
        };
        let of = |iss: Value, aud: Value, signer| {
            let claims = json!({"sub": "a", "exp": NOW + 60.0, "iss": iss, "aud": aud});
            judge(claims, signer, &expected).is_ok()
        };
        for signer in [Signer::Secret, Signer::KeySet] {
            for (iss, aud, accepted) in [
                (json!("https://app.example"), json!("todo"), true),
                (
                    json!("https://id.example"),
                    json!(["x", "https://api.example"]),
                    true,
                ),
                (json!("https://app.example/"), json!("todo"), false),
                (json!("HTTPS://app.example"), json!("todo"), false),
                (json!(["https://app.example"]), json!("todo"), false),
                (json!(null), json!("todo"), false),
                (json!("https://app.example"), json!("other"), false),
                (json!("https://app.example"), json!([]), false),
                (json!("https://app.example"), json!([["todo"]]), false),
                (json!("https://app.example"), json!({"todo": true}), false),
                (json!("https://app.example"), json!(null), false),
                (json!("https://app.example"), json!(""), false),
            ] {
                assert_eq!(
                    of(iss.clone(), aud.clone(), signer),
                    accepted,
                    "{iss} {aud}"
                );
            }
        }
        assert!(of(json!(ISSUER), json!(null), Signer::Secret));
        assert!(!of(json!(ISSUER), json!("todo"), Signer::KeySet));
    }

    #[test]
    fn a_token_is_named_by_user_issuer_and_jti_or_by_its_signed_text() {
        let id = |user: &str, iss: Value, jti: Value, signer, message: &str| {
            let claims = json!({"sub": user, "exp": NOW + 60.0, "iss": iss, "jti": jti});
            let claims: Claims = serde_json::from_value(claims).unwrap();
            let verified = claims.check(message, signer, &Expected::default());
            match verified.unwrap().session {
                TokenSession::None(token) => token.id,
                TokenSession::Ours(_) => panic!(),
            }
        };
        let (a, one) = (|| json!("https://a.example"), || json!("1"));
        let first = id("u", a(), one(), Signer::Secret, "m");
        assert_eq!(first, id("u", a(), one(), Signer::Secret, "n"));
        for other in [
            id("v", a(), one(), Signer::Secret, "m"),
            id("u", json!("https://b.example"), one(), Signer::Secret, "m"),
            id("u", json!(null), one(), Signer::Secret, "m"),
            id("u", a(), json!("2"), Signer::Secret, "m"),
            id("u", a(), one(), Signer::KeySet, "m"),
        ] {
            assert_ne!(first, other);
        }
        for jti in [json!(null), json!(1), json!(""), json!(["1"])] {
            let of = |message| id("u", a(), jti.clone(), Signer::Secret, message);
            assert_eq!(of("m"), of("m"));
            assert_ne!(of("m"), of("n"), "{jti}");
        }
    }

    #[test]
    fn an_odd_iat_counts_as_absent() {
        for (iat, read) in [
            (json!(NOW), Some(1_800_000_000)),
            (json!(1.9), Some(1)),
            (json!(0), Some(0)),
            (json!(-1), None),
            (json!(1_800_000_000_000_u64), None),
            (json!("1800000000"), None),
            (json!(null), None),
        ] {
            let claims = json!({"sub": "a", "exp": NOW + 60.0, "iat": iat});
            let verified = judge(claims, Signer::Secret, &Expected::default()).unwrap();
            assert_eq!(verified.issued_at, read, "{iat}");
        }
    }

    #[test]
    fn an_odd_email_is_left_out() {
        for (email, read) in [
            (json!("a@example.org"), Some("a@example.org")),
            (json!("a\n@example.org"), None),
            (json!(""), None),
            (json!(7), None),
            (json!("x".repeat(255)), None),
        ] {
            let claims = json!({"sub": "a", "exp": NOW + 60.0, "email": email});
            let verified = judge(claims, Signer::Secret, &Expected::default()).unwrap();
            assert_eq!(verified.email.as_deref(), read, "{email}");
        }
    }
}
