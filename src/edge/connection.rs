//! One connection: its state and its steps. The event loop owns it.
//!
//! The states are in the module doc of `edge`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::event_loop::Core;
use super::limits::MemoryShare;
use super::outlet::{EdgeReply, Outgoing, Outlet, Progress};
use super::receiving::{BodyInput, HeadInput, Known, refused_request};
use super::tickets::Ticket;
use super::timers::TIMER_STEP;
use super::transport::Transport;
use crate::http::error::Error;
use crate::http::request::{Network, Request};
use crate::http::responder::Responder;
use crate::http::response::Framing;
use crate::metrics;

/// When a connection is closed with unread input, for how long and how much is read and thrown away, so that the client can
/// read the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Steps of one connection before other connections run. A step reads or sends a buffer, or serves a request.
const STEPS: usize = 32;

/// What a connection is doing.
pub enum ConnectionState {
    /// Makes a TLS connection; the deadline.
    Handshake(Instant),
    /// Receives a head. Without a byte of it, the connection is idle.
    Head(HeadInput),
    /// Receives a body.
    Body(Box<BodyInput>),
    /// Has a whole request, which waits for the answer before it.
    Ready(Box<(Request, Framing, MemoryShare)>),
    /// Has a refusal, which waits for the answer before it.
    Refused(Error),
    /// The last answer is under way.
    Last,
    /// The client sends no more. An answer may still be under way.
    Ended,
    /// Reads and discards what the client still sends: the number of bytes so far, and the deadline.
    Lingering(usize, Instant),
}

/// What a step needs next.
pub enum Next {
    /// The next step.
    Step,
    /// More bytes of the client.
    Input,
    /// The end of the answer that is under way.
    Answer,
    /// The end of the connection.
    Close,
}

/// What a connection needs after a run of steps.
pub enum RunResult {
    /// It waits for its socket, an answer or a deadline.
    Waits,
    /// It can continue at once.
    Again,
    /// It has ended.
    Over,
}

/// A connection.
pub struct Connection {
    pub outlet: Arc<Outlet>,
    /// Whether this is the server's own check on itself.
    pub own: bool,
    /// Whether it counts as one of `MAX_CONNECTIONS`, and in which network's count it is.
    pub admitted: bool,
    pub counted: Option<Network>,
    pub transport: Transport,
    pub state: ConnectionState,
    /// What has been received and not been used.
    pub input: Vec<u8>,
    /// What is known of the request that is being received, once its head is whole.
    pub known: Option<Known>,
    /// What is sent before anything else happens.
    pub outgoing: Option<Outgoing>,
    /// Whether the socket may have more input than was read, and whether its other end has closed.
    pub readable: bool,
    pub closed: bool,
    /// Whether the client has ended the TLS connection.
    pub ended: bool,
    /// Whether the kernel reports when the socket can take more bytes.
    pub watches_sending: bool,
    /// The time of its entry among the timers.
    pub armed: Option<Instant>,
}

impl Connection {
    /// Notes what the kernel reports of the socket. Returns true: the connection stays open.
    pub fn note(&mut self, flags: EventFlags) -> bool {
        self.closed |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.readable |= self.closed || flags.contains(EventFlags::IN);
        true
    }

    /// Runs steps until the connection has to wait, at most [`STEPS`].
    pub fn run(&mut self, core: &mut Core) -> RunResult {
        for _ in 0..STEPS {
            if self.outgoing.is_some() || self.transport.wants_to_send() {
                match self.send_more(core) {
                    Ok(Progress::Done) => {}
                    Ok(Progress::More) => continue,
                    Ok(Progress::Blocked) => return RunResult::Waits,
                    Err(_) => return RunResult::Over,
                }
            }
            match self.step(core) {
                Next::Step => {}
                Next::Input if !self.readable => return RunResult::Waits,
                // One step of a handshake takes up to a millisecond.
                Next::Input
                    if matches!(self.state, ConnectionState::Handshake(_))
                        && std::mem::replace(&mut core.has_shaken_hands, true) =>
                {
                    return RunResult::Again;
                }
                Next::Input => self.receive(core),
                Next::Answer => return RunResult::Waits,
                Next::Close => return RunResult::Over,
            }
        }
        RunResult::Again
    }

