//! Many operations in one request: repeated, while other requests run, and while the database is lost.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::bulk::{NO_TASK, all, bulk, five, id, results, six, with_key};
use crate::support::hold::{Lock, PATIENT, wait_until};
use crate::support::postgres::{self, fresh_database};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::{Answer, TestApp};

#[test]
fn a_request_takes_at_most_eight_round_trips() {
    let proxy = Proxy::to(&postgres::socket_file());
    let app = TestApp::on(
        &proxy.url(&fresh_database()),
        |settings| settings.database.pool_size = 1,
        Vec::new(),
    );
    let user = app.user("u1");
    // The first time, statements are prepared.
    let mut sent = 0;
    for key in ["first", "second"] {
        let operations = json!(six(&five(&user)));
        let before = proxy.sent();
        results(with_key(&user, key, &operations));
        sent = proxy.sent() - before;
    }
    assert!(sent <= 8, "{sent}");
}

#[test]
fn a_key_works_once_and_the_answer_has_the_tasks_as_they_are() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks = five(&user);
    let operations = json!(six(&tasks));
    let first = with_key(&user, "k", &operations).expect(200);
    assert_eq!(first.header("Idempotency-Replayed"), None);
    let again = with_key(&user, "k", &operations).expect(200);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    // Later changes are shown, and what is gone since is an id.
    let [new, changed] = [0, 1].map(|at| first.json()["results"][at]["task"].clone());
    user.delete(&format!("/api/tasks/{}", id(&new))).expect(204);
    let path = format!("/api/tasks/{}", id(&changed));
    let later = user
        .patch(&path, json!({"title": "later"}))
        .expect(200)
        .json();
    let results = results(with_key(&user, "k", &operations));
    assert_eq!(results[0], json!({"status": 201, "id": new["id"]}));
    assert_eq!(results[1], json!({"status": 200, "task": later}));
    // Another body, another user, and a refused request.
    with_key(
        &user,
        "k",
        &json!([{"op": "create", "task": {"title": "t"}}]),
    )
    .expect_error(422, "VALIDATION_ERROR");
    with_key(&user, "free", &json!([{"op": "delete", "id": NO_TASK}]))
        .expect_error(404, "NOT_FOUND");
    let create = json!([{"op": "create", "task": {"title": "t"}}]);
    for user in [&user, &app.user("u2")] {
        let made = with_key(user, "free", &create).expect(200);
        assert_eq!(made.header("Idempotency-Replayed"), None);
    }
}

#[test]
fn a_key_of_another_route_is_not_a_key_of_this_one() {
    let app = TestApp::start();
    let user = app.user("u1");
    let body = json!({"title": "t", "operations": [{"op": "create", "task": {"title": "u"}}]});
    let send = |path: &str| {
        let key = [("Idempotency-Key", "k")];
        user.send("POST", path, &key, Some(body.to_string().as_bytes()))
    };
    send("/api/tasks").expect(201);
    send("/api/tasks/bulk").expect_error(422, "VALIDATION_ERROR");
    send("/api/tasks").expect(201);
}

