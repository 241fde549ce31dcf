//! Tickets: whole requests that wait for a worker, shared fairly among their holders.
//!
//! One request takes this path: the edge adds it as a ticket of its client's network; a worker takes it once that holder may
//! have one more worker; the guard finds the user, and the worker is counted for the user from then on. If the user may have no
//! more workers, the ticket waits again, now as the user's. When the request is done its worker takes the next ticket.
//!
//! While one holder alone sends requests, it may have all workers but those kept free to find out who else is calling
//! ([`reserve`]). Once another holder has come, both get what [`FairBudget`] allows.
//!
//! A worker without a ticket waits for a request in tiny_http's queue, where none ever comes. `unblock` ends the wait of one worker
//! (the "bell"). It is called only when a worker sleeps, and one at a time. A worker that is awake takes tickets until none is left
//! for it. So under load it is hardly ever called. If a single client sends one request after another, the thread that runs the event loop
//! serves them itself (`loop_threads`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::limits::MemoryShare;
use crate::domain::fair_budget::{FairBudget, Holder};
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::metrics;
use crate::sync::lock;

/// How often the age of waiting tickets is looked at.
pub const TICK: Duration = Duration::from_millis(100);
/// Tickets that are answered 503 at a time.
const EXPIRE: usize = 100;
/// Requests in a row that came alone, after which the thread that runs the event loop serves the next ones. Without this, busy clients
/// had up to 20 % fewer answers: a request of many often comes alone, too.
const ALONE_IN_ROW: u64 = 8;
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
    pub _body_share: MemoryShare,
    /// For whom a worker serves it.
    pub holder: Option<Holder>,
    /// Whether it waits as long as it takes: the server's own check on its workers.
    pub patient: bool,
    /// Since when it waits.
    pub since: Instant,
}

/// The tickets that wait, and the queue where workers sleep.
pub struct Tickets {
    state: Mutex<TicketsState>,
    bell: Arc<tiny_http::Server>,
}

struct TicketsState {
    waiting: VecDeque<Ticket>,
    /// The number of workers.
    started: usize,
    /// Workers that sleep in tiny_http, less one while the thread of the event loop serves a request.
    asleep: usize,
    /// Requests in a row, up to the last, that came alone while all workers slept.
    alone_in_row: u64,
    /// Whether a bell was sent that has not woken a worker yet.
    rung: bool,
    workers: FairBudget,
    /// The holder that was served last, and when that was last another one than before.
    last: Option<Holder>,
    shared: Option<Instant>,
}

impl TicketsState {
    /// Whether the bell is to be rung now: a ticket waits that a worker may take, and a worker sleeps. One bell is under way at a
    /// time: the worker that it wakes rings for the next one.
    fn must_ring(&mut self) -> bool {
        let rings = !self.rung && self.asleep > 0 && self.allowed().is_some();
        self.rung |= rings;
        rings
    }

    /// Whether this holder may have one more worker.
    fn allows(&self, holder: Option<Holder>) -> bool {
        let alone = || {
            self.shared.is_none_or(|since| since.elapsed() > ALONE)
                && self.workers.fits(1 + reserve(self.started))
        };
        holder.is_none() || self.workers.allows(holder, 1) || alone()
    }

    fn note(&mut self, holder: Option<Holder>) {
        if holder.is_some() && holder != self.last {
            self.shared = self.last.and(Some(Instant::now()));
            self.last = holder;
        }
    }

    /// The place of the first ticket whose holder may have one more worker.
    fn allowed(&self) -> Option<usize> {
        let mut refused = None;
        self.waiting.iter().position(|ticket| {
            let skipped = ticket.holder.is_some() && ticket.holder == refused;
            let allowed = !skipped && self.allows(ticket.holder);
            if !allowed {
                refused = ticket.holder;
            }
            allowed
        })
    }

