//! The event loop: one thread that accepts, receives, and owns every connection's state.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use socket2::Socket;

use super::EdgeShared;
use super::admission::Admission;
use super::connection::{Connection, RunResult};
use super::tickets::{TICK, Ticket};
use super::timers::{TIMER_STEP, Timers};
use super::tls::Tls;
use crate::metrics;

/// Bytes read at a time.
const READ: usize = 16 * 1024;
/// Events taken from the kernel at a time.
const EVENTS: usize = 64;
/// Time between two searches for idle connections while the server drains.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// Tokens of events and timers: the mailbox and the age of tickets, the listeners, and connections.
const MAILBOX: u64 = 0;
pub const FIRST_LISTENER: u64 = 1;
const FIRST_CONNECTION: u64 = 1 << 16;

/// The part of the loop that connections use.
pub struct Core {
    pub shared: Arc<EdgeShared>,
    /// The time at which this round of the loop began.
    pub now: Instant,
    /// Bytes are read into it.
    pub buffer: Box<[u8]>,
    /// Requests for workers that came in this round.
    pub tickets: Vec<Ticket>,
    pub timers: Timers,
    /// Whether a TLS handshake was advanced in this round. Others wait for the next round, so that many handshakes delay the
    /// other connections by no more than one.
    pub has_shaken_hands: bool,
}

/// A listening socket with the certificates for its connections.
pub struct EdgeListener {
    pub socket: Socket,
    pub tls: Option<Arc<Tls>>,
}

/// The loop.
pub struct EventLoop {
    pub core: Core,
    pub epoll: OwnedFd,
    pub listeners: Vec<EdgeListener>,
    pub connections: HashMap<u64, Connection>,
    pub next_token: u64,
    pub admission: Admission,
    pub refused: usize,
    /// Connections that can continue in the next round.
    unfinished: BTreeSet<u64>,
    /// Idle connections that may be closed for new ones, the longest idle last, and the time of the last search for them.
    pub idle: Vec<u64>,
    pub looked: Option<Instant>,
    pub complained: Option<Instant>,
    /// The time of the next tick, if one is due.
    next_tick: Option<Instant>,
}

