//! Slow heads, slow bodies, slow readers: each from 300 connections, through each door, while somebody healthy measures.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::fortress::{Fortress, KINDS, Kind};
use crate::healthy::watch;
use crate::support::hold::large_list;
use crate::support::wire::{Door, Wire, bearer, request};

const CROWD: usize = 300;
const WHILE: Duration = Duration::from_secs(6);

/// Opens a crowd that has all begun to send in this way.
fn crowd(door: &Door, start: &[u8]) -> Vec<Wire> {
    (0..CROWD)
        .map(|_| {
            let mut wire = door.open().unwrap();
            wire.write(start).unwrap();
            wire
        })
        .collect()
}

/// Writes a byte more on each, twice a second; gives how many the server has not given up.
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

/// Has a crowd send slowly, and says how everybody fared.
fn besiege(what: &str, kind: Kind, start: &[u8], byte: &[u8]) {
    let mut fortress = Fortress::behind(kind, &[]);
    let healthy = watch(&fortress);
    let mut crowd = crowd(&fortress.door, start);
    let left = drip(&mut crowd, byte);
    let seen = healthy.finish();
    println!(
        "{what} from {CROWD} connections, {kind}: {left} still at it, {}; {seen}",
        fortress.expect_alive_within(128)
    );
    seen.expect_undisturbed();
}

#[test]
fn slow_heads_hold_up_no_other_client() {
    for kind in KINDS {
        besiege(
            "slow heads",
            kind,
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            b"s",
        );
    }
}

#[test]
fn slow_bodies_hold_up_no_other_client() {
    let lengths =
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{\"title\":\"";
    let chunks = b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{\"title\":\"";
    let upgrade = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9999\r\n\r\n";
    for kind in KINDS {
        besiege("slow bodies", kind, lengths, b"s");
    }
    besiege("slow chunks", Kind::Tcp, chunks, b"s");
    besiege("slow bodies behind an upgrade", Kind::Tcp, upgrade, b"s");
}

/// Asks for a list of 8 MB, waits until the answer has begun, and reads no more. Gives its status.
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
fn slow_readers_hold_up_no_other_client() {
    for kind in KINDS {
        let mut fortress = Fortress::behind(kind, &[]);
        large_list(&fortress.database, "large");
        let token = bearer("large");
        let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
        let healthy = watch(&fortress);
        // One after the other, so that it is the reading that is slow and not eight million bytes of JSON, three hundred times.
        let mut stalled = Vec::new();
        let (mut served, mut refused) = (0, 0);
        for _ in 0..CROWD {
            let mut wire = fortress.door.open_narrow().unwrap();
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
            "slow readers of 8 MB from {CROWD} connections, {kind}: {served} have an answer waiting, {refused} were told to come \
             back, {}; {seen}",
            fortress.expect_alive_within(450)
        );
        assert!(served >= 4 && refused > 0, "{served} {refused}");
        seen.expect_undisturbed();
        // They go, and so does what was kept for them.
        drop(stalled);
        let mut wire = fortress.door.open().unwrap();
        wire.write(&list).unwrap();
        assert_eq!(
            wire.answer().unwrap().unwrap().expect(200).json()["count"],
            1000
        );
    }
}

#[test]
fn slow_in_every_way_at_once_holds_up_no_other_client() {
    let mut fortress = Fortress::behind(Kind::Tcp, &[]);
    large_list(&fortress.database, "large");
    let token = bearer("large");
    let list = request(
        "GET",
        "/api/tasks?limit=500",
        &[("Authorization", &token)],
        b"",
    );
    let healthy = watch(&fortress);
    let door = &fortress.door;
    let mut heads = crowd(door, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let mut bodies = crowd(
        door,
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
    );
    let mut readers = Vec::new();
    for _ in 0..CROWD {
        let mut wire = door.open_narrow().unwrap();
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
        fortress.expect_alive_within(450)
    );
    seen.expect_undisturbed();
}

#[test]
fn a_body_must_come_faster_than_a_trickle() {
    for kind in KINDS {
        let fortress = Fortress::behind(kind, &[]);
        let token = bearer("u1");
        let authorization = [("Authorization", token.as_str())];
        let body = format!("{{\"title\":\"t\",\"padding\":\"{}\"}}", "p".repeat(10_000));
        let whole = request("POST", "/api/tasks", &authorization, body.as_bytes());
        let head = whole.len() - body.len();
        // So many bytes, ten times a second, and no more after so long.
        let send = |bytes: usize, most: Duration| {
            let mut wire = fortress.door.open().unwrap();
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
            "a body of 50 bytes a second, {kind}: 408 after {:.1} s; one of 1,400 bytes a second was taken in {:.1} s",
            slow.1.as_secs_f64(),
            fast.1.as_secs_f64()
        );
        fast.0.expect(201);
        assert!(slow.1 > Duration::from_secs(4) && slow.1 < Duration::from_secs(8));
    }
}

#[test]
fn five_thousand_clients_of_a_byte_a_second_stop_nobody() {
    const CLIENTS: usize = 5_000;
    let mut fortress = Fortress::behind(Kind::Tcp, &[("HEAD_TIMEOUT", "300")]);
    let mut crowd: Vec<Wire> = (0..CLIENTS)
        .map(|_| {
            let mut wire = fortress.door.open().unwrap();
            wire.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                .unwrap();
            wire
        })
        .collect();
    let healthy = watch(&fortress);
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
        fortress.expect_alive_within(128)
    );
    seen.expect_undisturbed();
}
