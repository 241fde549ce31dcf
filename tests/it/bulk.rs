//! Many operations in one request: all are done, or none.

use serde_json::{Value, json};

use crate::support::postgres::fresh_database;
use crate::support::{Actor, Answer, TestApp};

pub const NO_TASK: &str = "0190b7c6-0000-7000-8000-000000000000";

pub fn bulk(user: &Actor, operations: Value) -> Answer {
    user.post("/api/tasks/bulk", json!({ "operations": operations }))
}

pub fn with_key(user: &Actor, key: &str, operations: &Value) -> Answer {
    let body = json!({ "operations": operations }).to_string();
    let headers = [("Idempotency-Key", key)];
    user.send("POST", "/api/tasks/bulk", &headers, Some(body.as_bytes()))
}

pub fn results(answer: Answer) -> Vec<Value> {
    let answer = answer.expect(200).json();
    answer["results"].as_array().unwrap().clone()
}

pub fn id(task: &Value) -> &str {
    task["id"].as_str().unwrap()
}

/// The user's tasks, oldest first, and the trash.
pub fn all(user: &Actor) -> [Value; 2] {
    let tasks = user.get("/api/tasks?sort=created_at").expect(200).json();
    let trash = user.get("/api/tasks/trash").expect(200).json();
    [tasks["tasks"].clone(), trash["tasks"].clone()]
}

/// The entity tag of a task.
fn tag(user: &Actor, task: &Value) -> String {
    let answer = user.get(&format!("/api/tasks/{}", id(task))).expect(200);
    answer.header("ETag").unwrap().to_owned()
}

/// Five tasks, the last of them in the trash.
pub fn five(user: &Actor) -> Vec<Value> {
    let tasks: Vec<Value> = (0..5).map(|n| user.task(&format!("task {n}"))).collect();
    let last = format!("/api/tasks/{}", id(&tasks[4]));
    user.delete(&last).expect(204);
    tasks
}

/// An operation of each kind on [`five`] tasks, and one that changes nothing.
pub fn six(tasks: &[Value]) -> Vec<Value> {
    vec![
        json!({"op": "create", "task": {"title": "new", "completed": true, "tags": ["b", "a"], "due_date": "2030-01-31"}}),
        json!({"op": "update", "id": id(&tasks[0]), "changes": {"title": "changed", "description": null, "priority": "high"}}),
        json!({"op": "complete", "id": id(&tasks[1]), "completed": true}),
        json!({"op": "delete", "id": id(&tasks[2])}),
        json!({"op": "restore", "id": id(&tasks[4])}),
        json!({"op": "update", "id": id(&tasks[3]), "changes": {"title": "task 3"}}),
    ]
}

#[test]
fn operations_of_all_kinds_are_done_and_answered_in_their_order() {
    let app = TestApp::start();
    for form in [
        "/api/tasks/bulk",
        "/api/u1/tasks/bulk",
        "/api/v1/tasks/bulk/",
    ] {
        let user = app.user("u1");
        let tasks = five(&user);
        let answer = user.post(form, json!({ "operations": six(&tasks) }));
        let results = results(answer);
        let statuses: Vec<&Value> = results.iter().map(|result| &result["status"]).collect();
        assert_eq!(statuses, [201, 200, 200, 204, 200, 200]);
        for (at, result) in results.iter().enumerate() {
            if at == 3 {
                assert_eq!(*result, json!({"status": 204, "id": tasks[2]["id"]}));
                continue;
            }
            let task = &result["task"];
            let shown = user.get(&format!("/api/tasks/{}", id(task))).expect(200);
            assert_eq!(shown.json(), *task);
        }
        let task = |at: usize| &results[at]["task"];
        let of = |name: &str, task: &Value| task[name].clone();
        let new = task(0);
        assert_eq!(
            (of("tags", new), of("due_date", new)),
            (json!(["b", "a"]), json!("2030-01-31"))
        );
        assert_eq!(
            (of("completed_at", new), of("version", new)),
            (of("created_at", new), json!(1))
        );
        assert_eq!(
            (of("title", task(1)), of("priority", task(1))),
            (json!("changed"), json!("high"))
        );
        assert_eq!(
            (of("completed", task(2)), of("title", task(2))),
            (json!(true), json!("task 1"))
        );
        let before = |at: usize, name: &str| tasks[at][name].clone();
        for (result, at) in [(1, 0), (2, 1), (4, 4)] {
            assert_eq!(of("version", task(result)), json!(2), "{result}");
            assert_eq!(of("created_at", task(result)), before(at, "created_at"));
            assert!(of("updated_at", task(result)).as_str() > before(at, "updated_at").as_str());
        }
        assert_eq!(*task(5), tasks[3], "a change that changes nothing");
        let [_, trash] = all(&user);
        assert!(
            trash
                .as_array()
                .unwrap()
                .iter()
                .any(|task| task["id"] == tasks[2]["id"])
        );
    }
}

