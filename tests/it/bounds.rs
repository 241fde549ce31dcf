//! Limits on size and number: each is exact to the byte, and a request over a limit does not affect other clients.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Answer;
use crate::support::hold::{Lock, PATIENT, large_list, wait_until};
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address};
use crate::support::requests::code;
use crate::support::wire::{Endpoint, Wire, bearer, request};

const MIB: u64 = 1024 * 1024;

/// A GET whose head has this many bytes, with the empty line at its end.
fn head_of(bytes: usize) -> Vec<u8> {
    let start = "GET /health HTTP/1.1\r\nHost: x\r\nX-Padding: ";
    let padding = "p".repeat(bytes - start.len() - 4);
    format!("{start}{padding}\r\n\r\n").into_bytes()
}

/// A GET with this many header fields.
fn fields(number: usize) -> Vec<u8> {
    let more = "X: y\r\n".repeat(number - 1);
    format!("GET /health HTTP/1.1\r\nHost: x\r\n{more}\r\n").into_bytes()
}

/// A GET whose target has this many bytes.
fn target_of(bytes: usize) -> Vec<u8> {
    request("GET", &format!("/{}", "t".repeat(bytes - 1)), &[], b"")
}

/// JSON of this many bytes that makes a task.
fn body_of(bytes: usize) -> Vec<u8> {
    let start = r#"{"title":"large","padding":""#;
    format!("{start}{}\"}}", "p".repeat(bytes - start.len() - 2)).into_bytes()
}

fn post(authorization: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{framing}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn with_length(authorization: &str, body: &[u8]) -> Vec<u8> {
    let framing = format!("Content-Length: {}", body.len());
    post(authorization, &framing, body)
}

fn in_chunks(authorization: &str, body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for piece in body.chunks(60_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunks.extend_from_slice(piece);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    post(authorization, "Transfer-Encoding: chunked", &chunks)
}

/// Sends on a connection of its own. The server may refuse before it has read everything.
#[track_caller]
fn ask(server: &Process, bytes: &[u8]) -> Answer {
    let mut wire = Endpoint::from(server.address).open().unwrap();
    let _ = wire.write(bytes);
    let answer = wire.answer().unwrap().unwrap();
    if answer.status >= 400 && answer.header("Connection") == Some("close") {
        wire.expect_silent_end();
    }
    answer
}

#[track_caller]
fn expect_refusal(answer: &Answer, status: u16) {
    answer.expect_error(status, code(status));
    assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
    if status == 503 {
        let after: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
        assert!(after >= 1);
    }
}

#[test]
fn a_head_request_is_refused_without_content() {
    let server = Process::serve(&fresh_database(), &[]);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
        ("HEAD * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("\r\nHEAD / HTTP/2.1\r\nHost: x\r\n\r\n", 505),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
            413,
        ),
        ("HEAD / HTTP/1.1\r\nHost: x\r\nExpect: luck\r\n\r\n", 417),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
        ),
    ] {
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(request.as_bytes()).unwrap();
        let answer = wire.answer_to_head().unwrap().unwrap();
        assert_eq!(answer.status, status, "{request:?} {answer:?}");
        assert_ne!(answer.header("Content-Length"), Some("0"), "{answer:?}");
        wire.expect_silent_end();
    }
}

/// Asserts that these are the limits, exact to the byte.
#[track_caller]
fn expect_limits(server: &Process, head: usize, number: usize, target: usize, body: usize) {
    let token = bearer("u1");
    for (of, limit, served, refused) in [
        (&head_of as &dyn Fn(usize) -> Vec<u8>, head, 200, 431),
        (&fields, number, 200, 431),
        (&target_of, target, 404, 414),
        (&|size| with_length(&token, &body_of(size)), body, 201, 413),
        (&|size| in_chunks(&token, &body_of(size)), body, 201, 413),
    ] {
        let answer = ask(server, &of(limit)).expect(served);
        assert_eq!(answer.header("Connection"), None, "{answer:?}");
        expect_refusal(&ask(server, &of(limit + 1)), refused);
    }
}

#[test]
fn sizes_are_refused_from_the_first_byte_over_the_limit() {
    let server = Process::serve(&fresh_database(), &[]);
    expect_limits(&server, 16_384, 64, 4_096, 1_048_576);
}

