//! Outages of PostgreSQL: no acknowledged write is lost, and none is done twice.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::hold::{Lock, wait_until};
use crate::support::postgres::{self, Cluster, fresh_database};
use crate::support::process::{Process, signal};
use crate::support::proxy::Proxy;
use crate::support::{Actor, TestApp};

/// Makes tasks with unique titles on `writers` threads until `action` is done or the server has ended. Returns the acknowledged
/// titles.
fn write_while(user: &Actor, writers: usize, action: impl FnOnce()) -> HashSet<String> {
    let (acknowledged, done) = (Mutex::new(HashSet::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..writers {
            let (acknowledged, done) = (&acknowledged, &done);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let title = format!("{writer}-{number}");
                    let body = json!({ "title": title }).to_string();
                    match user.try_send("POST", "/api/tasks", &[], Some(body.as_bytes())) {
                        Ok(answer) if answer.status == 201 => {
                            acknowledged.lock().unwrap().insert(title);
                        }
                        Ok(answer) => {
                            answer.expect_error(503, "SERVICE_UNAVAILABLE");
                            assert!(answer.header("Retry-After").is_some());
                            thread::sleep(Duration::from_millis(10));
                        }
                        Err(_) => break,
                    }
                }
            });
        }
        action();
        done.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

/// Sets the flag when it is dropped, also in a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// As [`write_while`], for a server that `kill` ends.
pub fn write_until_dead(server: &Process, writers: usize, kill: impl FnOnce()) -> HashSet<String> {
    write_while(&server.user("writer"), writers, kill)
}

/// Asserts that every acknowledged title is in the database, and that no title is there twice.
pub fn assert_exactly_once(database: &str, acknowledged: &HashSet<String>) {
    let mut client = ::postgres::Client::connect(database, ::postgres::NoTls).unwrap();
    let rows = client
        .query("SELECT title, count(*) FROM todo.tasks GROUP BY title", &[])
        .unwrap();
    let mut found = HashSet::new();
    for row in rows {
        let (title, count): (String, i64) = (row.get(0), row.get(1));
        assert_eq!(count, 1, "{title} was written more than once");
        found.insert(title);
    }
    let lost: Vec<&String> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// Requests /health until `done`, and returns the longest wait.
fn watch_health(anonymous: &Actor, done: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        anonymous.get("/health").expect(200);
        longest = longest.max(began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    longest
}

/// Stops PostgreSQL while 32 clients write, and starts it again.
fn write_through_outage(stop_postgres: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(true);
    let database = cluster.url("todo");
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let (user, anonymous) = (app.user("writer"), app.anonymous());
    let done = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let health = scope.spawn(|| watch_health(&anonymous, &done));
        let acknowledged = write_while(&user, 32, || {
            thread::sleep(Duration::from_millis(500));
            stop_postgres(&mut cluster);
            thread::sleep(Duration::from_millis(1500));
            assert_eq!(anonymous.get("/health/ready").status, 503);
            cluster.restart();
            let until = Instant::now() + Duration::from_secs(10);
            while anonymous.get("/health/ready").status != 200 {
                assert!(
                    Instant::now() < until,
                    "the server did not reconnect to PostgreSQL"
                );
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(500));
        });
        done.store(true, Ordering::Relaxed);
        let longest = health.join().unwrap();
        println!(
            "longest wait for /health: {longest:?}; acknowledged: {}",
            acknowledged.len()
        );
        // On an idle machine it stays below 50 ms.
        assert!(longest < Duration::from_millis(1000), "{longest:?}");
        acknowledged
    });
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    assert_exactly_once(&database, &acknowledged);
    for _ in 0..20 {
        user.task("after the outage");
    }
}

#[test]
fn when_postgresql_is_killed_no_write_is_lost_or_doubled() {
    write_through_outage(|cluster| signal(cluster.pid(), "KILL"));
}

#[test]
fn when_postgresql_is_stopped_no_write_is_lost_or_doubled() {
    write_through_outage(Cluster::stop);
}

