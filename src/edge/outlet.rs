//! Sends answers from the threads that make them.
//!
//! A worker sends the whole answer in one system call and notes that it is sent. The event loop reads the note when the client's
//! next request has come. The worker wakes the loop through the mailbox only if the loop waits for the end of the answer (because of
//! a pipelined request, or to close the connection) or has to send the rest of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::EdgeShared;
use super::answers::Sending;
use super::socket::Socket;
use super::transport::Transport;
use crate::domain::fair_budget::Holder;
use crate::http::request::{ClientAddress, RequestId};
use crate::http::responder::Reply;
use crate::http::response::Framing;
use crate::sync::lock;

/// After the first `SEND_TIMEOUT` a client must take at least this many bytes a second.
const SLOWEST: usize = 4 * 1024;

/// Values of `Outlet::answered` while an answer is under way. After the second the loop is woken.
const BUSY: u64 = u64::MAX;
const AWAITED: u64 = u64::MAX - 1;

/// The part of a connection that workers share with the event loop.
pub struct Outlet {
    /// The state of the edge.
    pub shared: Arc<EdgeShared>,
    /// The socket.
    pub socket: Socket,
    /// The other end of the socket, which may be a proxy.
    pub peer: ClientAddress,
    /// Names the connection in the event loop.
    pub token: u64,
    /// Whether the loop must send, because the connection speaks TLS.
    pub encrypted: bool,
    /// When the connection was accepted.
    pub opened: Instant,
    /// Milliseconds from `opened` to the end of the last answer, or [`BUSY`] or [`AWAITED`].
    pub answered: AtomicU64,
}

impl Outlet {
    /// Notes that an answer is under way.
    pub fn begin(&self) {
        self.answered.store(BUSY, Ordering::Release);
    }

    /// Notes that the answer is sent, or that its connection is broken. Returns whether the loop waits for that.
    pub fn end(&self) -> bool {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(0);
        self.answered.swap(now, Ordering::AcqRel) == AWAITED
    }

    /// The time at which the last answer was sent; `None` while one is under way.
    pub fn idle_since(&self) -> Option<Instant> {
        match self.answered.load(Ordering::Acquire) {
            BUSY | AWAITED => None,
            milliseconds => Some(self.opened + Duration::from_millis(milliseconds)),
        }
    }

    /// Whether no answer is under way. If one is, the loop is woken after it.
    pub fn is_free(&self) -> bool {
        let await_end =
            self.answered
                .compare_exchange(BUSY, AWAITED, Ordering::AcqRel, Ordering::Acquire);
        !matches!(await_end, Ok(_) | Err(AWAITED))
    }
}

/// Bytes on their way to a client that takes them slowly.
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// The deadline if the client takes nothing more.
    stalled: Instant,
    /// The deadline in any case.
    until: Instant,
    sending: Option<Sending>,
}

/// The result of an attempt to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// All bytes are sent.
    Done,
    /// The socket may take more bytes at once.
    More,
    /// The socket takes nothing now.
    Blocked,
}

impl Outgoing {
    /// Bytes of which the first `sent` are sent already. The client may take none for `send_time`.
    pub fn new(
        bytes: Vec<u8>,
        sent: usize,
        send_time: Duration,
        sending: Option<Sending>,
    ) -> Outgoing {
        let stalled = Instant::now() + send_time;
        Outgoing {
            until: stalled + Duration::from_secs((bytes.len() / SLOWEST) as u64),
            bytes,
            sent,
            stalled,
            sending,
        }
    }

    /// The time at which the connection is closed.
    pub fn deadline(&self) -> Instant {
        self.stalled.min(self.until)
    }

    /// Sends some of the bytes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(
        &mut self,
        transport: &mut Transport,
        socket: &Socket,
        stalled: Instant,
    ) -> io::Result<Progress> {
        let sent = transport.send(socket, self.bytes.get(self.sent..).unwrap_or_default())?;
        if sent > 0 {
            self.sent += sent;
            self.stalled = stalled;
            if let Some(sending) = &self.sending {
                sending.note_sent(self.sent);
            }
        }
        Ok(match self.sent < self.bytes.len() {
            true if sent == 0 => Progress::Blocked,
            true => Progress::More,
            false if transport.wants_to_send() => Progress::Blocked,
            false => Progress::Done,
        })
    }
}

/// Messages to the event loop: tokens of connections whose answer is sent, or whose bytes the loop has to send.
pub struct Mailbox {
    messages: Mutex<Vec<(u64, Option<Outgoing>)>>,
    /// Its changes wake the loop.
    pub counter: OwnedFd,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Mailbox> {
        Ok(Mailbox {
            messages: Mutex::default(),
            counter: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Adds a message for a connection. The first one after [`Mailbox::take`] wakes the loop.
    pub fn put(&self, token: u64, message: Option<Outgoing>) {
        let mut messages = lock(&self.messages);
        messages.push((token, message));
        let first = messages.len() == 1;
        drop(messages);
        if first {
            self.wake();
        }
    }

    /// Takes all messages.
    pub fn take(&self) -> Vec<(u64, Option<Outgoing>)> {
        std::mem::take(&mut lock(&self.messages))
    }

    /// Wakes the loop. The loop waits for changes of the counter and never reads it.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.counter, &1_u64.to_ne_bytes());
    }
}

/// Sends the answer to one request.
pub struct EdgeReply {
    /// The connection of the request.
    pub outlet: Arc<Outlet>,
    /// The id of the request, for the 503 that is sent if there is no memory for the answer.
    pub request_id: RequestId,
    /// The framing of that 503.
    pub framing: Framing,
}

impl Reply for EdgeReply {
    fn send(self: Box<Self>, answer: Vec<u8>, holder: Option<Holder>) {
        let outlet = &self.outlet;
        let shared = &outlet.shared;
        let (answer, share) = shared
            .answers
            .admit(answer, holder, &self.request_id, &self.framing);
        let sent = match outlet.encrypted {
            true => Ok(0),
            false => outlet.socket.send_now(&answer),
        };
        match sent {
            Ok(sent) if sent < answer.len() => {
                let sending = shared.answers.watch(outlet, holder, share);
                let outgoing =
                    Outgoing::new(answer, sent, shared.options.limits.send_time, Some(sending));
                shared.mailbox.put(outlet.token, Some(outgoing));
            }
            // A closed connection is not an error.
            _ => {
                if outlet.end() {
                    shared.mailbox.put(outlet.token, None);
                }
            }
        }
    }
}
