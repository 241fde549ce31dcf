//! What a token says of its bearer (RFC 7519, section 4).
//!
//! Each claim stays as it came until it is judged: absent, null and the wrong type are different faults.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::opaque;
use crate::domain::session::{SessionlessToken, TokenId};
use crate::domain::user::UserId;
use crate::http::error::Unauthorized;

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: f64 = 10.0;
/// The last second of the year 9999, the latest that RFC 3339 can write.
const LATEST_EXPIRY: f64 = 253_402_300_799.0;
/// Longest email address that is shown (RFC 5321, section 4.5.3.1.3).
const EMAIL_MAX: usize = 254;

/// What our own tokens name as their issuer.
pub const ISSUER: &str = "todo-api";

/// What a token that was accepted says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user: UserId,
    /// What it says their email address is: to be shown, and believed no further.
    pub email: Option<String>,
    /// The claim `iat`, in whole seconds since 1970, where it is a time.
    pub issued_at: Option<i64>,
    /// The session it belongs to.
    pub session: Session,
    /// Who has made it.
    pub origin: Origin,
}

/// The session a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// A session of ours, of our own tokens only.
    Ours(Uuid),
    /// None of ours.
    None(SessionlessToken),
}

/// Who has made a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We, with a session or, for scripts, without one.
    Ours,
    /// Somebody else who has the secret.
    SharedSecret,
    /// The owner of a key in the configured key set.
    KeySet,
}

/// What tokens that are not ours must say, where it is configured. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// One of these must be the issuer.
    pub issuers: Vec<String>,
    /// One of these must be among the audiences.
    pub audiences: Vec<String>,
}

/// Who has signed a token, as far as its key tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Somebody who has the secret: we, or a front end that shares it.
    Secret,
    /// The owner of a key in the key set.
    KeySet,
}

/// The claims that are read. One that is there twice is refused by the reader.
#[derive(Deserialize)]
pub struct Claims {
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

/// Tells what is `null` from what is absent.
pub fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Claims {
    /// Checks the claims of a token whose signature is good; `message` is the signed text, `now` in seconds since 1970.
    ///
    /// # Errors
    /// Says which claim is wrong.
    pub fn check(
        &self,
        message: &str,
        signer: Signer,
        expected: &Expected,
        now: f64,
    ) -> Result<Verified, Unauthorized> {
        self.check_not_before(now)?;
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
        let origin = match signer {
            Signer::Secret if self.iss == ISSUER => Origin::Ours,
            Signer::Secret => Origin::SharedSecret,
            Signer::KeySet => Origin::KeySet,
        };
        // Our own tokens are judged by ours: who signs them is known, and nobody else is their audience.
        if origin != Origin::Ours {
            self.check_expected(expected)?;
        }
        let user = self.user()?;
        let issued_at = self.issued_at();
        let session = match &self.sid {
            // Another issuer's `sid` names no session of ours.
            Some(sid) if origin == Origin::Ours => Session::Ours(session(sid)?),
            _ => Session::None(SessionlessToken {
                id: self.token_id(&user, signer, message),
                issued_at,
                expires_at: (exp + LEEWAY_SECONDS).ceil() as i64,
            }),
        };
        if exp <= now - LEEWAY_SECONDS {
            return Err(Unauthorized::Expired(Some(user)));
        }
        Ok(Verified {
            user,
            email: self.email(),
            issued_at,
            session,
            origin,
        })
    }

    /// A time that is out of range or no number counts as absent.
    fn issued_at(&self) -> Option<i64> {
        let iat = self.iat.as_f64()?;
        (0.0..=LATEST_EXPIRY)
            .contains(&iat)
            .then_some(iat.floor() as i64)
    }

    /// What `logout` refuses the token by: its `jti`, otherwise the signed text. The signature is left out because an ECDSA
    /// signature has a second valid form. User, kind of key and issuer go into it, because a `jti` is unique only for its issuer.
    fn token_id(&self, user: &UserId, signer: Signer, message: &str) -> TokenId {
        let named = match self.jti.as_str().filter(|jti| !jti.is_empty()) {
            Some(jti) => json!([user.as_str(), signer == Signer::KeySet, self.iss, jti]),
            None => json!([user.as_str(), message]),
        };
        opaque::hash(&named.to_string())
    }

    fn check_not_before(&self, now: f64) -> Result<(), Unauthorized> {
        let Some(nbf) = &self.nbf else { return Ok(()) };
        let nbf = nbf.as_f64().ok_or(Unauthorized::Invalid(
            "the claim nbf must be a time in seconds",
        ))?;
        if nbf > now + LEEWAY_SECONDS {
            return Err(Unauthorized::Invalid("it is not valid yet"));
        }
        Ok(())
    }

    fn check_expected(&self, expected: &Expected) -> Result<(), Unauthorized> {
        let is_one_of = |claim: &Value, accepted: &[String]| {
            claim
                .as_str()
                .is_some_and(|claim| accepted.iter().any(|one| one == claim))
        };
        if !expected.issuers.is_empty() && !is_one_of(&self.iss, &expected.issuers) {
            return Err(Unauthorized::Invalid(
                "the claim iss does not name an issuer that is accepted here",
            ));
        }
        // RFC 7519, section 4.1.3: one audience may stand without a list.
        let among = match &self.aud {
            Value::Array(list) => list
                .iter()
                .any(|audience| is_one_of(audience, &expected.audiences)),
            audience => is_one_of(audience, &expected.audiences),
        };
        if !expected.audiences.is_empty() && !among {
            return Err(Unauthorized::Invalid(
                "the claim aud does not name an audience that is accepted here",
            ));
        }
        Ok(())
    }

    fn user(&self) -> Result<UserId, Unauthorized> {
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
            .ok_or(Unauthorized::Invalid(
                "the claim sub must name a user in 1 to 255 characters",
            ))
    }

    /// The email address, where it could be one. It is shown and nothing else, so an odd one is no reason to refuse anybody.
    fn email(&self) -> Option<String> {
        self.email
            .as_str()
            .filter(|email| !email.is_empty() && email.len() <= EMAIL_MAX)
            .filter(|email| !email.chars().any(char::is_control))
            .map(str::to_owned)
    }
}

fn session(sid: &Value) -> Result<Uuid, Unauthorized> {
    sid.as_str()
        .and_then(|sid| sid.parse().ok())
        .ok_or(Unauthorized::Invalid("the claim sid must be a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn judge(claims: Value, signer: Signer, expected: &Expected) -> Result<Verified, Unauthorized> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.check("message", signer, expected, NOW)
    }

    fn check(claims: Value) -> Result<String, Unauthorized> {
        judge(claims, Signer::Secret, &Expected::default())
            .map(|verified| verified.user.as_str().to_owned())
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
            (
                json!({"exp": later, "id": "a", "user": {"id": "b"}}),
                "a",
            ),
            (
                json!({"exp": later, "session": {"id": "s"}, "user": {"id": "b", "name": "B"}}),
                "b",
            ),
        ] {
            assert_eq!(check(claims.clone()).as_deref(), Ok(user), "{claims}");
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
                matches!(check(claims.clone()), Err(Unauthorized::Invalid(_))),
                "{claims}"
            );
        }
    }

