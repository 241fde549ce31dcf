//! A connection's thread: reads its client's requests, whole and one after another, and hands them on.
//!
//! After it has handed one on it goes straight back to reading, but hands on the next only when the last byte of the answer
//! before it is out. So answers never overtake each other, and of each client one request at most is on its way.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::body::ChunkedDecoder;
use super::connections::Connection;
use super::flusher::longest_sending;
use super::head::{self, BodyFraming, Head, HeadScanner};
use super::limits::Share;
use super::reply::{HandedReply, PlainReply};
use super::socket::is_timeout;
use super::tickets::Ticket;
use super::transport::Transport;
use crate::http::error::{Error, PROBLEM};
use crate::http::policy;
use crate::http::request::{Client, Headers, Method, Request, RequestId};
use crate::http::responder::{Reply, Responder};
use crate::http::response::Framing;
use crate::metrics;

/// Bytes read at a time.
const READ: usize = 8 * 1024;
/// Bytes of an answer that are encrypted and sent at a time.
const PIECE: usize = 16 * 1024;
/// A body must come faster than this many bytes a second, once it has had [`BODY_START`].
const TRICKLE: usize = 256;
const BODY_START: Duration = Duration::from_secs(5);
/// When a connection is closed with unread input, how long and how much is read past, so that the client gets to read the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Serves a connection to its end.
pub fn serve(shared: &Arc<Shared>, connection: &Arc<Connection>, transport: Transport) {
    let mut reader = Reader {
        shared,
        connection,
        transport,
        input: Vec::new(),
        buffer: vec![0; READ].into_boxed_slice(),
        read_timeout: None,
        known: None,
    };
    reader.run();
    // Whoever still holds the connection has nothing more to say on it.
    reader.connection.socket.shutdown(Shutdown::Both);
}

struct Reader<'s> {
    shared: &'s Arc<Shared>,
    connection: &'s Arc<Connection>,
    transport: Transport,
    /// What has been read and not yet used.
    input: Vec<u8>,
    buffer: Box<[u8]>,
    /// What the socket's read timeout is set to.
    read_timeout: Option<Duration>,
    /// What is known of the request that is being read, once its head is whole: how to say no to it.
    known: Option<Known>,
}

struct Known {
    method: Method,
    id: RequestId,
    client: Client,
    framing: Framing,
}

/// A request that has arrived whole.
struct Arrived {
    request: Request,
    framing: Framing,
    body_share: Share,
}

