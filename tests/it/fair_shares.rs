//! One user or address cannot use up a global budget: answers, bodies, workers, the hashing queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::hold::{Lock, PATIENT, large_list};
use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::wire::{Endpoint, Wire, bearer, new_task, request};

/// Sends a request for a list and returns the connection. The answer is not read.
fn unread_list(endpoint: &Endpoint, user: &str, limit: u32) -> Wire {
    let token = bearer(user);
    let target = format!("/api/tasks?limit={limit}");
    let mut wire = endpoint.open_narrow().unwrap();
    wire.write(&request("GET", &target, &[("Authorization", &token)], b""))
        .unwrap();
    wire
}

#[test]
fn slow_readers_of_one_user_leave_room_for_the_answers_of_another() {
    let database = fresh_database();
    large_list(&database, "slow");
    large_list(&database, "other");
    let server = Process::serve(&database, &[]);
    let endpoint = Endpoint::from(server.address);
    let stop = AtomicBool::new(false);
    let readers: Vec<Wire> = (0..9)
        .map(|_| unread_list(&endpoint, "slow", 900))
        .collect();
    thread::scope(|scope| {
        for mut wire in readers {
            let stop = &stop;
            scope.spawn(move || {
                let mut buffer = [0; 3200];
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::io::Read::read(&mut wire.stream, &mut buffer);
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
        thread::sleep(Duration::from_millis(1500));
        let other = server.user("other");
        let statuses: Vec<u16> = (0..30)
            .map(|_| other.get("/api/tasks?limit=5").status)
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
}

#[test]
fn when_answer_memory_is_short_the_slowest_reader_of_the_largest_user_is_dropped() {
    let database = fresh_database();
    for user in ["first", "second", "third"] {
        large_list(&database, user);
    }
    // Memory for two lists of 8 MB: one each for two users, and none for the third.
    let server = Process::serve(&database, &[("MAX_ANSWERS_BYTES", "16900000")]);
    let endpoint = Endpoint::from(server.address);
    let mut first = unread_list(&endpoint, "first", 1000);
    let _second = unread_list(&endpoint, "second", 1000);
    thread::sleep(Duration::from_millis(1500));
    // The first user has read a lot, the second nothing.
    let mut read = 0;
    first.widen();
    while read < 2_000_000 {
        let mut buffer = [0; 65_536];
        read += std::io::Read::read(&mut first.stream, &mut buffer).unwrap();
    }
    let third = server.user("third");
    for _ in 0..5 {
        third.get("/api/tasks?limit=100").expect(200);
    }
    while read < 8_000_000 {
        let mut buffer = [0; 65_536];
        let more = std::io::Read::read(&mut first.stream, &mut buffer).unwrap();
        assert!(more > 0, "the faster reader was dropped after {read} bytes");
        read += more;
    }
}

#[test]
fn slow_bodies_of_one_address_leave_room_for_another() {
    let settings = [("MAX_BODIES_BYTES", "33554432"), ("BODY_TIMEOUT", "60")];
    let server = Process::serve(&fresh_database(), &settings);
    let token = bearer("u1");
    let from = |address: &str| {
        format!(
            "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Forwarded-For: {address}\r\nContent-Length: 900000\r\n\r\n"
        )
    };
    let body = format!(
        r#"{{"title":"t","padding":"{}"}}"#,
        "p".repeat(900_000 - 26)
    );
    assert_eq!(body.len(), 900_000);
    let held: Vec<Wire> = (0..45)
        .map(|_| {
            let mut wire = Endpoint::from(server.address).open().unwrap();
            let _ = wire.write(from("192.0.2.1").as_bytes());
            let _ = wire.write(&body.as_bytes()[..899_999]);
            wire
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    for _ in 0..5 {
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(from("192.0.2.2").as_bytes()).unwrap();
        let _ = wire.write(body.as_bytes());
        wire.answer().unwrap().unwrap().expect(201);
    }
    drop(held);
}

#[test]
fn requests_of_one_user_that_wait_for_a_lock_leave_workers_for_another() {
    let database = fresh_database();
    let mut settings = vec![("WORKERS", "4"), ("QUEUE_TIMEOUT", "1")];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let (one, other) = (server.user("one"), server.user("other"));
    // Both users are known to the server, so the budget is shared from the first request on.
    let id = one.task("held")["id"].as_str().unwrap().to_owned();
    other.task("mine");
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    sql.batch_execute("BEGIN; SELECT 1 FROM todo.tasks FOR UPDATE")
        .unwrap();
    let patch = |endpoint: &Endpoint| {
        let token = bearer("one");
        let headers = [
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
        ];
        let mut wire = endpoint.open().unwrap();
        wire.write(&request(
            "PATCH",
            &format!("/api/tasks/{id}"),
            &headers,
            b"{\"title\":\"x\"}",
        ))
        .unwrap();
        wire
    };
    let endpoint = Endpoint::from(server.address);
    let mut flood: Vec<Wire> = (0..40).map(|_| patch(&endpoint)).collect();
    thread::sleep(Duration::from_millis(300));
    for _ in 0..50 {
        let began = Instant::now();
        other.get("/api/tasks").expect(200);
        endpoint
            .ask(&new_task(&bearer("other"), "more"))
            .expect(201);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }
    // Longer than `QUEUE_TIMEOUT` from the first request of the flood.
    thread::sleep(Duration::from_millis(1_500));
    sql.batch_execute("COMMIT").unwrap();
    // The user's other requests wait in the queue and are refused at its deadline.
    let statuses: Vec<u16> = flood
        .iter_mut()
        .map(|wire| wire.answer().unwrap().unwrap().status)
        .collect();
    assert!(
        statuses.contains(&200) && statuses.contains(&503),
        "{statuses:?}"
    );
}

#[test]
fn a_user_alone_has_all_workers() {
    let database = fresh_database();
    let mut settings = vec![("WORKERS", "4")];
    settings.extend(PATIENT);
    let server = Process::serve(&database, &settings);
    let mut lock = Lock::tasks(&database);
    let endpoint = Endpoint::from(server.address);
    let _wires: Vec<Wire> = (0..4).map(|_| unread_list(&endpoint, "alone", 5)).collect();
    lock.wait_for_waiting(4);
    lock.release();
}

#[test]
fn logins_of_one_address_do_not_delay_the_login_of_another() {
    let database = fresh_database();
    let settings = [
        ("RATE_LIMIT_ANON_PER_HOUR", "0"),
        ("LOGIN_FAILURES_PER_IP", "0"),
        ("LOGIN_FAILURES_PER_ACCOUNT", "0"),
    ];
    let server = Process::serve(&database, &settings);
    let login = |address: &str| {
        let headers = [
            ("X-Forwarded-For", address),
            ("Content-Type", "application/json"),
        ];
        let body = br#"{"email":"none@example.com","password":"not the password"}"#;
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(&request("POST", "/api/auth/login", &headers, body))
            .unwrap();
        wire
    };
    let flood: Vec<Wire> = (0..150).map(|_| login("192.0.2.1")).collect();
    thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    let answer = login("192.0.2.2").answer().unwrap().unwrap();
    assert!(answer.status == 401, "{answer:?}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    drop(flood);
}
