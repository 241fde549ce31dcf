//! A user cannot see or change the tasks of another.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

const UNKNOWN: &str = "0190b7c6-0000-7000-8000-000000000000";

/// Status and error body, without the request id.
fn comparable(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    (answer.status, body)
}

#[test]
fn another_users_task_looks_like_one_that_does_not_exist() {
    let app = TestApp::start();
    let (owner, other) = (app.user("owner"), app.user("other"));
    other.task("so that this user is known");
    let task = owner.task("private");
    let id = task["id"].as_str().unwrap();
    for prefix in ["/api/tasks", "/api/v1/tasks", "/api/other/tasks"] {
        let requests: [(&str, &str, Option<&[u8]>); 6] = [
            ("GET", "", None),
            ("PUT", "", Some(b"{\"title\":\"stolen\"}")),
            ("PATCH", "", Some(b"{}")),
            ("DELETE", "", None),
            ("PATCH", "/complete", None),
            ("PATCH", "/complete", Some(b"{\"completed\":true}")),
        ];
        for (method, rest, body) in requests {
            let ask = |id: &str| other.send(method, &format!("{prefix}/{id}{rest}"), &[], body);
            let (taken, unknown, no_uuid) = (ask(id), ask(UNKNOWN), ask("no-uuid"));
            assert_eq!(taken.expect_error(404, "NOT_FOUND"), "Task not found");
            assert_eq!(
                comparable(&taken),
                comparable(&unknown),
                "{method} {prefix}{rest}"
            );
            assert_eq!(
                comparable(&taken),
                comparable(&no_uuid),
                "{method} {prefix}{rest}"
            );
        }
    }
    assert_eq!(
        owner.get(&format!("/api/tasks/{id}")).expect(200).json(),
        task,
        "untouched"
    );
    assert_eq!(other.get("/api/tasks").json()["count"], 1);
}

#[test]
fn every_path_of_another_user_is_forbidden() {
    let app = TestApp::start();
    let (owner, other) = (app.user("owner"), app.user("other"));
    let task = owner.task("private");
    for path in [
        "/api/owner/tasks".to_owned(),
        format!("/api/owner/tasks/{}", task["id"].as_str().unwrap()),
        "/api/owner/tasks/no-uuid".to_owned(),
        "/api/unknown/tasks".to_owned(),
        "/api/OTHER/tasks".to_owned(),
        "/api/other%20/tasks".to_owned(),
        "/api/other%00/tasks".to_owned(),
    ] {
        let sentence = other.get(&path).expect_error(403, "FORBIDDEN");
        assert_eq!(
            sentence, "Forbidden: not authorized to access another user's tasks",
            "{path}"
        );
    }
    other.get("/api/%6fther/tasks").expect(200);
}

#[test]
fn two_users_may_have_tasks_with_the_same_id() {
    let app = TestApp::start();
    let (a, b) = (app.user("a"), app.user("b"));
    let body = |title: &str| json!({ "id": UNKNOWN, "title": title });
    a.post("/api/tasks", body("of a")).expect(201);
    b.post("/api/tasks", body("of b")).expect(201);
    b.delete(&format!("/api/tasks/{UNKNOWN}")).expect(204);
    assert_eq!(
        a.get(&format!("/api/tasks/{UNKNOWN}")).json()["title"],
        "of a"
    );
}

#[test]
fn owner_and_timestamps_in_a_body_are_ignored() {
    let app = TestApp::start();
    let (a, b) = (app.user("a"), app.user("b"));
    let sent = json!({
        "title": "mine", "user_id": "b", "created_at": "2001-01-01T00:00:00Z", "updated_at": "2001-01-01T00:00:00Z",
        "completed_at": "2001-01-01T00:00:00Z", "version": 99,
    });
    let task = a.post("/api/tasks", sent.clone()).expect(201).json();
    assert_eq!(task["user_id"], "a");
    assert_eq!(task["completed_at"], Value::Null);
    assert!(!task["created_at"].as_str().unwrap().starts_with("2001"));
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let mut changes = sent;
    changes["id"] = json!(UNKNOWN);
    for answer in [a.put(&path, changes.clone()), a.patch(&path, changes)] {
        assert_eq!(answer.expect(200).json(), task, "the fields change nothing");
    }
    assert_eq!(b.get("/api/tasks").json()["count"], 0);
}
