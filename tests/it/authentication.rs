//! Who is calling: only a good token says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use todo_api::auth::token::Minter;
use todo_api::domain::user::UserId;

use crate::support::app::SECRET;
use crate::support::{Actor, Answer, TestApp};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn signed(header: &Header, claims: &Value, secret: &str) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(claims: &Value) -> String {
    signed(&Header::new(Algorithm::HS256), claims, SECRET)
}

/// A token whose header and claims are these texts, signed with the right key as HS256.
fn raw_token(header: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.as_bytes())
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Base64 of RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let word = chunk
                .iter()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            (0..=chunk.len())
                .map(move |digit| char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]))
        })
        .collect()
}

fn ask(app: &TestApp, token: &str) -> Answer {
    Actor::with_authorization(app.address, &format!("Bearer {token}")).get("/api/tasks")
}

#[test]
fn a_request_without_a_token_is_told_so() {
    let app = TestApp::start();
    for actor in [
        app.anonymous(),
        Actor::with_authorization(app.address, "Basic dTpw"),
        Actor::with_authorization(app.address, "Bearer"),
    ] {
        for (method, target) in [
            ("GET", "/api/tasks"),
            ("POST", "/api/tasks"),
            ("GET", "/api/u1/tasks"),
            ("DELETE", "/api/tasks/7"),
            ("PATCH", "/api/u1/tasks/7/complete"),
        ] {
            let answer = actor.send(method, target, &[], None);
            assert_eq!(
                answer.expect_error(401, "UNAUTHORIZED"),
                "Missing authentication token"
            );
            assert_eq!(
                answer.header("WWW-Authenticate"),
                Some("Bearer realm=\"todo-api\"")
            );
        }
    }
}

#[test]
fn a_good_token_is_accepted_whatever_else_it_says() {
    let app = TestApp::start();
    let exp = now() + 60;
    for claims in [
        json!({ "sub": "u1", "exp": exp }),
        json!({ "sub": "u1", "exp": exp as f64 + 0.5 }),
        json!({ "user_id": "u1", "exp": exp }),
        json!({ "userId": "u1", "exp": exp }),
        json!({ "id": "u1", "email": "u1@example.org", "name": "U", "exp": exp }),
        json!({ "sub": "u1", "exp": exp, "aud": "https://other.example", "iss": "https://other.example", "iat": 0 }),
        json!({ "sub": "u1", "exp": exp, "aud": ["a", "b"], "nbf": now() + 5 }),
        json!({ "sub": "u1", "exp": now() - 5 }),
    ] {
        assert_eq!(ask(&app, &token(&claims)).status, 200, "{claims}");
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", token(&json!({ "sub": "u1", "exp": exp })));
        Actor::with_authorization(app.address, &value)
            .get("/api/u1/tasks")
            .expect(200);
    }
}

