//! Reads requests from the bytes of a connection.

use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::ChunkedDecoder;
use super::connection::{Connection, ConnectionState, Next};
use super::event_loop::Core;
use super::head::{self, BodyFraming, Head, HeadScanner};
use super::limits::MemoryShare;
use super::outlet::Outgoing;
use crate::config::EdgeLimits;
use crate::http::error::{Error, PROBLEM};
use crate::http::policy;
use crate::http::request::{ClientAddress, Headers, Method, Request, RequestId};
use crate::http::response::Framing;

/// A body must come faster than this many bytes a second, after the first [`BODY_START`].
const TRICKLE: usize = 256;
const BODY_START: Duration = Duration::from_secs(5);
/// An input buffer larger than this is freed after use, in bytes.
const KEPT_INPUT: usize = 2 * 1024;

/// A head that is being received.
#[derive(Default)]
pub struct HeadInput {
    scanner: HeadScanner,
    /// The deadline; `None` before its first byte.
    pub until: Option<Instant>,
}

/// A body that is being received.
pub struct BodyInput {
    head: Head,
    received: Instant,
    decoder: Decoder,
    body: Vec<u8>,
    share: MemoryShare,
    began: Instant,
    /// Bytes that have arrived, framing included.
    arrived: usize,
    /// Whether the client still waits for an interim response (RFC 9110, section 10.1.1).
    pub owes_continue: bool,
}

impl BodyInput {
    /// The time by which more of it must have arrived.
    pub fn deadline(&self, limits: &EdgeLimits) -> Instant {
        let earned = BODY_START + Duration::from_secs((self.arrived / TRICKLE) as u64);
        self.began + earned.min(limits.body_time)
    }
}

/// The parts of a request's head that an answer needs.
pub struct Known {
    pub method: Method,
    pub id: RequestId,
    pub client: ClientAddress,
    pub framing: Framing,
}

/// Takes a body from the input by its framing.
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

impl Connection {
    /// Looks for a whole head in the input.
    pub fn read_head(&mut self, core: &Core, mut input: HeadInput) -> Result<Next, Error> {
        let limits = &core.shared.options.limits;
        let length = match self.input.is_empty() {
            true => None,
            false => input.scanner.find(&self.input, limits.head())?,
        };
        let Some(length) = length else {
            if self.input.is_empty() {
                self.input.shrink_to(KEPT_INPUT);
            } else {
                input.until.get_or_insert(core.now + limits.head_time);
            }
            self.state = ConnectionState::Head(input);
            return Ok(Next::Input);
        };
        let bytes = self.input.get(..length).unwrap_or_default();
        let head = head::parse(bytes, limits.head())?;
        self.input.drain(..length);
        let proxies = &limits.trusted_proxies;
        let client = proxies.client(self.outlet.peer, &head.headers);
        self.known = Some(Known {
            method: head.method,
            id: RequestId::from_header(head.headers.get("X-Request-ID")),
            client,
            framing: Framing {
                head_only: head.method == Method::Head,
                http_1_0: head.http_1_0,
                close: true,
                fields: self.fields(core, policy::origin(&head.headers), |name| {
                    head.headers.raw(name).last()
                }),
                problem: head.headers.names("Accept", PROBLEM),
            },
        });
        self.begin_body(core, head, client)
    }

    fn begin_body(
        &mut self,
        core: &Core,
        head: Head,
        client: ClientAddress,
    ) -> Result<Next, Error> {
        let limits = &core.shared.options.limits;
        let holder = limits.trusted_proxies.holder(client);
        let share = core.shared.bodies.share(holder, 0).ok_or_else(no_memory)?;
        let decoder = match head.body {
            BodyFraming::None => Decoder::Length(0),
            BodyFraming::Length(length) if length > limits.body => {
                return Err(Error::PayloadTooLarge(limits.body));
            }
            BodyFraming::Length(length) => Decoder::Length(length),
            BodyFraming::Chunked => Decoder::Chunked(ChunkedDecoder::new(limits.body)),
        };
        let input = BodyInput {
            received: core.now,
            decoder,
            body: Vec::new(),
            share,
            began: core.now,
            arrived: 0,
            // A client that sends its body already does not wait.
            owes_continue: head.expects_continue
                && head.body != BodyFraming::None
                && self.input.is_empty(),
            head,
        };
        self.read_body(core, input)
    }

    /// Takes the part of the body that is in the input.
    pub fn read_body(&mut self, core: &Core, mut input: BodyInput) -> Result<Next, Error> {
        if input.owes_continue && self.input.is_empty() {
            if !self.outlet.is_free() {
                self.state = ConnectionState::Body(Box::new(input));
                return Ok(Next::Answer);
            }
            let bytes = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
            let send_time = core.shared.options.limits.send_time;
            self.outgoing = Some(Outgoing::new(bytes, 0, send_time, None));
            (input.owes_continue, input.began) = (false, core.now);
            self.state = ConnectionState::Body(Box::new(input));
            return Ok(Next::Step);
        }
        input.owes_continue = false;
        let used = input.decoder.decode(&self.input, &mut input.body)?;
        self.input.drain(..used);
        input.arrived += used;
        if !input.share.grow_to(input.body.capacity()) {
            return Err(no_memory());
        }
        if !input.decoder.is_done(input.body.len()) {
            self.state = ConnectionState::Body(Box::new(input));
            return Ok(Next::Input);
        }
        // `read_head` has set it.
        let Some(known) = self.known.take() else {
            return Ok(Next::Close);
        };
        let proxies = &core.shared.options.limits.trusted_proxies;
        let head = input.head;
        let request = Request {
            method: known.method,
            target: head.target,
            id: known.id,
            client: known.client,
            holder: proxies.holder(known.client),
            headers: head.headers,
            body: take(&mut input.body),
            received: input.received,
        };
        let framing = Framing {
            close: head.close || core.shared.is_draining(),
            ..known.framing
        };
        self.state = ConnectionState::Ready(Box::new((request, framing, input.share)));
        Ok(Next::Step)
    }

    /// The same parts of a head that is incomplete or was refused.
    pub fn guess(&self, core: &Core) -> Known {
        Known {
            method: Method::Other,
            id: RequestId::from_header(None),
            client: self.outlet.peer,
            framing: Framing {
                close: true,
                head_only: head::asks_for_head_alone(&self.input),
                fields: self.fields(core, head::origin(&self.input), |name| {
                    head::values(&self.input, name).last()
                }),
                ..Framing::default()
            },
        }
    }

    /// The header fields that every answer to this client carries.
    fn fields<'h>(
        &self,
        core: &Core,
        origin: Option<&[u8]>,
        last: impl Fn(&str) -> Option<&'h [u8]>,
    ) -> Arc<str> {
        let proxies = &core.shared.options.limits.trusted_proxies;
        let https = self.outlet.encrypted || proxies.says_https(self.outlet.peer, last);
        core.shared.options.policy.fields(origin, https)
    }
}

fn no_memory() -> Error {
    Error::Unavailable("bodies in flight fill the memory set aside for them".to_owned())
}

/// The request of an answer to a request that was refused.
pub fn refused_request(known: &Known, received: Instant) -> Request {
    Request {
        method: known.method,
        target: String::new(),
        headers: Headers::default(),
        body: Vec::new(),
        id: known.id.clone(),
        client: known.client,
        holder: None,
        received,
    }
}