#[test]
fn twenty_requests_with_one_key_are_done_once() {
    let app = TestApp::start();
    let user = app.user("new");
    for round in 0..5 {
        let key = format!("key-{round}");
        let operations = json!([
            {"op": "create", "task": {"title": "t"}},
            {"op": "create", "task": {"title": "u", "id": Uuid::now_v7()}},
        ]);
        let answers: Vec<Answer> = thread::scope(|scope| {
            let threads: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| with_key(&user, &key, &operations)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let (mut bodies, mut made) = (BTreeSet::new(), 0);
        for answer in &answers {
            if answer.status == 409 {
                let sentence = answer.expect_error(409, "CONFLICT");
                assert!(sentence.contains("still running"), "{sentence}");
                continue;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
            made += u32::from(answer.header("Idempotency-Replayed").is_none());
            bodies.insert(&answer.body);
        }
        assert_eq!((bodies.len(), made), (1, 1), "{answers:?}");
        let count = user.get("/api/tasks").json()["count"].as_u64().unwrap();
        assert_eq!(count, 2 * (round + 1));
    }
}

/// Runs requests at the same time until each thread has sent so many, and gives the statuses. None may be answered with an error of
/// the server.
fn race(threads: &[&(dyn Fn(usize) -> Answer + Sync)], runs: usize) -> BTreeSet<u16> {
    thread::scope(|scope| {
        let threads = threads.iter();
        let threads: Vec<_> = threads
            .map(|ask| {
                scope.spawn(move || -> BTreeSet<u16> {
                    let statuses = (0..runs).map(|run| {
                        let answer = ask(run);
                        assert!(answer.status < 500, "{answer:?}");
                        answer.status
                    });
                    statuses.collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn crossing_requests_never_deadlock() {
    let app = TestApp::start();
    let user = app.user("u1");
    let ids: Vec<Uuid> = (0..8).map(|_| Uuid::now_v7()).collect();
    let create = |id: &Uuid| json!({"op": "create", "task": {"title": "t", "id": id}});
    let complete = |id: &Uuid| json!({"op": "complete", "id": id, "completed": Uuid::new_v4().as_u128().is_multiple_of(2)});
    let delete = |id: &Uuid| json!({"op": "delete", "id": id});
    let restore = |id: &Uuid| json!({"op": "restore", "id": id});
    results(bulk(&user, ids.iter().map(create).collect()));
    let (up, down) = (
        |_: usize| bulk(&user, ids.iter().map(complete).collect()),
        |_: usize| bulk(&user, ids.iter().rev().map(complete).collect()),
    );
    // Updates alone always find their tasks.
    assert_eq!(race(&[&up, &down, &up, &down], 100), BTreeSet::from([200]));
    // Two halves in crossing orders, and back again.
    let halves = |first: usize, back: bool| {
        let change = |id: &Uuid| if back { restore(id) } else { delete(id) };
        let mut operations: Vec<Value> = ids.iter().skip(first).step_by(2).map(change).collect();
        operations.extend(ids.iter().skip(1 - first).step_by(2).map(complete));
        if back {
            operations.reverse();
        }
        bulk(&user, json!(operations))
    };
    let (even, odd) = (
        |run: usize| halves(0, run % 2 == 1),
        |run: usize| halves(1, run % 2 == 1),
    );
    // New ids that the other creates, too, and rows that are deleted and created again.
    let remake = |run: usize| {
        let path = format!("/api/tasks/{}", ids[run % 8]);
        user.delete(&path);
        let mut operations: Vec<Value> = ids.iter().map(create).collect();
        operations.rotate_left(run % 8);
        bulk(&user, json!(operations[..2]))
    };
    let statuses = race(&[&even, &odd, &remake, &remake, &down], 100);
    assert!(
        statuses.is_superset(&BTreeSet::from([200, 404, 409])),
        "{statuses:?}"
    );
    assert_eq!(app.deadlocks(), 0);
}

#[test]
fn of_two_requests_that_create_the_same_task_one_is_refused() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    for _ in 0..20 {
        let id = Uuid::now_v7();
        let operations = json!([
            {"op": "create", "task": {"title": "first"}},
            {"op": "create", "task": {"title": "same", "id": id}},
        ]);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let threads = [0; 4].map(|_| scope.spawn(|| bulk(&user, operations.clone())));
            let answers = threads.map(|thread| thread.join().unwrap());
            for answer in answers.iter().filter(|answer| answer.status != 200) {
                answer.expect_error(409, "CONFLICT");
                assert_eq!(answer.json()["error"]["index"], 1);
            }
            answers.iter().map(|answer| answer.status).collect()
        });
        assert_eq!(
            statuses.iter().filter(|status| **status == 200).count(),
            1,
            "{statuses:?}"
        );
    }
    assert_eq!(user.get("/api/tasks").json()["count"], 41);
}

#[test]
fn a_lost_connection_changes_nothing_and_is_answered_503() {
    let direct = fresh_database();
    let proxy = Proxy::to(&postgres::socket_file());
    let server = Process::serve(&proxy.url(&direct), &PATIENT);
    let user = server.user("u1");
    let tasks = five(&user);
    let before = all(&user);
    let mut lock = Lock::tasks(&direct);
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| with_key(&user, "k", &json!(six(&tasks))));
        lock.wait_for_waiting(1);
        proxy.cut();
        asked.join().unwrap()
    });
    answer.expect_error(503, "SERVICE_UNAVAILABLE");
    lock.release();
    // The pool may have been connecting when the proxy closed everything. It tries again a second later.
    wait_until(|| user.get("/api/tasks").status == 200);
    assert_eq!(all(&user), before);
    let done = with_key(&user, "k", &json!(six(&tasks))).expect(200);
    assert_eq!(done.header("Idempotency-Replayed"), None);
}