#[test]
fn size_limits_are_settings() {
    let settings = [
        ("MAX_HEAD_BYTES", "2048"),
        ("MAX_HEADERS", "10"),
        ("MAX_PATH_BYTES", "256"),
        ("MAX_BODY_BYTES", "2000"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    expect_limits(&server, 2_048, 10, 256, 2_000);
}

#[test]
fn endless_heads_and_bodies_are_refused_before_they_end() {
    let server = Process::serve(&fresh_database(), &[]);
    let endless = [
        (
            431,
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX-Endless: {}",
                "e".repeat(17_000)
            ),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X: y\r\n".repeat(3_000)),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "x".repeat(17_000)),
        ),
        (414, format!("GET /{}", "t".repeat(17_000))),
    ];
    for (status, bytes) in endless {
        let began = Instant::now();
        expect_refusal(&ask(&server, bytes.as_bytes()), status);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // No setting names these limits; the test checks only that they exist.
    let token = bearer("u1");
    for (framing, bytes) in [
        ("Transfer-Encoding: chunked", "0".repeat(100_000)),
        (
            "Transfer-Encoding: chunked",
            format!("1;{}", "x".repeat(1_200_000)),
        ),
        (
            "Transfer-Encoding: chunked",
            format!("0\r\n{}", "X: y\r\n".repeat(200_000)),
        ),
        (
            "Transfer-Encoding: chunked",
            format!("0\r\nX: {}", "y".repeat(1_200_000)),
        ),
    ] {
        let began = Instant::now();
        let answer = ask(&server, &post(&token, framing, bytes.as_bytes()));
        assert!(matches!(answer.status, 400 | 413 | 431), "{answer:?}");
        expect_refusal(&answer, answer.status);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_huge_content_length_takes_no_memory() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = bearer("u1");
    ask(&server, &with_length(&token, &body_of(100)));
    server.forget_peak();
    let before = server.memory();
    for length in [
        1_000_000_000_000,
        1_000_000_000_000_000,
        1 << 63,
        u128::from(u64::MAX),
        u128::from(u64::MAX) + 1,
        u128::MAX,
    ] {
        let framing = format!("Content-Length: {length}");
        for (expect, body) in [
            ("", &b""[..]),
            ("", b"x"),
            ("\r\nExpect: 100-continue", b""),
        ] {
            let bytes = post(&token, &format!("{framing}{expect}"), body);
            for _ in 0..4 {
                expect_refusal(&ask(&server, &bytes), 413);
            }
        }
    }
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 10 * MIB, "{grown} bytes");
    server.anonymous().get("/health").expect(200);
}

#[test]
fn parallel_logins_keep_the_memory_of_one_hash_for_each_thread() {
    let server = Process::serve(&fresh_database(), &[]);
    let before = server.memory();
    Login::register(server.address, "a@example.org");
    thread::scope(|scope| {
        for _ in 0..10 {
            // On a busy machine some are refused, because they waited too long.
            scope.spawn(|| try_log_in(server.address, "a@example.org", PASSWORD));
        }
    });
    let cores = thread::available_parallelism().unwrap().get() as u64;
    let allowed = 19 * MIB * 1.max(cores / 2) + 16 * MIB;
    let grown = server.memory().saturating_sub(before);
    assert!(grown < allowed, "{grown} bytes");
}

/// An open connection that has sent one request.
fn idle(server: &Process) -> Wire {
    let mut wire = Endpoint::from(server.address).open().unwrap();
    wire.write(&request("GET", "/health", &[], b"")).unwrap();
    wire.answer().unwrap().unwrap().expect(200);
    wire
}

#[test]
fn idle_connections_are_closed_for_new_ones() {
    let server = Process::serve(&fresh_database(), &[("MAX_CONNECTIONS", "8")]);
    let mut kept: Vec<Wire> = (0..8).map(|_| idle(&server)).collect();
    // Connections that were served a moment ago stay open, and a new one is answered 503.
    let mut early = Endpoint::from(server.address).open().unwrap();
    early.write(&request("GET", "/health", &[], b"")).unwrap();
    early.answer().unwrap().unwrap().expect(503);
    assert!(kept.iter_mut().all(|wire| !wire.has_ended()));
    // Three times as many as fit: every new connection is served, and every old one is closed without an answer.
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1_100));
        kept.extend((0..8).map(|_| idle(&server)));
    }
    thread::sleep(Duration::from_millis(100));
    let open: Vec<bool> = kept.iter_mut().map(|wire| !wire.has_ended()).collect();
    let number = open.iter().filter(|open| **open).count();
    assert!((1..=8).contains(&number), "{open:?}");
    // The newest connections are closed last.
    assert!(open[31], "{open:?}");
}

