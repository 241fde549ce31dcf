//! The event loop: it accepts, receives, and owns every connection's state. One thread runs it at a time (`loop_threads`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{self, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
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
/// Tokens of events and timers: the mailbox and the age of tickets, the listeners, connections, and the next timer.
const MAILBOX: u64 = 0;
const ALARM: u64 = u64::MAX;
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
    pub epoll: Arc<OwnedFd>,
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
    /// Ends the wait for events when the next timer is due, and the time for which it is set.
    alarm: OwnedFd,
    alarm_at: Option<Instant>,
}

impl EventLoop {
    /// A loop that accepts connections on these sockets.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(shared: Arc<EdgeShared>, listeners: Vec<EdgeListener>) -> io::Result<EventLoop> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let (mailbox, watched) = (&shared.mailbox.counter, EventFlags::IN | EventFlags::ET);
        epoll::add(&epoll, mailbox, EventData::new_u64(MAILBOX), watched)?;
        let alarm = time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &alarm, EventData::new_u64(ALARM), watched)?;
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
            alarm,
            alarm_at: None,
        })
    }

    /// Runs until the server has drained, or until a request has come that this thread is to serve. `others` is how many threads
    /// wait to run the loop meanwhile.
    pub fn run(&mut self, others: &AtomicUsize) -> Option<Ticket> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        while !(self.core.shared.is_draining() && self.admission.open == 0) {
            let timeout = (!self.unfinished.is_empty()).then(Timespec::default);
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
            let connections = &self.connections;
            let is_armed = |at: Instant, token: u64| {
                let connection = connections.get(&token);
                token < FIRST_CONNECTION || connection.is_some_and(|one| one.armed == Some(at))
            };
            self.core.timers.compact(connections.len(), is_armed);
            metrics::edge_round(self.core.now.elapsed());
            let free = self.unfinished.is_empty() && others.load(Ordering::Acquire) > 0;
            let mine = self.hand_over(free);
            self.set_alarm();
            if mine.is_some() {
                return mine;
            }
        }
        None
    }

    /// Sets the alarm for the next timer and a millisecond more, because the kernel may round down.
    fn set_alarm(&mut self) {
        let next = self.core.timers.next();
        if next == self.alarm_at {
            return;
        }
        self.alarm_at = next;
        let left = |at: Instant| (at + TIMER_STEP).saturating_duration_since(Instant::now());
        // Zero: none.
        let left = next.map_or(Duration::ZERO, |at| left(at).max(TIMER_STEP));
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).unwrap_or_default(),
        };
        // It fails only for times that are not valid.
        let _ = time::timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec);
    }

    fn on_event(&mut self, token: u64, flags: EventFlags) {
        match token {
            MAILBOX => self.read_mailbox(),
            // The timers that are due come after the events.
            ALARM => {}
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

    /// Hands the requests of this round to the workers. Returns one that this thread is to serve, which it may do if it is `free`.
    fn hand_over(&mut self, free: bool) -> Option<Ticket> {
        let core = &mut self.core;
        if core.tickets.is_empty() {
            return None;
        }
        let mine = core.shared.tickets.hand_over(&mut core.tickets, free);
        self.tick_at(self.core.now + TICK);
        mine
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
            RunResult::Again => drop(self.unfinished.insert(token)),
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