#[test]
fn an_outage_is_answered_quickly_and_ends_by_itself() {
    let mut cluster = Cluster::start(true);
    let app = TestApp::on(&cluster.url("todo"), |_| {}, Vec::new());
    let user = app.user("u1");
    user.task("before");
    cluster.stop();
    let began = Instant::now();
    user.get("/api/tasks")
        .expect_error(503, "SERVICE_UNAVAILABLE");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    for _ in 0..50 {
        let answer = user.get("/api/tasks");
        answer.expect_error(503, "SERVICE_UNAVAILABLE");
        assert!(
            answer
                .header("Retry-After")
                .is_some_and(|seconds| seconds.parse::<u32>().unwrap() >= 1)
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "answers during the outage are quick: {:?}",
        began.elapsed()
    );
    app.anonymous().get("/health").expect(200);
    let ready = app.anonymous().get("/health/ready").expect(503);
    assert_eq!(ready.json()["checks"]["database"], "not ready");
    cluster.restart();
    thread::sleep(Duration::from_millis(2500));
    for _ in 0..20 {
        assert_eq!(user.get("/api/tasks").expect(200).json()["count"], 1);
    }
    app.anonymous().get("/health/ready").expect(200);
}

#[test]
fn a_pool_of_dead_connections_causes_no_error() {
    let app = TestApp::start();
    let user = app.user("u1");
    for idle in [Duration::ZERO, Duration::from_millis(1200)] {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| user.get("/api/tasks").expect(200));
            }
        });
        thread::sleep(idle);
        let others =
            "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut sql = app.sql();
        // The pool connects in the background.
        wait_until(|| {
            let number = sql.query_one(&format!("SELECT count(*) {others}"), &[]);
            number.unwrap().get::<_, i64>(0) >= 4
        });
        sql.query_one(
            &format!("SELECT count(pg_terminate_backend(pid)) {others}"),
            &[],
        )
        .unwrap();
        let task = user.task("the first request after the restart is a write");
        for _ in 0..10 {
            user.get(&format!("/api/tasks/{}", task["id"].as_str().unwrap()))
                .expect(200);
        }
    }
}

#[test]
fn a_restart_of_postgresql_between_two_requests_causes_no_error() {
    let mut cluster = Cluster::start(true);
    let app = TestApp::on(&cluster.url("todo"), |_| {}, Vec::new());
    let user = app.user("u1");
    for how in ["INT", "QUIT"] {
        user.task("before");
        // The pool fills in the background. A failed attempt would make this an outage, which another test covers.
        thread::sleep(Duration::from_millis(500));
        signal(cluster.pid(), how);
        thread::sleep(Duration::from_millis(1200));
        cluster.restart();
        // Every pooled connection is dead. The server notices that before it sends a write.
        user.task("after");
    }
    assert_eq!(user.get("/api/tasks").json()["count"], 4);
}

#[test]
fn when_the_link_falls_silent_requests_are_answered_in_time_and_service_recovers() {
    let direct = fresh_database();
    let proxy = Proxy::to(&postgres::socket_file());
    let app = TestApp::on(&proxy.url(&direct), |_| {}, Vec::new());
    let (user, anonymous) = (app.user("u1"), app.anonymous());
    user.task("before");
    proxy.fall_silent();
    for request in ["GET", "POST"] {
        let began = Instant::now();
        let answer = match request {
            "GET" => user.get("/api/tasks"),
            _ => user.post("/api/tasks", json!({ "title": "never" })),
        };
        answer.expect_error(503, "SERVICE_UNAVAILABLE");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{request}: {:?}",
            began.elapsed()
        );
    }
    anonymous.get("/health").expect(200);
    anonymous.get("/health/ready").expect(503);
    // The delayed writes may still arrive.
    proxy.cut();
    proxy.speak();
    let until = Instant::now() + Duration::from_secs(8);
    while user.get("/api/tasks").status != 200 {
        assert!(
            Instant::now() < until,
            "the server did not use PostgreSQL again"
        );
        thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..10 {
        user.task("after");
    }
    let mut client = ::postgres::Client::connect(&direct, ::postgres::NoTls).unwrap();
    let never: i64 = client
        .query_one("SELECT count(*) FROM todo.tasks WHERE title = 'never'", &[])
        .unwrap()
        .get(0);
    assert!(never <= 1);
}