#[test]
fn busy_connections_over_the_limit_are_503_with_retry_after() {
    let database = fresh_database();
    let mut settings = vec![
        ("MAX_CONNECTIONS", "8"),
        ("WORKERS", "2"),
        ("QUEUE_TIMEOUT", "60"),
    ];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let mut lock = Lock::tasks(&database);
    let mut busy: Vec<Wire> = (0..2)
        .map(|_| {
            let mut wire = Endpoint::from(server.address).open().unwrap();
            wire.write(&list).unwrap();
            wire
        })
        .collect();
    lock.wait_for_waiting(2);
    // These connections are in the middle of a request and have received an interim response.
    let body = body_of(100);
    let framing = "Content-Length: 100\r\nExpect: 100-continue";
    let mut senders: Vec<Wire> = (0..6)
        .map(|_| {
            let mut wire = Endpoint::from(server.address).open().unwrap();
            wire.write(&post(&token, framing, b"")).unwrap();
            wire.answer().unwrap().unwrap().expect(100);
            wire
        })
        .collect();
    let descriptors = server.descriptors();
    for _ in 0..20 {
        expect_refusal(&ask(&server, &list), 503);
    }
    // Also a client that sends nothing, and a client that sends a large body.
    let mut silent = Endpoint::from(server.address).open().unwrap();
    expect_refusal(&silent.answer().unwrap().unwrap(), 503);
    silent.expect_silent_end();
    expect_refusal(
        &ask(&server, &with_length(&token, &body_of(1_000_000))),
        503,
    );
    wait_until(|| server.descriptors() <= descriptors);
    lock.release();
    for wire in &mut busy {
        wire.answer().unwrap().unwrap().expect(200);
    }
    for wire in &mut senders {
        wire.write(&body).unwrap();
        wire.answer().unwrap().unwrap().expect(201);
    }
    thread::sleep(Duration::from_millis(1_100));
    ask(&server, &list).expect(200);
}

#[test]
fn one_address_has_a_limited_number_of_connections() {
    // Connections from loopback are not counted, so this uses another address of the machine.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = probe
        .connect("198.51.100.1:9")
        .and_then(|()| probe.local_addr());
    let Some(own) = own
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback())
    else {
        eprintln!("skipped: this machine has loopback only");
        return;
    };
    let port = free_address().port();
    let address = std::net::SocketAddr::new(own, port);
    let (listen, local) = (address.to_string(), free_address());
    let listen = format!("{listen},{local}");
    let settings = [
        ("LISTEN", listen.as_str()),
        ("ENVIRONMENT", "development"),
        ("MAX_CONNECTIONS_PER_IP", "4"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    let connect = |endpoint: &Endpoint| {
        let mut wire = endpoint.open().unwrap();
        // Half a head: the server does not close a connection in the middle of a request for a new one.
        wire.write(b"GET /health HTTP/1.1\r\n").unwrap();
        wire
    };
    let mut held: Vec<Wire> = (0..4).map(|_| connect(&address.into())).collect();
    for _ in 0..3 {
        let mut refused = Endpoint::from(address).open().unwrap();
        let _ = refused.write(&request("GET", "/health", &[], b""));
        expect_refusal(&refused.answer().unwrap().unwrap(), 503);
    }
    // Other addresses are not affected.
    let _local: Vec<Wire> = (0..8).map(|_| connect(&local.into())).collect();
    Endpoint::from(local)
        .ask(&request("GET", "/health", &[], b""))
        .expect(200);
    // When one closes, another can connect.
    drop(held.pop());
    let again = || {
        let mut wire = Endpoint::from(address).open().unwrap();
        let _ = wire.write(&request("GET", "/health", &[("Connection", "close")], b""));
        wire.answer().unwrap().unwrap().status
    };
    wait_until(|| again() == 200);
    drop(server);
}

#[test]
fn bodies_in_flight_have_a_common_limit() {
    let settings = [("MAX_BODIES_BYTES", "3145728"), ("BODY_TIMEOUT", "60")];
    let server = Process::serve(&fresh_database(), &settings);
    let token = bearer("u1");
    let whole = with_length(&token, &body_of(1_000_000));
    let (most, last) = whole.split_at(whole.len() - 1);
    // One after the other begins to send, until one is refused for lack of memory.
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 8, "all of them were accepted");
        let mut wire = Endpoint::from(server.address).open().unwrap();
        let _ = wire.write(most);
        wire.patience(Duration::from_millis(400)).unwrap();
        match wire.answer() {
            Ok(answer) => break answer.unwrap(),
            Err(_) => held.push(wire),
        }
    };
    expect_refusal(&refused, 503);
    assert!(held.len() >= 2, "only {} were accepted", held.len());
    // Small bodies are still accepted.
    server.user("u2").task("small");
    for wire in &mut held {
        wire.write(last).unwrap();
        wire.patience(Duration::from_secs(20)).unwrap();
        wire.answer().unwrap().unwrap().expect(201);
    }
    // All memory is given back.
    for _ in 0..4 {
        ask(&server, &whole).expect(201);
    }
}

