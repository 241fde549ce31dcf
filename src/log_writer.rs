//! Writes log lines to standard error on a thread of its own, so that logging never blocks.
//!
//! Lines wait in a bounded queue; lines that do not fit are dropped and counted. The thread writes them in batches: with one write per
//! line, the access log cost 7 % of the single-task route's throughput at 32 connections. Lines are written ten milliseconds late,
//! and SIGKILL loses the lines that wait.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use crate::metrics;
use crate::sync::{lock, unpoisoned};

/// Lines of this time are written together.
const GATHER: Duration = Duration::from_millis(10);
/// Longest wait for the last lines when the process ends.
const FINISH_LIMIT: Duration = Duration::from_secs(1);
/// A buffer larger than this is freed after use, in bytes.
const KEPT_BUFFER: usize = 64 * 1024;

/// Longest audit line in bytes: two ids of 255 characters, each of which is written as 10 bytes (`\u{10ffff}`), and the other fields.
const AUDIT_LINE_MAX: usize = 5_400;

/// Classes of lines. Each has its own room in the queue, so that a flood of one class does not displace another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All other lines, such as the access log.
    Ordinary,
    /// Lines of level error.
    Error,
    /// Lines of the target `audit`.
    Audit,
}

impl Class {
    /// Bytes of this class that may wait. Audit lines have room for 100 of the longest lines a second, for a minute.
    fn room(self) -> usize {
        match self {
            Class::Ordinary | Class::Error => 1024 * 1024,
            Class::Audit => 60 * 100 * AUDIT_LINE_MAX,
        }
    }
}

static QUEUE: Mutex<LogQueue> = Mutex::new(LogQueue::new());
static FILLED: Condvar = Condvar::new();
static WRITTEN: Condvar = Condvar::new();

/// Whether the writing thread could be started. The first line starts it.
static RUNS: LazyLock<bool> = LazyLock::new(|| {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(write_lines).is_ok()
});

/// Lines that wait to be written, in the order in which they came.
struct LogQueue {
    lines: Vec<u8>,
    /// Bytes in `lines`, by class.
    waiting: [usize; 3],
    dropped: u64,
    writing: bool,
}

impl LogQueue {
    const fn new() -> LogQueue {
        LogQueue {
            lines: Vec::new(),
            waiting: [0; 3],
            dropped: 0,
            writing: false,
        }
    }

    /// Adds a line, or counts it as dropped if its class has no room.
    fn push(&mut self, class: Class, line: &[u8]) -> bool {
        let Some(waiting) = self.waiting.get_mut(class as usize) else {
            return false;
        };
        let fits = *waiting + line.len() <= class.room();
        if fits {
            *waiting += line.len();
            self.lines.extend_from_slice(line);
        } else {
            self.dropped += 1;
        }
        fits
    }

    /// Moves the lines into an empty buffer. Returns the number of lines dropped since the last call.
    fn take(&mut self, lines: &mut Vec<u8>) -> u64 {
        std::mem::swap(&mut self.lines, lines);
        self.waiting = [0; 3];
        std::mem::take(&mut self.dropped)
    }
}

/// Queues a line, which ends with a line break, for standard error.
pub fn write(class: Class, line: &[u8]) {
    if !*RUNS {
        // Without a thread a line could only be written by blocking.
        metrics::log_lines_dropped(1);
        return;
    }
    let mut queue = lock(&QUEUE);
    let was_empty = queue.lines.is_empty();
    let fits = queue.push(class, line);
    drop(queue);
    if !fits {
        metrics::log_lines_dropped(1);
    } else if was_empty {
        FILLED.notify_one();
    }
}

/// Waits until all lines are written, for a second at most.
pub fn finish() {
    let busy = |queue: &mut LogQueue| queue.writing || !queue.lines.is_empty();
    drop(WRITTEN.wait_timeout_while(lock(&QUEUE), FINISH_LIMIT, busy));
}

