//! Tickets: whole requests that wait for a worker, shared fairly among their holders.
//!
//! One request takes this path: the edge adds it as a ticket of its client's network; a worker takes it once that holder may
//! have one more worker; the guard finds the user, and the worker is counted for the user from then on. If the user may have no
//! more workers, the ticket waits again, now as the user's. When the request is done its worker takes the next ticket.
//!
//! While one holder alone sends requests, it may have all workers but those kept free to find out who else is calling
//! ([`reserve`]). Once another holder has come, both get what [`FairBudget`] allows.
//!
//! A request never leaves this process's memory. tiny_http gets one small request without meaning, over a private connection,
//! and hands it to a worker: that wakes the worker. A wake-up is a system call, so no more are sent than keep the workers
//! busy; the others are only counted, and a worker that finds the queue running low sends all of them in one write. Measured at
//! 1,000 connections: see the module doc of `edge`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::limits::Share;
use crate::domain::fair_budget::{FairBudget, Holder};
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::metrics;
use crate::sync::lock;

/// Wake-ups under way beyond which more are only counted, for each worker.
const ENOUGH_PER_WORKER: usize = 2;
/// The request that wakes a worker.
const CALL: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// A holder is alone once no other has sent a request for so long.
const ALONE: Duration = Duration::from_secs(10);

/// How many workers are started on top of those that one holder may have.
pub fn reserve(workers: usize) -> usize {
    1.max(workers / 8)
}

/// A request on its way to a worker.
pub struct Ticket {
    /// The request.
    pub request: Request,
    /// The right to answer it.
    pub responder: Responder,
    /// The memory its body takes; given back when the request has been served.
    pub _body_share: Share,
    /// For whom a worker serves it.
    pub holder: Option<Holder>,
    /// Whether it waits as long as it takes: the server's own check on its workers.
    pub patient: bool,
    /// Since when it waits.
    pub since: Instant,
}

/// The tickets that wait, and the private connection that wakes workers.
pub struct Tickets {
    state: Mutex<State>,
    line: Mutex<UnixStream>,
    /// As many wake-ups as keep the workers busy.
    enough: usize,
}

struct State {
    waiting: VecDeque<Ticket>,
    /// Wake-ups that are not sent yet.
    noted: usize,
    /// Wake-ups that have been sent and have not reached a worker yet.
    called: usize,
    workers: FairBudget,
    /// Workers that a holder alone may not have.
    reserve: usize,
    /// The holder that was served last, and when that was last another one than before.
    last: Option<Holder>,
    shared: Option<Instant>,
}

impl State {
    /// How many wake-ups are to be sent now. Each one reaches a worker, and that worker looks here again: so none is forgotten.
    fn due(&mut self, enough: usize) -> usize {
        self.noted = self.noted.min(self.waiting.len());
        if self.called >= enough {
            return 0;
        }
        self.called += self.noted;
        std::mem::take(&mut self.noted)
    }

    /// Whether this holder may have one more worker.
    fn allows(&self, holder: Option<Holder>) -> bool {
        let alone = || {
            self.shared.is_none_or(|since| since.elapsed() > ALONE)
                && self.workers.fits(1 + self.reserve)
        };
        holder.is_none() || self.workers.allows(holder, 1) || alone()
    }

    fn note(&mut self, holder: Option<Holder>) {
        if holder.is_some() && holder != self.last {
            self.shared = self.last.and(Some(Instant::now()));
            self.last = holder;
        }
    }

    /// The first ticket whose holder may have one more worker.
    fn next(&mut self) -> Option<Ticket> {
        let mut refused = None;
        let at = self.waiting.iter().position(|ticket| {
            let skipped = ticket.holder.is_some() && ticket.holder == refused;
            let allowed = !skipped && self.allows(ticket.holder);
            if !allowed {
                refused = ticket.holder;
            }
            allowed
        })?;
        let ticket = self.waiting.remove(at)?;
        self.workers.take(ticket.holder, 1);
        Some(ticket)
    }
}

impl Tickets {
    /// None yet. `line` is a connection to tiny_http. `workers` threads take tickets. With fewer database connections than
    /// that, the holders share as many workers as there are connections.
    pub fn new(line: UnixStream, workers: usize, connections: usize) -> Tickets {
        Tickets {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                noted: 0,
                called: 0,
                workers: FairBudget::new(workers.min(connections)),
                reserve: reserve(workers),
                last: None,
                shared: None,
            }),
            line: Mutex::new(line),
            enough: ENOUGH_PER_WORKER * workers,
        }
    }

    /// Hands a request to the workers.
    ///
    /// # Errors
    /// The private connection is broken; the request has been answered 503, and the process must not go on.
    pub fn hand_over(&self, ticket: Ticket) -> io::Result<()> {
        let due = {
            let mut state = self.state();
            state.waiting.push_back(ticket);
            state.noted += 1;
            state.due(self.enough)
        };
        self.call(due)
    }

    /// Notes that a worker was woken.
    pub fn woken(&self) {
        let mut state = self.state();
        state.called = state.called.saturating_sub(1);
    }

    /// Takes a ticket for a worker, which must give the worker back with [`Tickets::done`]. `None` when no ticket waits whose
    /// holder may have one more worker.
    ///
    /// # Errors
    /// As [`Tickets::hand_over`].
    pub fn take(&self) -> io::Result<Option<Ticket>> {
        let (ticket, due) = {
            let mut state = self.state();
            (state.next(), state.due(self.enough))
        };
        self.call(due).map(|()| ticket)
    }

    /// Counts the worker for the user in place of the client's network. False when the user may have no more workers.
    pub fn pass(&self, from: Option<Holder>, user: Option<Holder>) -> bool {
        let mut state = self.state();
        state.note(user);
        if from == user {
            return true;
        }
        state.workers.give_back(from, 1);
        let allowed = state.allows(user);
        state.workers.take(if allowed { user } else { from }, 1);
        allowed
    }

    /// Puts a ticket back whose user may have no more workers. A worker that is done will take it, so it wakes none.
    pub fn put_back(&self, ticket: Ticket) {
        self.state().waiting.push_back(ticket);
    }

    /// Gives back the worker that served this holder.
    pub fn done(&self, holder: Option<Holder>) {
        let mut state = self.state();
        state.note(holder);
        state.workers.give_back(holder, 1);
    }

    /// Answers 503 to the requests that have waited longer than this, but for the patient ones.
    pub fn expire(&self, after: Duration) {
        let expired: VecDeque<Ticket> = {
            let mut state = self.state();
            let (expired, waiting) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition(|ticket| !ticket.patient && ticket.since.elapsed() > after);
            state.waiting = waiting;
            expired
        };
        for _ in &expired {
            metrics::rejected("QUEUE_TIMEOUT");
        }
        refuse(expired, "no worker took the request in time");
    }

    fn call(&self, due: usize) -> io::Result<()> {
        if due == 0 {
            return Ok(());
        }
        let called = lock(&self.line).write_all(&CALL.repeat(due));
        if called.is_err() {
            let waiting = std::mem::take(&mut self.state().waiting);
            refuse(waiting, "the way to the workers is broken");
        }
        called
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn refuse(tickets: VecDeque<Ticket>, cause: &str) {
    for ticket in tickets {
        ticket
            .responder
            .answer(Err(Error::Unavailable(cause.to_owned())));
    }
}