#[test]
fn unsent_answers_have_a_common_limit() {
    let database = fresh_database();
    large_list(&database, "u1");
    let server = Process::serve(&database, &[("MAX_ANSWERS_BYTES", "12582912")]);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let mut readers: Vec<Wire> = (0..5)
        .map(|_| {
            let mut wire = Endpoint::from(server.address).open_narrow().unwrap();
            wire.write(&list).unwrap();
            wire
        })
        .collect();
    // Before all lists are in flight, some must have been refused; small answers are still sent.
    let mut statuses = Vec::new();
    server.user("u2").task("small");
    thread::sleep(Duration::from_millis(1500));
    server.user("u2").get("/api/tasks").expect(200);
    for wire in &mut readers {
        wire.widen();
        let answer = wire.answer().unwrap().unwrap();
        match answer.status {
            200 => assert_eq!(answer.json()["count"], 1000),
            _ => drop(answer.expect_error(503, "SERVICE_UNAVAILABLE")),
        }
        statuses.push(answer.status);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&503),
        "{statuses:?}"
    );
    let mut again = Endpoint::from(server.address).open().unwrap();
    again.write(&list).unwrap();
    again.answer().unwrap().unwrap().expect(200);
}

#[test]
fn the_soft_limit_on_descriptors_is_raised() {
    let address = free_address();
    let (listen, database) = (address.to_string(), fresh_database());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", crate::support::app::SECRET),
        ("LISTEN", &listen),
    ];
    // Only the soft limit is low, as on most systems.
    let command = Process::under_shell("ulimit -S -n 128", &settings);
    let server = Process::spawn(command, address);
    server.wait_for("ready: ");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = line.split_whitespace().collect();
    assert_ne!(numbers[3], "128", "{line}");
}

/// Sets the limit on descriptors of a running process, below its hard limit.
fn limit_descriptors(server: &Process, most: usize) {
    let status = std::process::Command::new("prlimit")
        .args([
            "--pid",
            &server.pid().to_string(),
            &format!("--nofile={most}:"),
        ])
        .status()
        .expect("prlimit, which is part of util-linux");
    assert!(status.success());
}

#[test]
fn accepting_resumes_when_descriptors_are_free_again() {
    let mut server = Process::serve(&fresh_database(), &[]);
    server.user("u1").task("before");
    for round in 0..2 {
        limit_descriptors(&server, server.settled_descriptors());
        // The kernel completes these connections; the program cannot accept them.
        let waiting: Vec<Wire> = (0..20)
            .map(|_| {
                let mut wire = Endpoint::from(server.address).open().unwrap();
                wire.write(&request("GET", "/health", &[], b"")).unwrap();
                wire
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        assert!(server.is_alive());
        limit_descriptors(&server, 1000);
        if round == 0 {
            // The waiting connections are served.
            for mut wire in waiting {
                wire.answer().unwrap().unwrap().expect(200);
            }
        } else {
            // Skips connections that have been closed.
            drop(waiting);
        }
        server.user("u1").task("after");
    }
    let log = {
        server.signal("TERM");
        server.wait_at_most(Duration::from_secs(15)).1
    };
    let complaints = log
        .lines()
        .filter(|line| line.contains("Too many open files"));
    assert!(
        (1..200).contains(&complaints.count()),
        "logged, but not at every attempt:\n{log}"
    );
}

#[test]
fn the_server_works_with_few_descriptors() {
    let address = free_address();
    let (listen, database) = (address.to_string(), fresh_database());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", crate::support::app::SECRET),
        ("LISTEN", &listen),
        ("WORKERS", "2"),
        ("DB_POOL_SIZE", "2"),
    ];
    let command = Process::under_shell("ulimit -n 64", &settings);
    let mut server = Process::spawn(command, address);
    server.wait_for("ready: ");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    assert!(
        limits
            .lines()
            .any(|line| line.starts_with("Max open files") && line.contains(" 64 ")),
        "{limits}"
    );
    let mut crowd = Vec::new();
    for _ in 0..150 {
        let mut wire = Endpoint::from(address).open().unwrap();
        let _ = wire.write(&request("GET", "/health", &[], b""));
        crowd.push(wire);
    }
    thread::sleep(Duration::from_millis(300));
    assert!(server.is_alive());
    drop(crowd);
    let healthy = || {
        server
            .anonymous()
            .try_send("GET", "/health", &[], None)
            .is_ok_and(|answer| answer.status == 200)
    };
    wait_until(healthy);
    // Connections to the database may have failed too.
    let user = server.user("u1");
    wait_until(|| {
        user.post("/api/tasks", serde_json::json!({ "title": "after" }))
            .status
            == 201
    });
}

#[test]
fn memory_for_passwords_is_returned_after_logins() {
    let server = Process::serve(&fresh_database(), &[]);
    Login::register(server.address, "me@example.org");
    for round in 1..=3 {
        try_log_in(server.address, "me@example.org", PASSWORD).expect(200);
        let while_kept = server.memory();
        let until = Instant::now() + Duration::from_secs(5);
        while server.memory() + 15 * MIB > while_kept {
            assert!(Instant::now() < until, "login {round}: {while_kept} bytes");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