    fn send_more(&mut self, core: &Core) -> io::Result<Progress> {
        let socket = &self.outlet.socket;
        let Some(outgoing) = &mut self.outgoing else {
            return Ok(match self.transport.flush(socket)? {
                true => Progress::Done,
                false => Progress::Blocked,
            });
        };
        let stalled = core.now + core.shared.options.limits.send_time;
        let progress = outgoing.send(&mut self.transport, socket, stalled)?;
        match progress {
            Progress::Done => {
                self.outgoing = None;
                self.outlet.end();
            }
            Progress::Blocked if outgoing.deadline() <= core.now => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            _ => {}
        }
        Ok(progress)
    }

    fn step(&mut self, core: &mut Core) -> Next {
        let state = std::mem::replace(&mut self.state, ConnectionState::Ended);
        let next = match state {
            ConnectionState::Handshake(_) if !self.transport.is_handshaking() => {
                self.state = ConnectionState::Head(HeadInput::default());
                Ok(Next::Step)
            }
            ConnectionState::Head(input) => self.read_head(core, input),
            ConnectionState::Body(input) => self.read_body(core, *input),
            ConnectionState::Handshake(_) | ConnectionState::Lingering(..) => {
                self.state = state;
                Ok(Next::Input)
            }
            state if !self.outlet.is_free() => {
                self.state = state;
                Ok(Next::Answer)
            }
            ConnectionState::Ready(request) => {
                let (request, framing, share) = *request;
                self.deliver(core, request, framing, share);
                Ok(Next::Step)
            }
            ConnectionState::Refused(error) => {
                self.refuse(core, error);
                Ok(Next::Step)
            }
            ConnectionState::Last => {
                self.transport.finish(&self.outlet.socket);
                self.outlet.socket.end_sending();
                self.state = ConnectionState::Lingering(0, core.now + LINGER);
                Ok(Next::Input)
            }
            ConnectionState::Ended => {
                self.transport.finish(&self.outlet.socket);
                Ok(Next::Close)
            }
        };
        next.unwrap_or_else(|error| {
            self.state = ConnectionState::Refused(error);
            Next::Step
        })
    }

    /// Reads once. An incomplete request at the end of the stream gets no answer.
    fn receive(&mut self, core: &mut Core) {
        let received = match self.ended {
            true => Ok(Some(0)),
            false => self.outlet.socket.receive_now(&mut core.buffer),
        };
        let length = match received {
            Ok(Some(length @ 1..)) => length,
            Ok(None) => return self.readable = false,
            Ok(Some(0)) | Err(_) => return self.state = ConnectionState::Ended,
        };
        // After a read that did not fill the buffer the kernel reports new bytes, but not an end that it has reported before.
        self.readable = self.closed || length == core.buffer.len();
        let bytes = core.buffer.get(..length).unwrap_or_default();
        if let ConnectionState::Lingering(discarded, _) = &mut self.state {
            *discarded += length;
            if *discarded >= LINGER_BYTES {
                self.state = ConnectionState::Ended;
            }
            return;
        }
        match self.transport.open(bytes, &mut self.input) {
            Ok(true) => {}
            // Requests that came before are served first.
            Ok(false) => (self.ended, self.readable) = (true, true),
            Err(_) => self.state = ConnectionState::Ended,
        }
    }

    fn deliver(&mut self, core: &mut Core, request: Request, framing: Framing, share: MemoryShare) {
        self.state = match framing.close {
            true => ConnectionState::Last,
            false => ConnectionState::Head(HeadInput::default()),
        };
        let mut responder = self.responder(&request, framing);
        match (core.shared.options.immediate)(&request, &mut responder) {
            Some(response) => responder.answer(Ok(response)),
            None => core.tickets.push(Ticket {
                holder: request.holder,
                since: core.now,
                request,
                responder,
                _body_share: share,
                patient: self.own,
            }),
        }
    }

    /// Answers a request that is not served, as the connection's last answer.
    fn refuse(&mut self, core: &Core, error: Error) {
        // A connection that is not admitted has been counted.
        if self.admitted {
            metrics::rejected(error.code());
        }
        let known = self.known.take().unwrap_or_else(|| self.guess(core));
        let request = refused_request(&known, core.now);
        self.state = ConnectionState::Last;
        self.responder(&request, known.framing).answer(Err(error));
    }