    fn next(&mut self) -> Option<Ticket> {
        let ticket = self.waiting.remove(self.allowed()?)?;
        self.workers.take(ticket.holder, 1);
        Some(ticket)
    }
}

impl Tickets {
    /// None yet. `workers` threads take tickets, and sleep in `bell`. With fewer database connections than that, the holders share
    /// as many workers as there are connections.
    pub fn new(bell: Arc<tiny_http::Server>, workers: usize, connections: usize) -> Tickets {
        Tickets {
            state: Mutex::new(TicketsState {
                waiting: VecDeque::new(),
                started: workers,
                asleep: workers,
                alone_in_row: 0,
                rung: false,
                workers: FairBudget::new(workers.min(connections)),
                last: None,
                shared: None,
            }),
            bell,
        }
    }

    /// Hands requests to the workers. If the caller is `free`, it gets a request to serve as a worker does: one that came alone while all
    /// workers sleep, after others that came so. The self-check's requests are for workers.
    pub fn hand_over(&self, tickets: &mut Vec<Ticket>, free: bool) -> Option<Ticket> {
        let mut state = self.state();
        state.waiting.extend(tickets.drain(..));
        let alone = state.waiting.len() == 1 && state.asleep == state.started;
        state.alone_in_row = if alone { state.alone_in_row + 1 } else { 0 };
        let mine = free && state.alone_in_row > ALONE_IN_ROW;
        let mine = mine && !state.rung && !state.waiting[0].patient;
        let mine = mine.then(|| state.next()).flatten();
        match mine {
            // In the place of a worker, which sleeps on: no more requests are served at a time than there are workers.
            Some(_) => state.asleep -= 1,
            None => self.ring_if_needed(state),
        }
        mine
    }

    /// Notes that the request that [`Tickets::hand_over`] gave its caller has been served.
    pub fn served_here(&self) {
        let mut state = self.state();
        state.asleep += 1;
        self.ring_if_needed(state);
    }

    /// Notes that the bell has woken a worker.
    pub fn woken(&self) {
        let mut state = self.state();
        state.rung = false;
        state.asleep = state.asleep.saturating_sub(1);
    }

    /// Takes a ticket for a worker, which must give the worker back with [`Tickets::done`]. `None` when no ticket waits whose
    /// holder may have one more worker; the worker then goes to sleep.
    pub fn take(&self) -> Option<Ticket> {
        let mut state = self.state();
        let ticket = state.next();
        if ticket.is_none() {
            state.asleep += 1;
        } else {
            self.ring_if_needed(state);
        }
        ticket
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

    /// Answers 503 to requests that have waited longer than this, but for the patient ones; not to all at once, because each
    /// answer takes the event loop time. Returns when to look again, if any wait.
    pub fn expire(&self, after: Duration) -> Option<Duration> {
        let mut expired = VecDeque::new();
        let mut state = self.state();
        while expired.len() < EXPIRE {
            let old = |ticket: &Ticket| !ticket.patient && ticket.since.elapsed() > after;
            let at = state.waiting.iter().position(old);
            let Some(ticket) = at.and_then(|at| state.waiting.remove(at)) else {
                break;
            };
            expired.push_back(ticket);
        }
        let more = expired.len() == EXPIRE;
        let wait = if more { Duration::ZERO } else { TICK };
        let next = (!state.waiting.is_empty()).then_some(wait);
        drop(state);
        for ticket in expired {
            metrics::rejected("QUEUE_TIMEOUT");
            let cause = "no worker took the request in time".to_owned();
            ticket.responder.answer(Err(Error::Unavailable(cause)));
        }
        next
    }

    fn ring_if_needed(&self, mut state: MutexGuard<'_, TicketsState>) {
        let rings = state.must_ring();
        drop(state);
        if rings {
            self.bell.unblock();
        }
    }

    fn state(&self) -> MutexGuard<'_, TicketsState> {
        lock(&self.state)
    }
}
