//! Who is connected: how many, from where, and what each connection is doing.
//!
//! A connection is in one of three states: idle between requests, reading one, or waiting for an answer. An idle one may be
//! closed, to make room or because the server stops; the other two may not, or a request would be lost. To make room it must
//! have been idle for [`SETTLED`].

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::socket::Socket;
use crate::domain::fair_budget::Holder;
use crate::http::request::{Client, Network};
use crate::metrics;
use crate::sync::{lock, unpoisoned};

/// How long a connection must have been idle before it may have to make room: one that has just come, or has just had its
/// answer, is about to ask. So who comes to a full server is served or told that it is full, and never let in only to be shut
/// out unheard.
const SETTLED: Duration = Duration::from_secs(1);

/// A connection, shared by its thread, the worker that answers on it, and whoever may close it.
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// The other end of the socket; a proxy, maybe.
    pub peer: Client,
    /// Whether this is the server's own check on itself.
    pub own: bool,
    opened: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A request has begun to arrive.
    reading: bool,
    /// An answer is under way.
    in_flight: bool,
    /// Given up while idle: nothing is read any more.
    closed: bool,
    /// Whether its thread waits for `changed`.
    watched: bool,
    /// An answer that its thread is to send.
    answer: Option<(Vec<u8>, Option<Holder>)>,
    /// When the last answer was out.
    answered: Option<Instant>,
}

impl State {
    fn is_idle(&self) -> bool {
        !self.reading && !self.in_flight && !self.closed
    }
}

impl Connection {
    /// A connection that is idle.
    pub fn new(socket: Socket, peer: Client, own: bool) -> Connection {
        Connection {
            socket,
            peer,
            own,
            opened: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Notes that a request has begun to arrive. False when the connection has been given up meanwhile.
    pub fn begin(&self) -> bool {
        let mut state = self.lock();
        state.reading = true;
        !state.closed
    }

    /// Notes that nothing more is read: it may be closed at any moment again.
    pub fn rest(&self) {
        self.lock().reading = false;
    }

    /// Notes that the request that was read is handed over.
    pub fn hand_over(&self) {
        let mut state = self.lock();
        state.reading = false;
        state.in_flight = true;
    }

    /// Notes that the last byte of an answer is out, or never will be.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.in_flight = false;
        state.answered = Some(Instant::now());
        self.tell(&state);
    }

    /// Gives its thread an answer to send.
    pub fn give(&self, answer: Vec<u8>, holder: Option<Holder>) {
        let mut state = self.lock();
        state.answer = Some((answer, holder));
        self.tell(&state);
    }

    /// Waits until no answer is under way.
    pub fn wait_answered(&self) {
        let mut state = self.lock();
        while state.in_flight {
            state = self.wait(state);
        }
    }

    /// Waits for an answer to send; `None` when none is under way.
    pub fn wait_answer(&self) -> Option<(Vec<u8>, Option<Holder>)> {
        let mut state = self.lock();
        while state.in_flight && state.answer.is_none() {
            state = self.wait(state);
        }
        state.answer.take()
    }

    /// Since when it has been idle, if it is.
    pub fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        state
            .is_idle()
            .then(|| state.answered.unwrap_or(self.opened))
    }

    /// Gives the connection up if it is idle; its thread notices and ends.
    pub fn close_if_idle(&self) -> bool {
        let mut state = self.lock();
        // A request that has arrived and that its thread has not come to read yet is a request all the same.
        let idle = state.is_idle() && !self.socket.has_input();
        if idle {
            state.closed = true;
            // The thread's read ends.
            self.socket.shutdown(Shutdown::Both);
        }
        idle
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.watched = true;
        let mut state = unpoisoned(self.changed.wait(state));
        state.watched = false;
        state
    }

    /// A wake-up is a system call, and mostly nobody waits: the thread reads on while the answer is under way.
    fn tell(&self, state: &State) {
        if state.watched {
            self.changed.notify_one();
        }
    }
}

/// All connections.
pub struct Connections {
    inner: Mutex<Inner>,
    most: usize,
    most_per_address: usize,
    settled: Duration,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Entry>,
    by_address: HashMap<Network, usize>,
}

struct Entry {
    connection: Arc<Connection>,
    /// The address whose count it is in, if any.
    counted: Option<Network>,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are as many as there may be, and none has been idle for long enough.
    Server,
    /// The address has as many as it may have.
    Address,
}

impl Connections {
    /// None yet.
    pub fn new(most: usize, most_per_address: usize) -> Connections {
        Connections {
            inner: Mutex::default(),
            most,
            most_per_address,
            settled: SETTLED,
        }
    }

