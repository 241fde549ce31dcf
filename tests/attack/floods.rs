//! Too much of everything: heads, connections, requests in a pipe, descriptors.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::fortress::{Fortress, KINDS, Kind, QUIET};
use crate::healthy::watch;
use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address};
use crate::support::wire::{Door, Stream, Wire, bearer, new_task, request};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
const MIB: usize = 1024 * 1024;

/// Writes a start, and then the same piece again and again until the server has had enough or `most` bytes are gone. Gives how
/// many went.
fn pour(door: &Door, start: &[u8], piece: &[u8], most: usize) -> usize {
    let mut wire = door.open().unwrap();
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
        let mut fortress = Fortress::behind(kind, &[]);
        let healthy = watch(&fortress);
        thread::sleep(Duration::from_millis(200));
        fortress.server.forget_peak();
        let before = fortress.server.memory();
        let mut longest = 0;
        for (_, start, piece) in &attacks {
            let gone: Vec<usize> = thread::scope(|scope| {
                let pouring: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| pour(&fortress.door, start, piece, 200 * MIB)))
                    .collect();
                pouring.into_iter().map(|one| one.join().unwrap()).collect()
            });
            longest = longest.max(*gone.iter().max().unwrap());
        }
        let grown = fortress.server.peak_memory().saturating_sub(before) / 1024;
        let seen = healthy.finish();
        println!(
            "heads without end (a field, fields, a target, empty lines; 8 at once), {kind}: of 200 MB the server let {} MB come, \
             {grown} KiB more memory; {seen}",
            longest / MIB
        );
        assert!(grown < 16 * 1024, "{grown} KiB");
        assert!(longest < 100 * MIB, "{longest} bytes of a head were taken");
        fortress.expect_alive_within(100);
        seen.expect_undisturbed();
    }
}

/// Opens connections that do nothing, every other one after it has asked for something; over TLS all of them, since one that makes
/// no handshake is none that idles.
fn idlers(door: &Door, number: usize) -> Vec<Wire> {
    let tls = matches!(door, Door::Tls(..));
    (0..number)
        .map(|number| {
            let mut wire = door.open().unwrap();
            if tls || number % 2 == 0 {
                wire.write(HEALTH).unwrap();
                wire.answer().unwrap().unwrap().expect(200);
            }
            wire
        })
        .collect()
}

