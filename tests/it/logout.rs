//! Logout with a token that belongs to no session of this server.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_api::auth::jwks::Timing;
use todo_api::auth::token::TokenVerifier;

use crate::support::actors::Actor;
use crate::support::app::{SECRET, TestApp};
use crate::support::hold::wait_until;
use crate::support::jwt::{Key, key_set, now};
use crate::support::key_server::{KeyServer, Publishes};
use crate::support::login::Login;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, run};

/// A token of a front end that shares the secret, with these claims besides `sub` and `exp`.
fn shared(server: &TestApp, user: &str, claims: &Value) -> Actor {
    let token = Key::secret(SECRET).token(&with_end(user, claims));
    Actor::with_token(server.address, token)
}

fn with_end(user: &str, claims: &Value) -> Value {
    let mut all = json!({"sub": user, "exp": now() + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

#[track_caller]
fn is_in(actor: &Actor) -> bool {
    let answer = actor.get("/api/tasks");
    if answer.status == 200 {
        return true;
    }
    let sentence = answer.expect_error(401, "UNAUTHORIZED");
    assert_eq!(sentence, "Token has been revoked");
    false
}

#[track_caller]
fn log_out(actor: &Actor) {
    actor
        .send("POST", "/api/auth/logout", &[], None)
        .expect(204);
}

fn stored(app: &TestApp) -> i64 {
    let question = "SELECT count(*) FROM todo.revocations WHERE kind = 'token'";
    app.sql().query_one(question, &[]).unwrap().get(0)
}

#[test]
fn a_logout_refuses_only_the_token_it_was_sent_with() {
    let app = TestApp::start();
    let token = |user: &str, claims: Value| shared(&app, user, &claims);
    // A `jti` is unique for one issuer and one user.
    let presented = token("u", json!({"jti": "1", "iss": "https://a.example"}));
    let same_id = token(
        "u",
        json!({"jti": "1", "iss": "https://a.example", "name": "N"}),
    );
    let others = [
        token("v", json!({"jti": "1", "iss": "https://a.example"})),
        token("u", json!({"jti": "1", "iss": "https://b.example"})),
        token("u", json!({"jti": "1"})),
        token("u", json!({"jti": "2", "iss": "https://a.example"})),
        token("u", json!({"iss": "https://a.example"})),
        token("u", json!({"iat": now() - 60})),
    ];
    assert!(is_in(&presented));
    log_out(&presented);
    assert!(!is_in(&presented) && !is_in(&same_id));
    assert!(others.iter().all(is_in));
    // Tokens without a `jti`, and a token of `todo-api token`.
    for (number, other) in others.iter().enumerate().skip(4) {
        log_out(other);
        assert!(!is_in(other), "{number}");
    }
    let ours = app.user("u");
    let ours_too = app.user("u");
    log_out(&ours);
    assert!(!is_in(&ours) && is_in(&ours_too));
    assert!(others[..4].iter().all(is_in));
    assert_eq!(stored(&app), 4);
    ours.post("/api/auth/logout", json!({})).expect(401);
}

#[test]
fn the_second_form_of_a_signature_does_not_undo_a_logout() {
    let key = Key::p256("k");
    let keys = KeyServer::start(Publishes::Body(key_set(&[&key])));
    let keys = keys.keys(Timing::default());
    let app = TestApp::with_verifier(TokenVerifier::new(SECRET, None).trusting(keys));
    let token = key.token(&with_end("u", &json!({})));
    let (message, signature) = token.rsplit_once('.').unwrap();
    // (r, s) and (r, n - s) are both valid signatures.
    let mut other = decode(signature);
    let n = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let mut borrow = 0;
    for place in (0..32).rev() {
        let difference = i16::from(n[place]) - i16::from(other[32 + place]) - borrow;
        borrow = i16::from(difference < 0);
        other[32 + place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let other = format!("{message}.{}", crate::support::jwt::base64url(other));
    let actor = |token: &str| Actor::with_token(app.address, token);
    wait_until(|| actor(&token).get("/api/tasks").status == 200);
    assert!(is_in(&actor(&other)));
    log_out(&actor(&token));
    assert!(!is_in(&actor(&token)) && !is_in(&actor(&other)));
}

fn decode(base64url: &str) -> Vec<u8> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    engine.decode(base64url).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn logout_all_refuses_tokens_issued_before() {
    let app = TestApp::start();
    let token = |user: &str, claims: Value| shared(&app, user, &claims);
    let old = token("u", json!({"iat": now() - 1}));
    let older = token("u", json!({"iat": f64::from(1_700_000_000) + 0.5}));
    let undated = token("u", json!({"jti": "undated"}));
    let presented = token("u", json!({"jti": "presented"}));
    let other_user = token("v", json!({"iat": now() - 60}));
    let script = token("u", json!({"iat": now()}))
        .post("/api/auth/tokens", json!({"name": "t"}))
        .expect(201)
        .json();
    let script = Actor::with_token(app.address, script["token"].as_str().unwrap());
    let log_out_everywhere = |actor: &Actor, body: Option<Value>| {
        let body = body.map(|body| body.to_string());
        let body = body.as_ref().map(|body| body.as_bytes());
        actor.send("POST", "/api/auth/logout-all", &[], body)
    };
    for actor in [&old, &older, &undated, &presented, &other_user, &script] {
        assert!(is_in(actor));
    }
    log_out_everywhere(&presented, None).expect(204);
    assert!(!is_in(&old) && !is_in(&older) && !is_in(&presented));
    for actor in [&undated, &other_user, &script] {
        assert!(is_in(actor));
    }
    let later = token("u", json!({"iat": now()}));
    assert!(is_in(&later));
    log_out_everywhere(&later, Some(json!({"api_tokens": "yes"})))
        .expect_error(422, "VALIDATION_ERROR");
    log_out_everywhere(&later, Some(json!({"api_tokens": true}))).expect(204);
    assert!(!is_in(&later));
    script.get("/api/tasks").expect_error(401, "UNAUTHORIZED");
    assert!(is_in(&undated) && is_in(&other_user));
    assert!(is_in(&token("u", json!({"iat": now() + 1}))));
}

#[test]
fn logout_all_ends_sessions_and_refuses_tokens_of_the_command() {
    let app = TestApp::start();
    let me = Login::register(app.address, "me@example.org");
    let (there, minted) = (
        Login::again(app.address, "me@example.org"),
        app.user(me.id()),
    );
    let front_end = shared(&app, me.id(), &json!({"iat": now() - 30}));
    // `iat` counts in whole seconds.
    thread::sleep(Duration::from_millis(1_100));
    me.actor()
        .send("POST", "/api/auth/logout-all", &[], None)
        .expect(204);
    assert!(!me.is_in() && !there.is_in() && !is_in(&minted) && !is_in(&front_end));
    there.try_refresh().expect(401);
    assert!(Login::again(app.address, "me@example.org").is_in());
    assert!(is_in(&app.user(me.id())));
}

#[test]
fn a_thousand_refused_tokens_are_stored_and_then_all_are_refused() {
    let app = TestApp::start();
    let token = |claims: Value| shared(&app, "u", &claims);
    let old = token(json!({"iat": now() - 60}));
    let fill = "INSERT INTO todo.revocations (kind, id, token, issued, until)
         SELECT 'token', 'u', sha256(number::text::bytea), $1, now() + interval '1 hour' FROM generate_series(1, 1000 - $2) AS number";
    let issued = i64::try_from(now()).unwrap() - 100;
    let mut sql = app.sql();
    sql.execute(fill, &[&Some(issued), &4_i32]).unwrap();
    // Of eight at once, four are stored and the others act as `logout-all`, which may already be done.
    let tokens: Vec<Actor> = (0..8)
        .map(|n| token(json!({"jti": n.to_string(), "iat": now() - 30})))
        .collect();
    thread::scope(|scope| {
        for actor in &tokens {
            scope.spawn(|| {
                let answer = actor.send("POST", "/api/auth/logout", &[], None);
                assert!(matches!(answer.status, 204 | 401), "{answer:?}");
            });
        }
    });
    assert!(tokens.iter().all(|actor| !is_in(actor)));
    assert!(!is_in(&old), "the logout acted as logout-all");
    assert!(stored(&app) < 1_000, "one row replaces them");
    assert!(is_in(&token(json!({"iat": now()}))));
    // That row does not cover tokens without `iat`.
    sql.execute("DELETE FROM todo.revocations WHERE kind = 'token'", &[])
        .unwrap();
    sql.execute(fill, &[&None::<i64>, &0_i32]).unwrap();
    let undated = token(json!({"jti": "undated"}));
    let sentence = undated
        .send("POST", "/api/auth/logout", &[], None)
        .expect_error(409, "CONFLICT");
    assert!(sentence.contains("iat"), "{sentence}");
    assert_eq!(stored(&app), 1_000);
    log_out(&shared(&app, "v", &json!({"jti": "undated"})));
}

#[test]
fn a_refused_token_is_refused_on_the_other_instance_and_after_a_restart() {
    let database = fresh_database();
    let (one, other) = (
        Process::serve(&database, &[]),
        Process::serve(&database, &[]),
    );
    let minted = |user: &str, server: &Process| server.user(user);
    let bearers: HashMap<&str, String> = ["alone", "everywhere"]
        .map(|user| {
            let token = Key::secret(SECRET).token(&with_end(user, &json!({"iat": now() - 5})));
            (user, format!("Bearer {token}"))
        })
        .into();
    let at = |server: &Process, user| Actor::with_authorization(server.address, &bearers[user]);
    for user in ["alone", "everywhere"] {
        assert!(is_in(&at(&one, user)) && is_in(&at(&other, user)));
    }
    log_out(&at(&one, "alone"));
    let everywhere = at(&one, "everywhere");
    everywhere
        .send("POST", "/api/auth/logout-all", &[], None)
        .expect(204);
    let began = Instant::now();
    while is_in(&at(&other, "alone")) || is_in(&at(&other, "everywhere")) {
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    drop(one);
    let one = Process::serve(&database, &[]);
    for user in ["alone", "everywhere"] {
        assert!(!is_in(&at(&one, user)));
        assert!(is_in(&minted(user, &one)), "a later token is accepted");
    }
    // Upkeep removes the row of a token that has expired, and keeps the other.
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    sql.execute("UPDATE todo.revocations SET until = now() - interval '2 h', written_by = 1 WHERE kind = 'token'", &[])
        .unwrap();
    let output = run(&["maintenance"], &[("DATABASE_URL", database.as_str())]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1 revocations"), "{said}");
    let kinds = "SELECT string_agg(kind, ' ') FROM todo.revocations";
    let kinds: String = sql.query_one(kinds, &[]).unwrap().get(0);
    assert_eq!(kinds, "issued_before");
}
