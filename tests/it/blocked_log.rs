//! Standard error is a pipe that nothing reads: the server still answers, counts the lines it drops, and can stop.

use std::thread;
use std::time::Duration;

use crate::support::blocked_log::BlockedLog;
use crate::support::hold::{Lock, PATIENT};
use crate::support::postgres::fresh_database;
use crate::support::wire::{Endpoint, bearer, new_task_with_id};

#[test]
fn a_blocked_log_delays_no_answer_and_its_lost_lines_are_counted() {
    let blocked = BlockedLog::start(&fresh_database(), &[]);
    blocked.fill();
    blocked.server.user("u1").task("while the log is blocked");
    let dropped = blocked.dropped();
    let (server, log) = blocked.read();
    // The line with the number is written after the other lines.
    thread::sleep(Duration::from_millis(500));
    server.signal("TERM");
    let (status, _) = server.wait_at_most(Duration::from_secs(20));
    assert!(status.success());
    let log = log.join().unwrap();
    let sentence = log
        .lines()
        .find(|line| line.contains("log lines were dropped"))
        .unwrap();
    let number: u64 = sentence
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    assert!(number >= dropped, "{number} {dropped}");
    assert!(log.trim_end().ends_with("todo_api: stopped"), "{log}");
}

#[test]
fn a_blocked_log_does_not_delay_the_stop() {
    let blocked = BlockedLog::start(&fresh_database(), &[("SHUTDOWN_TIMEOUT", "2")]);
    blocked.fill();
    blocked.server.signal("TERM");
    let (status, _) = blocked.server.wait_at_most(Duration::from_secs(6));
    assert!(status.success());
}

#[test]
fn the_self_check_ends_a_server_whose_log_is_blocked() {
    let database = fresh_database();
    let mut settings = vec![("WORKERS", "2"), ("SELF_CHECK_SECONDS", "1")];
    settings.extend(PATIENT);
    let blocked = BlockedLog::start(&database, &settings);
    blocked.fill();
    let mut lock = Lock::tasks(&database);
    // One user cannot use the worker that is reserved for others.
    let _stuck: Vec<_> = ["u1", "u2", "u3"]
        .into_iter()
        .map(|user| {
            let mut wire = Endpoint::from(blocked.server.address).open().unwrap();
            wire.write(&new_task_with_id(&bearer(user), "stuck"))
                .unwrap();
            wire
        })
        .collect();
    lock.wait_for_waiting(3);
    let (status, _) = blocked.server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(1));
}