    /// Lets a connection in, closing the one that has been idle longest where there is no room. `counted`: whether its address
    /// is held to its own limit. Answers the number to [`Connections::leave`] with.
    ///
    /// # Errors
    /// Says what is full.
    pub fn admit(&self, connection: &Arc<Connection>, counted: bool) -> Result<u64, Full> {
        let mut inner = self.lock();
        let counted =
            Some(connection.peer.network()).filter(|network| counted && *network != Network::Local);
        if let Some(address) = counted
            && inner
                .by_address
                .get(&address)
                .is_some_and(|count| *count >= self.most_per_address)
        {
            return Err(Full::Address);
        }
        // The server's own check comes in whatever happens; there is one at a time.
        if inner.open.len() >= self.most && !connection.own && !inner.close_one_idle(self.settled) {
            return Err(Full::Server);
        }
        if let Some(address) = counted {
            *inner.by_address.entry(address).or_default() += 1;
        }
        metrics::connection_opened();
        inner.next += 1;
        let id = inner.next;
        inner.open.insert(
            id,
            Entry {
                connection: Arc::clone(connection),
                counted,
            },
        );
        Ok(id)
    }

    /// Notes that a connection has ended.
    pub fn leave(&self, id: u64) {
        self.lock().forget(id);
    }

    /// Closes the connection that has been idle longest; false when none has been idle for long enough.
    pub fn close_one_idle(&self) -> bool {
        self.lock().close_one_idle(self.settled)
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        for entry in self.lock().open.values() {
            entry.connection.close_if_idle();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn close_one_idle(&mut self, settled: Duration) -> bool {
        let now = Instant::now();
        let mut idle: Vec<(Instant, u64)> = self
            .open
            .iter()
            .filter_map(|(id, entry)| Some((entry.connection.idle_since()?, *id)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= settled)
            .collect();
        // The longest idle first. It may have begun a request since; then the next one has to go.
        idle.sort_unstable();
        let closed = idle.into_iter().find(|(_, id)| {
            self.open
                .get(id)
                .is_some_and(|entry| entry.connection.close_if_idle())
        });
        if let Some((_, id)) = closed {
            self.forget(id);
        }
        closed.is_some()
    }

    fn forget(&mut self, id: u64) {
        let Some(entry) = self.open.remove(&id) else {
            return;
        };
        metrics::connection_closed();
        let Some(address) = entry.counted else {
            return;
        };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn connection(peer: &str) -> Arc<Connection> {
        let (socket, other) = UnixStream::pair().unwrap();
        std::mem::forget(other);
        Arc::new(Connection::new(
            Socket::Unix(socket),
            Client::Address(peer.parse().unwrap()),
            false,
        ))
    }

    #[test]
    fn one_that_has_just_come_is_heard_first() {
        let connections = Connections::new(1, 9);
        let newcomer = connection("192.0.2.1");
        connections.admit(&newcomer, true).unwrap();
        assert_eq!(
            connections.admit(&connection("192.0.2.2"), true),
            Err(Full::Server)
        );
        assert!(newcomer.begin());
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let connections = Connections {
            settled: Duration::ZERO,
            ..Connections::new(2, 9)
        };
        let (first, second) = (connection("192.0.2.1"), connection("192.0.2.1"));
        connections.admit(&first, true).unwrap();
        connections.admit(&second, true).unwrap();
        connections.admit(&connection("192.0.2.2"), true).unwrap();
        assert!(
            !first.begin() && second.begin(),
            "the first was closed, the second was not"
        );
        assert_eq!(connections.count(), 2);
        connections.admit(&connection("192.0.2.2"), true).unwrap();
        assert!(second.begin());
    }

    #[test]
    fn busy_connections_are_left_alone() {
        let connections = Connections::new(1, 9);
        let busy = connection("192.0.2.1");
        let id = connections.admit(&busy, true).unwrap();
        busy.begin();
        assert_eq!(
            connections.admit(&connection("192.0.2.2"), true),
            Err(Full::Server)
        );
        busy.hand_over();
        connections.close_idle();
        assert_eq!(
            connections.admit(&connection("192.0.2.2"), true),
            Err(Full::Server)
        );
        assert_eq!(busy.idle_since(), None);
        connections.leave(id);
        connections.admit(&connection("192.0.2.2"), true).unwrap();
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let connections = Connections::new(99, 2);
        for last in [1, 1, 2, 2] {
            connections
                .admit(&connection(&format!("192.0.2.{last}")), true)
                .unwrap();
        }
        assert_eq!(
            connections.admit(&connection("192.0.2.1"), true),
            Err(Full::Address)
        );
        assert!(
            connections.admit(&connection("192.0.2.1"), false).is_ok(),
            "a trusted peer is not counted"
        );
        let of_one_network = ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:0:1::"];
        let ids: Vec<_> = of_one_network
            .iter()
            .map(|address| connections.admit(&connection(address), true))
            .collect();
        assert_eq!(ids[2], Err(Full::Address));
        connections.leave(ids[0].unwrap());
        assert!(connections.admit(&connection("2001:db8::2"), true).is_ok());
    }
}
