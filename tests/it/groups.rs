//! Writes that are done together: each is done once, and none delays or changes another.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Actor;
use crate::support::hold::{Lock, PATIENT, wait_until};
use crate::support::http::Answer;
use crate::support::postgres::fresh_database;
use crate::support::process::Process;

/// A server with few workers, and a database where a lock can be held for long.
fn serve(database: &str) -> Process {
    let mut settings = vec![("WORKERS", "4")];
    settings.extend(PATIENT);
    Process::serve(database, &settings)
}

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// Sends requests while the table of tasks is locked, so that the first is a statement of its own and the others wait for it.
fn together<'a>(
    database: &str,
    first: impl FnOnce() -> Answer + Send + 'a,
    others: Vec<Box<dyn FnOnce() -> Answer + Send + 'a>>,
) -> Vec<Answer> {
    let mut lock = Lock::tasks(database);
    thread::scope(|scope| {
        let first = scope.spawn(first);
        lock.wait_for_waiting(1);
        let others: Vec<_> = others.into_iter().map(|send| scope.spawn(send)).collect();
        // Nothing shows from outside that they have come.
        thread::sleep(Duration::from_millis(500));
        lock.release();
        first.join().unwrap().expect(200);
        others
            .into_iter()
            .map(|other| other.join().unwrap())
            .collect()
    })
}

fn boxed<'a>(send: impl FnOnce() -> Answer + Send + 'a) -> Box<dyn FnOnce() -> Answer + Send + 'a> {
    Box::new(send)
}

fn toggle(user: &Actor, task: &Value) -> Answer {
    user.send("PATCH", &format!("{}/complete", path(task)), &[], None)
}

#[test]
fn writes_that_come_together_share_transactions() {
    let database = fresh_database();
    let server = serve(&database);
    let users: Vec<Actor> = (0..31).map(|n| server.user(&format!("u{n}"))).collect();
    let tasks: Vec<Value> = users.iter().map(|user| user.task("one")).collect();
    let mut pairs = users.iter().zip(&tasks);
    let (user, task) = pairs.next().unwrap();
    let others = pairs.map(|(user, task)| boxed(move || toggle(user, task)));
    for answer in together(&database, || toggle(user, task), others.collect()) {
        assert_eq!(answer.expect(200).json()["completed"], true);
    }
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let count = "SELECT count(DISTINCT written_by) FROM todo.tasks";
    let transactions: i64 = sql.query_one(count, &[]).unwrap().get(0);
    assert!(
        transactions <= 6,
        "1, 16, 8, 4 and 2 writes: {transactions}"
    );
    for (user, task) in users.iter().zip(&tasks) {
        let own = user.get("/api/tasks").expect(200).json();
        assert_eq!(own["tasks"].as_array().unwrap().len(), 1);
        assert_eq!(own["tasks"][0]["id"], task["id"]);
        assert_eq!(own["tasks"][0]["version"], 2);
    }
}

#[test]
fn a_locked_task_delays_the_writes_to_it_alone() {
    let database = fresh_database();
    let server = serve(&database);
    let (one, other) = (server.user("one"), server.user("other"));
    let (held, free, first) = (one.task("held"), other.task("free"), other.task("first"));
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    sql.batch_execute("BEGIN; SELECT FROM todo.tasks WHERE user_id = 'one' FOR UPDATE")
        .unwrap();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (one, held) = (&one, &held);
                scope.spawn(move || match n % 2 {
                    0 => toggle(one, held),
                    _ => one.delete(&format!("{}?permanent=false", path(held))),
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        for _ in 0..50 {
            let began = Instant::now();
            toggle(&other, &free).expect(200);
            toggle(&other, &first).expect(200);
            let made = other.task("more");
            other.delete(&path(&made)).expect(204);
            let time = began.elapsed();
            assert!(time < Duration::from_secs(1), "{time:?}");
        }
        assert!(waiting.iter().all(|request| !request.is_finished()));
        sql.batch_execute("COMMIT").unwrap();
        let statuses: Vec<u16> = waiting
            .into_iter()
            .map(|request| request.join().unwrap().status)
            .collect();
        let deleted = statuses.iter().filter(|status| **status == 204).count();
        assert_eq!(deleted, 1, "{statuses:?}");
        let known = |status: &u16| [200, 204, 404, 503].contains(status);
        assert!(statuses.iter().all(known), "{statuses:?}");
    });
}

