//! Accounts: register, log in, change, delete.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::actors::Actor;
use crate::support::app::{SECRET, TestApp};
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, run};
use crate::user_command;

#[test]
fn a_new_account_is_logged_in_and_has_no_tasks_of_others() {
    let app = TestApp::start();
    let body = json!({"email": " Me@Example.ORG ", "password": PASSWORD, "name": " Me "});
    let began = Instant::now();
    let answer = app.anonymous().post("/api/auth/register", body).expect(201);
    // The lifetime begins at the start of the statement, and whole seconds of the clock count.
    let took = began.elapsed().as_secs() + 1;
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let login = Login::of(app.address, &answer);
    let user = &login.answer["user"];
    assert_eq!(
        (&user["email"], &user["name"]),
        (&json!("me@example.org"), &json!("Me"))
    );
    assert_eq!(login.answer["token_type"], "bearer");
    let left = login.answer["expires_in"].as_u64().unwrap();
    let lifetime = 24 * 3600;
    assert!((lifetime - took..=lifetime).contains(&left), "{left}");
    assert_eq!(login.actor().get("/api/auth/me").expect(200).json(), *user);

    let task = login.actor().task("mine");
    assert_eq!(task["user_id"], login.id());
    let other = Login::register(app.address, "other@example.org");
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    other.actor().get(&path).expect(404);
    let theirs = format!("/api/{}/tasks", login.id());
    other.actor().get(&theirs).expect(403);
    login.actor().get(&theirs).expect(200);
}

#[test]
fn signup_and_signin_are_other_names_of_register_and_login() {
    let app = TestApp::start();
    let body = json!({"email": "me@example.org", "password": PASSWORD});
    for (path, status) in [
        ("/api/auth/signup", 201),
        ("/api/auth/signin", 200),
        ("/api/v1/auth/signin/", 200),
    ] {
        let answer = app.anonymous().post(path, body.clone()).expect(status);
        assert!(Login::of(app.address, &answer).is_in(), "{path}");
    }
    app.anonymous()
        .get("/api/auth/signin")
        .expect_error(405, "METHOD_NOT_ALLOWED");
}

#[test]
fn a_login_may_be_a_form() {
    let app = TestApp::start();
    Login::register(app.address, "me+form@example.org");
    let form = |body: &str| {
        let header = (
            "Content-Type",
            "application/x-www-form-urlencoded; charset=UTF-8",
        );
        let body = Some(body.as_bytes());
        app.anonymous()
            .send("POST", "/api/auth/login", &[header], body)
    };
    let good = "grant_type=password&username=ME%2Bform%40example.org&password=correct+horse%20battery&scope=";
    let answer = form(good).expect(200);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert!(Login::of(app.address, &answer).is_in());
    form("username=me%2Bform@example.org&password=wrong").expect_error(401, "UNAUTHORIZED");
    form("username=me").expect_error(422, "VALIDATION_ERROR");
    form("username=%ff&password=x").expect_error(400, "BAD_REQUEST");
    form("").expect_error(422, "VALIDATION_ERROR");
}

#[test]
fn every_bad_field_of_a_registration_is_named() {
    let app = TestApp::start();
    let post = |body| app.anonymous().post("/api/auth/register", body);
    let sentence = post(json!({"email": "me", "password": "short", "name": 7}))
        .expect_error(422, "VALIDATION_ERROR");
    for field in ["email", "password", "name"] {
        assert!(sentence.contains(field), "{sentence}");
    }
    post(json!({})).expect_error(422, "VALIDATION_ERROR");
    post(json!([])).expect_error(422, "VALIDATION_ERROR");
    for (number, password) in ["\u{0}\u{1}\u{2}45678", "        ", "🔑🔑🔑🔑🔑🔑🔑🔑"]
        .into_iter()
        .enumerate()
    {
        let email = format!("{number}@example.org");
        post(json!({"email": email, "password": password})).expect(201);
        try_log_in(app.address, &email, password).expect(200);
    }
}

#[test]
fn two_accounts_cannot_have_the_same_address() {
    let app = TestApp::start();
    // Several registrations at once, in upper and lower case.
    let statuses: Vec<u16> = thread::scope(|scope| {
        let tries: Vec<_> = [
            "me@example.org",
            "Me@example.org",
            "ME@EXAMPLE.ORG",
            " me@example.org",
        ]
        .map(|email| {
            let body = json!({"email": email, "password": PASSWORD});
            let client = app.anonymous();
            scope.spawn(move || client.post("/api/auth/register", body).status)
        })
        .into_iter()
        .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 409).count(),
        3,
        "{statuses:?}"
    );
    let other = Login::register(app.address, "other@example.org");
    other
        .actor()
        .patch(
            "/api/auth/me",
            json!({"email": "ME@example.org", "current_password": PASSWORD}),
        )
        .expect_error(409, "CONFLICT");
    let changed = other.actor().patch(
        "/api/auth/me",
        json!({"email": "New@example.org", "name": "N", "current_password": PASSWORD}),
    );
    assert_eq!(changed.expect(200).json()["email"], "new@example.org");
    try_log_in(app.address, "other@example.org", PASSWORD).expect(401);
    try_log_in(app.address, "new@example.org", PASSWORD).expect(200);
    let kept = other
        .actor()
        .patch("/api/auth/me", json!({}))
        .expect(200)
        .json();
    assert_eq!(kept["name"], "N");
    let cleared = other
        .actor()
        .patch("/api/auth/me", json!({"name": null, "email": null}));
    cleared.expect_error(422, "VALIDATION_ERROR");
}

