//! The start of the server: waiting, messages, failures.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::Actor;
use crate::support::app::SECRET;
use crate::support::hold::{Lock, wait_until};
use crate::support::postgres::{empty_database, fresh_database, socket_file, sql};
use crate::support::process::{Process, command, free_address, run, signal};
use crate::support::proxy::Proxy;

/// A server that starts while another connection holds the lock on the migrations.
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
fn a_start_waits_for_another_instances_migration_until_its_timeout() {
    let (_other, server) = behind_a_migration("1");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("another instance holds the lock") && log.contains("STARTUP_TIMEOUT"),
        "{log}"
    );
}

#[test]
fn todo_api_migrate_waits_until_the_same_timeout_and_says_so() {
    let database = empty_database();
    let mut other = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    other
        .batch_execute("SELECT pg_advisory_lock(hashtext('todo-api migrations'), hashtext('todo'))")
        .unwrap();
    let environment = [
        ("DATABASE_URL", database.as_str()),
        ("STARTUP_TIMEOUT", "1"),
    ];
    let output = run(&["migrate"], &environment);
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("waiting for another instance") && log.contains("holds the lock"),
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

/// A directory that is removed after the test. If the tests run as root, PostgreSQL can enter it as another user.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn sigterm_ends_a_start_that_makes_a_private_postgresql_and_leaves_none_behind() {
    let directory = directory();
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
fn a_database_that_stops_answering_during_the_start_is_tried_again() {
    let database = fresh_database();
    let proxy = Proxy::to(&socket_file());
    // With this lock the query for the schema's version waits until the test releases it.
    let mut lock = Lock::table(&database, "schema_migrations");
    let settings = [
        ("DB_STATEMENT_TIMEOUT", "1"),
        ("DB_LOCK_TIMEOUT", "1"),
        ("STARTUP_TIMEOUT", "60"),
    ];
    let server = Process::start(&proxy.url(&database), &settings);
    lock.wait_for_waiting(1);
    proxy.fall_silent();
    let log = server.wait_for("waiting for the database");
    assert!(log.contains("did not answer in time"), "{log}");
    lock.release();
    proxy.cut();
    proxy.speak();
    server.wait_for("ready: ");
}

#[test]
fn missing_rights_are_named_at_once() {
    let database = fresh_database();
    sql(&database, "CREATE ROLE restricted LOGIN");
    let restricted = database.replacen("todo@", "restricted@", 1);
    let (status, log) = Process::start(&restricted, &[]).wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("permission denied") && log.contains("GRANT"),
        "{log}"
    );
    assert!(!log.contains("waiting for the database"), "{log}");
}

#[test]
fn a_refused_role_or_database_ends_the_start_at_once() {
    let database = fresh_database();
    let restricted = database.replacen("todo@", "unknown_role@", 1);
    let (server, query) = database.rsplit_once('/').unwrap();
    let parameters = query
        .split_once('?')
        .map_or("", |(_, parameters)| parameters);
    let missing = format!("{server}/not_here?{parameters}");
    for (url, state) in [(restricted, "28000"), (missing, "3D000")] {
        let server = Process::start(&url, &[("STARTUP_TIMEOUT", "300")]);
        let (status, log) = server.wait_at_most(Duration::from_secs(60));
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(state) && log.contains("DATABASE_URL"), "{log}");
        assert!(!log.contains("waiting for the database,"), "{log}");
    }
}

#[test]
fn a_taken_port_is_one_line_and_nothing_is_created() {
    let directory = directory();
    let data = directory.path().join("data");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let output = run(
        &["serve"],
        &[("LISTEN", &listen), ("DATA_DIR", data.to_str().unwrap())],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains(&format!("ss -ltnp 'sport = :{port}'")),
        "{log}"
    );
    assert!(!data.exists());
}

