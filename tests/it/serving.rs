//! The server process: starting, stopping, listening, logging.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::hold::{Lock, wait_until};
use crate::support::http::Connection;
use crate::support::postgres::{empty_database, fresh_database, sql};
use crate::support::process::{Process, free_address, run, signal};

#[test]
fn sigterm_and_sigint_finish_requests_in_flight_and_exit_0() {
    for name in ["TERM", "INT"] {
        let database = fresh_database();
        let server = Process::serve(
            &database,
            &[("DB_LOCK_TIMEOUT", "8"), ("DB_STATEMENT_TIMEOUT", "9")],
        );
        let user = server.user("u1");
        let task = user.task("t");
        let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
        // The statement waits until the test releases the lock.
        let mut lock = Lock::tasks(&database);
        let in_flight = {
            let (user, path) = (user.clone(), path.clone());
            thread::spawn(move || user.patch(&path, json!({ "title": "in flight" })))
        };
        lock.wait_for_waiting(1);
        server.signal(name);
        server.wait_for("finishing requests in flight");
        wait_until(|| user.try_send("GET", "/health", &[], None).is_err());
        lock.release();
        let answer = in_flight.join().unwrap().expect(200);
        assert_eq!(answer.json()["title"], "in flight");
        assert_eq!(answer.header("Connection"), Some("close"));
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.ends_with("stopped"), "{log}");
    }
}

#[test]
fn a_stop_ends_within_its_timeout() {
    let database = fresh_database();
    let settings = [
        ("SHUTDOWN_TIMEOUT", "0.5"),
        ("DB_LOCK_TIMEOUT", "30"),
        ("DB_STATEMENT_TIMEOUT", "30"),
    ];
    let server = Process::serve(&database, &settings);
    let user = server.user("u1");
    user.task("t");
    let mut lock = Lock::tasks(&database);
    let stuck = thread::spawn(move || user.try_send("GET", "/api/tasks", &[], None));
    lock.wait_for_waiting(1);
    let began = Instant::now();
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("did not finish within 0.5 s"), "{log}");
    assert!(stuck.join().unwrap().is_err());
}

#[test]
fn a_unix_socket_serves_like_a_port() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("todo.sock");
    let listen = format!("unix:{}", socket.display());
    let database = fresh_database();
    // The socket file of a crashed server is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let server = Process::serve(&database, &[("LISTEN", &listen)]);
    let mut stream = UnixStream::connect(&socket).unwrap();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let health = run(&["healthcheck", "--ready"], &[("LISTEN", &listen)]);
    assert!(health.status.success(), "{health:?}");

    let second = Process::start(&database, &[("LISTEN", &listen)]);
    let (status, log) = second.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("another program listens there"), "{log}");
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!socket.exists(), "the server removes its socket");
}

#[test]
fn a_file_that_is_not_a_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("notes.txt");
    std::fs::write(&file, "important").unwrap();
    let listen = format!("unix:{}", file.display());
    let environment = [("LISTEN", listen.as_str()), ("STARTUP_TIMEOUT", "0.1")];
    let (status, log) = Process::start("postgresql://u@127.0.0.1:1/x", &environment).wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("no socket") && log.contains(&listen), "{log}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "important");
}

#[test]
fn several_addresses_are_served_at_once() {
    let (one, two) = (free_address(), free_address());
    let listen = format!("{one},{two}");
    let server = Process::serve(&fresh_database(), &[("LISTEN", &listen)]);
    for address in [one, two] {
        crate::support::http::send(address, "GET", "/health", &[], None).expect(200);
    }
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn an_address_that_is_taken_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (status, log) = Process::start(&fresh_database(), &[("LISTEN", &listen)]).wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        log.contains(&format!("cannot listen on http://{listen}")),
        "{log}"
    );
}