#[test]
fn a_bad_operation_at_any_place_is_named_and_nothing_is_changed() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks = five(&user);
    let stale = tag(&user, &tasks[3]);
    user.patch(
        &format!("/api/tasks/{}", id(&tasks[3])),
        json!({"title": "moved on"}),
    )
    .expect(200);
    let good = &six(&tasks)[..5];
    let before = all(&user);
    let other = app.user("u2").task("of another user");
    let [spare, taken] = [id(&tasks[3]), id(&tasks[3])];
    for (bad, status, code) in [
        (
            json!({"op": "update", "id": NO_TASK, "changes": {"title": ""}}),
            404,
            "NOT_FOUND",
        ),
        (
            json!({"op": "complete", "id": id(&other), "completed": true}),
            404,
            "NOT_FOUND",
        ),
        (json!({"op": "delete", "id": NO_TASK}), 404, "NOT_FOUND"),
        (json!({"op": "restore", "id": spare}), 404, "NOT_FOUND"),
        (
            json!({"op": "update", "id": spare, "if_match": stale, "changes": {"title": ""}}),
            412,
            "PRECONDITION_FAILED",
        ),
        (
            json!({"op": "delete", "id": spare, "if_match": "\"0-0\""}),
            412,
            "PRECONDITION_FAILED",
        ),
        (
            json!({"op": "create", "task": {"title": "t", "id": taken}}),
            409,
            "CONFLICT",
        ),
        (
            json!({"op": "update", "id": spare, "changes": {"title": ""}}),
            422,
            "VALIDATION_ERROR",
        ),
        (json!({"op": "create", "task": {}}), 422, "VALIDATION_ERROR"),
        (json!({"op": "rename"}), 422, "VALIDATION_ERROR"),
        (json!(7), 422, "VALIDATION_ERROR"),
    ] {
        for place in 0..=good.len() {
            let mut operations = good.to_vec();
            operations.insert(place, bad.clone());
            let answer = bulk(&user, json!(operations));
            let sentence = answer.expect_error(status, code);
            assert!(
                sentence.starts_with(&format!("operations[{place}]")),
                "{sentence}"
            );
            let error = &answer.json()["error"];
            assert_eq!(error["index"], place, "{error}");
            let fields = error["details"].as_array().unwrap();
            let named = format!("operations[{place}]");
            assert!(
                fields
                    .iter()
                    .all(|field| field["field"].as_str().unwrap().starts_with(&named))
            );
            assert_eq!(fields.is_empty(), status != 422);
        }
    }
    assert_eq!(all(&user), before);
    results(bulk(&user, json!(good)));
}

#[test]
fn the_first_of_several_bad_operations_counts_and_all_wrong_fields_are_named() {
    let app = TestApp::start();
    let user = app.user("u1");
    let missing = json!({"op": "delete", "id": NO_TASK});
    let wrong = json!({"op": "create", "task": {"title": "", "priority": "urgent"}});
    let answer = bulk(&user, json!([missing, wrong]));
    answer.expect_error(404, "NOT_FOUND");
    assert_eq!(answer.json()["error"]["index"], 0);
    let answer = bulk(&user, json!([wrong, missing, {"op": "restore"}]));
    answer.expect_error(422, "VALIDATION_ERROR");
    let error = &answer.json()["error"];
    assert_eq!(error["index"], 0);
    let fields = error["details"].as_array().unwrap().iter();
    let fields: Vec<&str> = fields
        .map(|field| field["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "operations[0].title",
            "operations[0].priority",
            "operations[2].id"
        ]
    );
    // What is wrong with the body as a whole has no place.
    for body in [
        json!({}),
        json!({"operations": []}),
        json!({"operations": 1}),
        json!([]),
    ] {
        let answer = user.post("/api/tasks/bulk", body);
        answer.expect_error(422, "VALIDATION_ERROR");
        assert!(answer.json()["error"].get("index").is_none());
    }
    user.send("POST", "/api/tasks/bulk", &[], Some(b"{\"operations\":["))
        .expect_error(400, "BAD_REQUEST");
}

#[test]
fn preconditions_are_entity_tags_of_each_task() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks = five(&user);
    let tags: Vec<String> = tasks[..3].iter().map(|task| tag(&user, task)).collect();
    let with = |at: usize, tag: &str| json!({"op": "complete", "id": id(&tasks[at]), "completed": true, "if_match": tag});
    let list = format!("\"1-1\", {}", tags[1]);
    let results = results(bulk(
        &user,
        json!([with(0, &tags[0]), with(1, &list), with(2, "*")]),
    ));
    assert_eq!(results.len(), 3);
    let weak = format!("W/{}", tag(&user, &tasks[0]));
    for tag in [&tags[0], &weak, ""] {
        bulk(&user, json!([with(0, tag)])).expect_error(412, "PRECONDITION_FAILED");
    }
    bulk(&user, json!([with(0, "2")])).expect_error(422, "VALIDATION_ERROR");
}

