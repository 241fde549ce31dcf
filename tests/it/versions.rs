//! Versions, entity tags and preconditions.

use std::thread;

use serde_json::{Value, json};

use crate::support::{Actor, Answer, TestApp};

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

fn tag(answer: &Answer) -> String {
    answer.header("ETag").unwrap().to_owned()
}

/// Sends a request under a precondition.
fn under(user: &Actor, method: &str, target: &str, condition: (&str, &str), body: &str) -> Answer {
    let body = (!body.is_empty()).then_some(body.as_bytes());
    user.send(method, target, &[condition], body)
}

#[test]
fn the_version_counts_real_changes() {
    let app = TestApp::start();
    let user = app.user("u1");
    let made = user
        .post("/api/tasks", json!({ "title": "t", "version": 7 }))
        .expect(201);
    let task = made.json();
    let (path, complete) = (path(&task), format!("{}/complete", path(&task)));
    assert_eq!(task["version"], 1);
    let last = tag(&made);
    assert!(
        last.starts_with('"') && last.ends_with('"'),
        "strong: {last}"
    );
    assert_eq!(tag(&user.get(&path)), last);
    for (version, method, target, body) in [
        (2, "PATCH", &path, "{\"title\":\"new\"}"),
        (2, "PATCH", &path, "{\"title\":\"new\"}"),
        (2, "PUT", &path, "{}"),
        (3, "PUT", &path, "{\"tags\":[\"a\"]}"),
        (4, "PATCH", &complete, "{\"completed\":true}"),
        (4, "PATCH", &complete, "{\"completed\":true}"),
        (5, "PATCH", &complete, ""),
    ] {
        let answer = under(&user, method, target, ("Accept", "*/*"), body).expect(200);
        let task = answer.json();
        assert_eq!(task["version"], version, "{task}");
        let read = user.get(&path);
        assert_eq!((tag(&read), read.json()), (tag(&answer), task));
    }
}

#[test]
fn a_task_that_the_client_already_has_is_304() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let current = tag(&user.get(&path(&task)));
    let ask = |method: &str, value: &str| {
        user.send(method, &path(&task), &[("If-None-Match", value)], None)
    };
    for known in [
        current.clone(),
        format!("W/{current}"),
        format!("\"x\", {current}"),
        "*".to_owned(),
    ] {
        let answer = ask("GET", &known).expect(304);
        assert_eq!(answer.body, "");
        assert_eq!(answer.header("ETag"), Some(current.as_str()));
        assert_eq!(answer.header("Content-Length"), None);
        ask("HEAD", &known).expect(304);
    }
    for other in ["\"x\"", "W/\"1-0\"", "", "\"1\""] {
        assert_eq!(ask("GET", other).expect(200).json(), task);
    }
    ask("GET", "x").expect_error(400, "BAD_REQUEST");
    user.patch(&path(&task), json!({ "title": "new" }))
        .expect(200);
    ask("GET", &current).expect(200);
}

#[test]
fn a_stale_precondition_changes_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let (path, complete) = (path(&task), format!("{}/complete", path(&task)));
    let old = tag(&user.get(&path));
    user.patch(&path, json!({ "title": "new" })).expect(200);
    let current = user.get(&path);
    let writes = [
        ("PUT", &path, "{\"title\":\"lost\"}"),
        ("PATCH", &path, "{\"title\":\"lost\"}"),
        ("PATCH", &path, "{}"),
        ("PATCH", &complete, ""),
        ("PATCH", &complete, "{\"completed\":true}"),
        ("DELETE", &path, ""),
    ];
    for (method, target, body) in writes {
        for stale in [
            old.clone(),
            format!("W/{}", tag(&current)),
            "\"x\"".to_owned(),
            String::new(),
        ] {
            let answer = under(&user, method, target, ("If-Match", &stale), body);
            let sentence = answer.expect_error(412, "PRECONDITION_FAILED");
            assert!(sentence.contains("get it again"), "{sentence}");
        }
        under(&user, method, target, ("If-Match", "x"), body).expect_error(400, "BAD_REQUEST");
    }
    let read = user.get(&path);
    assert_eq!((tag(&read), read.json()), (tag(&current), current.json()));
}

#[test]
fn a_write_with_if_none_match_is_refused_in_that_state() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let (path, complete) = (path(&task), format!("{}/complete", path(&task)));
    let current = user.get(&path);
    let nowhere = format!("/api/tasks/{}", uuid::Uuid::nil());
    for (method, target, body) in [
        ("PUT", &path, "{\"title\":\"lost\"}"),
        ("PATCH", &path, "{\"title\":\"lost\"}"),
        ("PATCH", &complete, ""),
        ("DELETE", &path, ""),
    ] {
        for excluded in [
            "*".to_owned(),
            tag(&current),
            format!("\"other\", W/{}", tag(&current)),
        ] {
            let field = ("If-None-Match", excluded.as_str());
            under(&user, method, target, field, body).expect_error(412, "PRECONDITION_FAILED");
            let elsewhere = target.replace(&path, &nowhere);
            under(&user, method, &elsewhere, field, body).expect_error(404, "NOT_FOUND");
        }
        under(&user, method, target, ("If-None-Match", "x"), body).expect_error(400, "BAD_REQUEST");
    }
    assert_eq!(user.get(&path).json(), current.json());
    let field = ("If-None-Match", "\"other\"");
    under(&user, "PATCH", &path, field, "{\"title\":\"new\"}").expect(200);
    let old = tag(&current);
    under(&user, "DELETE", &path, ("If-None-Match", &old), "").expect(204);
}