fn write_lines() {
    // Not through `io::stderr`: its lock would be held while the write blocks.
    let mut stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let mut lines = Vec::new();
    let mut dropped = 0;
    loop {
        let mut queue = lock(&QUEUE);
        queue.writing = false;
        WRITTEN.notify_all();
        while queue.lines.is_empty() {
            queue = unpoisoned(FILLED.wait(queue));
        }
        queue.writing = true;
        drop(queue);
        thread::sleep(GATHER);
        dropped += lock(&QUEUE).take(&mut lines);
        match stderr.as_mut().map(|stderr| stderr.write_all(&lines)) {
            Ok(Ok(())) if dropped > 0 => {
                log::error!("{dropped} log lines were dropped: standard error did not take them");
                dropped = 0;
            }
            Ok(Ok(())) => {}
            _ => {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                metrics::log_lines_dropped(lost);
                dropped += lost;
            }
        }
        lines.clear();
        lines.shrink_to(KEPT_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    use log::{Log, Metadata, Record};

    use crate::audit::{Event, Trail};
    use crate::domain::user::{USER_ID_MAX, UserId};
    use crate::logging;

    const ACCESS_LINE: [u8; 200] = [b'a'; 200];

    /// Keeps the longest line, in any format.
    struct Longest(Mutex<Vec<u8>>);

    impl Log for Longest {
        fn enabled(&self, _: &Metadata) -> bool {
            true
        }

        fn log(&self, record: &Record) {
            for (as_json, journal) in [(false, false), (false, true), (true, false), (true, true)] {
                let line = logging::line(record, as_json, journal).unwrap();
                let mut longest = lock(&self.0);
                if line.len() > longest.len() {
                    *longest = line;
                }
            }
        }

        fn flush(&self) {}
    }

    fn longest_audit_line() -> Vec<u8> {
        let longest = Longest(Mutex::default());
        let client = Ipv6Addr::from_bits(u128::MAX);
        let trail = Trail::new(client, &"r".repeat(64));
        for letter in ['a', '"', '\u{ad}', '\u{10ffff}'] {
            let user = UserId::parse(&letter.to_string().repeat(USER_ID_MAX)).unwrap();
            for letter in [letter, '\u{1}'] {
                let path = letter.to_string().repeat(4_096);
                trail.record_in(&longest, &user, Event::ForeignPath(&path));
            }
        }
        longest.0.into_inner().unwrap()
    }

    #[test]
    fn the_longest_audit_line_has_the_length_for_which_there_is_room() {
        let length = longest_audit_line().len();
        let near = AUDIT_LINE_MAX - 200..=AUDIT_LINE_MAX;
        assert!(near.contains(&length), "{length}");
    }

    #[test]
    fn no_audit_line_is_dropped_in_a_minute_of_100_a_second_among_others() {
        let audit_line = longest_audit_line();
        let mut queue = LogQueue::new();
        for _ in 0..60 * 100 {
            assert!(queue.push(Class::Audit, &audit_line));
            for _ in 0..10 {
                queue.push(Class::Ordinary, &ACCESS_LINE);
                queue.push(Class::Error, &ACCESS_LINE);
            }
        }
        let mut lines = Vec::new();
        let kept = 2 * (Class::Ordinary.room() / ACCESS_LINE.len());
        assert_eq!(queue.take(&mut lines), 2 * 60_000 - kept as u64);
        assert_eq!(
            lines.len(),
            kept * ACCESS_LINE.len() + 6_000 * audit_line.len()
        );
    }

    #[test]
    fn a_queue_that_was_emptied_takes_lines_again() {
        let mut queue = LogQueue::new();
        while queue.push(Class::Ordinary, &ACCESS_LINE) {}
        assert!(queue.push(Class::Error, b"an error\n"));
        let mut lines = Vec::new();
        assert_eq!(queue.take(&mut lines), 1);
        assert!(lines.ends_with(b"an error\n"));
        lines.clear();
        assert!(queue.push(Class::Ordinary, b"a line\n"));
        assert_eq!(queue.take(&mut lines), 0);
        assert_eq!(lines, b"a line\n");
    }
}
