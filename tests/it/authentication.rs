//! Bearer tokens: which are accepted, and how others are refused.

use std::time::Duration;

use serde_json::{Value, json};
use todo_api::auth::token::{Minter, NewToken};
use todo_api::domain::user::UserId;
use uuid::Uuid;

use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::jwt::{Key, claims, now};
use crate::support::{Actor, Answer, TestApp};

fn token(claims: &Value) -> String {
    Key::secret(SECRET).token(claims)
}

fn ask(app: &TestApp, token: &str) -> Answer {
    Actor::with_token(app.address, token).get("/api/tasks")
}

#[test]
fn a_request_without_a_token_is_401_with_its_own_sentence() {
    let app = TestApp::start();
    for actor in [
        app.anonymous(),
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
fn another_scheme_is_refused_and_the_answer_names_bearer() {
    let app = TestApp::start();
    for value in ["Basic dTpw", "Token abc", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"] {
        let answer = Actor::with_authorization(app.address, value).get("/api/tasks");
        assert_eq!(
            answer.expect_error(401, "UNAUTHORIZED"),
            "Unsupported authorization scheme: send Authorization: Bearer <token>"
        );
        let challenge = answer.header("WWW-Authenticate").unwrap();
        assert_eq!(challenge, "Bearer realm=\"todo-api\"");
    }
}

#[test]
fn a_good_token_is_accepted_with_any_other_claims() {
    let app = TestApp::start();
    let exp = now() + 60;
    for claims in [
        json!({ "sub": "u1", "exp": exp }),
        json!({ "sub": "u1", "exp": exp as f64 + 0.5 }),
        json!({ "user_id": "u1", "exp": exp }),
        json!({ "userId": "u1", "exp": exp }),
        json!({ "id": "u1", "email": "u1@example.org", "name": "U", "exp": exp }),
        json!({ "user": { "id": "u1", "email": "u1@example.org" }, "session": { "id": "s" }, "exp": exp }),
        json!({ "sub": "u1", "exp": exp, "aud": "https://other.example", "iss": "https://other.example", "iat": 0 }),
        json!({ "sub": "u1", "exp": exp, "aud": ["a", "b"], "nbf": now() + 5 }),
        json!({ "sub": "u1", "exp": now() - 5 }),
    ] {
        let actor = Actor::with_token(app.address, token(&claims));
        assert_eq!(actor.get("/api/u1/tasks").status, 200, "{claims}");
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", token(&json!({ "sub": "u1", "exp": exp })));
        Actor::with_authorization(app.address, &value)
            .get("/api/u1/tasks")
            .expect(200);
    }
}

#[test]
fn an_expired_token_has_its_own_error() {
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
    let forged =
        Key::secret("another key of at least 32 bytes").token(&json!({ "sub": "u1", "exp": 1 }));
    assert_eq!(
        ask(&app, &forged).expect_error(401, "UNAUTHORIZED"),
        "Invalid token: the signature does not match"
    );
}

#[test]
fn an_accepted_token_is_refused_once_it_has_expired() {
    let app = TestApp::start();
    // The server allows clocks to differ by ten seconds.
    let token = token(&json!({ "sub": "u1", "exp": now() - 8 }));
    ask(&app, &token).expect(200);
    wait_until(|| ask(&app, &token).status == 401);
    let sentence = ask(&app, &token).expect_error(401, "TOKEN_EXPIRED");
    assert_eq!(sentence, "Token has expired");
}

#[test]
fn two_tokens_in_one_request_are_refused() {
    let app = TestApp::start();
    let minted = Minter::new(SECRET)
        .mint(&UserId::parse("u1").unwrap(), None, Duration::from_secs(60))
        .unwrap();
    ask(&app, &format!("{minted} {minted}")).expect_error(401, "UNAUTHORIZED");
    ask(&app, &format!("{minted}, Bearer {minted}")).expect_error(401, "UNAUTHORIZED");
}

#[test]
fn the_session_claim_of_our_own_tokens_must_be_a_uuid() {
    let app = TestApp::start();
    let user = UserId::parse("u1").unwrap();
    let session = NewToken {
        user: &user,
        email: Some("u1@example.org"),
        session: Some(Uuid::now_v7()),
        jti: Uuid::new_v4(),
        issued_at: i64::try_from(now()).unwrap(),
        lifetime: Duration::from_secs(60),
    };
    let minted = Minter::new(SECRET).sign(&session).unwrap();
    ask(&app, &minted).expect(200);
    for sid in [json!("no UUID"), json!(""), json!(7), json!(null)] {
        let mut claims = claims("u1");
        claims["sid"] = sid;
        ask(&app, &token(&claims)).expect(200);
        claims["iss"] = json!("todo-api");
        let sentence = ask(&app, &token(&claims)).expect_error(401, "UNAUTHORIZED");
        assert_eq!(sentence, "Invalid token: the claim sid must be a UUID");
    }
}
