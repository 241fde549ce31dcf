//! `todo-api import --from`: another back end's tasks and users.

use serde_json::json;
use todo_api::auth::jwks::Timing;
use todo_api::auth::token::TokenVerifier;

use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::jwt::{Key, claims, key_set};
use crate::support::key_server::{KeyServer, Publishes};
use crate::support::login::{Login, try_log_in};
use crate::support::{Actor, TestApp};

/// Of "correct horse" and of 72 times "x", made by Python's bcrypt 5.0.0.
const BCRYPT: &str = "$2b$04$kvuLU2O0rLbglJS5Ozfli.YJ56NjKLUpognEgi./XCUdymk6hLIga";
const BCRYPT_LONG: &str = "$2b$04$.ve9TA8cM1svJIDAFWZXbulF8luSuaMSS/21utF5/hN8TGuQtb1VW";

fn add_account(app: &TestApp, id: &str, email: &str, hash: &str) {
    let insert = "INSERT INTO todo.users (id, email, password_hash) VALUES ($1, $2, $3)";
    app.sql().execute(insert, &[&id, &email, &hash]).unwrap();
}

fn hash_of(app: &TestApp, id: &str) -> String {
    let select = "SELECT password_hash FROM todo.users WHERE id = $1";
    app.sql().query_one(select, &[&id]).unwrap().get(0)
}

#[test]
fn a_login_replaces_a_bcrypt_hash_by_argon2id() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT);
    let log_in = |password| try_log_in(app.address, "old@example.org", password);
    log_in("correct horsf").expect(401);
    assert_eq!(hash_of(&app, "7"), BCRYPT);
    for _ in 0..2 {
        let login = Login::of(app.address, &log_in("correct horse").expect(200));
        assert_eq!(login.id(), "7");
        let hash = hash_of(&app, "7");
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
    }
    log_in("correct horsf").expect(401);
}

#[test]
fn a_password_that_bcrypt_did_not_read_to_its_end_keeps_working() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT_LONG);
    let log_in = |length| try_log_in(app.address, "old@example.org", &"x".repeat(length));
    for length in [73, 74, 73] {
        log_in(length).expect(200);
        assert_eq!(hash_of(&app, "7"), BCRYPT_LONG);
    }
    log_in(71).expect(401);
    log_in(72).expect(200);
    assert!(hash_of(&app, "7").starts_with("$argon2id$"));
    log_in(73).expect(401);
}

#[test]
fn a_password_is_changed_from_a_bcrypt_hash() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT_LONG);
    let password = "x".repeat(100);
    let login = try_log_in(app.address, "old@example.org", &password);
    let actor = Login::of(app.address, &login.expect(200)).actor();
    let body = json!({"current_password": password, "new_password": "another password"});
    actor.put("/api/auth/password", body).expect(204);
    try_log_in(app.address, "old@example.org", &password).expect(401);
    try_log_in(app.address, "old@example.org", "another password").expect(200);
}

#[test]
fn a_token_of_another_issuer_does_not_act_as_an_account_whatever_the_form_of_its_id() {
    let key = Key::p256("k");
    let keys = KeyServer::start(Publishes::Body(key_set(&[&key])));
    let keys = keys.keys(Timing::default());
    let app = TestApp::judging(TokenVerifier::new(SECRET, None).trusting(keys));
    let ask = |user: &str| {
        let token = format!("Bearer {}", key.token(&claims(user)));
        Actor::with_authorization(app.address, &token).get("/api/tasks")
    };
    wait_until(|| ask("outsider").status == 200);
    let uuid = "6f1d0c3b-9a8e-4f5d-8c2b-1a0918273645";
    for (id, email, hash) in [
        ("7", "a@example.org", BCRYPT),
        (uuid, "b@example.org", "!"),
        ("Zm9vYmFyYmF6", "c@example.org", "$argon2id$"),
    ] {
        ask(id).expect(200);
        add_account(&app, id, email, hash);
        wait_until(|| ask(id).status == 401);
        let problem = ask(id).expect_error(401, "UNAUTHORIZED");
        assert!(problem.contains("has an account here"), "{problem}");
    }
    ask("outsider").expect(200);
}
