//! API tokens of users.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::actors::Actor;
use crate::support::app::{SECRET, TestApp};
use crate::support::jwt::{Key, claims, now};
use crate::support::login::{Login, PASSWORD};

fn make(login: &Login, mut body: Value) -> Value {
    body["current_password"] = PASSWORD.into();
    let answer = login.actor().post("/api/auth/tokens", body).expect(201);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    answer.json()
}

fn script(app: &TestApp, token: &Value) -> Actor {
    Actor::with_authorization(
        app.address,
        &format!("bearer {}", token["token"].as_str().unwrap()),
    )
}

#[test]
fn a_token_works_on_every_task_route_and_is_shown_once() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let token = make(&login, json!({"name": " backup "}));
    assert_eq!(
        (&token["name"], &token["scopes"]),
        (&json!("backup"), &json!(["tasks:read", "tasks:write"]))
    );
    assert!(
        token["token"]
            .as_str()
            .unwrap()
            .starts_with(token["prefix"].as_str().unwrap())
    );
    assert_eq!(
        (&token["expires_at"], &token["last_used_at"]),
        (&Value::Null, &Value::Null)
    );
    let script = script(&app, &token);
    let task = script.task("by script");
    let path = format!("/api/{}/tasks/{}", login.id(), task["id"].as_str().unwrap());
    script.get(&path).expect(200);
    script
        .patch(&format!("{path}/complete"), json!({"completed": true}))
        .expect(200);
    script.patch(&path, json!({"title": "t"})).expect(200);
    script.delete(&path).expect(204);
    script
        .get("/api/somebody/tasks")
        .expect_error(403, "FORBIDDEN");
    let list = login.actor().get("/api/auth/tokens").expect(200).json();
    assert_eq!(list["count"], 1);
    assert!(list["tokens"][0].get("token").is_none(), "{list}");
    assert!(list["tokens"][0]["last_used_at"].is_string(), "{list}");
}

#[test]
fn a_token_is_limited_to_its_scopes() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let reader = script(
        &app,
        &make(&login, json!({"name": "r", "scopes": ["tasks:read"]})),
    );
    let writer = script(
        &app,
        &make(&login, json!({"name": "w", "scopes": ["tasks:write"]})),
    );
    reader.get("/api/tasks").expect(200);
    let refused = reader.post("/api/tasks", json!({"title": "t"}));
    assert!(
        refused
            .expect_error(403, "FORBIDDEN")
            .contains("tasks:write")
    );
    let challenge = refused.header("WWW-Authenticate").unwrap();
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains("scope=\"tasks:write\""),
        "{challenge}"
    );
    let task = writer.task("t");
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    assert!(
        writer
            .get(&path)
            .expect_error(403, "FORBIDDEN")
            .contains("tasks:read")
    );
    for method in ["PUT", "PATCH", "DELETE"] {
        reader
            .send_json(method, &path, json!({}))
            .expect_error(403, "FORBIDDEN");
    }
}

#[test]
fn a_deleted_or_expired_token_is_refused_at_once() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let (gone, ending) = (
        make(&login, json!({"name": "a"})),
        make(
            &login,
            json!({"name": "b", "expires_at": "2999-01-01T00:00:00Z"}),
        ),
    );
    assert_eq!(ending["expires_at"], "2999-01-01T00:00:00.000000Z");
    for token in [&gone, &ending] {
        script(&app, token).get("/api/tasks").expect(200);
    }
    let path = format!("/api/auth/tokens/{}", gone["id"].as_str().unwrap());
    let other = Login::register(app.address, "other@example.org");
    other.actor().delete(&path).expect_error(404, "NOT_FOUND");
    login
        .actor()
        .delete("/api/auth/tokens/x")
        .expect_error(404, "NOT_FOUND");
    script(&app, &gone).get("/api/tasks").expect(200);
    login.actor().delete(&path).expect(204);
    script(&app, &gone)
        .get("/api/tasks")
        .expect_error(401, "UNAUTHORIZED");
    login.actor().delete(&path).expect_error(404, "NOT_FOUND");
    app.sql()
        .execute("UPDATE todo.api_tokens SET expires_at = now()", &[])
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    script(&app, &ending)
        .get("/api/tasks")
        .expect_error(401, "TOKEN_EXPIRED");
}

