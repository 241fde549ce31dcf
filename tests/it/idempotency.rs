//! `Idempotency-Key`: a repeated request is done once.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::{Actor, Answer, TestApp};

fn create(user: &Actor, key: &str, body: &str) -> Answer {
    user.send(
        "POST",
        "/api/tasks",
        &[("Idempotency-Key", key)],
        Some(body.as_bytes()),
    )
}

fn count(user: &Actor) -> u64 {
    user.get("/api/tasks").json()["count"].as_u64().unwrap()
}

const BODY: &str = r#"{"title":" t ","description":"d","completed":true,"priority":"high","due_date":"2030-01-31","tags":["b","a"]}"#;

#[test]
fn the_same_request_gets_the_same_answer_and_is_done_once() {
    let app = TestApp::start();
    let user = app.user("u1");
    let first = create(&user, "k", BODY).expect(201);
    assert_eq!(first.header("Idempotency-Replayed"), None);
    let again = create(&user, "k", BODY).expect(201);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    for name in ["ETag", "Location", "Content-Type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(count(&user), 1);
    // The answer stays the same, even if the task has changed since.
    let path = first.header("Location").unwrap().to_owned();
    assert_eq!(user.get(&path).expect(200).body, first.body);
    user.patch(&path, json!({ "title": "changed", "completed": false }))
        .expect(200);
    assert_eq!(create(&user, "k", BODY).expect(201).body, first.body);
    user.delete(&path).expect(204);
    assert_eq!(create(&user, "k", BODY).expect(201).body, first.body);
    assert_eq!(count(&user), 0);
    // The other form of the path is the same request; another key or another user is not.
    let own = user.send(
        "POST",
        "/api/u1/tasks",
        &[("Idempotency-Key", "k")],
        Some(BODY.as_bytes()),
    );
    assert_eq!(own.expect(201).body, first.body);
    create(&user, "K", BODY).expect(201);
    let other = app.user("u2");
    assert_eq!(
        create(&other, "k", BODY)
            .expect(201)
            .header("Idempotency-Replayed"),
        None
    );
    assert_eq!((count(&user), count(&other)), (1, 1));
}

#[test]
fn another_body_with_the_same_key_is_refused() {
    let app = TestApp::start();
    let user = app.user("u1");
    create(&user, "k", BODY).expect(201);
    let answer = create(&user, "k", r#"{"title":"other"}"#);
    let sentence = answer.expect_error(422, "VALIDATION_ERROR");
    assert!(
        sentence.starts_with("Idempotency-Key was used"),
        "{sentence}"
    );
    assert_eq!(count(&user), 1);
}

#[test]
fn a_refused_request_may_be_sent_again_with_its_key() {
    let app = TestApp::start();
    let user = app.user("u1");
    create(&user, "k", "{").expect_error(400, "BAD_REQUEST");
    create(&user, "k", r#"{"title":""}"#).expect_error(422, "VALIDATION_ERROR");
    let id = "0190b7c6-0000-7000-8000-000000000000";
    let taken = format!(r#"{{"title":"t","id":"{id}"}}"#);
    user.post("/api/tasks", json!({ "title": "first", "id": id }))
        .expect(201);
    create(&user, "k", &taken).expect_error(409, "CONFLICT");
    user.delete(&format!("/api/tasks/{id}")).expect(204);
    let made = create(&user, "k", &taken).expect(201);
    assert_eq!(made.header("Idempotency-Replayed"), None);
    assert_eq!(create(&user, "k", &taken).expect(201).body, made.body);
}

#[test]
fn a_bad_key_is_refused() {
    let app = TestApp::start();
    let user = app.user("u1");
    for key in ["", "a b", "\u{e9}", &"k".repeat(256)] {
        let sentence = create(&user, key, BODY).expect_error(400, "BAD_REQUEST");
        assert!(sentence.contains("Idempotency-Key"), "{sentence}");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    user.send("POST", "/api/tasks", &twice, Some(BODY.as_bytes()))
        .expect_error(400, "BAD_REQUEST");
    assert_eq!(count(&user), 0);
    create(&user, &"k".repeat(255), BODY).expect(201);
}

#[test]
fn twenty_parallel_requests_with_one_key_make_one_task() {
    let app = TestApp::start();
    let user = app.user("u1");
    for round in 0..5 {
        let key = format!("key-{round}");
        let answers: Vec<Answer> = thread::scope(|scope| {
            let asked: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| create(&user, &key, BODY)))
                .collect();
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut bodies = HashSet::new();
        let mut made = 0;
        for answer in &answers {
            match answer.status {
                201 => {
                    bodies.insert(answer.body.as_str());
                    made += u32::from(answer.header("Idempotency-Replayed").is_none());
                }
                409 => assert!(
                    answer
                        .expect_error(409, "CONFLICT")
                        .contains("still running")
                ),
                _ => panic!("{answer:?}"),
            }
        }
        assert_eq!((bodies.len(), made), (1, 1), "{answers:?}");
        assert_eq!(count(&user), round + 1);
    }
}

#[test]
fn while_the_first_request_runs_the_second_is_409() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    let mut sql = app.sql();
    let mut held = sql.transaction().unwrap();
    // Blocks the first request while it makes its task: a concurrent insert of the same id is not yet committed.
    let id = "0190b7c6-0000-7000-8000-000000000000";
    held.batch_execute(&format!(
        "INSERT INTO todo.tasks (user_id, id, title) VALUES ('u1', '{id}', 't')"
    ))
    .unwrap();
    let body = format!(r#"{{"title":"t","id":"{id}"}}"#);
    thread::scope(|scope| {
        let first = scope.spawn(|| create(&user, "k", &body));
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let mut watch = app.sql();
        let waits = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            watch.query_one(waiting, &[]).unwrap().get::<_, i64>(0) > 0
        });
        assert!(waits);
        let second = create(&user, "k", &body);
        assert!(
            second
                .expect_error(409, "CONFLICT")
                .contains("still running")
        );
        held.rollback().unwrap();
        first.join().unwrap().expect(201);
    });
    create(&user, "k", &body).expect(201);
    assert_eq!(count(&user), 2);
}

#[test]
fn a_key_is_valid_for_one_day() {
    let app = TestApp::start();
    let user = app.user("u1");
    let first = create(&user, "k", BODY).expect(201);
    for number in 0..5 {
        create(&user, &format!("old-{number}"), BODY).expect(201);
    }
    let age = |hours: &str| {
        let text =
            format!("UPDATE todo.idempotency_keys SET created_at = now() - interval '{hours}'");
        app.sql().batch_execute(&text).unwrap();
    };
    age("23 hours 59 minutes");
    assert_eq!(
        create(&user, "k", BODY)
            .expect(201)
            .header("Idempotency-Replayed"),
        Some("true")
    );
    age("24 hours");
    let anew = create(&user, "k", r#"{"title":"another body"}"#).expect(201);
    assert_ne!(anew.body, first.body);
    let kept = app
        .sql()
        .query("SELECT key FROM todo.idempotency_keys", &[])
        .unwrap();
    assert_eq!(kept.len(), 1, "the expired keys were deleted");
}

#[test]
fn the_cost_of_a_key_does_not_depend_on_the_number_of_keys() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    app.sql()
        .batch_execute(
            "INSERT INTO todo.idempotency_keys (user_id, key, digest, task_id, created_at)
             SELECT 'u1', 'key ' || n, '', gen_random_uuid(), now() - n * interval '5 s' FROM generate_series(1, 40000) AS n;
             ANALYZE todo.idempotency_keys",
        )
        .unwrap();
    for number in 0..10 {
        create(&user, &number.to_string(), BODY).expect(201);
    }
    let read = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'idempotency_keys'";
    let mut sql = app.sql();
    // PostgreSQL updates these counters with a short delay.
    for _ in 0..200 {
        let row = sql.query_one(read, &[]).unwrap();
        if row.get::<_, i64>(1) >= 100 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let row = sql.query_one(read, &[]).unwrap();
    let (scans, fetched) = (row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert!(
        scans <= 2 && (100..1000).contains(&fetched),
        "{scans} scans of the whole table, {fetched} rows by index"
    );
    let old = "SELECT count(*) FROM todo.idempotency_keys WHERE created_at <= now() - interval '24 hours'";
    let left: i64 = sql.query_one(old, &[]).unwrap().get(0);
    // One key every five seconds makes 17,280 a day.
    assert!(
        (22_500..=22_640).contains(&left),
        "each new key deletes ten expired ones: {left}"
    );
}
