//! Sessions: refreshing, and what ends them.

use std::collections::HashSet;
use std::thread;

use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::login::{Login, PASSWORD};

/// Moves every use of a refresh token this many seconds into the past.
fn age(app: &TestApp, seconds: f64) {
    app.sql()
        .execute(
            "UPDATE todo.refresh_tokens SET used_at = used_at - make_interval(secs => $1)",
            &[&seconds],
        )
        .unwrap();
}

#[test]
fn a_refresh_continues_the_session_with_new_tokens() {
    let app = TestApp::start();
    let first = Login::register(app.address, "me@example.org");
    let answer = first.try_refresh().expect(200);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let second = Login::of(app.address, &answer);
    assert_eq!(second.answer["user"], first.answer["user"]);
    assert_ne!(second.access_token(), first.access_token());
    assert_ne!(second.refresh_token(), first.refresh_token());
    let third = second.refresh();
    for login in [&first, &second, &third] {
        assert!(login.is_in());
    }
    let sessions = third.actor().get("/api/auth/sessions").expect(200).json();
    assert_eq!(sessions["count"], 1, "{sessions}");
    assert_eq!(sessions["sessions"][0]["current"], true);
}

#[test]
fn within_the_grace_period_a_reused_refresh_token_gives_the_same_tokens() {
    let app = TestApp::start();
    let first = Login::register(app.address, "me@example.org");
    let second = first.refresh();
    age(&app, 20.0);
    // Also if the successor has been used already.
    let third = second.refresh();
    for _ in 0..3 {
        let replay = first.refresh();
        assert_eq!(replay.refresh_token(), second.refresh_token());
        let claims = |login: &Login| claims(login.access_token());
        for claim in ["sid", "jti", "sub"] {
            assert_eq!(claims(&replay)[claim], claims(&second)[claim], "{claim}");
        }
    }
    assert_eq!(
        second.refresh().answer["access_token"],
        third.answer["access_token"]
    );
    assert!(third.refresh().is_in());
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(claims)
            .unwrap(),
    )
    .unwrap()
}

#[test]
fn after_the_grace_period_a_reused_refresh_token_ends_the_session() {
    let app = TestApp::start();
    let first = Login::register(app.address, "me@example.org");
    let other = Login::again(app.address, "me@example.org");
    let second = first.refresh();
    let third = second.refresh();
    age(&app, 31.0);
    let sentence = first.try_refresh().expect_error(401, "UNAUTHORIZED");
    assert!(sentence.contains("used before"), "{sentence}");
    for ended in [&first, &second, &third] {
        assert!(!ended.is_in());
        ended.try_refresh().expect_error(401, "UNAUTHORIZED");
    }
    assert!(
        other.is_in() && other.refresh().is_in(),
        "another session stays valid"
    );
}

#[test]
fn parallel_refreshes_have_one_successor() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    for _ in 0..5 {
        let pairs: HashSet<(String, String)> = thread::scope(|scope| {
            let all: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        let next = login.refresh();
                        (
                            next.access_token().to_owned(),
                            next.refresh_token().to_owned(),
                        )
                    })
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(pairs.len(), 1);
    }
    let row = app
        .sql()
        .query_one(
            "SELECT count(*) FILTER (WHERE used_at IS NULL), count(*) FROM todo.refresh_tokens",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2));
}

#[test]
fn a_logout_ends_only_its_own_session() {
    let app = TestApp::start();
    let here = Login::register(app.address, "me@example.org");
    let there = Login::again(app.address, "me@example.org");
    let later = here.refresh();
    here.actor()
        .send("POST", "/api/auth/logout", &[], None)
        .expect(204);
    for ended in [&here, &later] {
        assert!(!ended.is_in());
        ended.try_refresh().expect(401);
    }
    assert!(there.is_in() && there.refresh().is_in());
    let again = Login::again(app.address, "me@example.org");
    there
        .actor()
        .post("/api/auth/logout-all", json!({}))
        .expect(204);
    assert!(!there.is_in() && !again.is_in());
    assert!(Login::again(app.address, "me@example.org").is_in());
}