#[test]
fn every_write_accepts_the_etag_of_an_answer() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let (path, complete) = (path(&task), format!("{}/complete", path(&task)));
    let mut current = tag(&user.get(&path));
    for (method, target, body) in [
        ("PUT", &path, "{\"title\":\"a\"}"),
        ("PATCH", &path, "{\"title\":\"b\"}"),
        ("PATCH", &path, "{}"),
        ("PATCH", &complete, ""),
        ("PATCH", &complete, "{\"completed\":false}"),
    ] {
        let several = format!("\"x\" , W/\"1-0\", {current}");
        for condition in [several.as_str(), "*"] {
            let answer = under(&user, method, target, ("If-Match", condition), body).expect(200);
            current = tag(&answer);
            assert_eq!(answer.json(), user.get(&path).json());
        }
    }
    under(&user, "GET", &path, ("If-Match", &current), "").expect(200);
    under(&user, "DELETE", &path, ("If-Match", &current), "").expect(204);
    // A task that does not exist is 404 before the precondition.
    for condition in [current.as_str(), "*", "\"x\""] {
        for (method, target, body) in [
            ("PATCH", &path, "{\"title\":\"b\"}"),
            ("PATCH", &complete, ""),
            ("DELETE", &path, ""),
        ] {
            under(&user, method, target, ("If-Match", condition), body)
                .expect_error(404, "NOT_FOUND");
        }
    }
}

#[test]
fn a_new_task_with_an_old_id_has_another_etag() {
    let app = TestApp::start();
    let user = app.user("u1");
    let body = json!({ "title": "t", "id": "4f2b8a34-1c39-4b6e-9b53-0b7a1e0c55d1" });
    let made = user.post("/api/tasks", body.clone()).expect(201);
    let path = path(&made.json());
    user.delete(&path).expect(204);
    user.post("/api/tasks", body).expect(201);
    under(&user, "DELETE", &path, ("If-Match", &tag(&made)), "")
        .expect_error(412, "PRECONDITION_FAILED");
    user.get(&path).expect(200);
}

#[test]
fn the_precondition_comes_before_the_body() {
    let app = TestApp::start();
    let user = app.user("u1");
    let path = path(&user.task("t"));
    let current = tag(&user.get(&path));
    let text = ("Content-Type", "text/plain");
    for (condition, status, code) in [
        ("\"x\"", 412, "PRECONDITION_FAILED"),
        (&current, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        let headers = [("If-Match", condition), text];
        user.send("PUT", &path, &headers, Some(b"{"))
            .expect_error(status, code);
    }
    for (body, status, code) in [
        ("{", 400, "BAD_REQUEST"),
        ("{\"title\":\"\"}", 422, "VALIDATION_ERROR"),
    ] {
        under(&user, "PUT", &path, ("If-Match", &current), body).expect_error(status, code);
        under(&user, "PUT", &path, ("If-Match", "\"x\""), body)
            .expect_error(412, "PRECONDITION_FAILED");
    }
}

#[test]
fn no_update_is_lost_when_each_sends_if_match() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user
        .post("/api/tasks", json!({ "title": "t", "description": "0" }))
        .expect(201)
        .json();
    let path = path(&task);
    let (clients, rounds) = (8, 200);
    thread::scope(|scope| {
        for client in 0..clients {
            let (user, path) = (&user, &path);
            scope.spawn(move || {
                for round in 0..rounds {
                    loop {
                        let read = user.get(path);
                        let number: u32 = read.json()["description"]
                            .as_str()
                            .unwrap()
                            .parse()
                            .unwrap();
                        let body = json!({ "description": (number + 1).to_string() }).to_string();
                        let method = if (client + round) % 2 == 0 {
                            "PUT"
                        } else {
                            "PATCH"
                        };
                        let written = under(user, method, path, ("If-Match", &tag(&read)), &body);
                        match written.status {
                            200 => break,
                            412 => {}
                            _ => panic!("{written:?}"),
                        }
                    }
                }
            });
        }
    });
    let read = user.get(&path).json();
    assert_eq!(read["description"], (clients * rounds).to_string());
    assert_eq!(read["version"], clients * rounds + 1);
}

#[test]
fn of_parallel_deletions_and_changes_one_succeeds() {
    let app = TestApp::start();
    let user = app.user("u1");
    for _ in 0..30 {
        let path = path(&user.task("t"));
        let current = tag(&user.get(&path));
        let ask = |method: &'static str, body: &'static str| {
            let (user, path, current) = (&user, path.as_str(), current.as_str());
            move || under(user, method, path, ("If-Match", current), body).status
        };
        let statuses = thread::scope(|scope| {
            let asked = [
                scope.spawn(ask("DELETE", "")),
                scope.spawn(ask("PATCH", "{\"title\":\"a\"}")),
                scope.spawn(ask("PATCH", "{\"title\":\"b\"}")),
            ];
            asked.map(|thread| thread.join().unwrap())
        });
        let won = statuses
            .iter()
            .filter(|status| matches!(status, 200 | 204))
            .count();
        assert_eq!(won, 1, "{statuses:?}");
        let lost = statuses
            .iter()
            .filter(|status| matches!(status, 404 | 412))
            .count();
        assert_eq!(lost, 2, "{statuses:?}");
    }
}
