//! Deadlines: slow clients are disconnected, and no other client waits for them.

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Actor;
use crate::support::hold::{Lock, PATIENT, large_list, wait_until};
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address};
use crate::support::proxy::Proxy;
use crate::support::tls::Certificate;
use crate::support::wire::{
    Endpoint, Wire, bearer, fill_with_interim_responses, new_task, new_task_with_id, request,
};

/// Allowed delay after a deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

fn open(server: &Process) -> Wire {
    Endpoint::from(server.address).open().unwrap()
}

/// Asserts that the connection is answered 408 and closed when `deadline` has passed since `began`.
#[track_caller]
fn expect_timeout(mut wire: Wire, began: Instant, deadline: Duration) {
    let answer = wire.answer().unwrap().unwrap();
    let took = began.elapsed();
    answer.expect_error(408, "REQUEST_TIMEOUT");
    assert_eq!(answer.header("Connection"), Some("close"));
    wire.expect_silent_end();
    assert!(took >= deadline && took < deadline + SLACK, "{took:?}");
}

/// Writes single bytes with a pause before each, until the server closes the connection.
fn drip(wire: &mut Wire, bytes: &[u8], pause: Duration, until: Instant) {
    for byte in bytes {
        if Instant::now() > until || wire.write(&[*byte]).is_err() {
            break;
        }
        thread::sleep(pause);
    }
}

#[test]
fn a_head_or_body_that_is_incomplete_at_its_deadline_is_408() {
    let settings = [("HEAD_TIMEOUT", "1"), ("BODY_TIMEOUT", "1")];
    let server = Process::serve(&fresh_database(), &settings);
    let endpoint = Endpoint::from(server.address);
    let deadline = Duration::from_secs(1);
    let token = bearer("u1");
    let whole = new_task(&token, "slow");
    let head = whole.len() - r#"{"title":"slow"}"#.len();
    // The client stops sending: in the request line, in a field, before the last line, in the body. The time starts with the
    // first byte.
    let mut stops = vec![1, 3, 30, head - 2, head - 1, head, whole.len() - 1];
    stops.sort_unstable();
    thread::scope(|scope| {
        for stop in stops {
            let (endpoint, whole) = (&endpoint, &whole);
            scope.spawn(move || {
                let mut wire = endpoint.open().unwrap();
                let began = Instant::now();
                wire.write(&whole[..stop]).unwrap();
                expect_timeout(wire, began, deadline);
            });
        }
        // A few bytes do not extend a deadline: of a head, a body, chunks.
        let chunked = format!(
            "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for (at_once, dripping) in [
            (
                Vec::new(),
                format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(1000)).into_bytes(),
            ),
            (whole[..head].to_vec(), b"{\"title\":\"slow\"}".to_vec()),
            (chunked.into_bytes(), b"1\r\n{\r\n".repeat(1000)),
        ] {
            let endpoint = &endpoint;
            scope.spawn(move || {
                let mut wire = endpoint.open().unwrap();
                let began = Instant::now();
                wire.write(&at_once).unwrap();
                drip(
                    &mut wire,
                    &dripping,
                    Duration::from_millis(100),
                    began + Duration::from_millis(1300),
                );
                expect_timeout(wire, began, Duration::ZERO);
            });
        }
        // The same on a connection that has been used before.
        scope.spawn(|| {
            let mut wire = endpoint.open().unwrap();
            wire.write(HEALTH).unwrap();
            wire.answer().unwrap().unwrap().expect(200);
            let began = Instant::now();
            wire.write(b"GET /hea").unwrap();
            expect_timeout(wire, began, deadline);
        });
        // Slow, but in time: the body has its own deadline.
        scope.spawn(|| {
            let mut wire = endpoint.open().unwrap();
            for piece in whole.chunks(whole.len() / 6 + 1) {
                wire.write(piece).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
            wire.answer().unwrap().unwrap().expect(201);
        });
    });
    let list = server.user("u1").get("/api/tasks").expect(200).json();
    assert_eq!(list["count"], 1);
}