impl Reader<'_> {
    fn run(&mut self) {
        if !self.transport.is_plain() && !self.handshake() {
            return;
        }
        loop {
            self.known = None;
            match self.next() {
                Ok(Some(arrived)) => {
                    let last = arrived.framing.close;
                    self.deliver(arrived);
                    if last {
                        return self.linger();
                    }
                }
                // The client sends no more, but may still wait for an answer.
                Ok(None) => {
                    self.connection.wait_answered();
                    let until = Instant::now() + LINGER;
                    return self.transport.finish(&self.connection.socket, until);
                }
                Err(error) => {
                    self.refuse(error);
                    return self.linger();
                }
            }
        }
    }

    /// Makes a TLS connection; false when none comes about in time.
    fn handshake(&mut self) -> bool {
        let until = Instant::now() + self.shared.limits.head_time;
        while self.transport.is_handshaking() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !matches!(self.read(left), Ok(None | Some(1..))) {
                return false;
            }
        }
        true
    }

    /// Reads the next request; `None` at the end of the connection.
    fn next(&mut self) -> Result<Option<Arrived>, Error> {
        let Some(length) = self.read_head()? else {
            return Ok(None);
        };
        let received = Instant::now();
        let limits = &self.shared.limits;
        let bytes = self.input.get(..length).unwrap_or_default();
        let head = head::parse(bytes, limits.head())?;
        self.input.drain(..length);
        let id = RequestId::from_header(head.headers.get("X-Request-ID"));
        let framing = Framing {
            head_only: head.method == Method::Head,
            http_1_0: head.http_1_0,
            close: true,
            fields: self.fields(policy::origin(&head.headers), |name| {
                head.headers.raw(name).last()
            }),
            problem: head.headers.names("Accept", PROBLEM),
        };
        let client = limits
            .trusted_proxies
            .client(self.connection.peer, &head.headers);
        self.known = Some(Known {
            method: head.method,
            id: id.clone(),
            client,
            framing: framing.clone(),
        });
        let Some((body, body_share)) = self.read_body(&head)? else {
            return Ok(None);
        };
        let framing = Framing {
            close: head.close || self.shared.draining.load(Ordering::Relaxed),
            ..framing
        };
        let request = Request {
            method: head.method,
            target: head.target,
            id,
            client,
            holder: limits.trusted_proxies.holder(client),
            headers: head.headers,
            body,
            received,
        };
        Ok(Some(Arrived {
            request,
            framing,
            body_share,
        }))
    }

    /// What an answer carries whatever it says.
    fn fields<'h>(
        &self,
        origin: Option<&[u8]>,
        last: impl Fn(&str) -> Option<&'h [u8]>,
    ) -> Arc<str> {
        let proxies = &self.shared.limits.trusted_proxies;
        let https = !self.transport.is_plain() || proxies.says_https(self.connection.peer, last);
        self.shared.policy.fields(origin, https)
    }

    /// Reads until a head is whole and answers its length; `None` at the end of the connection.
    fn read_head(&mut self) -> Result<Option<usize>, Error> {
        let mut scanner = HeadScanner::default();
        let mut until = None;
        loop {
            if !self.input.is_empty() {
                if until.is_none() && !self.connection.begin() {
                    return Ok(None);
                }
                if let Some(length) = scanner.find(&self.input, self.shared.limits.head())? {
                    return Ok(Some(length));
                }
            }
            let read = match until {
                Some(until) => self.fill(until, "the head did not arrive in time")?,
                None if self.input.is_empty() => self.fill_idle(),
                None => {
                    let end = Instant::now() + self.shared.limits.head_time;
                    until = Some(end);
                    self.fill(end, "the head did not arrive in time")?
                }
            };
            // What has come of a head that will never be whole is worth no answer.
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads a body; `None` when the connection ends before it does.
    fn read_body(&mut self, head: &Head) -> Result<Option<(Vec<u8>, Share)>, Error> {
        let no_memory =
            || Error::Unavailable("bodies in flight fill the memory set aside for them".to_owned());
        let most = self.shared.limits.body;
        let client = self
            .known
            .as_ref()
            .map_or(self.connection.peer, |known| known.client);
        let holder = self.shared.limits.trusted_proxies.holder(client);
        let mut share = self.shared.bodies.share(holder, 0).ok_or_else(no_memory)?;
        let mut decoder = match head.body {
            BodyFraming::None => return Ok(Some((Vec::new(), share))),
            BodyFraming::Length(length) if length > most => {
                return Err(Error::PayloadTooLarge(most));
            }
            BodyFraming::Length(length) => Decoder::Length(length),
            BodyFraming::Chunked => Decoder::Chunked(ChunkedDecoder::new(most)),
        };
        // A client that has begun to send does not wait.
        if head.expects_continue && self.input.is_empty() {
            self.say_continue();
        }
        let began = Instant::now();
        let mut received = 0;
        let mut body = Vec::new();
        loop {
            let used = decoder.decode(&self.input, &mut body)?;
            self.input.drain(..used);
            received += used;
            if !share.grow_to(body.capacity()) {
                return Err(no_memory());
            }
            if decoder.is_done(body.len()) {
                return Ok(Some((body, share)));
            }
            let earned = BODY_START + Duration::from_secs((received / TRICKLE) as u64);
            let until = began + earned.min(self.shared.limits.body_time);
            if self.fill(until, "the body did not arrive in time")? == 0 {
                return Ok(None);
            }
        }
    }

    /// RFC 9110, section 10.1.1. A client that is gone is noticed by the next read.
    fn say_continue(&mut self) {
        self.connection.wait_answered();
        let until = self.longest_sending(0);
        let _ = self.transport.write_all(
            &self.connection.socket,
            b"HTTP/1.1 100 Continue\r\n\r\n",
            until,
        );
    }

    /// Reads more, by `until` at the latest. 0 at the end of the connection.
    fn fill(&mut self, until: Instant, late: &'static str) -> Result<usize, Error> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::RequestTimeout(late));
            }
            match self.read(left) {
                Ok(Some(read)) => return Ok(read),
                Ok(None) => {}
                Err(error) if is_timeout(&error) => return Err(Error::RequestTimeout(late)),
                Err(_) => return Ok(0),
            }
        }
    }

    /// Waits for the next request's first bytes. 0 at the end of the connection, which a long silence is too.
    fn fill_idle(&mut self) -> usize {
        self.connection.rest();
        let keep_alive = self.shared.limits.keep_alive;
        let mut wait = keep_alive;
        loop {
            match self.read(wait) {
                Ok(Some(read)) => return read,
                Ok(None) => {}
                // The silence counts from the end of the last answer.
                Err(error) if is_timeout(&error) => match self.connection.idle_since() {
                    Some(since) if since.elapsed() >= keep_alive => return 0,
                    Some(since) => wait = keep_alive.saturating_sub(since.elapsed()),
                    None => wait = keep_alive,
                },
                Err(_) => return 0,
            }
        }
    }

    /// As [`Transport::read`], within `timeout`; what was read is in the input.
    fn read(&mut self, timeout: Duration) -> io::Result<Option<usize>> {
        // A system call that is mostly not needed: a request arrives in one piece, after a wait as long as the last.
        if self.read_timeout != Some(timeout) {
            self.connection.socket.set_read_timeout(timeout)?;
            self.read_timeout = Some(timeout);
        }
        let until = Instant::now() + self.shared.limits.send_time;
        let read = self
            .transport
            .read(&self.connection.socket, &mut self.buffer, until)?;
        self.input
            .extend_from_slice(self.buffer.get(..read.unwrap_or(0)).unwrap_or_default());
        Ok(read)
    }

    /// Hands a request on when the answer before it is out.
    fn deliver(&mut self, arrived: Arrived) {
        let Arrived {
            request,
            framing,
            body_share,
        } = arrived;
        let mut responder = self.responder(&request, framing.clone());
        self.connection.wait_answered();
        self.connection.hand_over();
        match self.shared.immediate.answer(&request, &mut responder) {
            Some(response) => responder.answer(Ok(response)),
            None => {
                let ticket = Ticket {
                    holder: request.holder,
                    since: Instant::now(),
                    request,
                    responder,
                    _body_share: body_share,
                    patient: self.connection.own,
                };
                if let Err(error) = self.shared.tickets.hand_over(ticket) {
                    self.shared.broken(&error);
                }
            }
        }
        self.send_answer(&framing);
    }

    /// Over TLS this thread alone can send the answer.
    fn send_answer(&mut self, framing: &Framing) {
        if self.transport.is_plain() {
            return;
        }
        let Some((answer, holder)) = self.connection.wait_answer() else {
            return;
        };
        let id = self
            .known
            .as_ref()
            .map_or_else(|| RequestId::from_header(None), |known| known.id.clone());
        let answers = &self.shared.answers;
        let (answer, share) = answers.admit(answer, holder, &id, framing);
        let sending = answers.watch(self.connection, holder, share);
        let until = self.longest_sending(answer.len());
        let mut sent = 0;
        for piece in answer.chunks(PIECE) {
            let until = until.min(self.longest_sending(piece.len()));
            let written = self
                .transport
                .write_all(&self.connection.socket, piece, until);
            if written.is_err() {
                // The next read finds the end.
                self.connection.socket.shutdown(Shutdown::Both);
                break;
            }
            sent += piece.len();
            sending.note_sent(sent);
        }
        drop(sending);
        self.connection.answered();
    }

    /// When an answer of this size must be out.
    fn longest_sending(&self, size: usize) -> Instant {
        Instant::now() + longest_sending(self.shared.limits.send_time, size)
    }

    fn responder(&self, request: &Request, framing: Framing) -> Responder {
        let connection = Arc::clone(self.connection);
        let reply: Box<dyn Reply> = if self.transport.is_plain() {
            Box::new(PlainReply {
                connection,
                shared: Arc::clone(self.shared),
                request_id: request.id.clone(),
                framing: framing.clone(),
            })
        } else {
            Box::new(HandedReply { connection })
        };
        let responder = Responder::new(request, reply, framing, self.shared.reveal_causes);
        if self.connection.own {
            responder.quiet()
        } else {
            responder
        }
    }

    /// Says why a request is not served, as the connection's last answer.
    fn refuse(&mut self, error: Error) {
        metrics::rejected(error.code());
        let known = self.known.take().unwrap_or_else(|| Known {
            method: Method::Other,
            id: RequestId::from_header(None),
            client: self.connection.peer,
            framing: Framing {
                close: true,
                head_only: head::asks_for_head_alone(&self.input),
                fields: self.fields(head::origin(&self.input), |name| {
                    head::values(&self.input, name).last()
                }),
                ..Framing::default()
            },
        });
        let framing = known.framing.clone();
        let request = refused_request(known.method, known.id.clone(), known.client);
        let responder = self.responder(&request, framing.clone());
        self.known = Some(known);
        self.connection.wait_answered();
        self.connection.hand_over();
        responder.answer(Err(error));
        self.send_answer(&framing);
    }

    /// Takes leave: half-closes, and reads past what the client still sends, or it would lose the very answer that explains
    /// (RFC 9112, section 9.6).
    fn linger(&mut self) {
        self.connection.wait_answered();
        let until = Instant::now() + LINGER;
        self.transport.finish(&self.connection.socket, until);
        self.connection.socket.shutdown(Shutdown::Write);
        // It may be closed to make room, like any idle one.
        self.connection.rest();
        let until = Instant::now() + LINGER;
        let mut discarded = 0;
        while discarded < LINGER_BYTES {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.connection.socket.set_read_timeout(left).is_err() {
                return;
            }
            match io::Read::read(&mut &self.connection.socket, &mut self.buffer) {
                Ok(read @ 1..) => discarded += read,
                _ => return,
            }
        }
    }
}

/// A stand-in for a request that was not understood, or not even read.
pub fn refused_request(method: Method, id: RequestId, client: Client) -> Request {
    Request {
        method,
        target: String::new(),
        headers: Headers::default(),
        body: Vec::new(),
        id,
        client,
        holder: None,
        received: Instant::now(),
    }
}

/// Takes a body out of the input, however it is framed.
enum Decoder {
    Length(usize),
    Chunked(ChunkedDecoder),
}

impl Decoder {
    fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Error> {
        match self {
            Decoder::Length(length) => {
                let taken = input.len().min(length.saturating_sub(body.len()));
                body.extend_from_slice(input.get(..taken).unwrap_or_default());
                Ok(taken)
            }
            Decoder::Chunked(decoder) => decoder.decode(input, body),
        }
    }

    fn is_done(&self, body: usize) -> bool {
        match self {
            Decoder::Length(length) => body == *length,
            Decoder::Chunked(decoder) => decoder.is_done(),
        }
    }
}
