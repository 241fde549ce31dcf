//! Sends what a client's socket did not take at once, so that no worker waits for a client.
//!
//! One thread polls all such sockets. An answer that makes no way for the time allowed is dropped with its connection, and so
//! is one that is read so slowly that it would hold its memory for ever.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::answers::Sending;
use super::connections::Connection;

use crate::sync::lock;

/// Slowest reading that is borne, in bytes a second, beyond the time in which no way need be made.
const SLOWEST: usize = 4 * 1024;

/// How long a refused connection is read past, and how many of them at once.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELLS: usize = 1024;

/// How long a client may take to read an answer of this size.
pub fn longest_sending(send_time: Duration, size: usize) -> Duration {
    send_time + Duration::from_secs((size / SLOWEST) as u64)
}

/// The rest of an answer.
struct Rest {
    connection: Arc<Connection>,
    answer: Vec<u8>,
    sent: usize,
    /// When it is given up if nothing more is taken.
    stalled: Instant,
    /// When it is given up anyhow.
    until: Instant,
    sending: Sending,
}

/// A connection that was refused: what its client sends is read past for a moment, because closing with unread input would
/// destroy the answer on its way (RFC 9112, section 9.6).
struct Farewell {
    connection: Arc<Connection>,
    until: Instant,
}

/// Takes over answers that did not leave at once, and connections that were refused.
pub struct Flusher {
    send_time: Duration,
    wake: OwnedFd,
    incoming: Mutex<Vec<Rest>>,
    refused: Mutex<Vec<Farewell>>,
}

impl Flusher {
    /// Starts the thread. An answer may make no way for `send_time`.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub fn start(send_time: Duration) -> std::io::Result<Arc<Flusher>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flusher = Arc::new(Flusher {
            send_time,
            wake,
            incoming: Mutex::default(),
            refused: Mutex::default(),
        });
        let running = Arc::clone(&flusher);
        thread::Builder::new()
            .name("flusher".to_owned())
            .spawn(move || running.run())?;
        Ok(flusher)
    }

    /// Takes over an answer of which the first `sent` bytes are out.
    pub fn take_over(
        &self,
        connection: Arc<Connection>,
        answer: Vec<u8>,
        sent: usize,
        sending: Sending,
    ) {
        let now = Instant::now();
        let stalled = now + self.send_time;
        let until = now + longest_sending(self.send_time, answer.len());
        let rest = Rest {
            connection,
            answer,
            sent,
            stalled,
            until,
            sending,
        };
        lock(&self.incoming).push(rest);
        self.wake();
    }

    /// Takes leave of a connection that was refused and told so. Where there are too many of them it is closed at once.
    pub fn see_off(&self, connection: Arc<Connection>) {
        connection.socket.shutdown(Shutdown::Write);
        let mut refused = lock(&self.refused);
        if refused.len() < FAREWELLS {
            refused.push(Farewell {
                connection: Arc::clone(&connection),
                until: Instant::now() + FAREWELL,
            });
            self.wake();
        } else {
            drop(refused);
            // The least that can be done: what has arrived by now does not destroy the answer.
            connection.socket.discard_now();
        }
    }

    fn wake(&self) {
        // It fails only where the counter is at its end: then the thread has been woken often enough.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut rests: Vec<Rest> = Vec::new();
        loop {
            rests.append(&mut lock(&self.incoming));
            let leaving: Vec<Arc<Connection>> = lock(&self.refused)
                .iter()
                .map(|farewell| Arc::clone(&farewell.connection))
                .collect();
            self.wait(&rests, &leaving);
            let mut counter = [0; 8];
            // Nothing to read is nothing to do.
            let _ = rustix::io::read(&self.wake, &mut counter);
            rests.retain_mut(|rest| {
                let unfinished = self.send(rest);
                if !unfinished {
                    rest.connection.answered();
                }
                unfinished
            });
            let now = Instant::now();
            lock(&self.refused).retain(|farewell| {
                now < farewell.until && farewell.connection.socket.discard_now()
            });
        }
    }

    /// Waits until a socket takes more or has been closed, something is due to be dropped, or another is handed over.
    fn wait(&self, rests: &[Rest], leaving: &[Arc<Connection>]) {
        let due = rests.iter().map(|rest| rest.stalled.min(rest.until)).min();
        let soon = (!leaving.is_empty()).then(|| Instant::now() + FAREWELL);
        let mut sockets: Vec<PollFd<'_>> = rests
            .iter()
            .map(|rest| PollFd::new(&rest.connection.socket, PollFlags::OUT))
            .collect();
        sockets.extend(
            leaving
                .iter()
                .map(|connection| PollFd::new(&connection.socket, PollFlags::IN)),
        );
        sockets.push(PollFd::new(&self.wake, PollFlags::IN));
        let timeout = due.into_iter().chain(soon).min().map(|due| {
            let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        if poll(&mut sockets, timeout.as_ref()).is_err() {
            // Interrupted, or out of memory: look again soon, but not at once.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends what the socket takes; false when the answer is out or given up.
    fn send(&self, rest: &mut Rest) -> bool {
        let socket = &rest.connection.socket;
        let now = Instant::now();
        match socket.send_now(rest.answer.get(rest.sent..).unwrap_or_default()) {
            Ok(0) if now >= rest.stalled.min(rest.until) => {
                socket.shutdown(Shutdown::Both);
                false
            }
            Ok(0) => true,
            Ok(sent) => {
                rest.sent += sent;
                rest.sending.note_sent(rest.sent);
                rest.stalled = now + self.send_time;
                rest.sent < rest.answer.len()
            }
            Err(_) => {
                socket.shutdown(Shutdown::Both);
                false
            }
        }
    }
}
