//! Floods of header bytes, connections, pipelined requests, and descriptors.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::attacked::{AttackedServer, KINDS, Kind, QUIET};
use crate::healthy::watch;
use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address};
use crate::support::wire::{Endpoint, Stream, Wire, bearer, new_task, request};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
const MIB: usize = 1024 * 1024;

/// Writes `start`, then `piece` again and again until the server refuses more or `most` bytes are sent. Returns the number of
/// bytes sent.
fn pour(endpoint: &Endpoint, start: &[u8], piece: &[u8], most: usize) -> usize {
    let mut wire = endpoint.open().unwrap();
    let mut gone = 0;
    let mut next = start;
    while gone < most {
        if wire.write(next).is_err() {
            break;
        }
        gone += next.len();
        next = piece;
    }
    gone
}

#[test]
fn heads_of_200_mb_take_no_memory() {
    let lines = b"X-Line: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000);
    let line = vec![b'y'; 64 * 1024];
    let attacks: [(&str, &[u8], &[u8]); 4] = [
        ("a field", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", &line),
        ("fields", b"GET / HTTP/1.1\r\nHost: x\r\n", &lines),
        ("a target", b"GET /", &line),
        ("empty lines", b"\r\n", &b"\r\n".repeat(32 * 1024)),
    ];
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[]);
        let healthy = watch(&attacked);
        thread::sleep(Duration::from_millis(200));
        attacked.server.forget_peak();
        let before = attacked.server.memory();
        let mut longest = 0;
        for (_, start, piece) in &attacks {
            let gone: Vec<usize> = thread::scope(|scope| {
                let pouring: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| pour(&attacked.endpoint, start, piece, 200 * MIB)))
                    .collect();
                pouring.into_iter().map(|one| one.join().unwrap()).collect()
            });
            longest = longest.max(*gone.iter().max().unwrap());
        }
        let grown = attacked.server.peak_memory().saturating_sub(before) / 1024;
        let seen = healthy.finish();
        println!(
            "heads without end (a field, fields, a target, empty lines; 8 at once), {kind}: the server accepted {} MB of 200 MB, \
             {grown} KiB more memory; {seen}",
            longest / MIB
        );
        assert!(grown < 16 * 1024, "{grown} KiB");
        assert!(
            longest < 100 * MIB,
            "the server accepted {longest} bytes of a head"
        );
        attacked.expect_memory_within(100);
        seen.expect_undisturbed();
    }
}

/// Opens idle connections. Every other one sends a request first; over TLS all do, because a connection without a handshake does
/// not count as idle.
fn idlers(endpoint: &Endpoint, number: usize) -> Vec<Wire> {
    let tls = matches!(endpoint, Endpoint::Tls(..));
    (0..number)
        .map(|number| {
            let mut wire = endpoint.open().unwrap();
            if tls || number % 2 == 0 {
                wire.write(HEALTH).unwrap();
                wire.answer().unwrap().unwrap().expect(200);
            }
            wire
        })
        .collect()
}

#[test]
fn two_thousand_idle_connections_stay_open_or_are_closed_for_new_ones() {
    for kind in KINDS {
        for (most, allowed) in [(1_000, 128), (2_500, 256)] {
            let most_text = most.to_string();
            let mut attacked = AttackedServer::start(kind, &[("MAX_CONNECTIONS", &most_text)]);
            let healthy = watch(&attacked);
            let mut idle = Vec::new();
            for _ in 0..4 {
                idle.extend(idlers(&attacked.endpoint, 500));
                // The server closes only connections that have been idle for a moment.
                thread::sleep(Duration::from_millis(1_100));
            }
            let seen = healthy.finish();
            let threads = attacked.threads();
            let open = idle
                .iter_mut()
                .filter_map(|wire| (!wire.has_ended()).then_some(()))
                .count();
            println!(
                "2,000 idle connections, at most {most} allowed, {kind}: {open} still open, {threads} threads, {}; {seen}",
                attacked.expect_memory_within(allowed)
            );
            if most > 2_000 {
                assert_eq!(open, 2_000);
            } else {
                assert!((most - 20..=most).contains(&open), "{open}");
            }
            seen.expect_undisturbed();
        }
    }
}

#[test]
fn ten_thousand_idle_connections_take_little_memory() {
    for (number, allowed) in [(900, 12), (9_900, 60)] {
        let mut attacked = AttackedServer::start(Kind::Tcp, &[QUIET]);
        let idle = idlers(&attacked.endpoint, number);
        let healthy = watch(&attacked);
        thread::sleep(Duration::from_secs(5));
        let seen = healthy.finish();
        let threads = attacked.threads();
        println!(
            "{number} idle connections: {threads} threads, {}; {seen}",
            attacked.expect_memory_within(allowed)
        );
        assert!(threads <= 40, "{threads}");
        // 5 ms on an idle machine.
        seen.expect_p99_under(Duration::from_millis(20));
        drop(idle);
    }
}

#[test]
fn busy_connections_over_the_limit_are_refused_cleanly() {
    for kind in [Kind::Tcp, Kind::Unix] {
        let settings = [("HEAD_TIMEOUT", "60"), ("MAX_CONNECTIONS", "1000")];
        let mut attacked = AttackedServer::start(kind, &settings);
        let mut busy: Vec<Wire> = Vec::new();
        for _ in 0..1_000 {
            let mut wire = attacked.endpoint.open().unwrap();
            wire.write(b"GET / HTTP/1.1\r\nHo").unwrap();
            busy.push(wire);
        }
        thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let mut refused = 0;
        while began.elapsed() < Duration::from_secs(4) {
            let mut wire = attacked.endpoint.open().unwrap();
            let _ = wire.write(HEALTH);
            let answer = wire.answer().unwrap().unwrap();
            answer.expect_error(503, "SERVICE_UNAVAILABLE");
            assert!(answer.header("Retry-After").is_some());
            wire.expect_silent_end();
            refused += 1;
        }
        // Accepted connections stay open.
        for wire in busy.iter_mut().take(20) {
            wire.write(b"st: x\r\n\r\n").unwrap();
            wire.answer().unwrap().unwrap().expect(200);
        }
        println!(
            "1,000 connections busy with half a head, {kind}: {refused} new ones refused with 503, {}",
            attacked.expect_memory_within(128)
        );
        drop(busy);
        wait_until(|| {
            let mut wire = attacked.endpoint.open().unwrap();
            let _ = wire.write(HEALTH);
            wire.answer().unwrap().unwrap().status == 200
        });
    }
}