#[test]
fn the_server_listens_while_it_makes_its_database() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Process::with_private_postgres(&data, &[("BETTER_AUTH_SECRET", SECRET)]);
    let log = server.wait_for("making a private PostgreSQL");
    assert!(log.contains("listens on"), "{log}");
    server.anonymous().get("/health").expect(200);
    let early = server.anonymous().get("/health/ready").expect(503);
    assert!(early.header("Retry-After").is_some());
    let early = server.user("u1").get("/api/tasks").expect(503);
    assert!(early.header("Retry-After").is_some());
    server.wait_for("ready: ");
    server.user("u1").get("/api/tasks").expect(200);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!data.join("postgres/postmaster.pid").exists());
}

#[test]
fn the_name_of_the_schema_may_be_a_reserved_word() {
    let server = Process::serve(&empty_database(), &[("DB_SCHEMA", "user")]);
    server.user("u1").task("t");
    server.anonymous().get("/health/ready").expect(200);
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
    let mut lock = Lock::tasks(&database);
    let stuck = thread::spawn(move || user.try_send("GET", "/api/tasks", &[], None));
    lock.wait_for_waiting(1);
    server.signal("TERM");
    server.wait_for("finishing requests in flight");
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

/// Starts a server, and returns it with the example commands that it has printed.
fn start_and_read_commands(environment: &[(&str, &str)]) -> (Child, String) {
    let mut child = command(environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while printed.matches("curl ").count() < 2 {
        assert!(stdout.read_line(&mut printed).unwrap() > 0, "{printed}");
    }
    (child, printed)
}

#[test]
fn the_printed_commands_work_in_a_shell() {
    let directory = directory();
    let data = directory.path().join("it's my data");
    let address = free_address();
    let listen = address.to_string();
    let environment = [("DATA_DIR", data.to_str().unwrap()), ("LISTEN", &listen)];
    let (mut child, printed) = start_and_read_commands(&environment);
    assert!(printed.contains(&format!("todo-api is at http://{listen}")));
    assert!(!printed.contains("BETTER_AUTH_SECRET"), "{printed}");
    let export = printed
        .lines()
        .find(|line| line.contains("export TOKEN="))
        .unwrap();
    let shell = Command::new("sh")
        .args(["-c", &format!("{export}; echo \"$TOKEN\"")])
        .output()
        .unwrap();
    let token = String::from_utf8(shell.stdout).unwrap();
    let user = Actor::with_token(address, token.trim_end());
    user.post("/api/tasks", json!({ "title": "Buy milk" }))
        .expect(201);
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!data.join("postgres/postmaster.pid").exists());
}

#[test]
fn the_printed_commands_name_the_secret_they_need() {
    let directory = directory();
    let data = directory.path().join("data");
    let listen = free_address().to_string();
    let environment = [
        ("DATA_DIR", data.to_str().unwrap()),
        ("LISTEN", &listen),
        ("BETTER_AUTH_SECRET", SECRET),
    ];
    let (mut child, printed) = start_and_read_commands(&environment);
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    child.wait().unwrap();
    assert!(
        printed.contains("after setting BETTER_AUTH_SECRET there") && !printed.contains(SECRET),
        "{printed}"
    );
}

#[test]
fn a_closed_standard_output_does_not_end_the_server() {
    let directory = directory();
    let data = directory.path().join("data");
    let listen = free_address().to_string();
    let environment = [("DATA_DIR", data.to_str().unwrap()), ("LISTEN", &listen)];
    let mut child = command(&environment)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ready = || run(&["healthcheck", "--ready"], &[("LISTEN", &listen)]).status;
    wait_until(|| ready().success());
    // The server now prints its example commands.
    thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it has ended");
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn sighup_stops_a_server_in_a_terminal_and_no_other() {
    let database = fresh_database();
    let service = Process::serve(&database, &[]);
    service.signal("HUP");
    let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
    let stdin = std::fs::File::open(name.to_str().unwrap()).unwrap();
    let listen = free_address().to_string();
    let environment = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", SECRET),
        ("LISTEN", &listen),
    ];
    let mut child = command(&environment)
        .stdin(stdin)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = || run(&["healthcheck", "--ready"], &[("LISTEN", &listen)]).status;
    wait_until(|| ready().success());
    signal(i32::try_from(child.id()).unwrap(), "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    service.anonymous().get("/health").expect(200);
}
