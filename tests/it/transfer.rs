//! Export and import of tasks.

use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::actors::Actor;
use crate::support::http::Answer;

fn import(user: &Actor, query: &str, body: &str) -> Answer {
    user.send(
        "POST",
        &format!("/api/tasks/import?{query}"),
        &[],
        Some(body.as_bytes()),
    )
}

/// What an import has done: created, updated, unchanged, skipped.
#[track_caller]
fn counts(answer: Answer) -> [u64; 4] {
    let done = answer.expect(200).json();
    ["created", "updated", "unchanged", "skipped"].map(|name| done[name].as_u64().unwrap())
}

/// All tasks of a user, as a list returns them.
fn tasks(user: &Actor) -> Vec<Value> {
    let list = user
        .get("/api/tasks?limit=1000&sort=title")
        .expect(200)
        .json();
    list["tasks"].as_array().unwrap().clone()
}

fn line(task: Value) -> String {
    task.to_string() + "\n"
}

const ID: &str = "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55";

#[test]
fn an_imported_task_keeps_what_the_file_says() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = json!({
        "id": ID, "user_id": "u2", "title": "Crème", "description": "a\nb", "completed": true,
        "completed_at": "2026-01-31T10:00:00.000001Z", "priority": "high", "due_date": "2030-01-31",
        "created_at": "2025-01-31T09:30:00.000000Z", "updated_at": "2026-02-01T09:30:00.000000Z",
        "version": 7, "tags": ["a", "b,c"]
    });
    assert_eq!(counts(import(&user, "", &line(task.clone()))), [1, 0, 0, 0]);
    let mut wanted = task.clone();
    wanted["user_id"] = json!("u1");
    assert_eq!(
        user.get(&format!("/api/tasks/{ID}")).expect(200).json(),
        wanted
    );
    assert_eq!(user.get("/api/tasks?q=creme").json()["count"], 1);
    app.user("u2").get(&format!("/api/tasks/{ID}")).expect(404);
    // The same id of another user is another task.
    assert_eq!(
        counts(import(&app.user("u2"), "", &line(task))),
        [1, 0, 0, 0]
    );
}

#[test]
fn a_second_import_changes_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    let text = line(json!({"title": "a"}))
        + &line(json!({"title": "b", "id": 7, "completed": true}))
        + &line(json!({"title": "a"}))
        + &line(json!({"title": "c", "id": ID, "due_date": "2030-01-31T09:00:00+02:00"}));
    assert_eq!(counts(import(&user, "", &text)), [4, 0, 0, 0]);
    let before = tasks(&user);
    let written: Vec<String> = written_by(&app);
    for query in ["", "on_conflict=update", "on_conflict=skip&dry_run=true"] {
        assert_eq!(counts(import(&user, query, &text)), [0, 0, 4, 0], "{query}");
    }
    assert_eq!(tasks(&user), before);
    assert_eq!(written_by(&app), written);
    // The order of the file is the order of a list.
    let list = user.get("/api/tasks").json();
    let titles: Vec<&Value> = list["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["title"])
        .collect();
    assert_eq!(titles, ["a", "b", "a", "c"]);
}

/// The place of every row, which moves when the row is written or locked, and its transaction.
fn written_by(app: &TestApp) -> Vec<String> {
    let rows = app
        .sql()
        .query(
            "SELECT concat(id, ctid, xmin, xmax, written_by) FROM todo.tasks ORDER BY id",
            &[],
        )
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_conflict_is_skipped_or_updates_what_the_file_has() {
    let app = TestApp::start();
    let user = app.user("u1");
    let id = user
        .post(
            "/api/tasks",
            json!({"title": "a", "description": "d", "tags": ["x"]}),
        )
        .expect(201)
        .json()["id"]
        .clone();
    let path = format!("/api/tasks/{}", id.as_str().unwrap());
    let before = user.get(&path).json();
    let text = line(
        json!({"id": id, "title": "b", "completed": true, "version": 1, "created_at": "2020-01-01T00:00:00Z"}),
    );
    assert_eq!(counts(import(&user, "", &text)), [0, 0, 0, 1]);
    assert_eq!(
        counts(import(&user, "dry_run=true&on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    assert_eq!(user.get(&path).json(), before);
    let written = written_by(&app);
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    let after = user.get(&path).json();
    assert_eq!(
        (&after["title"], &after["completed"]),
        (&json!("b"), &json!(true))
    );
    // Fields that the file does not have stay.
    assert_eq!(
        (&after["description"], &after["tags"]),
        (&before["description"], &before["tags"])
    );
    assert_eq!(after["created_at"], before["created_at"]);
    // A version is never used twice.
    assert_eq!(after["version"], 2);
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    assert_ne!(written_by(&app), written);
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 0, 1, 0]
    );
    let text = line(
        json!({"id": id, "title": "b", "completed": false, "description": null, "version": 9}),
    );
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    let after = user.get(&path).json();
    assert_eq!(
        (
            &after["completed_at"],
            &after["description"],
            &after["version"]
        ),
        (&Value::Null, &Value::Null, &json!(9))
    );
}

#[test]
fn of_tasks_with_one_id_one_is_imported() {
    let app = TestApp::start();
    let text = ["first", "second", "last"]
        .map(|title| line(json!({"id": ID, "title": title})))
        .concat();
    for (user, query, title) in [("u1", "", "first"), ("u2", "on_conflict=update", "last")] {
        let user = app.user(user);
        assert_eq!(counts(import(&user, query, &text)), [1, 0, 0, 2]);
        assert_eq!(tasks(&user)[0]["title"], title);
    }
}