/// A second handle for writing while another thread reads. TLS has none.
fn writer(wire: &Wire) -> Option<Box<dyn Write + Send>> {
    match &wire.stream {
        Stream::Tcp(stream) => Some(Box::new(stream.try_clone().unwrap())),
        Stream::Unix(stream) => Some(Box::new(stream.try_clone().unwrap())),
        Stream::Tls(_) => None,
    }
}

#[test]
fn a_hundred_thousand_pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 100_000;
    let numbered = |number: usize| {
        let id = format!("p{number}");
        // The edge answers some, a worker answers others, and some have a body that the route does not use.
        match number % 3 {
            0 => request("GET", "/health", &[("X-Request-ID", &id)], b""),
            1 => request("GET", "/nowhere", &[("X-Request-ID", &id)], b""),
            _ => request("POST", "/", &[("X-Request-ID", &id)], b"a body"),
        }
    };
    let check = |wire: &mut Wire, number: usize| {
        let answer = wire.answer().unwrap().unwrap();
        let id = format!("p{number}");
        assert_eq!(answer.header("X-Request-ID"), Some(id.as_str()));
        assert_eq!(answer.status, [200, 404, 405][number % 3]);
    };
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[QUIET]);
        let healthy = watch(&attacked);
        let began = Instant::now();
        let mut wire = attacked.endpoint.open().unwrap();
        match writer(&wire) {
            Some(mut writer) => thread::scope(|scope| {
                scope.spawn(move || {
                    for start in (0..REQUESTS).step_by(100) {
                        let batch: Vec<u8> = (start..start + 100).flat_map(numbered).collect();
                        writer.write_all(&batch).unwrap();
                    }
                });
                // Fills the pipe first.
                thread::sleep(Duration::from_secs(1));
                (0..REQUESTS).for_each(|number| check(&mut wire, number));
            }),
            None => {
                for start in (0..REQUESTS).step_by(200) {
                    let batch: Vec<u8> = (start..start + 200).flat_map(numbered).collect();
                    wire.write(&batch).unwrap();
                    (start..start + 200).for_each(|number| check(&mut wire, number));
                }
            }
        }
        let took = began.elapsed().as_secs_f64();
        let seen = healthy.finish();
        println!(
            "100,000 pipelined requests, {kind}: all answered in order in {took:.1} s, {}; {seen}",
            attacked.expect_memory_within(100)
        );
        seen.expect_undisturbed();
    }
}

#[test]
fn accepting_resumes_after_descriptors_ran_out() {
    let address = free_address();
    let (listen, database) = (address.to_string(), fresh_database());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", SECRET),
        ("LISTEN", &listen),
    ];
    let command = Process::under_shell("ulimit -n 200", &settings);
    let mut server = Process::spawn(command, address);
    server.wait_for("ready: ");
    let endpoint = Endpoint::from(address);
    let token = bearer("u1");
    for _ in 0..3 {
        // Half of them are in the middle of a request, so the server does not close them.
        let crowd: Vec<Wire> = (0..600)
            .map(|number| {
                let mut wire = endpoint.open().unwrap();
                let _ = wire.write(if number % 2 == 0 {
                    &b"GET / HTT"[..]
                } else {
                    HEALTH
                });
                wire
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        assert!(server.is_alive());
        drop(crowd);
        let began = Instant::now();
        wait_until(|| {
            let mut wire = endpoint.open().unwrap();
            let _ = wire.write(&new_task(&token, "after"));
            matches!(wire.answer(), Ok(Some(answer)) if answer.status == 201)
        });
        println!(
            "600 connections with 200 descriptors, TCP: served again {:.2} s after they were closed",
            began.elapsed().as_secs_f64()
        );
    }
    server.signal("TERM");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    let complaints = log.lines().filter(|line| line.contains("ERROR")).count();
    assert!(complaints < 100, "{complaints} complaints");
}

#[test]
fn opened_and_closed_connections_leave_nothing_behind() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[QUIET]);
        // Warm-up: some memory is allocated once and kept.
        idlers(&attacked.endpoint, 200);
        let descriptors = attacked.server.settled_descriptors();
        let healthy = watch(&attacked);
        attacked.server.forget_peak();
        let began = Instant::now();
        let mut number = 0_usize;
        while began.elapsed() < Duration::from_secs(4) {
            let mut wire = attacked.endpoint.open().unwrap();
            match number % 4 {
                0 => {}
                1 => drop(wire.write(b"GET / HT")),
                2 => drop(wire.write(HEALTH)),
                _ => {
                    let _ =
                        wire.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{");
                }
            }
            number += 1;
            // Fast, but not so fast that the test measures CPU scheduling.
            if number.is_multiple_of(8) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let seen = healthy.finish();
        println!(
            "{number} connections opened and dropped within 4 s, {kind}: {}; {seen}",
            attacked.expect_memory_within(100)
        );
        wait_until(|| attacked.server.descriptors() <= descriptors);
        seen.expect_undisturbed();
    }
}
