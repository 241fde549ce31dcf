//! Tickets: whole requests that wait for a worker.
//!
//! A request never leaves this process's memory. What goes to tiny_http, over a few private connections, is one small request
//! of our own writing that names a ticket, and nothing ever comes back. Numbers are never used twice, and a ticket is taken
//! once.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::Share;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::responder::Responder;

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

/// The tickets that wait, and the private connections on which they are called.
pub struct Tickets {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, (Instant, Ticket)>>,
    lines: Vec<Mutex<UnixStream>>,
}

impl Tickets {
    /// None yet. `lines` are connections to tiny_http.
    pub fn new(lines: Vec<UnixStream>) -> Tickets {
        Tickets {
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            lines: lines.into_iter().map(Mutex::new).collect(),
        }
    }

    /// Hands a request to the workers.
    ///
    /// # Errors
    /// The private connection is broken; the request has been answered 503, and the process must not go on.
    pub fn hand_over(&self, ticket: Ticket) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(number, (Instant::now(), ticket));
        let lines = u64::try_from(self.lines.len()).unwrap_or(1).max(1);
        let line = usize::try_from(number % lines)
            .ok()
            .and_then(|index| self.lines.get(index));
        let called = match line {
            Some(line) => line
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(format!("GET /{number} HTTP/1.1\r\n\r\n").as_bytes()),
            None => Err(io::Error::from(io::ErrorKind::NotConnected)),
        };
        if called.is_err() {
            self.refuse_all("the way to the workers is broken");
        }
        called
    }

    /// Takes the ticket that a private request names; `None` when it has expired.
    pub fn take(&self, target: &str) -> Option<Ticket> {
        let number = target.strip_prefix('/')?.parse().ok()?;
        self.waiting().remove(&number).map(|(_, ticket)| ticket)
    }

    /// Answers 503 to the requests that have waited longer than this, but for the patient ones.
    pub fn expire(&self, after: Duration) {
        let expired: Vec<Ticket> = self
            .waiting()
            .extract_if(|_, (since, ticket)| !ticket.patient && since.elapsed() > after)
            .map(|(_, (_, ticket))| ticket)
            .collect();
        for ticket in expired {
            ticket.responder.answer(Err(Error::Unavailable(
                "no worker took the request in time".to_owned(),
            )));
        }
    }

    fn refuse_all(&self, cause: &str) {
        let refused: Vec<Ticket> = self
            .waiting()
            .drain()
            .map(|(_, (_, ticket))| ticket)
            .collect();
        for ticket in refused {
            ticket
                .responder
                .answer(Err(Error::Unavailable(cause.to_owned())));
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Instant, Ticket)>> {
        // Nothing that is done under this lock can leave it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