#[test]
fn toggles_of_one_task_that_come_together_are_all_done() {
    let database = fresh_database();
    let server = serve(&database);
    let user = server.user("one");
    let (task, first) = (user.task("task"), user.task("first"));
    let others = (0..7).map(|_| boxed(|| toggle(&user, &task)));
    let answers = together(&database, || toggle(&user, &first), others.collect());
    let mut versions: Vec<i64> = answers
        .into_iter()
        .map(|answer| answer.expect(200).json()["version"].as_i64().unwrap())
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(user.get(&path(&task)).json()["completed"], true);

    // Each gets the answer to its own request.
    let set = |completed: bool| -> Answer {
        let body = json!({ "completed": completed });
        let target = format!("{}/complete", path(&task));
        let answer = user.send_json("PATCH", &target, body).expect(200);
        assert_eq!(answer.json()["completed"], completed);
        answer
    };
    let others = [true, false, false, true, false, true].map(|completed| {
        boxed({
            let set = &set;
            move || set(completed)
        })
    });
    together(&database, || toggle(&user, &first), others.into());
}

#[test]
fn a_write_that_cannot_be_done_changes_nothing_for_those_it_came_with() {
    let database = fresh_database();
    let server = serve(&database);
    let (user, stranger, new) = (
        server.user("one"),
        server.user("stranger"),
        server.user("new"),
    );
    let [first, task, gone, foreign] =
        ["first", "task", "gone", "foreign"].map(|title| match title {
            "foreign" => stranger.task(title),
            _ => user.task(title),
        });
    user.delete(&path(&gone)).expect(204);
    let others = vec![
        boxed(|| toggle(&user, &gone)),
        boxed(|| toggle(&user, &foreign)),
        boxed(|| toggle(&user, &task)),
    ];
    let answers = together(&database, || toggle(&user, &first), others);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [404, 404, 200]);
    assert_eq!(stranger.get(&path(&foreign)).json()["completed"], false);

    // The first write of a user makes the user's row.
    let make = |user: &Actor| user.post("/api/tasks", json!({ "title": "made" }));
    let others = vec![boxed(|| make(&new)), boxed(|| make(&user))];
    for answer in together(&database, || toggle(&user, &first), others) {
        answer.expect(201);
    }
    assert_eq!(new.get("/api/tasks").json()["tasks"][0]["title"], "made");
}

#[test]
fn a_deletion_of_an_id_that_was_deleted_before_is_done_like_the_others() {
    let database = fresh_database();
    let server = serve(&database);
    let user = server.user("one");
    let again = user.task("again");
    user.delete(&path(&again)).expect(204);
    let again = user
        .post("/api/tasks", json!({ "title": "new", "id": again["id"] }))
        .expect(201)
        .json();
    let mut tasks = vec![again];
    tasks.extend((0..6).map(|n| user.task(&format!("task {n}"))));
    let first = user.task("first");
    let others = tasks
        .iter()
        .map(|task| boxed(|| user.delete(&path(task))))
        .collect();
    let delete_first = || {
        user.delete(&path(&first)).expect(204);
        user.get("/api/tasks/stats")
    };
    for answer in together(&database, delete_first, others) {
        answer.expect(204);
    }
    let trash = user.get("/api/tasks/trash").expect(200).json();
    assert_eq!(trash["tasks"].as_array().unwrap().len(), 8);
    assert_eq!(user.get("/api/tasks").json()["tasks"], json!([]));
}

#[test]
fn writes_that_wait_are_refused_when_the_database_is_lost() {
    let database = fresh_database();
    let server = serve(&database);
    let user = server.user("one");
    let tasks: Vec<Value> = (0..10).map(|n| user.task(&format!("{n}"))).collect();
    let mut lock = Lock::tasks(&database);
    thread::scope(|scope| {
        let sent: Vec<_> = tasks
            .iter()
            .map(|task| scope.spawn(|| toggle(&user, task)))
            .collect();
        lock.wait_for_waiting(1);
        thread::sleep(Duration::from_millis(300));
        let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
        // As often as the server sends it again.
        wait_until(|| {
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'todo-api' AND wait_event_type = 'Lock' AND datname = current_database()",
                &[],
            )
            .unwrap();
            sent.iter().all(|request| request.is_finished())
        });
        for request in sent {
            request
                .join()
                .unwrap()
                .expect_error(503, "SERVICE_UNAVAILABLE");
        }
    });
    lock.release();
    for task in &tasks {
        assert_eq!(user.get(&path(task)).json()["completed"], false);
    }
}

#[test]
fn a_write_that_waited_too_long_is_refused_and_not_done_later() {
    let database = fresh_database();
    let server = serve(&database);
    let user = server.user("one");
    let (first, late) = (user.task("first"), user.task("late"));
    let mut lock = Lock::tasks(&database);
    thread::scope(|scope| {
        let first = scope.spawn(|| toggle(&user, &first));
        lock.wait_for_waiting(1);
        let late = scope.spawn(|| toggle(&user, &late));
        thread::sleep(Duration::from_millis(2_500));
        lock.release();
        first.join().unwrap().expect(200);
        late.join()
            .unwrap()
            .expect_error(503, "SERVICE_UNAVAILABLE");
    });
    assert_eq!(user.get(&path(&late)).json()["completed"], false);
    toggle(&user, &late).expect(200);
}
