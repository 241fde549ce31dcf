//! A start that has to wait, and what ends it.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::postgres::{empty_database, fresh_database, socket_file};
use crate::support::process::Process;
use crate::support::proxy::Proxy;

/// A server that starts while somebody else holds the lock on the migrations.
fn behind_a_migration(startup_timeout: &str) -> (postgres::Client, Process) {
    let database = empty_database();
    let mut other = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    other
        .batch_execute("SELECT pg_advisory_lock(hashtext('todo-api migrations'), hashtext('todo'))")
        .unwrap();
    let server = Process::start(&database, &[("STARTUP_TIMEOUT", startup_timeout)]);
    server.wait_for("waiting for another instance to finish its migrations");
    (other, server)
}

#[test]
fn a_start_waits_for_another_instances_migration() {
    let (other, server) = behind_a_migration("60");
    server.anonymous().get("/health").expect(200);
    drop(other);
    server.wait_for("ready: ");
    server.user("u1").task("t");
}

#[test]
fn a_start_does_not_wait_for_another_instances_migration_for_ever() {
    let (_other, server) = behind_a_migration("1");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("another instance holds the lock") && log.contains("STARTUP_TIMEOUT"),
        "{log}"
    );
}

#[test]
fn sigterm_and_sigint_end_a_start_that_waits_for_another_instances_migration() {
    for name in ["TERM", "INT"] {
        let (_other, server) = behind_a_migration("60");
        let began = Instant::now();
        server.signal(name);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.ends_with("stopped"), "{log}");
        assert!(began.elapsed() < Duration::from_secs(5), "{log}");
    }
}

#[test]
fn sigterm_ends_a_start_that_makes_a_private_postgresql_and_leaves_none_behind() {
    let directory = tempfile::tempdir().unwrap();
    // PostgreSQL runs as another user where the tests run as root, and must get in.
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let data = directory.path().join("data");
    let server = Process::with_private_postgres(&data, &[]);
    server.wait_for("making a private PostgreSQL");
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("as soon as it has started") && log.ends_with("stopped"),
        "{log}"
    );
    assert!(!data.join("postgres/postmaster.pid").exists());
}

#[test]
fn a_link_that_falls_silent_during_the_start_is_tried_again() {
    let database = fresh_database();
    let proxy = Proxy::to(&socket_file());
    let mut other = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let mut lock = other.transaction().unwrap();
    // Behind this lock the question for the schema's version is under way for as long as we like.
    lock.batch_execute("LOCK TABLE todo.refinery_schema_history IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let settings = [
        ("DB_STATEMENT_TIMEOUT", "1"),
        ("DB_LOCK_TIMEOUT", "1"),
        ("STARTUP_TIMEOUT", "60"),
    ];
    let server = Process::start(&proxy.url(&database), &settings);
    crate::serving::wait_until(|| crate::serving::waiting_statements(&database) > 0);
    proxy.fall_silent();
    let log = server.wait_for("waiting for the database");
    assert!(log.contains("did not answer in time"), "{log}");
    lock.rollback().unwrap();
    proxy.cut();
    proxy.speak();
    server.wait_for("ready: ");
}

#[test]
fn a_second_sigterm_ends_the_server_at_once() {
    let database = fresh_database();
    let settings = [
        ("SHUTDOWN_TIMEOUT", "60"),
        ("DB_LOCK_TIMEOUT", "60"),
        ("DB_STATEMENT_TIMEOUT", "60"),
    ];
    let server = Process::serve(&database, &settings);
    let user = server.user("u1");
    user.task("t");
    let mut other = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("LOCK TABLE todo.tasks IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let stuck = thread::spawn(move || user.try_send("GET", "/api/tasks", &[], None));
    crate::serving::wait_until(|| crate::serving::waiting_statements(&database) > 0);
    server.signal("TERM");
    server.wait_for("finishing what is in flight");
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    server.signal("INT");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.ends_with("SIGINT received again: ending at once"),
        "{log}"
    );
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(stuck.join().unwrap().is_err());
}
