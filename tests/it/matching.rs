//! PATCH and DELETE on all tasks that match filters.

use std::thread;

use serde_json::{Value, json};

use crate::support::login::{Login, PASSWORD};
use crate::support::{Actor, Answer, TestApp};

/// Makes tasks, each with its number as title, and every second one with a tag.
fn make(user: &Actor, number: usize) {
    let task = |n: usize| {
        let tags = if n.is_multiple_of(2) {
            json!(["even"])
        } else {
            json!([])
        };
        json!({"op": "create", "task": {"title": format!("{n}"), "tags": tags}})
    };
    let operations: Vec<Value> = (0..number).map(task).collect();
    for some in operations.chunks(500) {
        user.post("/api/tasks/bulk", json!({ "operations": some }))
            .expect(200);
    }
}

fn count(user: &Actor, filters: &str) -> u64 {
    let target = format!("/api/tasks?include_total=true&limit=1&{filters}");
    user.get(&target).expect(200).json()["total"]
        .as_u64()
        .unwrap()
}

#[track_caller]
fn expect(answer: Answer, count: u64, has_more: bool) {
    let answer = answer.expect(200).json();
    assert_eq!(answer, json!({"count": count, "has_more": has_more}));
}

#[test]
fn the_tasks_that_match_are_changed_and_only_those_that_really_change_count() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    for user in [&user, &other] {
        make(user, 6);
    }
    let before = user.get("/api/tasks?tag=even").json()["tasks"].clone();
    let high = json!({"priority": "high", "description": "d", "due_date": "2030-01-31", "completed": true});
    expect(
        user.patch("/api/tasks?tag=even&dry_run=true", high.clone()),
        3,
        false,
    );
    assert_eq!(count(&user, "priority=high"), 0, "only counted");
    expect(
        user.patch("/api/u1/tasks?tag=even&dry_run=false", high.clone()),
        3,
        false,
    );
    expect(user.patch("/api/tasks?tag=even", high.clone()), 0, false);
    let after = user.get("/api/tasks?tag=even").json()["tasks"].clone();
    for (before, after) in before
        .as_array()
        .unwrap()
        .iter()
        .zip(after.as_array().unwrap())
    {
        for (name, value) in [
            ("priority", "high"),
            ("description", "d"),
            ("due_date", "2030-01-31"),
        ] {
            assert_eq!(after[name], value);
        }
        assert_eq!(
            (&after["version"], &after["completed"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(
            (&after["title"], &after["tags"]),
            (&before["title"], &before["tags"])
        );
        assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    }
    // A field that may be null is cleared; of the tasks that match, one has it already.
    let one = format!("/api/tasks/{}", after[0]["id"].as_str().unwrap());
    user.patch(&one, json!({"description": null})).expect(200);
    expect(
        user.patch("/api/v1/tasks/?priority=high", json!({"description": null})),
        2,
        false,
    );
    assert_eq!(
        (
            count(&other, "priority=high"),
            count(&user, "priority=high")
        ),
        (0, 3)
    );
}

#[test]
fn the_tasks_that_match_go_to_the_trash() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    for user in [&user, &other] {
        make(user, 5);
    }
    expect(user.delete("/api/tasks?tag=even&dry_run=true"), 3, false);
    assert_eq!(count(&user, ""), 5);
    expect(user.delete("/api/tasks?tag=even"), 3, false);
    expect(user.delete("/api/u1/tasks?tag=even"), 0, false);
    let trash = user.get("/api/tasks/trash").expect(200).json();
    assert_eq!(trash["count"], 3);
    for task in trash["tasks"].as_array().unwrap() {
        let restore = format!("/api/tasks/{}/restore", task["id"].as_str().unwrap());
        user.send("POST", &restore, &[], None).expect(200);
    }
    assert_eq!((count(&user, "tag=even"), count(&other, "")), (3, 5));
}

#[test]
fn a_request_changes_a_thousand_tasks_and_the_next_one_the_rest() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(&user, 2_100);
    let medium = "/api/tasks?created_after=2020-01-01";
    let low = json!({"priority": "low"});
    expect(
        user.patch(&format!("{medium}&dry_run=true"), low.clone()),
        1_000,
        true,
    );
    for (count, has_more) in [(1_000, true), (1_000, true), (100, false), (0, false)] {
        expect(user.patch(medium, low.clone()), count, has_more);
    }
    assert_eq!(count(&user, "priority=low"), 2_100);
    for (count, has_more) in [(1_000, true), (1_000, true), (100, false)] {
        expect(user.delete("/api/tasks?priority=low"), count, has_more);
    }
    assert_eq!(count(&user, ""), 0);
}