#[test]
fn a_session_can_be_ended_from_another() {
    let app = TestApp::start();
    let here = Login::register(app.address, "me@example.org");
    let there = Login::again(app.address, "me@example.org");
    let list = |login: &Login| login.actor().get("/api/auth/sessions").expect(200).json();
    let of = |list: &Value, current: bool| -> String {
        let sessions = list["sessions"].as_array().unwrap();
        let one = sessions
            .iter()
            .find(|session| session["current"] == current)
            .unwrap();
        assert_eq!(one["address"], "127.0.0.1");
        for field in ["created_at", "last_used_at", "expires_at"] {
            assert!(one[field].as_str().unwrap().ends_with('Z'), "{one}");
        }
        one["id"].as_str().unwrap().to_owned()
    };
    let other = of(&list(&here), false);
    assert_eq!(other, of(&list(&there), true));
    let path = format!("/api/auth/sessions/{other}");
    let other = Login::register(app.address, "other@example.org");
    other.actor().delete(&path).expect_error(404, "NOT_FOUND");
    here.actor()
        .delete("/api/auth/sessions/nonsense")
        .expect_error(404, "NOT_FOUND");
    assert!(there.is_in());
    here.actor().delete(&path).expect(204);
    assert!(!there.is_in() && here.is_in());
    there.try_refresh().expect(401);
    here.actor().delete(&path).expect_error(404, "NOT_FOUND");
    assert_eq!(list(&here)["count"], 1);
}

#[test]
fn no_kind_of_token_is_accepted_as_another() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let script = login.api_token();
    let refresh = |token: &str| {
        app.anonymous()
            .post("/api/auth/refresh", json!({"refresh_token": token}))
    };
    let bearer =
        |token: &str, path: &str| crate::support::Actor::with_token(app.address, token).get(path);
    bearer(login.refresh_token(), "/api/tasks").expect_error(401, "UNAUTHORIZED");
    bearer(login.refresh_token(), "/api/auth/me").expect_error(401, "UNAUTHORIZED");
    bearer(&script, "/api/auth/me").expect_error(401, "UNAUTHORIZED");
    bearer(&script, "/api/auth/tokens").expect_error(401, "UNAUTHORIZED");
    for token in [
        login.access_token(),
        &script,
        "",
        "refresh_",
        &"x".repeat(10_000),
    ] {
        refresh(token).expect_error(401, "UNAUTHORIZED");
    }
    refresh("\u{fffd}\u{1f511}").expect(401);
    app.anonymous()
        .post("/api/auth/refresh", json!({"refresh_token": null}))
        .expect(422);
    app.anonymous()
        .post("/api/auth/refresh", json!({}))
        .expect(422);
    assert!(login.is_in() && login.refresh().is_in());
}

#[test]
fn the_database_contains_no_usable_token() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org").refresh();
    let script = login.api_token();
    login.actor().get("/api/tasks").expect(200);
    let tables = "SELECT coalesce(string_agg(t::text, '\n'), '') FROM todo.";
    let mut sql = app.sql();
    for table in [
        "users",
        "sessions",
        "refresh_tokens",
        "revocations",
        "api_tokens",
    ] {
        let alias = format!("{tables}{table} AS t");
        let text: String = sql.query_one(&alias, &[]).unwrap().get(0);
        for secret in [
            login.access_token(),
            login.refresh_token(),
            &script,
            PASSWORD,
        ] {
            assert!(!text.contains(secret), "{table}");
            // Not even without the prefix that names its kind.
            assert!(!text.contains(&secret[8..]), "{table}");
        }
    }
}

#[test]
fn parallel_refreshes_and_logouts_do_not_block_each_other() {
    let app = TestApp::start();
    Login::register(app.address, "me@example.org");
    for round in 0..20 {
        let login = Login::again(app.address, "me@example.org");
        let statuses: Vec<u16> = thread::scope(|scope| {
            let mut all: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| login.try_refresh().status))
                .collect();
            let path = if round % 2 == 0 {
                "/api/auth/logout"
            } else {
                "/api/auth/logout-all"
            };
            let actor = login.actor();
            all.push(scope.spawn(move || actor.send("POST", path, &[], None).status));
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (ended, refreshed) = statuses.split_last().unwrap();
        assert_eq!(*ended, 204, "{statuses:?}");
        assert!(
            refreshed.iter().all(|status| [200, 401].contains(status)),
            "{statuses:?}"
        );
        assert!(!login.is_in());
        login.try_refresh().expect(401);
    }
}

#[test]
fn a_login_over_the_limit_ends_the_oldest_session() {
    let app = TestApp::start();
    let oldest = Login::register(app.address, "me@example.org");
    app.sql()
        .execute(
            "INSERT INTO todo.sessions (user_id, id, expires_at, access_expires_at, address)
             SELECT $1, gen_random_uuid(), now() + interval '1 day', now() + interval '1 day', '' FROM generate_series(1, 99)",
            &[&oldest.id()],
        )
        .unwrap();
    assert!(oldest.is_in());
    let newest = Login::again(app.address, "me@example.org");
    assert!(newest.is_in() && !oldest.is_in());
    assert_eq!(
        newest.actor().get("/api/auth/sessions").expect(200).json()["count"],
        100
    );
}
