//! What a token says of its bearer (RFC 7519, section 4).
//!
//! Each claim stays as it came until it is judged: absent, null and the wrong type are different faults.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

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
    /// The session it belongs to; of our own tokens only.
    pub session: Option<Uuid>,
    /// Who has made it.
    pub origin: Origin,
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
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    #[serde(default, deserialize_with = "sent")]
    sid: Option<Value>,
    #[serde(default)]
    email: Value,
}

/// Tells what is `null` from what is absent.
pub fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Claims {
    /// Judges the claims of a token whose signature is good; `now` in seconds since 1970.
    ///
    /// # Errors
    /// Says which claim is wrong.
    pub fn check(
        &self,
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
        let session = match &self.sid {
            // Somebody else's sessions are not ours to end.
            Some(sid) if origin == Origin::Ours => Some(session(sid)?),
            _ => None,
        };
        let user = self.user()?;
        if exp <= now - LEEWAY_SECONDS {
            return Err(Unauthorized::Expired(Some(user)));
        }
        Ok(Verified {
            user,
            email: self.email(),
            session,
            origin,
        })
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
    use serde_json::json;

    const NOW: f64 = 1_800_000_000.0;

    fn judge(claims: Value, signer: Signer, expected: &Expected) -> Result<Verified, Unauthorized> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.check(signer, expected, NOW)
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
        assert_eq!(
            with_exp(json!(NOW - 10.0)),
            Err(Unauthorized::Expired(Some(UserId::parse("u1").unwrap())))
        );
        assert_eq!(
            with_exp(json!(NOW - 31.0)),
            Err(Unauthorized::Expired(Some(UserId::parse("u1").unwrap())))
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
        let session = Some(sid.parse().unwrap());
        assert_eq!(
            of(ISSUER, json!(sid), Signer::Secret),
            Ok((Origin::Ours, session))
        );
        assert_eq!(
            of("https://app.example", json!(sid), Signer::Secret),
            Ok((Origin::SharedSecret, None))
        );
        assert_eq!(
            of("https://app.example", json!(7), Signer::Secret),
            Ok((Origin::SharedSecret, None))
        );
        assert_eq!(
            of(ISSUER, json!(sid), Signer::KeySet),
            Ok((Origin::KeySet, None)),
            "nobody else's key makes a token ours"
        );
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