#[test]
fn another_users_tasks_are_not_found() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    let theirs = five(&other);
    let before = all(&other);
    for operation in &six(&theirs)[1..] {
        bulk(&user, json!([operation])).expect_error(404, "NOT_FOUND");
    }
    // The same id is free for another user.
    let same = json!([{"op": "create", "task": {"title": "mine", "id": id(&theirs[0])}}]);
    assert_eq!(results(bulk(&user, same))[0]["task"]["user_id"], "u1");
    assert_eq!(all(&other), before);
    user.post("/api/u2/tasks/bulk", json!({"operations": []}))
        .expect_error(403, "FORBIDDEN");
}

#[test]
fn five_hundred_operations_are_done_and_one_more_is_refused() {
    let app = TestApp::start();
    let user = app.user("new");
    let create = |number: usize| -> Vec<Value> {
        let task = |n: usize| json!({"op": "create", "task": {"title": format!("{n}"), "description": "d".repeat(1000)}});
        (0..number).map(task).collect()
    };
    bulk(&user, json!(create(501))).expect_error(422, "VALIDATION_ERROR");
    let made = results(bulk(&user, json!(create(500))));
    let ids: Vec<&str> = made.iter().map(|result| id(&result["task"])).collect();
    // New ids rise, so that the list newest first shows the last operation first.
    assert!(ids.is_sorted());
    let listed = user.get("/api/tasks").expect(200).json();
    let listed = listed["tasks"].as_array().unwrap().clone();
    let listed: Vec<&str> = listed.iter().rev().map(id).collect();
    assert_eq!(listed, ids);
    let complete: Vec<Value> = ids
        .iter()
        .map(|id| json!({"op": "complete", "id": id, "is_completed": true}))
        .collect();
    assert!(
        results(bulk(&user, json!(complete)))
            .iter()
            .all(|result| result["task"]["completed"] == true)
    );
}

/// The task without what differs between two tasks with the same fields.
fn contents(task: &Value) -> Value {
    let mut task = task.clone();
    for name in ["id", "created_at", "updated_at", "completed_at"] {
        task.as_object_mut().unwrap().remove(name);
    }
    task
}

#[test]
fn a_task_in_a_bulk_request_is_written_like_a_single_one() {
    let app = TestApp::start();
    let user = app.user("u1");
    let long = "\u{1f404}".repeat(2_000);
    let tags: Vec<String> = (0..20).map(|n| format!("tag {n} \"\\{{}},é")).collect();
    let bodies = [
        json!({"title": " \"quoted\" \\ {a,b} NULL '; é\u{301}\u{ffff}", "description": "two\r\nlines\tand \u{2028}"}),
        json!({"title": "NULL", "description": "", "tags": ["NULL", "null", "{}"]}),
        json!({"title": "İstanbul ÇA", "description": long, "tags": tags, "priority": "low"}),
        json!({"title": "first", "due_date": "0001-01-01", "completed": true}),
        json!({"title": "last", "due_date": "9999-12-31T23:59:59.999999Z", "is_complete": false}),
        json!({"title": "leap", "due_date": "2024-02-29T23:59:59.123456789+14:00", "priority": "high"}),
        json!({"title": "day", "due_date": "9999-12-31"}),
    ];
    let start = json!({"title": "t", "description": "d", "due_date": "2030-01-31", "tags": ["x"]});
    for body in &bodies {
        let alone = user.post("/api/tasks", body.clone()).expect(201).json();
        let made = results(bulk(&user, json!([{"op": "create", "task": body}])));
        assert_eq!(contents(&made[0]["task"]), contents(&alone));
        let [one, other] =
            [0; 2].map(|_| user.post("/api/tasks", start.clone()).expect(201).json());
        let path = format!("/api/tasks/{}", id(&one));
        for changes in [
            body.clone(),
            json!({"description": null, "due_date": null, "tags": null}),
            json!({}),
            start.clone(),
        ] {
            let alone = user.patch(&path, changes.clone()).expect(200).json();
            let operation = json!({"op": "update", "id": id(&other), "changes": changes});
            let changed = results(bulk(&user, json!([operation])));
            assert_eq!(contents(&changed[0]["task"]), contents(&alone));
            assert_eq!(
                alone["completed_at"].is_null(),
                changed[0]["task"]["completed_at"].is_null()
            );
        }
    }
}

#[test]
fn without_a_trash_a_deleted_task_cannot_be_restored() {
    let without = |settings: &mut todo_api::store::StoreSettings| {
        settings.database.trash = std::time::Duration::ZERO
    };
    let app = TestApp::on(&fresh_database(), without, Vec::new());
    let user = app.user("u1");
    for delete in ["bulk", "?status=pending"] {
        let task = user.task("one");
        if delete == "bulk" {
            results(bulk(&user, json!([{"op": "delete", "id": id(&task)}])));
        } else {
            user.delete(&format!("/api/tasks{delete}")).expect(200);
        }
        bulk(&user, json!([{"op": "restore", "id": id(&task)}])).expect_error(404, "NOT_FOUND");
    }
    let kept = "SELECT count(*), count(title) FROM todo.deleted_tasks";
    let row = app.sql().query_one(kept, &[]).unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get::<_, i64>(1)),
        (2, 0),
        "tombstones alone"
    );
}