#[test]
fn an_unknown_address_looks_like_a_wrong_password() {
    let app = TestApp::start();
    Login::register(app.address, "me@example.org");
    let time = |email: &str| {
        let began = Instant::now();
        let answer = try_log_in(app.address, email, "a wrong password");
        (began.elapsed(), answer.expect(401))
    };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let (took, wrong) = time("me@example.org");
        known.push(took);
        let (took, answer) = time(&format!("unknown{number}@example.org"));
        unknown.push(took);
        let body = |answer: &crate::support::http::Answer| {
            let mut body = answer.json();
            body["request_id"].take();
            body
        };
        assert_eq!(body(&wrong), body(&answer));
        assert!(
            wrong
                .header("WWW-Authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    // The ranges of the times overlap. By chance alone, those of eight times each do not once in 6,400 runs.
    known.sort();
    unknown.sort();
    assert!(
        known[0] < unknown[7] && unknown[0] < known[7],
        "{known:?} {unknown:?}"
    );
    assert!(
        unknown[0] > Duration::from_millis(5),
        "the server hashed a password: {unknown:?}"
    );
}

#[test]
fn a_new_password_ends_every_other_session() {
    let app = TestApp::start();
    let here = Login::register(app.address, "me@example.org");
    let there = Login::again(app.address, "me@example.org");
    let change = |current: &str, new: &str| {
        here.actor().put(
            "/api/auth/password",
            json!({"current_password": current, "new_password": new}),
        )
    };
    let sentence =
        change("a wrong password", "a new password").expect_error(422, "VALIDATION_ERROR");
    assert!(sentence.contains("current_password"), "{sentence}");
    change(PASSWORD, "short").expect_error(422, "VALIDATION_ERROR");
    assert!(there.is_in());
    change(PASSWORD, "a new password").expect(204);
    assert!(here.is_in() && !there.is_in());
    there.try_refresh().expect(401);
    assert!(here.refresh().is_in());
    try_log_in(app.address, "me@example.org", PASSWORD).expect(401);
    try_log_in(app.address, "me@example.org", "a new password").expect(200);
}

#[test]
fn a_deleted_account_is_gone_with_everything() {
    let app = TestApp::start();
    let me = Login::register(app.address, "me@example.org");
    let elsewhere = Login::again(app.address, "me@example.org");
    let minted = app.user(me.id());
    let script = Actor::with_token(app.address, me.api_token());
    me.actor().task("mine");
    script.task("by script");
    let delete = |body| me.actor().send_json("DELETE", "/api/auth/me", body);
    delete(json!({})).expect_error(422, "VALIDATION_ERROR");
    delete(json!({"password": "a wrong password"})).expect_error(422, "VALIDATION_ERROR");
    assert!(me.is_in());
    delete(json!({"password": PASSWORD})).expect(204);
    assert!(!me.is_in() && !elsewhere.is_in());
    script.get("/api/tasks").expect(401);
    // If a token without a session stayed valid, its next write would make the user again.
    minted.get("/api/tasks").expect_error(401, "UNAUTHORIZED");
    elsewhere.try_refresh().expect(401);
    try_log_in(app.address, "me@example.org", PASSWORD).expect(401);
    let mut sql = app.sql();
    for table in [
        "users",
        "tasks",
        "sessions",
        "session_networks",
        "refresh_tokens",
        "api_tokens",
    ] {
        let row = sql
            .query_one(&format!("SELECT count(*) FROM todo.{table}"), &[])
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{table}");
    }
    // The address is free again. It belongs to a new account.
    assert_ne!(Login::register(app.address, "me@example.org").id(), me.id());
}

#[test]
fn a_user_of_another_issuer_has_no_password_here() {
    let app = TestApp::start();
    let user = app.user("outsider");
    let me = user.get("/api/auth/me").expect(200).json();
    assert_eq!(
        me,
        json!({"id": "outsider", "email": null, "name": null, "created_at": null})
    );
    user.patch("/api/auth/me", json!({"name": "N"}))
        .expect_error(409, "CONFLICT");
    let change = json!({"current_password": "x", "new_password": "long enough"});
    user.put("/api/auth/password", change)
        .expect_error(409, "CONFLICT");
    user.send_json("DELETE", "/api/auth/me", json!({"password": "x"}))
        .expect_error(409, "CONFLICT");
    user.task("mine");
    assert!(user.get("/api/auth/me").expect(200).json()["created_at"].is_string());
}

#[test]
fn every_account_route_except_register_login_and_refresh_needs_a_token() {
    let app = TestApp::start();
    let anonymous = app.anonymous();
    for (method, path) in [
        ("POST", "/api/auth/logout"),
        ("POST", "/api/auth/logout-all"),
        ("GET", "/api/auth/me"),
        ("PATCH", "/api/auth/me"),
        ("DELETE", "/api/auth/me"),
        ("PUT", "/api/auth/password"),
        ("GET", "/api/auth/sessions"),
        (
            "DELETE",
            "/api/auth/sessions/01890000-0000-7000-8000-000000000000",
        ),
        ("POST", "/api/auth/tokens"),
        ("GET", "/api/auth/tokens"),
        (
            "DELETE",
            "/api/auth/tokens/01890000-0000-7000-8000-000000000000",
        ),
    ] {
        let answer = anonymous.send_json(method, path, json!({}));
        assert_eq!(
            answer.expect_error(401, "UNAUTHORIZED"),
            "Missing authentication token",
            "{method} {path}"
        );
        assert!(
            answer
                .header("WWW-Authenticate")
                .unwrap()
                .starts_with("Bearer"),
            "{path}"
        );
        anonymous
            .send_json(method, &path.replace("/api/", "/api/v1/"), json!({}))
            .expect(401);
    }
    anonymous
        .get("/api/auth/login")
        .expect_error(405, "METHOD_NOT_ALLOWED");
}

#[test]
fn registration_can_be_closed() {
    let database = fresh_database();
    let server = Process::serve(&database, &[("REGISTRATION", "closed")]);
    let body = json!({"email": "me@example.org", "password": PASSWORD});
    let sentence = server
        .anonymous()
        .post("/api/auth/register", body)
        .expect_error(403, "FORBIDDEN");
    assert!(sentence.contains("closed"), "{sentence}");
    // A change of the address must not reveal which addresses have an account either.
    let add = |email: &str| {
        let output = user_command::run(&database, &["user", "add", email], PASSWORD);
        assert!(output.status.success(), "{output:?}");
        Login::again(server.address, email)
    };
    let (me, _) = (add("me@example.org"), add("other@example.org"));
    let change = |body| me.actor().patch("/api/auth/me", body);
    for email in ["other@example.org", "free@example.org"] {
        let body = json!({"email": email, "current_password": PASSWORD});
        let sentence = change(body).expect_error(403, "FORBIDDEN");
        assert!(sentence.contains("closed"), "{sentence}");
    }
    change(json!({"name": "N"})).expect(200);
}

#[test]
fn a_new_address_needs_the_password_of_the_account() {
    let app = TestApp::start();
    let me = Login::register(app.address, "me@example.org");
    for actor in [me.actor(), app.user(me.id())] {
        let change = |body| actor.patch("/api/auth/me", body);
        for body in [
            json!({"email": "thief@example.org"}),
            json!({"email": "thief@example.org", "current_password": "a wrong password"}),
        ] {
            let sentence = change(body).expect_error(403, "FORBIDDEN");
            assert!(sentence.contains("current_password"), "{sentence}");
        }
        change(json!({"email": "thief@example.org", "current_password": null}))
            .expect_error(422, "VALIDATION_ERROR");
        change(json!({"name": "N"})).expect(200);
    }
    try_log_in(app.address, "thief@example.org", PASSWORD).expect(401);
    let body = json!({"email": "new@example.org", "current_password": PASSWORD});
    me.actor().patch("/api/auth/me", body).expect(200);
    try_log_in(app.address, "new@example.org", PASSWORD).expect(200);
}

#[test]
fn an_outdated_hash_is_renewed_by_a_login() {
    let app = TestApp::start();
    Login::register(app.address, "me@example.org");
    let mut sql = app.sql();
    // The password is "correct horse battery", hashed with 8 MiB and one pass.
    let old = old_hash();
    sql.execute("UPDATE todo.users SET password_hash = $1", &[&old])
        .unwrap();
    try_log_in(app.address, "me@example.org", "a wrong password").expect(401);
    let stored = |sql: &mut postgres::Client| -> String {
        sql.query_one("SELECT password_hash FROM todo.users", &[])
            .unwrap()
            .get(0)
    };
    assert_eq!(stored(&mut sql), old);
    assert!(Login::again(app.address, "me@example.org").is_in());
    assert!(stored(&mut sql).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    Login::again(app.address, "me@example.org");
    // Several logins at once: each finds the old hash, and one renews it.
    for _ in 0..3 {
        sql.execute("UPDATE todo.users SET password_hash = $1", &[&old])
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Login::again(app.address, "me@example.org"));
            }
        });
    }
}

