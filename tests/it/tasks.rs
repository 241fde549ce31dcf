//! Creating, reading, changing and deleting tasks.

use std::collections::HashSet;
use std::thread;

use serde_json::{Map, Value, json};
use todo_api::domain::task::{Sent, TASK_FIELDS};

use crate::support::{Actor, TestApp};

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// The fields that the error names for this body.
#[track_caller]
fn complaints(user: &Actor, method: &str, target: &str, body: &str) -> Vec<String> {
    let answer = user.send(method, target, &[], Some(body.as_bytes()));
    answer.expect_error(422, "VALIDATION_ERROR");
    let details = answer.json()["error"]["details"]
        .as_array()
        .unwrap()
        .clone();
    details
        .iter()
        .map(|detail| detail["field"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_new_task_has_every_field() {
    let app = TestApp::start();
    let user = app.user("u1");
    let answer = user
        .post("/api/tasks", json!({ "title": "  Buy milk  " }))
        .expect(201);
    let task = answer.json();
    assert_eq!(answer.header("Location"), Some(path(&task).as_str()));
    let names: HashSet<&str> = task
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = TASK_FIELDS.iter().map(|field| field.name);
    assert_eq!(names, expected.collect());
    assert_eq!(task["title"], "Buy milk");
    assert_eq!(
        (
            &task["description"],
            &task["due_date"],
            &task["completed_at"]
        ),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&task["completed"], &task["priority"]),
        (&json!(false), &json!("medium"))
    );
    assert_eq!(task["created_at"], task["updated_at"]);
    let created = task["created_at"].as_str().unwrap();
    assert!(
        created.len() == 27 && created.ends_with('Z'),
        "six digits and Z: {created}"
    );
    assert_eq!(
        task["id"].as_str().unwrap().as_bytes()[14],
        b'7',
        "a UUID of version 7"
    );
}

#[test]
fn a_new_task_may_be_sent_with_every_field_and_an_id() {
    let app = TestApp::start();
    let user = app.user("u1");
    let body = json!({
        "id": "4F2B8A34-1C39-4B6E-9B53-0B7A1E0C55D1", "title": "t", "description": "a\r\nb\tc", "completed": true,
        "priority": "high", "due_date": "2026-02-28",
    });
    let task = user.post("/api/tasks", body.clone()).expect(201).json();
    assert_eq!(task["id"], "4f2b8a34-1c39-4b6e-9b53-0b7a1e0c55d1");
    assert_eq!(task["description"], "a\nb\tc");
    assert_eq!(
        (&task["completed"], &task["completed_at"]),
        (&json!(true), &task["created_at"])
    );
    assert_eq!(
        (&task["priority"], &task["due_date"]),
        (&json!("high"), &json!("2026-02-28"))
    );
    user.post("/api/tasks", body).expect_error(409, "CONFLICT");
    assert_eq!(user.get("/api/tasks").json()["count"], 1);
    assert_eq!(
        user.get("/api/tasks/4F2B8A34-1C39-4B6E-9B53-0B7A1E0C55D1")
            .expect(200)
            .json(),
        task
    );
}

#[test]
fn due_dates_come_back_in_the_form_that_was_sent() {
    let app = TestApp::start();
    let user = app.user("u1");
    for (sent, answered) in [
        ("2026-02-28", "2026-02-28"),
        ("9999-12-31", "9999-12-31"),
        ("0001-01-01", "0001-01-01"),
        ("2026-02-28T12:00:00+02:00", "2026-02-28T10:00:00.000000Z"),
        ("2026-02-28T12:00:00", "2026-02-28T12:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ] {
        let task = user
            .post("/api/tasks", json!({ "title": "t", "due_date": sent }))
            .expect(201)
            .json();
        assert_eq!(task["due_date"], answered);
        assert_eq!(user.get(&path(&task)).json()["due_date"], answered);
    }
}

/// A valid value of each field that a client may send and change, other than its default.
fn examples() -> Map<String, Value> {
    let fields = TASK_FIELDS.iter();
    let sent = fields.filter(|field| {
        matches!(
            field.sent,
            Sent::Required(_) | Sent::Optional(_) | Sent::Clearable(_)
        )
    });
    let examples = sent.map(|field| {
        (
            field.name.to_owned(),
            serde_json::from_str(field.example).unwrap(),
        )
    });
    let mut examples: Map<String, Value> = examples.collect();
    examples["completed"] = json!(true);
    examples["priority"] = json!("high");
    examples
}

/// The fields of a task that clients may send and change.
fn sent(task: &Value) -> Map<String, Value> {
    let names = examples().into_iter();
    names
        .map(|(name, _)| (name.clone(), task[&name].clone()))
        .collect()
}

#[test]
fn every_field_is_kept_by_bulk_requests_the_trash_and_files() {
    let app = TestApp::start();
    let user = app.user("u1");
    let bulk = json!({ "operations": [{ "op": "create", "task": examples() }] });
    let made = user.post("/api/tasks/bulk", bulk).expect(200).json();
    let task = made["results"][0]["task"].clone();
    assert_eq!(sent(&task), examples());
    user.delete(&path(&task)).expect(204);
    let trash = user.get("/api/tasks/trash").expect(200).json();
    assert_eq!(sent(&trash["tasks"][0]), examples());
    let restored = user.post(&format!("{}/restore", path(&task)), json!({}));
    assert_eq!(sent(&restored.expect(200).json()), examples());
    for format in ["jsonl", "csv"] {
        let export = user.get(&format!("/api/tasks/export?format={format}"));
        let file = export.expect(200).body;
        let import = format!("/api/tasks/import?format={format}");
        let other = app.user(format);
        other
            .send("POST", &import, &[], Some(file.as_bytes()))
            .expect(200);
        let copy = other.get(&path(&task)).expect(200).json();
        assert_eq!(sent(&copy), examples(), "{file}");
    }
    for field in TASK_FIELDS {
        if matches!(field.sent, Sent::Clearable(_)) {
            let cleared = user.patch(&path(&task), json!({ field.name: null }));
            let empty = if field.nullable {
                json!(null)
            } else {
                json!([])
            };
            assert_eq!(cleared.expect(200).json()[field.name], empty);
            let set = user.put(&path(&task), json!({ field.name: examples()[field.name] }));
            assert_eq!(sent(&set.expect(200).json()), examples());
        }
    }
}

#[test]
fn any_unicode_comes_back_byte_for_byte() {
    let app = TestApp::start();
    let user = app.user("u1");
    for text in [
        "Grüße & <b>nicht</b> \"fett\"",
        "👩‍👩‍👧‍👦",
        "e\u{301} é",
        "\u{202e}right to left",
        "日本語",
        "\u{fffd}\u{ffff}",
        "'; DROP TABLE tasks; --",
        "\\u0041 %41",
    ] {
        let task = user
            .post("/api/tasks", json!({ "title": text, "description": text }))
            .expect(201)
            .json();
        let read = user.get(&path(&task)).json();
        assert_eq!(
            (&read["title"], &read["description"]),
            (&json!(text), &json!(text))
        );
    }
    for title in ["é".repeat(200), "👩".repeat(200)] {
        user.post(
            "/api/tasks",
            json!({ "title": title, "description": "𝄞".repeat(2000) }),
        )
        .expect(201);
    }
}

#[test]
fn every_bad_field_is_named_at_once() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("good");
    let all =
        r#"{"title":"","description":7,"completed":"yes","priority":"urgent","due_date":"soon"}"#;
    let names = ["title", "description", "completed", "priority", "due_date"];
    assert_eq!(complaints(&user, "POST", "/api/tasks", all), names);
    assert_eq!(complaints(&user, "PUT", &path(&task), all), names);
    assert_eq!(complaints(&user, "PATCH", &path(&task), all), names);
    assert_eq!(complaints(&user, "POST", "/api/tasks", "{}"), ["title"]);
    for body in ["[]", "null", "\"title\"", "7"] {
        assert_eq!(complaints(&user, "POST", "/api/tasks", body), ["body"]);
    }
}

#[test]
fn bad_values_are_refused_on_create_and_on_update() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("good");
    let long_title = format!(r#"{{"title":"{}"}}"#, "x".repeat(201));
    let long_description = format!(r#"{{"title":"t","description":"{}"}}"#, "x".repeat(2001));
    for (body, field) in [
        (r#"{"title":"   "}"#, "title"),
        (r#"{"title":null}"#, "title"),
        (r#"{"title":["x"]}"#, "title"),
        (r#"{"title":"a\u0000b"}"#, "title"),
        (r#"{"title":"\ud800"}"#, "title"),
        (r#"{"title":"two\nlines"}"#, "title"),
        (&long_title, "title"),
        (&long_description, "description"),
        (r#"{"title":"t","description":"a\u0000b"}"#, "description"),
        (r#"{"title":"t","description":"\u001b[31m"}"#, "description"),
        (
            r#"{"title":"t","description":"\udc00\ud800"}"#,
            "description",
        ),
        (r#"{"title":"t","completed":null}"#, "completed"),
        (r#"{"title":"t","completed":1}"#, "completed"),
        (r#"{"title":"t","priority":null}"#, "priority"),
        (r#"{"title":"t","priority":"HIGH"}"#, "priority"),
        (r#"{"title":"t","due_date":"2026-02-30"}"#, "due_date"),
        (r#"{"title":"t","due_date":1770000000}"#, "due_date"),
        (
            r#"{"title":"t","due_date":"+10000-01-01T00:00:00Z"}"#,
            "due_date",
        ),
        (
            r#"{"title":"t","due_date":"9999-12-31T23:59:59-01:00"}"#,
            "due_date",
        ),
    ] {
        assert_eq!(
            complaints(&user, "POST", "/api/tasks", body),
            [field],
            "{body}"
        );
        assert_eq!(
            complaints(&user, "PUT", &path(&task), body),
            [field],
            "{body}"
        );
        assert_eq!(
            complaints(&user, "PATCH", &path(&task), body),
            [field],
            "{body}"
        );
    }
    assert_eq!(
        complaints(&user, "POST", "/api/tasks", r#"{"title":"t","id":"7"}"#),
        ["id"]
    );
    assert_eq!(
        user.get("/api/tasks").json()["tasks"],
        json!([task]),
        "nothing was kept"
    );
}

#[test]
fn a_body_that_is_not_json_is_a_bad_request() {
    let app = TestApp::start();
    let user = app.user("u1");
    for body in [
        &b""[..],
        b"{",
        b"{\"title\":}",
        b"\xff\xfe",
        b"title=x",
        b"{\"title\":\"\xc3\"}",
        b"{\"title\":\"t\"} x",
    ] {
        user.send("POST", "/api/tasks", &[], Some(body))
            .expect_error(400, "BAD_REQUEST");
    }
    user.send("POST", "/api/tasks", &[], None)
        .expect_error(400, "BAD_REQUEST");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    user.send("POST", "/api/tasks", &[], Some(deep.as_bytes()))
        .expect_error(422, "VALIDATION_ERROR");
    let inside = format!("{{\"title\":\"t\",\"x\":{deep}}}");
    user.send("POST", "/api/tasks", &[], Some(inside.as_bytes()))
        .expect(201);
}

#[test]
fn another_media_type_is_415_and_the_answer_names_the_right_one() {
    let app = TestApp::start();
    let user = app.user("u1");
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
    ] {
        let answer = user.send(
            "POST",
            "/api/tasks",
            &[("Content-Type", kind)],
            Some(b"{\"title\":\"t\"}"),
        );
        let sentence = answer.expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
        assert!(
            sentence.contains("Content-Type: application/json"),
            "{sentence}"
        );
    }
    for kind in [
        "application/json",
        "application/json; charset=UTF-8",
        "application/merge-patch+json",
    ] {
        user.send(
            "POST",
            "/api/tasks",
            &[("Content-Type", kind)],
            Some(b"{\"title\":\"t\"}"),
        )
        .expect(201);
    }
    user.send("POST", "/api/tasks", &[], Some(b"{\"title\":\"t\"}"))
        .expect(201);
    // A compressed body and two media types are refused.
    let json = ("Content-Type", "application/json");
    for (headers, words) in [
        ([json, ("Content-Encoding", "gzip")], "Content-Encoding"),
        ([json, ("content-type", "text/plain")], "Content-Type"),
    ] {
        let sentence = user
            .send("POST", "/api/tasks", &headers, Some(b"{\"title\":\"t\"}"))
            .expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
        assert!(sentence.contains(words), "{sentence}");
    }
    let twice = [("Authorization", "Bearer x")];
    user.send("GET", "/api/tasks", &twice, None)
        .expect_error(400, "BAD_REQUEST");
}

#[test]
fn an_update_changes_only_the_fields_that_are_sent() {
    let app = TestApp::start();
    let user = app.user("u1");
    let full = json!({
        "title": "t", "description": "d", "completed": true, "priority": "low", "due_date": "2026-01-01"
    });
    for method in ["PUT", "PATCH"] {
        for (changes, field) in [
            (json!({ "title": "new" }), "title"),
            (json!({ "description": "new" }), "description"),
            (json!({ "description": null }), "description"),
            (json!({ "priority": "high" }), "priority"),
            (
                json!({ "due_date": "2027-01-01T00:00:00.000000Z" }),
                "due_date",
            ),
            (json!({ "due_date": "2026-01-02" }), "due_date"),
            (json!({ "due_date": null }), "due_date"),
            (json!({ "tags": ["b", "a"] }), "tags"),
        ] {
            let task = user.post("/api/tasks", full.clone()).expect(201).json();
            let changed = user
                .send_json(method, &path(&task), changes.clone())
                .expect(200)
                .json();
            let mut expected = task.clone();
            expected[field] = changes[field].clone();
            expected["updated_at"] = changed["updated_at"].clone();
            expected["version"] = json!(2);
            assert_eq!(changed, expected, "{method} {changes}");
            assert!(
                changed["updated_at"].as_str() > task["updated_at"].as_str(),
                "{method} {changes}"
            );
            assert_eq!(user.get(&path(&task)).json(), changed);
        }
    }
}

#[test]
fn an_update_that_changes_nothing_keeps_the_version() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user
        .post(
            "/api/tasks",
            json!({ "title": "t", "description": "d", "due_date": "2026-01-01" }),
        )
        .json();
    for changes in [
        json!({}),
        json!({ "title": " t " }),
        json!({ "description": "d", "due_date": "2026-01-01", "completed": false }),
        json!({ "unknown": 1 }),
    ] {
        assert_eq!(
            user.put(&path(&task), changes.clone()).expect(200).json(),
            task,
            "{changes}"
        );
        assert_eq!(
            user.patch(&path(&task), changes.clone()).expect(200).json(),
            task,
            "{changes}"
        );
    }
}

#[test]
fn completion_is_set_by_a_body_and_toggled_without_one() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let complete = format!("{}/complete", path(&task));
    let done = user
        .patch(&complete, json!({ "completed": true }))
        .expect(200)
        .json();
    assert_eq!(done["completed"], true);
    assert_eq!(done["completed_at"], done["updated_at"]);
    assert_eq!(
        user.patch(&complete, json!({ "completed": true }))
            .expect(200)
            .json(),
        done,
        "set already"
    );
    assert_eq!(
        user.put(&path(&task), json!({ "completed": true }))
            .expect(200)
            .json(),
        done,
        "set already"
    );
    let open = user.send("PATCH", &complete, &[], None).expect(200).json();
    assert_eq!(
        (&open["completed"], &open["completed_at"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(
        user.send("PATCH", &complete, &[], Some(b""))
            .expect(200)
            .json()["completed"],
        true
    );
    assert_eq!(
        user.patch(&path(&task), json!({ "completed": false }))
            .expect(200)
            .json()["completed_at"],
        Value::Null
    );
    let typed = [("Content-Type", "application/json")];
    assert_eq!(
        user.send("PATCH", &complete, &typed, None)
            .expect(200)
            .json()["completed"],
        true,
        "a type without a body"
    );
    let toggled = user.patch(&complete, json!({})).expect(200).json();
    assert_eq!(toggled["completed"], false, "an empty object");
    for body in [
        r#"{"done":true}"#,
        r#"{"completed":null}"#,
        r#"{"completed":"true"}"#,
        r#"{"completed":0}"#,
    ] {
        assert_eq!(
            complaints(&user, "PATCH", &complete, body),
            ["completed"],
            "{body}"
        );
    }
    complaints(&user, "PATCH", &complete, "[]");
    assert_eq!(user.get(&path(&task)).json()["completed"], false);
}

#[test]
fn completed_has_three_names_that_must_agree() {
    let app = TestApp::start();
    let user = app.user("u1");
    for name in ["completed", "is_completed", "is_complete"] {
        let sent = |value| json!({ "title": "t", name: value });
        let task = user.post("/api/tasks", sent(true)).expect(201).json();
        assert_eq!(task["completed"], true, "{name}");
        assert_eq!(task.get("is_completed"), None);
        let complete = format!("{}/complete", path(&task));
        for (answer, completed) in [
            (user.put(&path(&task), sent(false)), false),
            (user.patch(&path(&task), sent(true)), true),
            (user.patch(&complete, sent(false)), false),
        ] {
            assert_eq!(answer.expect(200).json()["completed"], completed, "{name}");
        }
        let wrong = format!(r#"{{"title":"t","{name}":"yes"}}"#);
        assert_eq!(complaints(&user, "POST", "/api/tasks", &wrong), [name]);
        assert_eq!(complaints(&user, "PATCH", &complete, &wrong), [name]);
    }
    let task = user.task("t");
    let complete = format!("{}/complete", path(&task));
    let agree = r#"{"title":"t","is_complete":true,"completed":true}"#;
    let disagree = r#"{"title":"t","is_complete":false,"completed":true}"#;
    for (method, target) in [
        ("POST", "/api/tasks"),
        ("PUT", &*path(&task)),
        ("PATCH", &path(&task)),
        ("PATCH", &complete),
    ] {
        let typed = [("Content-Type", "application/json")];
        let answer = user.send(method, target, &typed, Some(agree.as_bytes()));
        assert_eq!(answer.json()["completed"], true, "{method} {target}");
        assert_eq!(complaints(&user, method, target, disagree), ["is_complete"]);
    }
}

#[test]
fn no_parallel_toggle_is_lost() {
    let app = TestApp::start();
    let user = app.user("u1");
    for (toggles, completed) in [(100, false), (51, true)] {
        let task = user.task("t");
        let complete = format!("{}/complete", path(&task));
        thread::scope(|scope| {
            for share in 0..4 {
                let (user, complete) = (&user, &complete);
                let mine = (0..toggles).filter(move |number| number % 4 == share);
                scope.spawn(move || {
                    mine.for_each(|_| drop(user.send("PATCH", complete, &[], None).expect(200)))
                });
            }
        });
        assert_eq!(user.get(&path(&task)).json()["completed"], completed);
    }
}

#[test]
fn concurrent_updates_of_different_fields_are_all_stored() {
    let app = TestApp::start();
    let user = app.user("u1");
    for round in 0..10 {
        let task = user.task("t");
        let changes = [
            json!({ "title": format!("t{round}") }),
            json!({ "description": "d" }),
            json!({ "priority": "high" }),
            json!({ "completed": true }),
        ];
        thread::scope(|scope| {
            for change in &changes {
                let (user, path) = (&user, path(&task));
                scope.spawn(move || user.patch(&path, change.clone()).expect(200));
            }
        });
        let read = user.get(&path(&task)).json();
        assert_eq!(read["title"], format!("t{round}"));
        assert_eq!(
            (&read["description"], &read["priority"], &read["completed"]),
            (&json!("d"), &json!("high"), &json!(true))
        );
    }
}

#[test]
fn a_deleted_task_is_gone() {
    let app = TestApp::start();
    let user = app.user("u1");
    let (task, other) = (user.task("t"), user.task("other"));
    let answer = user.delete(&path(&task)).expect(204);
    assert_eq!(
        (
            answer.body.as_str(),
            answer.header("Content-Length"),
            answer.header("Content-Type")
        ),
        ("", None, None)
    );
    user.delete(&path(&task)).expect_error(404, "NOT_FOUND");
    assert_eq!(user.get("/api/tasks").json()["tasks"], json!([other]));
}

#[test]
fn the_list_is_newest_first_and_says_whether_there_is_more() {
    let app = TestApp::start();
    let user = app.user("u1");
    assert_eq!(
        user.get("/api/tasks").expect(200).json(),
        json!({ "tasks": [], "count": 0, "total": 0, "limit": 1000, "has_more": false, "next_cursor": null })
    );
    let mut titles: Vec<String> = (0..5).map(|number| format!("t{number}")).collect();
    for title in &titles {
        user.task(title);
    }
    titles.reverse();
    let list = user.get("/api/tasks?limit=3").expect(200).json();
    let read: Vec<&str> = list["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["title"].as_str().unwrap())
        .collect();
    assert_eq!(read, titles[..3]);
    assert_eq!(
        (&list["count"], &list["limit"], &list["has_more"]),
        (&json!(3), &json!(3), &json!(true))
    );
    assert_eq!(user.get("/api/tasks?limit=5").json()["has_more"], false);
}

#[test]
fn a_bad_query_parameter_is_named() {
    let app = TestApp::start();
    let user = app.user("u1");
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
    ] {
        let sentence = user
            .get(&format!("/api/tasks?{query}"))
            .expect_error(400, "BAD_REQUEST");
        assert!(sentence.contains("limit"), "{sentence}");
    }
    assert!(
        user.get("/api/tasks?colour=red")
            .expect_error(400, "BAD_REQUEST")
            .contains("colour")
    );
    user.get("/api/tasks?limit=%ff")
        .expect_error(400, "BAD_REQUEST");
    user.get("/api/tasks?limit=%00")
        .expect_error(400, "BAD_REQUEST");
    user.get("/api/tasks?").expect(200);
}

#[test]
fn a_user_known_only_from_a_token_gets_a_row_with_the_first_write() {
    let app = TestApp::start();
    let user = app.user("first seen");
    let known = |app: &TestApp| {
        app.sql()
            .query("SELECT id, email FROM todo.users", &[])
            .unwrap()
            .len()
    };
    user.get("/api/tasks").expect(200);
    assert_eq!(known(&app), 0, "reading creates no user");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| user.task("at the same moment"));
        }
    });
    assert_eq!(known(&app), 1);
    assert_eq!(user.get("/api/tasks").json()["count"], 8);
}
