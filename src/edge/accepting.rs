//! Accepts connections, and continues whatever happens.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{SockAddr, Socket};

use super::admission::Full;
use super::connection::{Connection, ConnectionState, interest};
use super::event_loop::{EdgeListener, EventLoop, FIRST_LISTENER};
use super::outlet::Outlet;
use super::receiving::HeadInput;
use super::transport::Transport;
use crate::http::error::Error;
use crate::http::request::{ClientAddress, Network};
use crate::metrics;

/// Connections accepted at a time, before open connections run.
const ACCEPTS: usize = 16;
/// Pause after an error, such as no free descriptor, before connections are accepted again.
const PAUSE: Duration = Duration::from_millis(50);
/// Time between two log lines about such errors.
const REMINDER: Duration = Duration::from_secs(10);
/// Time for which a connection must have been idle before it may be closed for a new one. The client of a new connection is about to
/// send a request, so it is served, or gets an answer that says that the server is full.
const SETTLED: Duration = Duration::from_secs(1);
/// Shortest time between two searches for connections that may be closed: a search takes 0.2 ms for 10,000 connections.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Most refused connections that have not ended yet. Others are closed without an answer.
const REFUSED: usize = 1024;

impl EventLoop {
    /// Accepts connections on one listening socket. If systemd has handed it over, the next process of the service may accept them
    /// first.
    pub fn accept(&mut self, token: u64) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listener(token) else {
                return;
            };
            let tls = listener.tls.clone();
            match listener.socket.accept() {
                Ok((socket, peer)) => {
                    let tls = tls.filter(|_| !self.core.shared.is_own(&peer));
                    match tls.map(|tls| tls.accept()).transpose() {
                        Ok(tls) => self.admit(socket, &peer, Transport::new(tls)),
                        Err(error) => log::warn!("a TLS connection cannot be made: {error}"),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The client has closed the connection already, or a signal came.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return self.pause(token, &error),
                },
            }
        }
    }

    fn listener(&self, token: u64) -> Option<&EdgeListener> {
        let index = usize::try_from(token - FIRST_LISTENER).ok()?;
        self.listeners.get(index)
    }

    /// Called after an error, mostly that no descriptor is free. Closing an idle connection frees one.
    fn pause(&mut self, token: u64, error: &io::Error) {
        let now = self.core.now;
        if self.complained.is_none_or(|when| now >= when + REMINDER) {
            log::error!("cannot accept connections at the moment: {error}; trying again");
            self.complained = Some(now);
        }
        self.make_room();
        self.listen(token, EventFlags::empty());
        self.core.timers.set(now + PAUSE, token);
    }

    /// Sets whether the kernel reports new connections of a listening socket.
    pub fn listen(&self, token: u64, flags: EventFlags) {
        if let Some(listener) = self.listener(token) {
            let token = EventData::new_u64(token);
            // It fails only if no memory is left. Then the kernel continues to report them.
            let _ = epoll::modify(&self.epoll, &listener.socket, token, flags);
        }
    }

    /// Adds a connection, if there is room, or else one that is answered 503.
    fn admit(&mut self, socket: Socket, peer: &SockAddr, transport: Transport) {
        let shared = Arc::clone(&self.core.shared);
        let own = shared.is_own(peer);
        let client = ClientAddress::of_peer(peer.as_socket());
        let counted = self.counted_network(client);
        let refusal = match self.admission.admit(counted, own) {
            Err(Full::Server) if self.make_room() => self.admission.admit(counted, own).err(),
            other => other.err(),
        };
        let encrypted = !transport.is_plain();
        let state = match refusal {
            Some(full) => {
                let (reason, cause) = full.explain();
                metrics::rejected(reason);
                if encrypted || self.refused == REFUSED {
                    return log::warn!("connection refused: {cause} client={client}");
                }
                ConnectionState::Refused(Error::Unavailable(cause.to_owned()))
            }
            None if encrypted => {
                ConnectionState::Handshake(self.core.now + shared.options.limits.head_time)
            }
            None => ConnectionState::Head(HeadInput::default()),
        };
        let token = self.next_token;
        self.next_token += 1;
        let socket = OwnedFd::from(socket).into();
        let outlet = Arc::new(Outlet {
            shared,
            socket,
            peer: client,
            token,
            encrypted,
            opened: self.core.now,
            answered: AtomicU64::new(0),
        });
        let data = EventData::new_u64(token);
        let watched = epoll::add(&self.epoll, &outlet.socket, data, interest(false));
        let connection = Connection {
            outlet,
            own,
            admitted: refusal.is_none(),
            counted,
            transport,
            state,
            input: Vec::new(),
            known: None,
            outgoing: None,
            readable: false,
            closed: false,
            ended: false,
            watches_sending: false,
            armed: None,
        };
        self.refused += usize::from(refusal.is_some());
        self.connections.insert(token, connection);
        // It fails only if no memory is left.
        self.attend(token, |_, _| watched.is_ok());
    }

    /// The network in whose count a connection of this client is; `None` for trusted proxies and for clients on this machine.
    fn counted_network(&self, client: ClientAddress) -> Option<Network> {
        let proxies = &self.core.shared.options.limits.trusted_proxies;
        match client {
            _ if proxies.trusts(client) => None,
            ClientAddress::Ip(address) if address.is_loopback() => None,
            ClientAddress::Local => None,
            ClientAddress::Ip(_) => Some(client.network()),
        }
    }

    /// Closes a connection that has been idle for long; false if there is none.
    fn make_room(&mut self) -> bool {
        let now = self.core.now;
        let settled = |connection: &Connection| {
            let since = connection
                .idle_since()
                .filter(|since| now.saturating_duration_since(*since) >= SETTLED);
            since.filter(|_| connection.admitted)
        };
        loop {
            while let Some(token) = self.idle.pop() {
                let connection = self.connections.get(&token);
                if connection.is_some_and(|one| settled(one).is_some() && one.may_be_closed()) {
                    self.close(token);
                    return true;
                }
            }
            if self.looked.is_some_and(|when| now < when + LOOK_AGAIN) {
                return false;
            }
            self.looked = Some(now);
            let mut idle: Vec<(Instant, u64)> = self
                .connections
                .iter()
                .filter_map(|(token, connection)| Some((settled(connection)?, *token)))
                .collect();
            idle.sort_unstable_by(|one, other| other.cmp(one));
            self.idle = idle.into_iter().map(|(_, token)| token).collect();
        }
    }
}