#[test]
fn every_bad_field_of_a_new_token_is_named() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let post = |body| login.actor().post("/api/auth/tokens", body);
    let bad = json!({"name": "", "scopes": ["admin"], "expires_at": "2001-01-01T00:00:00Z"});
    let sentence = post(bad).expect_error(422, "VALIDATION_ERROR");
    for field in ["name", "scopes", "expires_at"] {
        assert!(sentence.contains(field), "{sentence}");
    }
    post(json!({})).expect_error(422, "VALIDATION_ERROR");
    for number in 0..100 {
        make(&login, json!({"name": format!("{number}")}));
    }
    let one_too_many = json!({"name": "one too many", "current_password": PASSWORD});
    let sentence = post(one_too_many).expect_error(409, "CONFLICT");
    assert!(sentence.contains("100"), "{sentence}");
}

#[test]
fn a_user_of_another_issuer_may_have_api_tokens() {
    let app = TestApp::start();
    let user = app.user("outsider");
    let token = user
        .post("/api/auth/tokens", json!({"name": "t"}))
        .expect(201)
        .json();
    assert_eq!(
        script(&app, &token).task("by script")["user_id"],
        "outsider"
    );
}

#[test]
fn making_a_token_needs_the_password_of_the_account() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    // A token of a session, of `todo-api token`, and of a front end that shares the secret.
    let front_end = Key::secret(SECRET).token(&claims(login.id()));
    let front_end = Actor::with_token(app.address, front_end);
    for actor in [login.actor(), app.user(login.id()), front_end] {
        let post = |body| actor.post("/api/auth/tokens", body);
        let sentence = post(json!({"name": "t"})).expect_error(403, "FORBIDDEN");
        assert!(sentence.contains("current_password"), "{sentence}");
        let wrong = json!({"name": "t", "current_password": "a wrong password"});
        let sentence = post(wrong).expect_error(403, "FORBIDDEN");
        assert!(sentence.contains("current_password"), "{sentence}");
        post(json!({"name": "t", "current_password": 7})).expect_error(422, "VALIDATION_ERROR");
        post(json!({"name": "t", "current_password": PASSWORD})).expect(201);
    }
    let list = login.actor().get("/api/auth/tokens").expect(200).json();
    assert_eq!(list["count"], 3);
}

#[test]
fn a_user_without_a_password_makes_a_token_within_five_minutes_of_the_login() {
    let app = TestApp::start();
    let key = Key::secret(SECRET);
    let post = |iat: Value| {
        let mut claims = claims("outsider");
        claims["iat"] = iat;
        Actor::with_token(app.address, key.token(&claims))
            .post("/api/auth/tokens", json!({"name": "t"}))
    };
    for iat in [json!(now()), json!(now() - 290), json!(now() + 5)] {
        post(iat).expect(201);
    }
    for iat in [
        json!(now() - 301),
        json!(now() + 60),
        json!(now() * 1000),
        json!(now().to_string()),
        Value::Null,
    ] {
        let sentence = post(iat).expect_error(403, "FORBIDDEN");
        assert!(sentence.contains("5 minutes"), "{sentence}");
    }
}

#[test]
fn parallel_requests_make_at_most_100_tokens_for_a_user() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    app.sql()
        .execute(
            "INSERT INTO todo.api_tokens (user_id, id, name, token_hash, prefix, scopes)
             SELECT $1, gen_random_uuid(), 'old', sha256(n::text::bytea), 'todo_', '{}' FROM generate_series(1, 98) AS n",
            &[&login.id()],
        )
        .unwrap();
    // While the user's row is locked, all requests begin and none can finish.
    let mut other = app.sql();
    let mut lock = other.transaction().unwrap();
    lock.execute("SELECT FROM todo.users FOR UPDATE", &[])
        .unwrap();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let make = || {
            let body = json!({"name": "new", "current_password": PASSWORD});
            login.actor().post("/api/auth/tokens", body).status
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        thread::sleep(Duration::from_millis(500));
        lock.commit().unwrap();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let made = statuses.iter().filter(|status| **status == 201).count();
    let refused = statuses.iter().filter(|status| **status == 409).count();
    assert_eq!((made, refused), (2, 2), "{statuses:?}");
}