#[test]
fn when_postgresql_hangs_under_load_requests_are_answered_in_time_and_service_recovers() {
    let cluster = Cluster::start(true);
    let database = cluster.url("todo");
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let (began, refusals) = (Instant::now(), Mutex::new(Vec::new()));
    let done = AtomicBool::new(false);
    let acknowledged = Mutex::new(HashSet::new());
    let stopped = thread::scope(|scope| {
        for writer in 0..16 {
            let (user, refusals, done, acknowledged) =
                (app.user("u1"), &refusals, &done, &acknowledged);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let (sent, title) = (Instant::now(), format!("{writer}-{number}"));
                    let answer = user.post("/api/tasks", json!({ "title": title }));
                    if answer.status == 201 {
                        acknowledged.lock().unwrap().insert(title);
                    } else {
                        answer.expect_error(503, "SERVICE_UNAVAILABLE");
                        refusals
                            .lock()
                            .unwrap()
                            .push((sent - began, sent.elapsed()));
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        // The writers end even if an assertion fails.
        let _done = Done(&done);
        thread::sleep(Duration::from_millis(500));
        cluster.signal_all("STOP");
        let stopped = began.elapsed();
        thread::sleep(Duration::from_secs(9));
        cluster.signal_all("CONT");
        let user = app.user("u1");
        let until = Instant::now() + Duration::from_secs(8);
        while user.get("/api/tasks").status != 200 {
            assert!(Instant::now() < until, "the server did not recover");
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(1500));
        for number in 0..20 {
            user.task(&format!("after {number}"));
        }
        stopped
    });
    let refusals = refusals.into_inner().unwrap();
    assert!(refusals.len() > 100, "{}", refusals.len());
    let slowest = refusals.iter().map(|(_, took)| took).max().unwrap();
    assert!(*slowest < Duration::from_secs(5), "{slowest:?}");
    // Once the server knows of the silence, later requests do not wait. The limit allows for a busy machine.
    let known = stopped + Duration::from_secs(4);
    let late = refusals.iter().filter(|(sent, _)| *sent > known);
    let slowest = late.map(|(_, took)| took).max().unwrap();
    assert!(*slowest < Duration::from_millis(1500), "{slowest:?}");
    assert_exactly_once(&database, &acknowledged.into_inner().unwrap());
}

#[test]
fn connections_that_become_read_only_are_replaced() {
    let database = fresh_database();
    let (head, rest) = database.rsplit_once('/').unwrap();
    let name = rest.split('?').next().unwrap();
    let other = format!("{head}/todo{}", &rest[name.len()..]);
    let read_only = |on| {
        let setting = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
        postgres::sql(&other, &setting);
    };
    // As after a failover behind a proxy: open connections lead to the old primary, which is read-only now; new ones do not.
    read_only("on");
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let user = app.user("u1");
    user.post("/api/tasks", json!({ "title": "t" }))
        .expect_error(503, "SERVICE_UNAVAILABLE");
    user.get("/api/tasks").expect(200);
    read_only("off");
    thread::sleep(Duration::from_millis(1100));
    for _ in 0..12 {
        user.task("the first write is sent again on a new connection");
    }
}

#[test]
fn a_statement_whose_result_type_changed_is_prepared_again() {
    let app = TestApp::start();
    let user = app.user("u1");
    let path = format!("/api/tasks/{}", user.task("t")["id"].as_str().unwrap());
    for _ in 0..8 {
        user.get(&path).expect(200);
    }
    // As a migration of a newer instance may do while this one runs.
    app.sql()
        .batch_execute("ALTER TABLE todo.tasks ALTER COLUMN title TYPE varchar(200)")
        .unwrap();
    for _ in 0..8 {
        user.get(&path).expect(200);
        user.put(&path, json!({ "title": "u" })).expect(200);
    }
}

#[test]
fn a_statement_that_is_no_longer_prepared_is_prepared_again() {
    // After each write the connection has lost its prepared statements, as behind a pooler that runs DISCARD ALL.
    let app = TestApp::on(
        &fresh_database(),
        |settings| settings.database.pool_size = 1,
        Vec::new(),
    );
    let user = app.user("u1");
    user.task("t");
    app.sql()
        .batch_execute(
            "CREATE FUNCTION todo.forget() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN NULL; END $$;
             CREATE TRIGGER forget AFTER INSERT ON todo.tasks EXECUTE FUNCTION todo.forget()",
        )
        .unwrap();
    for _ in 0..5 {
        user.task("t");
        user.get("/api/tasks").expect(200);
    }
}

#[test]
fn a_statement_that_waits_too_long_is_cancelled_and_leaves_no_transaction_open() {
    let adjust = |settings: &mut todo_api::store::StoreSettings| {
        settings.database.lock_timeout = Duration::from_millis(300);
        settings.database.statement_timeout = Duration::from_millis(600);
    };
    let app = TestApp::on(&fresh_database(), adjust, Vec::new());
    let user = app.user("u1");
    let task = user.task("t");
    let lock = Lock::tasks(&app.database);
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    for answer in [
        user.get(&path),
        user.put(&path, json!({ "title": "x" })),
        user.post("/api/tasks", json!({ "title": "x" })),
        user.delete(&path),
    ] {
        answer.expect_error(503, "SERVICE_UNAVAILABLE");
    }
    lock.release();
    assert_eq!(
        user.get("/api/tasks").expect(200).json()["tasks"],
        json!([task]),
        "the statement had no effect"
    );
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'todo-api' AND state LIKE 'idle in transaction%'
                AND datname = current_database()";
    assert_eq!(app.sql().query_one(open, &[]).unwrap().get::<_, i64>(0), 0);

    // A statement that is slow without waiting for a lock.
    app.sql()
        .batch_execute(
            "ALTER TABLE todo.tasks ADD CONSTRAINT slow CHECK (pg_sleep(2) IS NOT NULL) NOT VALID",
        )
        .unwrap();
    let began = Instant::now();
    user.post("/api/tasks", json!({ "title": "slow" }))
        .expect_error(503, "SERVICE_UNAVAILABLE");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(user.get("/api/tasks").json()["count"], 1);
}

#[test]
fn missing_tables_are_reported_differently_from_a_missing_database() {
    let app = TestApp::start();
    app.anonymous().get("/health/ready").expect(200);
    app.sql().batch_execute("DROP SCHEMA todo CASCADE").unwrap();
    let ready = app.anonymous().get("/health/ready").expect(503).json();
    assert_eq!(
        (&ready["checks"]["database"], &ready["checks"]["schema"]),
        (&json!("ready"), &json!("not ready"))
    );
}