#[test]
fn the_first_answer_comes_soon_after_the_start() {
    let database = fresh_database();
    let server = Process::start(&database, &[]);
    let began = Instant::now();
    wait_until(|| {
        server
            .anonymous()
            .try_send("GET", "/health", &[], None)
            .is_ok()
    });
    wait_until(|| server.user("u1").get("/api/tasks").status == 200);
    // The limit allows for a debug build on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn http_1_0_and_keep_alive_are_supported() {
    let server = Process::serve(&fresh_database(), &[]);
    let mut connection = Connection::open(server.address).unwrap();
    for _ in 0..3 {
        connection.send("GET", "/health", &[], None).unwrap();
        assert_eq!(
            connection
                .receive(false)
                .unwrap()
                .expect(200)
                .header("Connection"),
            None
        );
    }
    connection
        .send("GET", "/health", &[("Connection", "close")], None)
        .unwrap();
    assert_eq!(
        connection.receive(false).unwrap().header("Connection"),
        Some("close")
    );
    assert!(connection.is_closed());

    let mut old = Connection::open(server.address).unwrap();
    old.write(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .unwrap();
    assert_eq!(
        old.receive(false).unwrap().header("Connection"),
        Some("keep-alive")
    );
    old.write(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(
        old.receive(false).unwrap().header("Connection"),
        Some("close")
    );
    assert!(old.is_closed());
}

#[test]
fn the_log_has_one_line_a_request_and_nothing_secret() {
    let server = Process::serve(&fresh_database(), &[]);
    let user = server.user("u\"1\u{2028}");
    user.send(
        "POST",
        "/api/tasks",
        &[("X-Request-ID", "r-1")],
        Some(b"{\"title\":\"a private matter\"}"),
    )
    .expect(201);
    // A log line is written after the answer, so the test waits for it before the next request.
    let mut log = server.wait_for("route=/api/tasks status=201");
    user.send("GET", "/api/other/tasks", &[("X-Request-ID", "r-2")], None)
        .expect(403);
    log.push_str(&server.wait_for("route=/api/{user_id}/tasks status=403"));
    let forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0";
    let other_program = crate::support::Actor::with_token(server.address, forged);
    other_program
        .send(
            "GET",
            "/api/tasks?limit=1",
            &[("X-Request-ID", "r-3")],
            None,
        )
        .expect(401);
    log.push_str(&server.wait_for("route=/api/tasks status=401"));
    let line = |id: &str, what: &str| {
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("request_id={id}")) && line.contains(what))
            .collect();
        assert_eq!(lines.len(), 1, "{id} {what}: {log}");
        lines[0].to_owned()
    };
    let access = line("r-1", "access:");
    for part in [
        "method=POST",
        "route=/api/tasks ",
        "status=201",
        "duration_ms=",
        "bytes=",
        r#"user="u\"1\u{2028}""#,
        "client=127.0.0.1",
    ] {
        assert!(access.contains(part), "{part}: {access}");
    }
    assert!(line("r-2", "authorization violation").contains("WARN"));
    line("r-2", "route=/api/{user_id}/tasks status=403");
    let refused = line("r-3", "authentication failed");
    assert!(
        refused.contains("WARN") && refused.contains("client=127.0.0.1"),
        "{refused}"
    );
    for secret in [
        forged,
        "c2VjcmV0",
        "private matter",
        crate::support::app::SECRET,
        "eyJ",
        "limit=",
    ] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn no_log_level_shows_the_contents_of_a_task() {
    for filters in [
        "debug",
        "trace,tokio_postgres::query=trace",
        "tokio_postgres=trace,todo_api=info",
    ] {
        let server = Process::serve(&fresh_database(), &[("RUST_LOG", filters)]);
        server.user("u1").task("a private matter");
        let log = server.wait_for("status=201");
        assert!(!log.contains("a private matter"), "{log}");
    }
}

#[test]
fn a_filter_for_the_program_does_not_silence_the_access_log() {
    for setting in [("RUST_LOG", "todo_api=debug"), ("LOG_LEVEL", "info")] {
        let server = Process::serve(&fresh_database(), &[setting]);
        server.anonymous().get("/").expect(200);
        server.wait_for(" INFO  access: method=GET route=/ status=200");
    }
}

#[test]
fn the_database_may_start_later() {
    let (late, listen) = (free_address(), free_address());
    let url = format!("postgresql://todo:hunter2hunter2@{late}/nothing");
    let listen = listen.to_string();
    let server = Process::start(&url, &[("STARTUP_TIMEOUT", "3"), ("LISTEN", &listen)]);
    server.wait_for("waiting for the database");
    let address = listen.parse().unwrap();
    let ask = |target| crate::support::http::send(address, "GET", target, &[], None);
    ask("/health").expect(200);
    let ready = ask("/health/ready").expect(503);
    assert_eq!(ready.json()["checks"]["database"], "not ready");
    assert!(ready.header("Retry-After").is_some());
    let user = crate::support::Actor::user(address, "u1");
    let answer = user.get("/api/tasks");
    answer.expect_error(503, "SERVICE_UNAVAILABLE");
    assert!(answer.header("Retry-After").is_some());
    let health = run(&["healthcheck", "--ready"], &[("LISTEN", &listen)]);
    assert_eq!(health.status.code(), Some(1));
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("could not be reached within 3 s") && log.contains("check DATABASE_URL"),
        "{log}"
    );
    assert!(
        log.matches("waiting for the database").count() >= 1,
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn tables_of_other_programs_are_left_alone() {
    let database = empty_database();
    sql(
        &database,
        "CREATE TABLE users (x int); CREATE TABLE tasks (y int); INSERT INTO tasks VALUES (7)",
    );
    Process::serve(&database, &[("DB_SCHEMA", "my_todo")])
        .user("u1")
        .task("t");
    let mut client = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    assert_eq!(
        client
            .query_one("SELECT y FROM public.tasks", &[])
            .unwrap()
            .get::<_, i32>(0),
        7
    );
    assert_eq!(
        client
            .query_one("SELECT count(*) FROM my_todo.tasks", &[])
            .unwrap()
            .get::<_, i64>(0),
        1
    );
}

#[test]
fn a_database_in_another_encoding_is_refused() {
    let database = empty_database();
    sql(
        &database,
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    let (head, tail) = database.rsplit_once('/').unwrap();
    let latin = format!(
        "{head}/latin{}",
        tail.find('?').map_or("", |at| &tail[at..])
    );
    let (status, log) = Process::start(&latin, &[]).wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("LATIN1") && log.contains("ENCODING 'UTF8'"),
        "{log}"
    );
}

#[test]
fn a_write_that_a_killed_server_acknowledged_exists_exactly_once() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let acknowledged = crate::outages::write_until_dead(&server, 8, || {
        thread::sleep(Duration::from_millis(700));
        signal(server.pid(), "KILL");
    });
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    crate::outages::assert_exactly_once(&database, &acknowledged);
}

#[test]
fn the_log_can_be_json() {
    let server = Process::serve(&fresh_database(), &[("LOG_FORMAT", "json")]);
    let odd = "u\"1\n";
    let headers = [
        ("X-Request-ID", "log-in-json"),
        ("Authorization", odd.trim()),
    ];
    server
        .anonymous()
        .send("GET", "/api/tasks?secret=hunter2", &headers, None)
        .expect(401);
    let mut lines = server.wait_for("\"logger\":\"access\"");
    while !lines.contains("log-in-json") || !lines.contains("\"status\":401") {
        lines.push_str(&server.wait_for("\"logger\":\"access\""));
    }
    assert!(!lines.contains("hunter2"));
    let events: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for event in &events {
        assert!(
            event["timestamp"].as_str().unwrap().ends_with('Z') && event["level"].is_string(),
            "{event}"
        );
    }
    let of_request = |logger: &str| {
        events
            .iter()
            .find(|event| event["logger"] == logger && event["request_id"] == "log-in-json")
            .unwrap()
    };
    let access = of_request("access");
    assert_eq!(
        (&access["method"], &access["route"], &access["status"]),
        (&"GET".into(), &"/api/tasks".into(), &401.into())
    );
    assert!(
        access["duration_ms"].is_number() && access["client"] == "127.0.0.1",
        "{access}"
    );
    assert!(
        of_request("todo_api")["message"]
            .as_str()
            .unwrap()
            .starts_with("authentication failed")
    );
}
