//! Standard error is a pipe that nothing reads, under load.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::healthy::watch_at;
use crate::support::blocked_log::BlockedLog;
use crate::support::postgres::fresh_database;
use crate::support::wire::{Endpoint, bearer, request};

const BLOCKED: Duration = Duration::from_secs(60);

const LOAD: usize = 8;
/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(2);
const P99: Duration = Duration::from_millis(200);
/// Pause between two audit lines: there are fewer than 100 a second.
const AUDIT_PAUSE: Duration = Duration::from_millis(15);
/// A character that is longest in a log line, as `\u{10ffff}`: the id of a user consists of it.
const USER: char = '\u{10ffff}';
/// Another one, percent-encoded: the id of another user consists of it.
const OTHER_USER: &str = "%F4%8F%BF%BE";

/// Names another user in the path until then. Each request writes an audit line of more than 5 KB, with its number in the request
/// id. Returns how many there were.
fn write_audit_lines(endpoint: &Endpoint, until: Instant) -> usize {
    let token = bearer(&USER.to_string().repeat(255));
    let path = format!("/api/{}/tasks", OTHER_USER.repeat(255));
    let mut wire = endpoint.open().unwrap();
    let mut sent = 0;
    while Instant::now() < until {
        let id = audit_id(sent);
        let headers = [("Authorization", token.as_str()), ("X-Request-ID", &id)];
        wire.write(&request("GET", &path, &headers, b"")).unwrap();
        wire.answer().unwrap().unwrap().expect(403);
        sent += 1;
        thread::sleep(AUDIT_PAUSE);
    }
    sent
}

fn audit_id(number: usize) -> String {
    format!("audit-{number}")
}

#[test]
fn a_log_blocked_for_a_minute_delays_nothing_and_loses_no_audit_line() {
    let blocked = BlockedLog::start(&fresh_database(), &[]);
    blocked.fill();
    let before = blocked.dropped();
    let endpoint = Endpoint::from(blocked.server.address);
    let watch = watch_at(&endpoint);
    let until = Instant::now() + BLOCKED;
    let done = AtomicUsize::new(0);
    let audited = thread::scope(|scope| {
        let audited = scope.spawn(|| write_audit_lines(&endpoint, until));
        for _ in 0..LOAD {
            scope.spawn(|| {
                let token = bearer("load");
                let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
                let mut wire = endpoint.open().unwrap();
                while Instant::now() < until {
                    wire.write(&list).unwrap();
                    wire.answer().unwrap().unwrap().expect(200);
                    done.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            });
        }
        audited.join().unwrap()
    });
    let seen = watch.finish();
    let (done, dropped) = (done.into_inner(), blocked.dropped() - before);
    println!("log blocked for 60 s: {done} requests, {dropped} lines dropped; {seen}");
    seen.expect_p99_under(P99);
    assert!(dropped >= done as u64, "{dropped} {done}");
    let (server, log) = blocked.read();
    thread::sleep(Duration::from_secs(2));
    drop(server);
    let log = log.join().unwrap();
    assert!(log.contains("log lines were dropped"));
    let audit_lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" audit:"))
        .collect();
    let ids: HashSet<&str> = audit_lines
        .iter()
        .filter_map(|line| line.split_once(" request_id=")?.1.split(' ').next())
        .collect();
    let bytes: usize = audit_lines.iter().map(|line| line.len()).sum();
    println!(
        "{audited} audit lines sent in 60 s, {} arrived, {bytes} bytes",
        ids.len()
    );
    assert!(audited >= 1_500, "{audited}");
    for number in 0..audited {
        assert!(
            ids.contains(audit_id(number).as_str()),
            "{number} of {audited}"
        );
    }
}