#[test]
fn bad_tokens_are_refused_and_never_an_error_of_ours() {
    let app = TestApp::start();
    let good = json!({ "sub": "u1", "exp": now() + 60 });
    let text = good.to_string();
    let head = r#"{"alg":"HS256","typ":"JWT"}"#;
    let valid = token(&good);
    let (message, signature) = valid.rsplit_once('.').unwrap();
    let with = |alg| signed(&Header::new(alg), &good, SECRET);
    let injected = |field: &str| raw_token(&format!(r#"{{"alg":"HS256",{field}}}"#), &text);
    let evil = "evil evil evil evil evil evil evil";
    let bad: Vec<(&str, String)> = vec![
        ("no JWT", "opaque-session-token".into()),
        ("dots alone", "..".into()),
        ("two parts", message.into()),
        (
            "a critical extension",
            injected(r#""crit":["b64"],"b64":true"#),
        ),
        (
            "an empty list of critical extensions",
            injected(r#""crit":[]"#),
        ),
        ("four parts", format!("{valid}.{signature}")),
        ("no signature", format!("{message}.")),
        ("a signature cut short", valid[..valid.len() - 4].into()),
        ("no base64", format!("{message}.!!!!")),
        ("padded base64", format!("{valid}=")),
        (
            "another key",
            signed(&Header::new(Algorithm::HS256), &good, evil),
        ),
        (
            "an empty key",
            signed(&Header::new(Algorithm::HS256), &good, ""),
        ),
        ("HS384", with(Algorithm::HS384)),
        ("HS512", with(Algorithm::HS512)),
        (
            "alg none",
            format!(
                "{}.{}.",
                base64url(br#"{"alg":"none"}"#),
                base64url(text.as_bytes())
            ),
        ),
        ("alg none, signed", raw_token(r#"{"alg":"none"}"#, &text)),
        ("alg None", raw_token(r#"{"alg":"None"}"#, &text)),
        ("alg RS256", raw_token(r#"{"alg":"RS256"}"#, &text)),
        ("alg EdDSA", raw_token(r#"{"alg":"EdDSA"}"#, &text)),
        ("alg null", raw_token(r#"{"alg":null}"#, &text)),
        ("alg absent", raw_token(r#"{"typ":"JWT"}"#, &text)),
        ("alg a list", raw_token(r#"{"alg":["HS256"]}"#, &text)),
        ("a header that is no JSON", raw_token("{", &text)),
        ("claims that are no JSON", raw_token(head, "{")),
        ("claims that are no object", raw_token(head, "[]")),
        ("claims that are null", raw_token(head, "null")),
        ("exp missing", token(&json!({ "sub": "u1" }))),
        ("exp null", token(&json!({ "sub": "u1", "exp": null }))),
        (
            "exp a string",
            token(&json!({ "sub": "u1", "exp": "9999999999" })),
        ),
        (
            "exp not finite",
            raw_token(head, r#"{"sub":"u1","exp":1e999}"#),
        ),
        ("exp NaN", raw_token(head, r#"{"sub":"u1","exp":NaN}"#)),
        (
            "exp beyond range",
            raw_token(head, r#"{"sub":"u1","exp":99999999999999999999999}"#),
        ),
        ("exp negative", token(&json!({ "sub": "u1", "exp": -1 }))),
        (
            "exp a list",
            token(&json!({ "sub": "u1", "exp": [now() + 60] })),
        ),
        (
            "exp twice",
            raw_token(
                head,
                &format!(r#"{{"sub":"u1","exp":1,"exp":{}}}"#, now() + 60),
            ),
        ),
        (
            "nbf ahead",
            token(&json!({ "sub": "u1", "exp": now() + 60, "nbf": now() + 30 })),
        ),
        (
            "nbf a string",
            token(&json!({ "sub": "u1", "exp": now() + 60, "nbf": "0" })),
        ),
        (
            "sub null",
            token(&json!({ "sub": null, "id": "u1", "exp": now() + 60 })),
        ),
        ("sub empty", token(&json!({ "sub": "", "exp": now() + 60 }))),
        (
            "sub a number",
            token(&json!({ "sub": 1, "exp": now() + 60 })),
        ),
        (
            "sub a list",
            token(&json!({ "sub": ["u1"], "exp": now() + 60 })),
        ),
        (
            "sub an object",
            token(&json!({ "sub": { "id": "u1" }, "exp": now() + 60 })),
        ),
        (
            "sub with NUL",
            token(&json!({ "sub": "u1\u{0}", "exp": now() + 60 })),
        ),
        (
            "sub too long",
            token(&json!({ "sub": "u".repeat(256), "exp": now() + 60 })),
        ),
        ("no subject", token(&json!({ "exp": now() + 60 }))),
        (
            "stand-ins of the wrong type",
            token(&json!({ "user_id": 1, "userId": null, "id": [], "exp": now() + 60 })),
        ),
        (
            "huge",
            format!(
                "{}.{}.{}",
                "A".repeat(5_000),
                "A".repeat(5_000),
                "A".repeat(100)
            ),
        ),
    ];
    for (name, token) in &bad {
        let answer = ask(&app, token);
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        let sentence = answer.expect_error(401, "UNAUTHORIZED");
        assert!(
            sentence.starts_with("Invalid token: "),
            "{name}: {sentence}"
        );
        let challenge = answer.header("WWW-Authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
            "{name}: {challenge}"
        );
        assert!(
            !answer.body.contains(token.as_str()),
            "{name}: the token is not repeated"
        );
    }
    // What a header says of keys never changes which one is used: with ours it is fine, with theirs it is not.
    for field in [
        r#""kid":"../../dev/null""#,
        r#""jku":"http://127.0.0.1:1/jwks""#,
        r#""x5u":"http://127.0.0.1:1/x""#,
        r#""jwk":{"kty":"oct","k":"ZXZpbA"}"#,
    ] {
        assert_eq!(ask(&app, &injected(field)).status, 200, "{field}");
        let theirs = injected(field);
        let (message, _) = theirs.rsplit_once('.').unwrap();
        let key = EncodingKey::from_secret(b"evil");
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(
            ask(&app, &format!("{message}.{signature}")).status,
            401,
            "{field}"
        );
    }
}

#[test]
fn an_expired_token_is_told_apart() {
    let app = TestApp::start();
    for age in [11, 31, 3600] {
        let answer = ask(&app, &token(&json!({ "sub": "u1", "exp": now() - age })));
        assert_eq!(
            answer.expect_error(401, "TOKEN_EXPIRED"),
            "Token has expired"
        );
        assert!(
            answer
                .header("WWW-Authenticate")
                .unwrap()
                .contains("Token has expired")
        );
    }
    let forged = signed(
        &Header::new(Algorithm::HS256),
        &json!({ "sub": "u1", "exp": 1 }),
        "another key of at least 32 bytes",
    );
    assert_eq!(
        ask(&app, &forged).expect_error(401, "UNAUTHORIZED"),
        "Invalid token: the signature does not match"
    );
}

#[test]
fn two_tokens_at_once_are_no_token() {
    let app = TestApp::start();
    let minted = Minter::new(SECRET)
        .mint(&UserId::parse("u1").unwrap(), None, Duration::from_secs(60))
        .unwrap();
    ask(&app, &format!("{minted} {minted}")).expect_error(401, "UNAUTHORIZED");
    ask(&app, &format!("{minted}, Bearer {minted}")).expect_error(401, "UNAUTHORIZED");
}