#[test]
fn an_idle_connection_is_closed_without_an_answer_and_a_used_one_stays_open() {
    let server = Process::serve(&fresh_database(), &[("KEEP_ALIVE_TIMEOUT", "1")]);
    let endpoint = Endpoint::from(server.address);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = endpoint.open().unwrap();
            wire.write(HEALTH).unwrap();
            wire.answer().unwrap().unwrap().expect(200);
            let began = Instant::now();
            wire.expect_silent_end();
            let took = began.elapsed();
            assert!(
                took > Duration::from_millis(900) && took < SLACK,
                "{took:?}"
            );
        });
        // A connection that never sends anything is idle from the start.
        scope.spawn(|| {
            let began = Instant::now();
            endpoint.open().unwrap().expect_silent_end();
            assert!(began.elapsed() < Duration::from_secs(12));
        });
        // The time starts at the end of an answer.
        scope.spawn(|| {
            let mut wire = endpoint.open().unwrap();
            for _ in 0..5 {
                wire.write(HEALTH).unwrap();
                wire.answer().unwrap().unwrap().expect(200);
                thread::sleep(Duration::from_millis(300));
            }
        });
    });
}

#[test]
fn many_more_slow_clients_than_workers_delay_no_other_client() {
    let database = fresh_database();
    large_list(&database, "u1");
    let server = Process::serve(&database, &[("WORKERS", "2")]);
    let token = bearer("u1");
    let authorization = [("Authorization", token.as_str())];
    let list = request("GET", "/api/tasks", &authorization, b"");
    let mut held: Vec<Wire> = Vec::new();
    for number in 0..60 {
        let mut wire = match number % 6 {
            5 => Endpoint::from(server.address).open_narrow().unwrap(),
            _ => open(&server),
        };
        let start: &[u8] = match number % 6 {
            0 => b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{\"t",
            1 => b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n{\"t",
            2 => b"GET / HTTP/1.1\r\nHo",
            3 => b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nContent-Length: 5000\r\n\r\n{\"t",
            4 => b"",
            // Clients that do not read; only a few, because each list is 8 MB.
            _ if number < 24 => &list,
            _ => HEALTH,
        };
        wire.write(start).unwrap();
        held.push(wire);
    }
    let healthy = server.user("u2");
    let began = Instant::now();
    for _ in 0..20 {
        let one = Instant::now();
        let task = healthy.task("healthy");
        healthy
            .get(&format!("/api/tasks/{}", task["id"].as_str().unwrap()))
            .expect(200);
        assert!(
            one.elapsed() < Duration::from_secs(3),
            "{:?}",
            one.elapsed()
        );
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(held);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_disconnected() {
    let database = fresh_database();
    large_list(&database, "u1");
    let server = Process::serve(&database, &[("SEND_TIMEOUT", "1"), ("WORKERS", "1")]);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let descriptors = server.settled_descriptors();
    let mut stalled = Endpoint::from(server.address).open_narrow().unwrap();
    stalled.write(&list).unwrap();
    // The only worker is free.
    wait_until(|| server.descriptors() > descriptors);
    server.user("u2").task("meanwhile");
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    wait_until(|| server.descriptors() <= descriptors);
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    // The client can read what the kernel had buffered, which is not the whole answer.
    stalled.widen();
    let mut read = 0;
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match stalled.stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(some) => read += some,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(read < 8_000_000, "{read} bytes");
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_the_whole_answer() {
    let database = fresh_database();
    large_list(&database, "u1");
    let server = Process::serve(&database, &[("SEND_TIMEOUT", "0.6")]);
    let token = bearer("u1");
    let mut wire = Endpoint::from(server.address).open_narrow().unwrap();
    wire.write(&request(
        "GET",
        "/api/tasks",
        &[("Authorization", &token), ("Connection", "close")],
        b"",
    ))
    .unwrap();
    // Longer than the deadline in total, but never that long without a byte.
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let began = Instant::now();
    loop {
        if began.elapsed() < Duration::from_millis(1300) {
            thread::sleep(Duration::from_millis(50));
        } else {
            wire.widen();
        }
        match wire.stream.read(&mut buffer).unwrap() {
            0 => break,
            read => received.extend_from_slice(&buffer[..read]),
        }
    }
    assert!(received.len() > 8_000_000, "{} bytes", received.len());
    assert!(received.ends_with(b"}"));
}

#[test]
fn a_request_that_no_worker_takes_in_time_is_503_while_health_is_answered() {
    let database = fresh_database();
    let mut settings = vec![
        ("WORKERS", "2"),
        ("QUEUE_TIMEOUT", "0.5"),
        ("SELF_CHECK_SECONDS", "0"),
        ("ENVIRONMENT", "production"),
    ];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let mut lock = Lock::tasks(&database);
    let mut stuck: Vec<Wire> = (0..2)
        .map(|_| {
            let mut wire = open(&server);
            wire.write(&list).unwrap();
            wire
        })
        .collect();
    lock.wait_for_waiting(2);
    let mut wires: Vec<Wire> = (0..8).map(|_| open(&server)).collect();
    let began = Instant::now();
    for wire in &mut wires {
        wire.write(&list).unwrap();
    }
    // `/health` needs no worker and no database.
    let mut health = open(&server);
    for method in ["GET", "HEAD"] {
        let asked = Instant::now();
        health.write(&request(method, "/health", &[], b"")).unwrap();
        let answer = match method {
            "GET" => health.answer(),
            _ => health.answer_to_head(),
        };
        let answer = answer.unwrap().unwrap().expect(200);
        assert_eq!(answer.header("Server"), Some("todo-api"));
        assert!(
            asked.elapsed() < Duration::from_millis(400),
            "{:?}",
            asked.elapsed()
        );
    }
    for wire in &mut wires {
        let answer = wire.answer().unwrap().unwrap();
        answer.expect_error(503, "SERVICE_UNAVAILABLE");
        assert!(answer.header("Retry-After").is_some());
        // Only the log has the reason.
        assert_eq!(answer.json()["error"]["details"], serde_json::json!([]));
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(450) && took < SLACK,
        "{took:?}"
    );
    lock.release();
    for wire in &mut stuck {
        wire.answer().unwrap().unwrap().expect(200);
    }
    // The refused requests were not done, and the workers are free.
    let list = server.user("u1").get("/api/tasks").expect(200);
    assert_eq!(list.json()["count"], 0);
}

#[test]
fn while_a_single_clients_request_waits_other_clients_and_deadlines_are_served() {
    let database = fresh_database();
    let mut settings = vec![("HEAD_TIMEOUT", "1"), ("SELF_CHECK_SECONDS", "0")];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let (mut single, mut health) = (open(&server), open(&server));
    for wait in [Duration::ZERO, Duration::from_secs(2)] {
        for _ in 0..50 {
            single.write(&list).unwrap();
            single.answer().unwrap().unwrap().expect(200);
        }
        let mut lock = Lock::tasks(&database);
        single.write(&list).unwrap();
        lock.wait_for_waiting(1);
        thread::sleep(wait);
        let mut slow = open(&server);
        let began = Instant::now();
        slow.write(b"GET /").unwrap();
        for _ in 0..20 {
            let asked = Instant::now();
            health.write(HEALTH).unwrap();
            health.answer().unwrap().unwrap().expect(200);
            let time = asked.elapsed();
            assert!(time < Duration::from_millis(400), "{time:?}");
        }
        let mut second = open(&server);
        second.write(&list).unwrap();
        lock.wait_for_waiting(2);
        expect_timeout(slow, began, Duration::from_secs(1));
        lock.release();
        for wire in [&mut single, &mut second] {
            wire.answer().unwrap().unwrap().expect(200);
        }
    }
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn a_deadline_missed_by_the_next_request_waits_for_the_answer_before_it() {
    let database = fresh_database();
    let mut settings = Vec::from(PATIENT);
    settings.push(("HEAD_TIMEOUT", "0.3"));
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let mut lock = Lock::tasks(&database);
    let mut wire = open(&server);
    let first = new_task(&token, "answered late");
    wire.write(&[&first, &b"GET / HTT"[..]].concat()).unwrap();
    lock.wait_for_waiting(1);
    thread::sleep(Duration::from_millis(800));
    lock.release();
    wire.answer().unwrap().unwrap().expect(201);
    let late = wire.answer().unwrap().unwrap();
    late.expect_error(408, "REQUEST_TIMEOUT");
    wire.expect_silent_end();
}

#[test]
fn a_request_that_timed_out_in_the_queue_is_not_done_later() {
    let database = fresh_database();
    let mut settings = vec![("WORKERS", "1"), ("QUEUE_TIMEOUT", "0.3")];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let mut lock = Lock::tasks(&database);
    let mut stuck = open(&server);
    stuck.write(&new_task_with_id(&token, "stuck")).unwrap();
    lock.wait_for_waiting(1);
    let mut wire = open(&server);
    wire.write(&new_task_with_id(&token, "given up")).unwrap();
    let answer = wire.answer().unwrap().unwrap();
    answer.expect_error(503, "SERVICE_UNAVAILABLE");
    lock.release();
    stuck.answer().unwrap().unwrap().expect(201);
    let list = server.user("u1").get("/api/tasks").expect(200).json();
    assert_eq!(list["count"], 1, "{list}");
    assert_eq!(list["tasks"][0]["title"], "stuck");
}

#[test]
fn a_server_whose_workers_are_stuck_exits_so_that_it_is_restarted() {
    let database = fresh_database();
    let mut settings = vec![("WORKERS", "2"), ("SELF_CHECK_SECONDS", "0.3")];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let mut lock = Lock::tasks(&database);
    // One user cannot use the worker that is reserved for others.
    let _stuck: Vec<Wire> = ["u1", "u2", "u3"]
        .into_iter()
        .map(|user| {
            let mut wire = open(&server);
            wire.write(&new_task_with_id(&bearer(user), "stuck"))
                .unwrap();
            wire
        })
        .collect();
    lock.wait_for_waiting(3);
    let (status, log) = server.wait_at_most(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("has not answered itself"), "{log}");
}

#[test]
fn a_busy_server_and_a_server_without_its_database_keep_running() {
    let proxy = Proxy::to(&crate::support::postgres::socket_file());
    let database = proxy.url(&fresh_database());
    let settings = [
        ("WORKERS", "2"),
        ("SELF_CHECK_SECONDS", "0.4"),
        ("MAX_CONNECTIONS", "6"),
        ("HEAD_TIMEOUT", "30"),
        ("DB_STATEMENT_TIMEOUT", "0.2"),
        ("DB_POOL_TIMEOUT", "0.1"),
        ("DB_CONNECT_TIMEOUT", "0.2"),
    ];
    let mut server = Process::serve(&database, &settings);
    // All connections are used by clients in the middle of a request. The self-check has a connection of its own.
    let held: Vec<Wire> = (0..6)
        .map(|_| {
            let mut wire = open(&server);
            wire.write(b"GET /health HTTP/1.1\r\n").unwrap();
            wire
        })
        .collect();
    thread::sleep(Duration::from_millis(1700));
    assert!(server.is_alive());
    drop(held);
    wait_until(|| {
        server
            .anonymous()
            .try_send("GET", "/health", &[], None)
            .is_ok_and(|answer| answer.status == 200)
    });
    // Every worker waits for a silent database.
    proxy.fall_silent();
    let until = Instant::now() + Duration::from_millis(2200);
    thread::scope(|scope| {
        for _ in 0..4 {
            let user = server.user("u1");
            scope.spawn(move || {
                while Instant::now() < until {
                    let _ = user.try_send("GET", "/api/tasks", &[], None);
                }
            });
        }
    });
    assert!(server.is_alive());
    proxy.speak();
    wait_until(|| server.user("u1").get("/api/tasks").status == 200);
    server.signal("TERM");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_request_for_which_no_database_connection_becomes_free_is_503_in_time() {
    let database = fresh_database();
    let mut settings = vec![
        ("WORKERS", "4"),
        ("DB_POOL_SIZE", "1"),
        ("DB_POOL_TIMEOUT", "0.5"),
    ];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let user = server.user("u1");
    // A look-up of a token is not held back while the connections are in use.
    let unknown = Actor::with_token(server.address, format!("todo_{:043}", 0));
    let mut lock = Lock::tasks(&database);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| user.get("/api/tasks"));
        lock.wait_for_waiting(1);
        let began = Instant::now();
        unknown.get("/api/tasks").expect(503);
        let limit = Duration::from_millis(500);
        assert!((limit..limit + SLACK).contains(&began.elapsed()));
        lock.release();
        waiting.join().unwrap().expect(200);
    });
    server.wait_for("no database connection became free within 500 ms");
}

#[test]
fn an_interim_response_to_a_client_that_does_not_read_has_a_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("todo.sock");
    let listen = format!("unix:{}", socket.display());
    let settings = [("LISTEN", listen.as_str()), ("SEND_TIMEOUT", "1")];
    let server = Process::serve(&fresh_database(), &settings);
    let endpoint = Endpoint::Unix(socket);
    let descriptors = server.settled_descriptors();
    // The number of answers before decides whether an interim response or an answer finds the buffer full.
    let held: Vec<Wire> = thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|before| {
                let endpoint = &endpoint;
                scope.spawn(move || {
                    let mut wire = endpoint.open().unwrap();
                    fill_with_interim_responses(&mut wire, before);
                    wire
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    // The clients keep their connections open; the server closes them.
    wait_until(|| server.descriptors() <= descriptors);
    drop(held);
}

#[test]
fn an_answer_over_tls_to_a_client_that_does_not_read_has_a_deadline() {
    let certificate = Certificate::make();
    let settings = certificate.settings();
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let settings = [settings.to_vec(), vec![("SEND_TIMEOUT", "1")]].concat();
    let database = fresh_database();
    large_list(&database, "u1");
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let descriptors = server.settled_descriptors();
    let endpoint = Endpoint::Tls(server.address, certificate.client());
    let mut stalled = endpoint.open_narrow().unwrap();
    stalled
        .write(&request(
            "GET",
            "/api/tasks",
            &[("Authorization", &token)],
            b"",
        ))
        .unwrap();
    wait_until(|| server.descriptors() > descriptors);
    wait_until(|| server.descriptors() <= descriptors);
    drop(stalled);
}

#[test]
fn an_answer_of_tiny_http_itself_to_a_client_that_does_not_read_has_a_deadline() {
    let database = fresh_database();
    large_list(&database, "u1");
    let direct = free_address();
    let listen = format!("direct:{direct}");
    let settings = [
        ("LISTEN", listen.as_str()),
        ("SEND_TIMEOUT", "1"),
        ("WORKERS", "1"),
    ];
    let _server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
    let mut stalled = Endpoint::from(direct).open_narrow().unwrap();
    stalled.write(&list).unwrap();
    let began = Instant::now();
    // The first client occupies the only worker until its deadline.
    Endpoint::from(direct)
        .ask(&new_task(&bearer("u2"), "after"))
        .expect(201);
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    drop(stalled);
}