#[test]
fn a_request_without_a_filter_changes_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(&user, 2);
    let low = json!({"priority": "low"});
    for query in [
        "",
        "?",
        "/",
        "?tz=Europe/Berlin",
        "?status=all",
        "?search=",
        "?dry_run=false",
        "?limit=1",
        "?sort=title",
        "?page=1",
        "?cursor=x",
        "?completed=yes",
        "?tag=a&dry_run=yes",
        "?tag=a&dry_run=true&dry_run=true",
        "?tag=a&tz=Europe/Nowhere",
        "?colour=red",
        "?_=1",
    ] {
        let target = format!("/api/tasks{query}");
        user.delete(&target).expect_error(400, "BAD_REQUEST");
        user.patch(&target, low.clone())
            .expect_error(400, "BAD_REQUEST");
    }
    for (body, named) in [
        (json!({"title": "same"}), "title"),
        (json!({"priority": "urgent"}), "priority"),
        (json!({}), "body"),
        (json!({"priorty": "low"}), "body"),
    ] {
        let answer = user.patch("/api/tasks?status=pending", body);
        answer.expect_error(422, "VALIDATION_ERROR");
        assert_eq!(answer.json()["error"]["details"][0]["field"], named);
    }
    user.patch("/api/u2/tasks?status=pending", low)
        .expect_error(403, "FORBIDDEN");
    assert_eq!((count(&user, "priority=medium"), count(&user, "")), (2, 2));
}

#[test]
fn a_token_that_may_only_read_changes_nothing() {
    let app = TestApp::start();
    let login = Login::register(app.address, "me@example.org");
    let user = login.actor();
    make(&user, 1);
    let body = json!({"name": "one", "scopes": ["tasks:read"], "current_password": PASSWORD});
    let token = user.post("/api/auth/tokens", body).expect(201).json();
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let script = Actor::with_authorization(app.address, &bearer);
    script.get("/api/tasks").expect(200);
    script
        .patch("/api/tasks?status=pending", json!({"priority": "low"}))
        .expect_error(403, "FORBIDDEN");
    script
        .delete("/api/tasks?status=pending")
        .expect_error(403, "FORBIDDEN");
    script
        .post("/api/tasks/bulk", json!({"operations": []}))
        .expect_error(403, "FORBIDDEN");
    assert_eq!(count(&user, "priority=medium"), 1);
}

#[test]
fn requests_for_the_same_tasks_do_not_wait_for_each_other_for_ever() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(&user, 60);
    let tasks = user.get("/api/tasks").json()["tasks"].clone();
    let tasks = tasks.as_array().unwrap();
    thread::scope(|scope| {
        for number in 0..2 {
            let (user, tasks) = (&user, tasks);
            scope.spawn(move || {
                for round in 0..50 {
                    let priority = ["low", "medium", "high"][(round + number) % 3];
                    user.patch("/api/tasks?status=pending", json!({ "priority": priority }))
                        .expect(200);
                }
            });
            scope.spawn(move || {
                for round in 0..50 {
                    let complete = |task: &Value| {
                        json!({"op": "complete", "id": task["id"], "completed": round % 2 == number})
                    };
                    let operations: Vec<Value> = tasks.iter().map(complete).collect();
                    user.post("/api/tasks/bulk", json!({ "operations": operations }))
                        .expect(200);
                    user.put("/api/tags/even", json!({"name": "even"})).expect(200);
                }
            });
        }
    });
    assert_eq!(app.deadlocks(), 0);
}