    #[test]
    fn times_are_numbers_within_reason() {
        let with_exp = |exp: Value| check(json!({"sub": "a", "exp": exp}));
        assert!(with_exp(json!(NOW - 9.0)).is_ok(), "within the leeway");
        assert_eq!(
            with_exp(json!(NOW - 10.0)),
            Err(Unauthorized::Expired(Some(UserId::parse("a").unwrap())))
        );
        assert_eq!(
            with_exp(json!(NOW - 31.0)),
            Err(Unauthorized::Expired(Some(UserId::parse("a").unwrap())))
        );
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
    fn a_session_is_read_from_tokens_of_ours_alone() {
        let sid = "0190b7c6-0000-7000-8000-000000000000";
        let of = |iss: &str, sid: Value, signer| {
            let claims = json!({"sub": "a", "exp": NOW + 60.0, "iss": iss, "sid": sid});
            judge(claims, signer, &Expected::default())
                .map(|verified| (verified.origin, verified.session))
        };
        assert_eq!(
            of(ISSUER, json!(sid), Signer::Secret),
            Ok((Origin::Ours, Session::Ours(sid.parse().unwrap())))
        );
        for (iss, sid, signer, expected) in [
            (
                "https://app.example",
                json!(sid),
                Signer::Secret,
                Origin::SharedSecret,
            ),
            (
                "https://app.example",
                json!(7),
                Signer::Secret,
                Origin::SharedSecret,
            ),
            // No key of the key set makes a token ours.
            (ISSUER, json!(sid), Signer::KeySet, Origin::KeySet),
        ] {
            let (origin, session) = of(iss, sid, signer).unwrap();
            assert_eq!(origin, expected);
            assert!(matches!(session, Session::None(_)), "{session:?}");
        }
        for odd in [json!(null), json!(7), json!(""), json!("sid"), json!([sid])] {
            assert!(of(ISSUER, odd.clone(), Signer::Secret).is_err(), "{odd}");
        }
    }

    #[test]
    fn issuer_and_audience_are_asked_of_tokens_from_elsewhere() {
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
            let verified = claims.check(message, signer, &Expected::default(), NOW);
            match verified.unwrap().session {
                Session::None(token) => token.id,
                Session::Ours(_) => panic!(),
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