impl EventLoop {
    /// A loop that accepts connections on these sockets.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(shared: Arc<EdgeShared>, listeners: Vec<EdgeListener>) -> io::Result<EventLoop> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (mailbox, watched) = (&shared.mailbox.counter, EventFlags::IN | EventFlags::ET);
        epoll::add(&epoll, mailbox, EventData::new_u64(MAILBOX), watched)?;
        for (token, listener) in (FIRST_LISTENER..).zip(&listeners) {
            let token = EventData::new_u64(token);
            listener.socket.set_nonblocking(true)?;
            epoll::add(&epoll, &listener.socket, token, EventFlags::IN)?;
        }
        let limits = &shared.options.limits;
        Ok(EventLoop {
            admission: Admission::new(limits.connections, limits.connections_per_address),
            core: Core {
                now: Instant::now(),
                buffer: vec![0; READ].into_boxed_slice(),
                tickets: Vec::new(),
                timers: Timers::default(),
                has_shaken_hands: false,
                shared,
            },
            epoll,
            listeners,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            refused: 0,
            unfinished: BTreeSet::new(),
            idle: Vec::new(),
            looked: None,
            complained: None,
            next_tick: None,
        })
    }

    /// Runs until the server has drained.
    pub fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        while !(self.core.shared.is_draining() && self.admission.open == 0) {
            let timeout = self.timeout();
            // If it is interrupted there are no events.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
            self.core.now = Instant::now();
            self.core.has_shaken_hands = false;
            for token in std::mem::take(&mut self.unfinished) {
                self.attend(token, |_, _| true);
            }
            for event in events.drain(..) {
                self.on_event(event.data.u64(), event.flags);
            }
            while let Some((at, token)) = self.core.timers.take_due(self.core.now) {
                self.on_timer(at, token);
            }
            if !self.core.tickets.is_empty() {
                self.hand_over();
            }
            let connections = &self.connections;
            let is_armed = |at: Instant, token: u64| {
                let connection = connections.get(&token);
                token < FIRST_CONNECTION || connection.is_some_and(|one| one.armed == Some(at))
            };
            self.core.timers.compact(connections.len(), is_armed);
            metrics::edge_round(self.core.now.elapsed());
        }
    }

    /// The longest wait for events: until the next timer and a millisecond more, because the kernel may round down.
    fn timeout(&self) -> Option<Timespec> {
        let until = match self.unfinished.is_empty() {
            true => self.core.timers.next()? + TIMER_STEP,
            false => self.core.now,
        };
        let left = until.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        })
    }

    fn on_event(&mut self, token: u64, flags: EventFlags) {
        match token {
            MAILBOX => self.read_mailbox(),
            FIRST_LISTENER..FIRST_CONNECTION => self.accept(token),
            _ => self.attend(token, |connection, _| connection.note(flags)),
        }
    }

    fn on_timer(&mut self, at: Instant, token: u64) {
        match token {
            MAILBOX if self.next_tick == Some(at) => self.tick(),
            MAILBOX => {}
            FIRST_LISTENER..FIRST_CONNECTION => self.listen(token, EventFlags::IN),
            _ => self.attend(token, |connection, core| connection.on_timer(core, at)),
        }
    }

    fn read_mailbox(&mut self) {
        for (token, message) in self.core.shared.mailbox.take() {
            self.attend(token, |connection, _| {
                connection.outgoing = message.or(connection.outgoing.take());
                true
            });
        }
        if self.core.shared.is_draining() {
            for listener in self.listeners.drain(..) {
                // It fails only if the socket is not watched any more.
                let _ = epoll::delete(&self.epoll, &listener.socket);
            }
            self.tick_at(self.core.now);
        }
    }

    fn hand_over(&mut self) {
        let core = &mut self.core;
        core.shared.tickets.hand_over(&mut core.tickets);
        self.tick_at(self.core.now + TICK);
    }

    fn tick_at(&mut self, at: Instant) {
        let at = at.max(self.core.now + TIMER_STEP);
        if self.next_tick.is_none_or(|next| at < next) {
            self.next_tick = Some(at);
            self.core.timers.set(at, MAILBOX);
        }
    }

    /// Expires tickets that are too old and, while the server drains, closes idle connections.
    fn tick(&mut self) {
        self.next_tick = None;
        let shared = Arc::clone(&self.core.shared);
        let now = self.core.now;
        if let Some(wait) = shared.tickets.expire(shared.options.limits.queue_time) {
            self.tick_at(now + wait);
        }
        let Some(last_request) = shared.draining.get() else {
            return;
        };
        self.tick_at(now + DRAIN_TICK);
        if now >= *last_request {
            let idle = |(token, connection): (&u64, &Connection)| {
                connection.may_be_closed().then_some(*token)
            };
            let idle: Vec<u64> = self.connections.iter().filter_map(idle).collect();
            for token in idle {
                self.close(token);
            }
        }
    }

    /// Calls `tell` with a connection and then runs the connection; closes it if `tell` returns false.
    pub fn attend(&mut self, token: u64, tell: impl FnOnce(&mut Connection, &Core) -> bool) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let result = match tell(connection, &self.core) {
            true => connection.run(&mut self.core),
            false => RunResult::Over,
        };
        match result {
            RunResult::Over => return self.close(token),
            RunResult::Again => {
                self.unfinished.insert(token);
            }
            RunResult::Waits => {}
        }
        connection.watch(self.epoll.as_fd());
        connection.arm(&mut self.core);
    }

    pub fn close(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        connection.outlet.socket.end();
        if connection.admitted {
            self.admission.leave(connection.counted);
        } else {
            self.refused -= 1;
        }
    }
}