/// A hash of [`PASSWORD`] with weaker parameters, as an earlier version might have stored.
fn old_hash() -> String {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
    let params = Params::new(8 * 1024, 1, 1, None).unwrap();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(PASSWORD.as_bytes(), b"0123456789abcdef")
        .unwrap()
        .to_string()
}

#[test]
fn a_write_during_the_deletion_of_the_account_leaves_nothing_behind() {
    let app = TestApp::start();
    let mut overtaken = 0;
    for round in 0..5 {
        let me = Login::register(app.address, &format!("{round}@example.org"));
        let script = Actor::with_token(app.address, me.api_token());
        let statuses: Vec<u16> = thread::scope(|scope| {
            let writers: Vec<_> = [me.actor(), me.actor(), script]
                .into_iter()
                .map(|writer| {
                    scope.spawn(move || {
                        let write = |number| {
                            let made = writer.post("/api/tasks", json!({"title": "t"}));
                            if made.status == 201 {
                                let id = made.json()["id"].as_str().unwrap().to_owned();
                                writer.delete(&format!("/api/tasks/{id}"));
                                if number % 2 == 0 {
                                    let restore = format!("/api/tasks/{id}/restore");
                                    writer.send("POST", &restore, &[], None);
                                }
                            }
                            made.status
                        };
                        (0..100).map(write).collect::<Vec<u16>>()
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(20 * round));
            me.actor()
                .send_json("DELETE", "/api/auth/me", json!({"password": PASSWORD}))
                .expect(204);
            writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap())
                .collect()
        });
        let expected = |status: &u16| [201, 401].contains(status);
        assert!(statuses.iter().all(expected), "{statuses:?}");
        overtaken += usize::from(statuses.contains(&401));
    }
    assert!(overtaken > 0, "the writers were done before");
    let mut sql = app.sql();
    for table in ["users", "tasks", "deleted_tasks", "api_tokens"] {
        let count = format!("SELECT count(*) FROM todo.{table}");
        let row = sql.query_one(&count, &[]).unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{table}");
    }
}

#[test]
fn no_answer_and_no_log_line_contains_a_secret() {
    let database = fresh_database();
    let settings = [
        ("RUST_LOG", "trace"),
        ("METRICS_TOKEN", "a token for metrics"),
    ];
    let server = Process::serve(&database, &settings);
    let login = Login::register(server.address, "me@example.org");
    let next = login.refresh();
    let token = next.api_token();
    let mut answers = vec![
        try_log_in(server.address, "me@example.org", "a wrong password"),
        Actor::with_token(server.address, &token).get("/api/auth/me"),
        Actor::with_authorization(server.address, &format!("Bearer {}x", next.access_token()))
            .get("/api/tasks"),
        server.anonymous().get(&format!("/api/tasks/{token}")),
        server.anonymous().post(
            "/api/auth/refresh",
            json!({"refresh_token": format!("{}x", next.refresh_token())}),
        ),
        server.anonymous().get("/metrics"),
    ];
    let change = json!({"current_password": PASSWORD, "new_password": "an even better password"});
    answers.push(next.actor().put("/api/auth/password", change));
    let hash: String = postgres::Client::connect(&database, postgres::NoTls)
        .unwrap()
        .query_one("SELECT password_hash FROM todo.users", &[])
        .unwrap()
        .get(0);
    let config = run(
        &["config"],
        &[
            ("DATABASE_URL", &database),
            ("BETTER_AUTH_SECRET", SECRET),
            settings[1],
        ],
    );
    let help = run(&["--help"], &[]);
    server.signal("TERM");
    let (_, log) = server.wait_at_most(Duration::from_secs(15));
    assert!(log.lines().count() > 8, "{log}");
    let told = [
        log,
        String::from_utf8(config.stdout).unwrap(),
        String::from_utf8(help.stdout).unwrap(),
        answers.iter().map(|answer| format!("{answer:?}")).collect(),
    ];
    let secrets = [
        PASSWORD,
        "a wrong password",
        "an even better password",
        SECRET,
        settings[1].1,
        &hash,
        &token,
        login.access_token(),
        login.refresh_token(),
        next.access_token(),
        next.refresh_token(),
    ];
    for text in &told {
        for secret in secrets {
            // The signature or the random part of a token is secret enough to look for.
            let telling = &secret[secret.len().saturating_sub(20)..];
            assert!(!text.contains(telling), "{secret}: {text}");
        }
    }
}
