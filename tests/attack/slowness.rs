//! Slow heads, slow bodies, slow readers: each from 300 connections, on each kind of listener, while a healthy client measures.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::attacked::{AttackedServer, KINDS, Kind};
use crate::healthy::watch;
use crate::support::hold::large_list;
use crate::support::wire::{Endpoint, Wire, bearer, request};

const CROWD: usize = 300;
const WHILE: Duration = Duration::from_secs(6);

/// Opens [`CROWD`] connections that have all sent `start`.
fn crowd(endpoint: &Endpoint, start: &[u8]) -> Vec<Wire> {
    (0..CROWD)
        .map(|_| {
            let mut wire = endpoint.open().unwrap();
            wire.write(start).unwrap();
            wire
        })
        .collect()
}

/// Writes one byte on each connection, twice a second. Returns how many connections the server has not closed.
fn drip(crowd: &mut [Wire], byte: &[u8]) -> usize {
    let began = Instant::now();
    let mut left = crowd.len();
    while began.elapsed() < WHILE {
        thread::sleep(Duration::from_millis(500));
        left = crowd
            .iter_mut()
            .filter_map(|wire| wire.write(byte).ok())
            .count();
    }
    left
}

/// Sends slowly on [`CROWD`] connections, and prints the results.
fn send_slowly(what: &str, kind: Kind, start: &[u8], byte: &[u8]) {
    let mut attacked = AttackedServer::start(kind, &[]);
    let healthy = watch(&attacked);
    let mut crowd = crowd(&attacked.endpoint, start);
    let left = drip(&mut crowd, byte);
    let seen = healthy.finish();
    println!(
        "{what} from {CROWD} connections, {kind}: {left} still open, {}; {seen}",
        attacked.expect_memory_within(128)
    );
    seen.expect_undisturbed();
}

#[test]
fn slow_heads_delay_no_other_client() {
    for kind in KINDS {
        send_slowly(
            "slow heads",
            kind,
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            b"s",
        );
    }
}

#[test]
fn slow_bodies_delay_no_other_client() {
    let lengths =
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{\"title\":\"";
    let chunks = b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{\"title\":\"";
    let upgrade = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9999\r\n\r\n";
    for kind in KINDS {
        send_slowly("slow bodies", kind, lengths, b"s");
    }
    send_slowly("slow chunks", Kind::Tcp, chunks, b"s");
    send_slowly("slow bodies behind an upgrade", Kind::Tcp, upgrade, b"s");
}

/// Requests a list of 8 MB, waits until the answer has begun, and stops reading. Returns the status.
fn ask_and_stall(wire: &mut Wire, list: &[u8]) -> String {
    wire.write(list).unwrap();
    let mut start = [0; 64];
    let mut read = 0;
    while read < 12 {
        read += wire.stream.read(&mut start[read..]).unwrap();
    }
    String::from_utf8_lossy(&start[9..12]).into_owned()
}

#[test]
fn slow_readers_delay_no_other_client() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[]);
        large_list(&attacked.database, "large");
        let token = bearer("large");
        let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
        let healthy = watch(&attacked);
        // One after the other, so that the reading is slow and not the writing of 300 times 8 MB of JSON.
        let mut stalled = Vec::new();
        let (mut served, mut refused) = (0, 0);
        for _ in 0..CROWD {
            let mut wire = attacked.endpoint.open_narrow().unwrap();
            match ask_and_stall(&mut wire, &list).as_str() {
                "200" => served += 1,
                "503" => refused += 1,
                other => panic!("{other}"),
            }
            stalled.push(wire);
        }
        thread::sleep(WHILE);
        let seen = healthy.finish();
        println!(
            "slow readers of 8 MB from {CROWD} connections, {kind}: {served} have an answer waiting, {refused} were refused with \
             back, {}; {seen}",
            attacked.expect_memory_within(450)
        );
        assert!(served >= 4 && refused > 0, "{served} {refused}");
        seen.expect_undisturbed();
        // When the clients disconnect, their memory is freed.
        drop(stalled);
        let mut wire = attacked.endpoint.open().unwrap();
        wire.write(&list).unwrap();
        assert_eq!(
            wire.answer().unwrap().unwrap().expect(200).json()["count"],
            1000
        );
    }
}