#[test]
fn two_thousand_idle_connections_are_borne_or_make_room() {
    for kind in KINDS {
        for (most, allowed) in [(1_000, 128), (2_500, 256)] {
            let most_text = most.to_string();
            let mut fortress = Fortress::behind(kind, &[("MAX_CONNECTIONS", &most_text)]);
            let healthy = watch(&fortress);
            let mut idle = Vec::new();
            for _ in 0..4 {
                idle.extend(idlers(&fortress.door, 500));
                // They have to be idle for a moment before they may be made to go.
                thread::sleep(Duration::from_millis(1_100));
            }
            let seen = healthy.finish();
            let threads = fortress.threads();
            let open = idle
                .iter_mut()
                .filter_map(|wire| (!wire.has_ended()).then_some(()))
                .count();
            println!(
                "2,000 idle connections where {most} may be, {kind}: {open} still open, {threads} threads, {}; {seen}",
                fortress.expect_alive_within(allowed)
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
fn ten_thousand_idle_connections_cost_little() {
    for (number, allowed) in [(900, 12), (9_900, 60)] {
        let mut fortress = Fortress::behind(Kind::Tcp, &[QUIET]);
        let idle = idlers(&fortress.door, number);
        let healthy = watch(&fortress);
        thread::sleep(Duration::from_secs(5));
        let seen = healthy.finish();
        let threads = fortress.threads();
        println!(
            "{number} idle connections: {threads} threads, {}; {seen}",
            fortress.expect_alive_within(allowed)
        );
        assert!(threads <= 40, "{threads}");
        // 5 ms on a machine that does nothing else.
        seen.expect_p99_under(Duration::from_millis(20));
        drop(idle);
    }
}

#[test]
fn more_busy_connections_than_there_may_be_are_refused_cleanly() {
    for kind in [Kind::Tcp, Kind::Unix] {
        let settings = [("HEAD_TIMEOUT", "60"), ("MAX_CONNECTIONS", "1000")];
        let mut fortress = Fortress::behind(kind, &settings);
        let mut busy: Vec<Wire> = Vec::new();
        for _ in 0..1_000 {
            let mut wire = fortress.door.open().unwrap();
            wire.write(b"GET / HTTP/1.1\r\nHo").unwrap();
            busy.push(wire);
        }
        thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let mut refused = 0;
        while began.elapsed() < Duration::from_secs(4) {
            let mut wire = fortress.door.open().unwrap();
            let _ = wire.write(HEALTH);
            let answer = wire.answer().unwrap().unwrap();
            answer.expect_error(503, "SERVICE_UNAVAILABLE");
            assert!(answer.header("Retry-After").is_some());
            wire.expect_silent_end();
            refused += 1;
        }
        // Those who are in, are in.
        for wire in busy.iter_mut().take(20) {
            wire.write(b"st: x\r\n\r\n").unwrap();
            wire.answer().unwrap().unwrap().expect(200);
        }
        println!(
            "1,000 connections busy with half a head, {kind}: {refused} newcomers told to come back, {}",
            fortress.expect_alive_within(128)
        );
        drop(busy);
        wait_until(|| {
            let mut wire = fortress.door.open().unwrap();
            let _ = wire.write(HEALTH);
            wire.answer().unwrap().unwrap().status == 200
        });
    }
}

/// A second handle to write on while another thread reads; TLS has none.
fn writer(wire: &Wire) -> Option<Box<dyn Write + Send>> {
    match &wire.stream {
        Stream::Tcp(stream) => Some(Box::new(stream.try_clone().unwrap())),
        Stream::Unix(stream) => Some(Box::new(stream.try_clone().unwrap())),
        Stream::Tls(_) => None,
    }
}

#[test]
fn a_hundred_thousand_requests_in_one_pipe_are_answered_in_order() {
    const REQUESTS: usize = 100_000;
    let numbered = |number: usize| {
        let id = format!("p{number}");
        // Some are answered by the edge, some by a worker, some have a body that the route does not take.
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
        let mut fortress = Fortress::behind(kind, &[QUIET]);
        let healthy = watch(&fortress);
        let began = Instant::now();
        let mut wire = fortress.door.open().unwrap();
        match writer(&wire) {
            Some(mut writer) => thread::scope(|scope| {
                scope.spawn(move || {
                    for start in (0..REQUESTS).step_by(100) {
                        let batch: Vec<u8> = (start..start + 100).flat_map(numbered).collect();
                        writer.write_all(&batch).unwrap();
                    }
                });
                // First the pipe fills up.
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
            "100,000 requests in one pipe, {kind}: all answered in order in {took:.1} s, {}; {seen}",
            fortress.expect_alive_within(100)
        );
        seen.expect_undisturbed();
    }
}

#[test]
fn descriptors_run_out_and_come_back() {
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
    let door = Door::from(address);
    let token = bearer("u1");
    for _ in 0..3 {
        // Half of them in the middle of a request, so that they do not make room.
        let crowd: Vec<Wire> = (0..600)
            .map(|number| {
                let mut wire = door.open().unwrap();
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
            let mut wire = door.open().unwrap();
            let _ = wire.write(&new_task(&token, "after"));
            matches!(wire.answer(), Ok(Some(answer)) if answer.status == 201)
        });
        println!(
            "600 connections where there are 200 descriptors, TCP: back {:.2} s after they had gone",
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
fn connections_that_come_and_go_leave_nothing_behind() {
    for kind in KINDS {
        let mut fortress = Fortress::behind(kind, &[QUIET]);
        // The first of anything takes memory for good.
        idlers(&fortress.door, 200);
        let descriptors = fortress.server.settled_descriptors();
        let healthy = watch(&fortress);
        fortress.server.forget_peak();
        let began = Instant::now();
        let mut number = 0_usize;
        while began.elapsed() < Duration::from_secs(4) {
            let mut wire = fortress.door.open().unwrap();
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
            // Faster than any client, and not so fast that it is about who gets the processor.
            if number.is_multiple_of(8) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let seen = healthy.finish();
        println!(
            "{number} connections made and dropped within 4 s, {kind}: {}; {seen}",
            fortress.expect_alive_within(100)
        );
        wait_until(|| fortress.server.descriptors() <= descriptors);
        seen.expect_undisturbed();
    }
}
