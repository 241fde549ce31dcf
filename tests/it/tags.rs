//! Tags of a task, and of all tasks.

use std::thread;

use serde_json::{Value, json};

use crate::support::{Actor, TestApp};

fn tagged(user: &Actor, title: &str, tags: &[&str]) -> Value {
    user.post("/api/tasks", json!({ "title": title, "tags": tags }))
        .expect(201)
        .json()
}

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// The user's tags with their counts.
fn counts(user: &Actor) -> Vec<(String, u64)> {
    let list = user.get("/api/tags").expect(200).json();
    let tags = list["tags"].as_array().unwrap();
    assert_eq!(list["count"], tags.len());
    tags.iter()
        .map(|tag| {
            (
                tag["name"].as_str().unwrap().to_owned(),
                tag["count"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn counted(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

fn titles(user: &Actor, query: &str) -> Vec<String> {
    let list = user
        .get(&format!("/api/tasks?sort=title&{query}"))
        .expect(200)
        .json();
    let tasks = list["tasks"].as_array().unwrap();
    tasks
        .iter()
        .map(|task| task["title"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_task_keeps_the_order_of_its_tags_without_duplicates() {
    let app = TestApp::start();
    let user = app.user("u1");
    assert_eq!(user.task("none")["tags"], json!([]));
    let task = tagged(&user, "t", &[" b ", "a", "b", "A"]);
    assert_eq!(task["tags"], json!(["b", "a", "A"]));
    let change = |tags: Value| {
        user.patch(&path(&task), json!({ "tags": tags }))
            .expect(200)
            .json()["tags"]
            .clone()
    };
    assert_eq!(change(json!(["c"])), json!(["c"]));
    assert_eq!(change(Value::Null), json!([]));
    assert_eq!(change(json!([])), json!([]));
    let full: Vec<String> = (0..20).map(|n| format!("{n}{}", "é".repeat(48))).collect();
    assert_eq!(change(json!(full)), json!(full));
    for bad in [
        json!((0..21).map(|n| n.to_string()).collect::<Vec<_>>()),
        json!(["x".repeat(51)]),
        json!([""]),
        json!([" "]),
        json!(["a\nb"]),
        json!(["a\u{0}"]),
        json!([1]),
        json!([null]),
        json!("a"),
        json!({}),
    ] {
        for answer in [
            user.post("/api/tasks", json!({ "title": "t", "tags": bad })),
            user.patch(&path(&task), json!({ "tags": bad })),
        ] {
            answer.expect_error(422, "VALIDATION_ERROR");
            assert_eq!(answer.json()["error"]["details"][0]["field"], "tags");
        }
    }
    assert_eq!(user.get(&path(&task)).json()["tags"], json!(full));
}

#[test]
fn tags_are_counted_for_each_user_separately() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    assert_eq!(counts(&user), []);
    let task = tagged(&user, "1", &["home", "shop"]);
    tagged(&user, "2", &["home"]);
    tagged(&other, "3", &["home", "work"]);
    user.task("4");
    assert_eq!(counts(&user), counted(&[("home", 2), ("shop", 1)]));
    user.patch(&path(&task), json!({ "tags": ["garden", "home"] }))
        .expect(200);
    assert_eq!(counts(&user), counted(&[("garden", 1), ("home", 2)]));
    user.patch(&path(&task), json!({ "title": "same tags" }))
        .expect(200);
    user.delete(&path(&task)).expect(204);
    assert_eq!(counts(&user), counted(&[("home", 1)]));
    assert_eq!(
        user.get(&user.own("/tags")).json(),
        user.get("/api/tags").json()
    );
    assert_eq!(counts(&other), counted(&[("home", 1), ("work", 1)]));
}

#[test]
fn a_tag_is_renamed_everywhere_and_merges_with_another() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    let first = tagged(&user, "1", &["a", "b", "c"]);
    tagged(&user, "2", &["b"]);
    let untouched = tagged(&user, "3", &["c"]);
    let others = tagged(&other, "4", &["b"]);
    let renamed = user
        .put("/api/tags/b", json!({ "name": " x/y ü " }))
        .expect(200)
        .json();
    assert_eq!(renamed, json!({ "name": "x/y ü", "count": 2 }));
    assert_eq!(counts(&user), counted(&[("a", 1), ("c", 2), ("x/y ü", 2)]));
    let read = user.get(&path(&first)).json();
    assert_eq!(
        (&read["tags"], &read["version"]),
        (&json!(["a", "x/y ü", "c"]), &json!(2))
    );
    assert!(read["updated_at"].as_str() > first["updated_at"].as_str());
    assert_eq!(titles(&user, "tag=x/y%20%C3%BC"), ["1", "2"]);
    // To the name of another tag: a task with both keeps one.
    let merged = user
        .put("/api/u1/tags/x%2Fy%20%C3%BC", json!({ "name": "c" }))
        .expect(200)
        .json();
    assert_eq!(merged, json!({ "name": "c", "count": 3 }));
    assert_eq!(user.get(&path(&first)).json()["tags"], json!(["a", "c"]));
    assert_eq!(counts(&user), counted(&[("a", 1), ("c", 3)]));
    assert_eq!(user.get(&path(&untouched)).json(), untouched);
    // To its own name: nothing changes.
    let same = user
        .put("/api/tags/c", json!({ "name": "c" }))
        .expect(200)
        .json();
    assert_eq!(same, json!({ "name": "c", "count": 3 }));
    assert_eq!(user.get(&path(&untouched)).json(), untouched);
    assert_eq!(other.get(&path(&others)).json(), others);
}

#[test]
fn a_tag_is_removed_everywhere() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = tagged(&user, "1", &["a", "b"]);
    tagged(&user, "2", &["b"]);
    assert_eq!(user.delete("/api/tags/b").expect(204).body, "");
    assert_eq!(counts(&user), counted(&[("a", 1)]));
    assert_eq!(user.get(&path(&task)).json()["tags"], json!(["a"]));
    assert_eq!(titles(&user, "tag=b"), [""; 0]);
}

#[test]
fn an_unused_tag_is_not_found() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    tagged(&other, "1", &["theirs"]);
    for name in ["none", "theirs", "%20", "a%00", &"x".repeat(51)] {
        let target = format!("/api/tags/{name}");
        for answer in [
            user.delete(&target),
            user.put(&target, json!({ "name": "new" })),
            user.put(&target, json!({ "name": "" })),
            user.send(
                "PUT",
                &target,
                &[("Content-Type", "text/plain")],
                Some(b"x"),
            ),
        ] {
            assert_eq!(
                answer.expect_error(404, "NOT_FOUND"),
                "Tag not found",
                "{name}"
            );
        }
    }
    user.put("/api/u2/tags/theirs", json!({ "name": "mine" }))
        .expect_error(403, "FORBIDDEN");
    app.anonymous()
        .get("/api/tags")
        .expect_error(401, "UNAUTHORIZED");
    assert_eq!(counts(&other), counted(&[("theirs", 1)]));
    tagged(&user, "2", &["a"]);
    for body in [
        json!({}),
        json!({ "name": null }),
        json!({ "name": "x\ny" }),
        json!({ "name": 1 }),
    ] {
        user.put("/api/tags/a", body)
            .expect_error(422, "VALIDATION_ERROR");
    }
}

#[test]
fn many_tasks_are_renamed_in_several_steps() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    app.sql()
        .batch_execute(
            "INSERT INTO todo.tasks (user_id, id, title, tags)
             SELECT 'u1', gen_random_uuid(), 'n', CASE WHEN n % 3 = 0 THEN '{old,new}'::text[] ELSE '{old}' END
             FROM generate_series(1, 3500) AS n",
        )
        .unwrap();
    let renamed = user
        .put("/api/tags/old", json!({ "name": "new" }))
        .expect(200)
        .json();
    assert_eq!(renamed["count"], 3500);
    assert_eq!(counts(&user), counted(&[("new", 3500)]));
    user.delete("/api/tags/new").expect(204);
    assert_eq!(counts(&user), []);
}

/// Renames, removals and edits in parallel: no edit is lost, no task has a tag twice, and no request fails.
#[test]
fn parallel_renames_and_edits_lose_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks: Vec<Value> = (0..12)
        .map(|n| tagged(&user, &n.to_string(), &["a", "b", "keep"]))
        .collect();
    thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")] {
            let user = &user;
            scope.spawn(move || {
                for _ in 0..15 {
                    let answer = user.put(&format!("/api/tags/{from}"), json!({ "name": to }));
                    assert!(matches!(answer.status, 200 | 404), "{answer:?}");
                }
            });
        }
        for (share, tags) in [json!(["a", "keep"]), json!(["b", "c", "keep"])]
            .into_iter()
            .enumerate()
        {
            let (user, tasks) = (&user, &tasks);
            scope.spawn(move || {
                for task in tasks.iter().skip(share).step_by(2) {
                    user.patch(&path(task), json!({ "tags": tags })).expect(200);
                    user.patch(&path(task), json!({ "description": "edited" }))
                        .expect(200);
                }
            });
        }
    });
    for task in user.get("/api/tasks").json()["tasks"].as_array().unwrap() {
        assert_eq!(task["description"], "edited");
        let tags = task["tags"].as_array().unwrap();
        assert!(tags.contains(&json!("keep")), "{task}");
        let mut once = tags.clone();
        once.sort_by_key(Value::to_string);
        once.dedup();
        assert_eq!(once.len(), tags.len(), "{task}");
    }
}
