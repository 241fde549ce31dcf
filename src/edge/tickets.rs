//! Tickets: whole requests that wait for a worker.
//!
//! A request never leaves this process's memory. What goes to tiny_http, over a private connection, is one small request of
//! our own writing that names a ticket, and nothing ever comes back. Numbers are never used twice, and a ticket is taken once.
//!
//! Calling a ticket is a system call and wakes a thread of tiny_http, which wakes a worker. While the workers have enough to
//! do, that is a waste: tickets are then only noted down, and the worker that finds the queue running low calls all of them in
//! one write. Measured at 1,000 connections: see the module doc of `edge`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::Share;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::metrics;

/// Called tickets beyond which more are only noted down, for each worker.
const ENOUGH_PER_WORKER: u64 = 2;

/// A request on its way to a worker.
pub struct Ticket {
    /// The request.
    pub request: Request,
    /// The right to answer it.
    pub responder: Responder,
    /// The memory its body takes; given back when the request has been served.
    pub body_share: Share,
    /// Whether it waits as long as it takes: the server's own check on its workers.
    pub patient: bool,
}

/// The tickets that wait, and the private connection on which they are called.
pub struct Tickets {
    state: Mutex<State>,
    line: Mutex<UnixStream>,
    /// As many called tickets as keep the workers busy.
    enough: u64,
}

#[derive(Default)]
struct State {
    /// The number of the next ticket.
    next: u64,
    waiting: HashMap<u64, (Instant, Ticket)>,
    /// The calls that are noted down, ready to be written.
    noted: Vec<u8>,
    noted_count: u64,
    /// How many tickets have been called and have not reached a worker yet.
    called: u64,
}

impl State {
    /// The calls to be written now, if any. What is called reaches a worker, and that worker looks here again: so nothing that
    /// is noted down is forgotten.
    fn due(&mut self, enough: u64) -> Option<Vec<u8>> {
        if self.noted_count == 0 || self.called >= enough {
            return None;
        }
        self.called += self.noted_count;
        self.noted_count = 0;
        Some(std::mem::take(&mut self.noted))
    }
}

impl Tickets {
    /// None yet. `line` is a connection to tiny_http.
    pub fn new(line: UnixStream, workers: usize) -> Tickets {
        let enough = ENOUGH_PER_WORKER * u64::try_from(workers).unwrap_or(1);
        Tickets {
            state: Mutex::default(),
            line: Mutex::new(line),
            enough,
        }
    }

    /// Hands a request to the workers.
    ///
    /// # Errors
    /// The private connection is broken; the request has been answered 503, and the process must not go on.
    pub fn hand_over(&self, ticket: Ticket) -> io::Result<()> {
        let due = {
            let mut state = self.state();
            let number = state.next;
            state.next += 1;
            state.waiting.insert(number, (Instant::now(), ticket));
            // Writing to a Vec cannot fail.
            let _ = write!(state.noted, "GET /{number} HTTP/1.1\r\n\r\n");
            state.noted_count += 1;
            state.due(self.enough)
        };
        self.call(due)
    }

    /// Takes the ticket that a private request names; `None` when it has expired.
    ///
    /// # Errors
    /// As [`Tickets::hand_over`], for the tickets that were noted down.
    pub fn take(&self, target: &str) -> io::Result<Option<Ticket>> {
        let number: Option<u64> = target
            .strip_prefix('/')
            .and_then(|number| number.parse().ok());
        let (ticket, due) = {
            let mut state = self.state();
            state.called = state.called.saturating_sub(1);
            let ticket = number.and_then(|number| state.waiting.remove(&number));
            (ticket, state.due(self.enough))
        };
        self.call(due).map(|()| ticket.map(|(_, ticket)| ticket))
    }

    /// Answers 503 to the requests that have waited longer than this, but for the patient ones.
    pub fn expire(&self, after: Duration) {
        let expired: Vec<Ticket> = self
            .state()
            .waiting
            .extract_if(|_, (since, ticket)| !ticket.patient && since.elapsed() > after)
            .map(|(_, (_, ticket))| ticket)
            .collect();
        for _ in &expired {
            metrics::rejected("QUEUE_TIMEOUT");
        }
        refuse(expired, "no worker took the request in time");
    }

    fn call(&self, due: Option<Vec<u8>>) -> io::Result<()> {
        let Some(calls) = due else {
            return Ok(());
        };
        let called = self
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&calls);
        if called.is_err() {
            let waiting = self
                .state()
                .waiting
                .drain()
                .map(|(_, (_, ticket))| ticket)
                .collect();
            refuse(waiting, "the way to the workers is broken");
        }
        called
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under this lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(tickets: Vec<Ticket>, cause: &str) {
    for ticket in tickets {
        ticket
            .responder
            .answer(Err(Error::Unavailable(cause.to_owned())));
    }
}
