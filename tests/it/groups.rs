//! Requests whose statements are run together: each is done once, and none delays or changes another.

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
    let mut settings = vec![("WORKERS", "8")];
    settings.extend(PATIENT);
    Process::serve(database, &settings)
}

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// Statements of one kind that run at the same time: one that came alone, and two of groups.
const UNDER_WAY: usize = 3;

/// Sends requests while the table of tasks is locked, so that the first ones are statements of their own, and the others wait for these.
fn together<'a>(
    database: &str,
    first: impl Fn(usize) + Sync,
    others: Vec<Box<dyn FnOnce() -> Answer + Send + 'a>>,
) -> Vec<Answer> {
    let mut lock = Lock::tasks(database);
    thread::scope(|scope| {
        for number in 0..UNDER_WAY {
            let first = &first;
            scope.spawn(move || first(number));
            lock.wait_for_waiting(number as i64 + 1);
        }
        let others: Vec<_> = others.into_iter().map(|send| scope.spawn(send)).collect();
        // Nothing shows from outside that they have come.
        thread::sleep(Duration::from_millis(500));
        assert_eq!(lock.waiting(), UNDER_WAY as i64);
        lock.release();
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
    let others = (users.iter().zip(&tasks).skip(UNDER_WAY))
        .map(|(user, task)| boxed(move || toggle(user, task)));
    let first = |n: usize| drop(toggle(&users[n], &tasks[n]).expect(200));
    for answer in together(&database, first, others.collect()) {
        assert_eq!(answer.expect(200).json()["completed"], true);
    }
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let count = "SELECT count(DISTINCT written_by) FROM todo.tasks";
    let transactions: i64 = sql.query_one(count, &[]).unwrap().get(0);
    assert!(
        transactions <= 6,
        "1, 1, 1, 16, 8 and 4 writes: {transactions}"
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
    let (task, other) = (user.task("task"), user.task("other"));
    let first = |_| drop(toggle(&user, &other).expect(200));
    let others = (0..7).map(|_| boxed(|| toggle(&user, &task)));
    let answers = together(&database, first, others.collect());
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
    together(&database, first, others.into());
}

#[test]
fn reads_that_come_together_each_get_their_own_answer() {
    let database = fresh_database();
    let server = serve(&database);
    let users: Vec<Actor> = (0..20).map(|n| server.user(&format!("u{n}"))).collect();
    let tasks: Vec<Value> = users.iter().map(|user| user.task("one")).collect();
    let gone = users[0].task("gone");
    users[0].delete(&path(&gone)).expect(204);
    let tag = users[1].get(&path(&tasks[1])).expect(200);
    let tag = tag.header("ETag").unwrap();
    let read = |user: &Actor, task: &Value, fields: &[(&str, &str)]| {
        user.send("GET", &path(task), fields, None)
    };
    let mut others: Vec<_> = (users.iter().zip(&tasks))
        .map(|(user, task)| boxed(move || read(user, task, &[])))
        .collect();
    others.extend([
        boxed(|| read(&users[0], &gone, &[])),
        boxed(|| read(&users[1], &tasks[0], &[])),
        boxed(|| read(&users[1], &tasks[1], &[("If-None-Match", tag)])),
        boxed(|| read(&users[2], &tasks[2], &[("If-Match", "\"9-1\"")])),
    ]);
    let first = |n: usize| drop(read(&users[n], &tasks[n], &[]).expect(200));
    let mut answers = together(&database, first, others);
    let special: Vec<u16> = answers.drain(20..).map(|answer| answer.status).collect();
    assert_eq!(special, [404, 404, 304, 412]);
    for (answer, task) in answers.into_iter().zip(&tasks) {
        assert_eq!(answer.expect(200).json(), *task);
    }
}

#[test]
fn reads_whose_group_fails_are_errors_and_not_missing_tasks() {
    let database = fresh_database();
    let server = serve(&database);
    let user = server.user("one");
    let task = user.task("task");
    let mut lock = Lock::tasks(&database);
    lock.change("ALTER TABLE todo.tasks RENAME COLUMN title TO heading");
    thread::scope(|scope| {
        let requests: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| user.get(&path(&task)).status))
            .collect();
        lock.wait_for_waiting(UNDER_WAY as i64);
        thread::sleep(Duration::from_millis(500));
        lock.release();
        for request in requests {
            assert_eq!(request.join().unwrap(), 500);
        }
    });
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
    let [other, task, gone, foreign] =
        ["other", "task", "gone", "foreign"].map(|title| match title {
            "foreign" => stranger.task(title),
            _ => user.task(title),
        });
    user.delete(&path(&gone)).expect(204);
    let others = vec![
        boxed(|| toggle(&user, &gone)),
        boxed(|| toggle(&user, &foreign)),
        boxed(|| toggle(&user, &task)),
    ];
    let first = |_| drop(toggle(&user, &other).expect(200));
    let answers = together(&database, first, others);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [404, 404, 200]);
    assert_eq!(stranger.get(&path(&foreign)).json()["completed"], false);

    // The first write of a user makes the user's row.
    let make = |user: &Actor| user.post("/api/tasks", json!({ "title": "made" }));
    let others = vec![boxed(|| make(&new)), boxed(|| make(&user))];
    let first = |_| drop(make(&stranger).expect(201));
    for answer in together(&database, first, others) {
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
    let firsts: Vec<Value> = (0..UNDER_WAY).map(|_| user.task("first")).collect();
    let others = tasks
        .iter()
        .map(|task| boxed(|| user.delete(&path(task))))
        .collect();
    let first = |n: usize| drop(user.delete(&path(&firsts[n])).expect(204));
    for answer in together(&database, first, others) {
        answer.expect(204);
    }
    let trash = user.get("/api/tasks/trash").expect(200).json();
    assert_eq!(trash["tasks"].as_array().unwrap().len(), 10);
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
        for _ in 0..UNDER_WAY {
            scope.spawn(|| toggle(&user, &first).expect(200));
        }
        lock.wait_for_waiting(UNDER_WAY as i64);
        let late = scope.spawn(|| toggle(&user, &late));
        thread::sleep(Duration::from_millis(2_500));
        lock.release();
        late.join()
            .unwrap()
            .expect_error(503, "SERVICE_UNAVAILABLE");
    });
    assert_eq!(user.get(&path(&late)).json()["completed"], false);
    toggle(&user, &late).expect(200);
}