    /// The responder for a request. From here on an answer is under way.
    fn responder(&self, request: &Request, framing: Framing) -> Responder {
        self.outlet.begin();
        let reply = Box::new(EdgeReply {
            outlet: Arc::clone(&self.outlet),
            request_id: request.id.clone(),
            framing: framing.clone(),
        });
        let reveal_causes = self.outlet.shared.options.reveal_causes;
        let responder = Responder::new(request, reply, framing, reveal_causes);
        match self.own {
            true => responder.quiet(),
            false => responder,
        }
    }

    /// The time since which it has been idle: between requests, or while it is only read until its end.
    pub fn idle_since(&self) -> Option<Instant> {
        let idle = match &self.state {
            ConnectionState::Head(input) => input.until.is_none(),
            ConnectionState::Handshake(_) | ConnectionState::Lingering(..) => true,
            _ => false,
        };
        let idle = idle && self.outgoing.is_none();
        idle.then(|| self.outlet.idle_since()).flatten()
    }

    /// Whether it is idle and its socket has nothing to read: a request that has arrived is served.
    pub fn may_be_closed(&self) -> bool {
        let lingers = matches!(self.state, ConnectionState::Lingering(..));
        self.idle_since().is_some() && (lingers || !self.outlet.socket.has_input())
    }

    fn deadline(&self, core: &Core) -> Instant {
        let limits = &core.shared.options.limits;
        if let Some(outgoing) = &self.outgoing {
            return outgoing.deadline();
        }
        match &self.state {
            ConnectionState::Handshake(until) | ConnectionState::Lingering(_, until) => *until,
            ConnectionState::Head(HeadInput {
                until: Some(until), ..
            }) => *until,
            ConnectionState::Body(input) if !input.owes_continue => input.deadline(limits),
            // An answer under way has no deadline here. Later the time since its end counts.
            _ => self.outlet.idle_since().unwrap_or(core.now) + limits.keep_alive,
        }
    }

    /// Sets a timer for its deadline, unless an earlier one is set.
    pub fn arm(&mut self, core: &mut Core) {
        let deadline = self.deadline(core).max(core.now + TIMER_STEP);
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            core.timers.set(deadline, self.outlet.token);
        }
    }

    /// Called when one of its timers is due. False if the connection is to be closed.
    pub fn on_timer(&mut self, core: &Core, at: Instant) -> bool {
        if self.armed != Some(at) {
            return true;
        }
        self.armed = None;
        if self.deadline(core) > core.now {
            return true;
        }
        let late = match &self.state {
            // The kernel reports room for more bytes late, so sending decides whether the client has stalled.
            _ if self.outgoing.is_some() => return true,
            ConnectionState::Head(HeadInput { until: Some(_), .. }) => {
                "the head did not arrive in time"
            }
            ConnectionState::Body(_) => "the body did not arrive in time",
            ConnectionState::Handshake(_) | ConnectionState::Lingering(..) => return false,
            ConnectionState::Head(_) if self.may_be_closed() => return false,
            // The kernel has not yet reported bytes that have arrived.
            ConnectionState::Head(_) => return self.note(EventFlags::IN),
            _ => return true,
        };
        self.state = ConnectionState::Refused(Error::RequestTimeout(late));
        true
    }

    /// Asks the kernel to report when the socket can take more bytes, while there are bytes to send.
    pub fn watch(&mut self, epoll: BorrowedFd<'_>) {
        let sends = self.outgoing.is_some() || self.transport.wants_to_send();
        if sends != self.watches_sending {
            self.watches_sending = sends;
            let token = EventData::new_u64(self.outlet.token);
            // It fails only if no memory is left; then the deadline ends the connection.
            let _ = epoll::modify(epoll, &self.outlet.socket, token, interest(sends));
        }
    }
}

/// The changes of a socket that the kernel reports, each once.
pub fn interest(sends: bool) -> EventFlags {
    let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    flags.set(EventFlags::OUT, sends);
    flags
}