#[test]
fn all_kinds_of_slow_clients_together_delay_no_other_client() {
    let mut attacked = AttackedServer::start(Kind::Tcp, &[]);
    large_list(&attacked.database, "large");
    let token = bearer("large");
    let list = request(
        "GET",
        "/api/tasks?limit=500",
        &[("Authorization", &token)],
        b"",
    );
    let healthy = watch(&attacked);
    let endpoint = &attacked.endpoint;
    let mut heads = crowd(endpoint, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let mut bodies = crowd(
        endpoint,
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
    );
    let mut readers = Vec::new();
    for _ in 0..CROWD {
        let mut wire = endpoint.open_narrow().unwrap();
        ask_and_stall(&mut wire, &list);
        readers.push(wire);
    }
    let left = thread::scope(|scope| {
        let heads = scope.spawn(|| drip(&mut heads, b"s"));
        let bodies = scope.spawn(|| drip(&mut bodies, b"s"));
        heads.join().unwrap() + bodies.join().unwrap()
    });
    let seen = healthy.finish();
    println!(
        "slow heads, bodies and readers, {CROWD} each at once, TCP: {left} senders still at it, {}; {seen}",
        attacked.expect_memory_within(450)
    );
    seen.expect_undisturbed();
}

#[test]
fn a_body_below_the_minimum_rate_is_refused() {
    for kind in KINDS {
        let attacked = AttackedServer::start(kind, &[]);
        let token = bearer("u1");
        let authorization = [("Authorization", token.as_str())];
        let body = format!("{{\"title\":\"t\",\"padding\":\"{}\"}}", "p".repeat(10_000));
        let whole = request("POST", "/api/tasks", &authorization, body.as_bytes());
        let head = whole.len() - body.len();
        // Sends this many bytes ten times a second, for this long at most.
        let send = |bytes: usize, most: Duration| {
            let mut wire = attacked.endpoint.open().unwrap();
            let began = Instant::now();
            wire.write(&whole[..head]).unwrap();
            for piece in whole[head..].chunks(bytes) {
                thread::sleep(Duration::from_millis(100));
                if began.elapsed() > most {
                    break;
                }
                wire.write(piece).unwrap();
            }
            (wire.answer().unwrap().unwrap(), began.elapsed())
        };
        let (slow, fast) = thread::scope(|scope| {
            let slow = scope.spawn(|| send(5, Duration::from_millis(4500)));
            let fast = scope.spawn(|| send(140, Duration::from_secs(20)));
            (slow.join().unwrap(), fast.join().unwrap())
        });
        slow.0.expect_error(408, "REQUEST_TIMEOUT");
        println!(
            "a body of 50 bytes a second, {kind}: 408 after {:.1} s; one of 1,400 bytes a second was accepted in {:.1} s",
            slow.1.as_secs_f64(),
            fast.1.as_secs_f64()
        );
        fast.0.expect(201);
        assert!(slow.1 > Duration::from_secs(4) && slow.1 < Duration::from_secs(8));
    }
}

#[test]
fn five_thousand_clients_at_a_byte_a_second_delay_no_other_client() {
    const CLIENTS: usize = 5_000;
    let mut attacked = AttackedServer::start(Kind::Tcp, &[("HEAD_TIMEOUT", "300")]);
    let mut crowd: Vec<Wire> = (0..CLIENTS)
        .map(|_| {
            let mut wire = attacked.endpoint.open().unwrap();
            wire.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                .unwrap();
            wire
        })
        .collect();
    let healthy = watch(&attacked);
    let began = Instant::now();
    for second in 1..=60 {
        let sent = crowd
            .iter_mut()
            .filter_map(|wire| wire.write(b"s").ok())
            .count();
        assert_eq!(sent, CLIENTS);
        let next = began + Duration::from_secs(second);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let seen = healthy.finish();
    println!(
        "{CLIENTS} clients that send a byte a second, for 60 s: {}; {seen}",
        attacked.expect_memory_within(128)
    );
    seen.expect_undisturbed();
}
