//! Standard error is a pipe that nothing reads, under load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::healthy::watch_at;
use crate::support::blocked_log::BlockedLog;
use crate::support::postgres::fresh_database;
use crate::support::wire::{Endpoint, bearer, request};

const LOAD: usize = 8;
/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(2);
const P99: Duration = Duration::from_millis(200);

#[test]
fn a_log_blocked_for_a_minute_delays_nothing() {
    let blocked = BlockedLog::start(&fresh_database(), &[]);
    blocked.fill();
    let before = blocked.dropped();
    let endpoint = Endpoint::from(blocked.server.address);
    let watch = watch_at(&endpoint);
    let until = Instant::now() + Duration::from_secs(60);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
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
    });
    let seen = watch.finish();
    let (done, dropped) = (done.into_inner(), blocked.dropped() - before);
    println!("log blocked for 60 s: {done} requests, {dropped} lines dropped; {seen}");
    seen.expect_p99_under(P99);
    assert!(dropped >= done as u64, "{dropped} {done}");
    let (server, log) = blocked.read();
    thread::sleep(Duration::from_millis(500));
    drop(server);
    assert!(log.join().unwrap().contains("log lines were dropped"));
}
