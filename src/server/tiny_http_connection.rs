//! tiny_http's own connection to a client: reads a request whole and answers on the same connection.
//!
//! For trusted clients only: no handler can prevent what tiny_http allows a client to do (see docs/architecture.md).

use std::io::{Read, Write};
use std::time::Instant;

use super::Shared;
use crate::domain::fair_budget::Holder;
use crate::http::error::{Error, PROBLEM};
use crate::http::policy;
use crate::http::request::{Client, Headers, Method, Request, RequestId};
use crate::http::responder::{Admission, Reply, Responder};
use crate::http::response::Framing;

/// Reads the request whole. `None` when it is answered already, or its client is gone.
pub fn receive(
    mut received: tiny_http::Request,
    shared: &Shared,
    last: bool,
) -> Option<(Request, Responder)> {
    let mut headers = Headers::default();
    for header in received.headers() {
        headers.push(header.field.as_str().as_str(), header.value.as_str());
    }
    let http_1_0 = *received.http_version() == tiny_http::HTTPVersion(1, 0);
    let method = Method::parse(received.method().as_str());
    let peer = received.remote_addr().map_or(Client::Local, |address| {
        Client::Address(address.ip().to_canonical())
    });
    let https = shared
        .trusted_proxies
        .says_https(peer, |name| headers.raw(name).last());
    let framing = Framing {
        head_only: method == Method::Head,
        http_1_0,
        close: last || ends(&headers, http_1_0),
        fields: shared.policy.fields(policy::origin(&headers), https),
        problem: headers.names("Accept", PROBLEM),
    };
    let body = read_body(&mut received, &headers, shared.max_body);
    let client = shared.trusted_proxies.client(peer, &headers);
    let request = Request {
        method,
        target: received.url().to_owned(),
        id: RequestId::from_header(headers.get("X-Request-ID")),
        client,
        holder: shared.trusted_proxies.holder(client),
        received: Instant::now(),
        headers,
        body: Vec::new(),
    };
    // Taken first thing: a request that is dropped with its writer answers for itself, and not in our words.
    let reply = Box::new(DirectReply {
        writer: received.into_writer(),
    });
    let responder = Responder::new(&request, reply, framing, shared.reveal_causes);
    match body {
        Body::Whole(body) => Some((Request { body, ..request }, responder)),
        Body::TooLarge => {
            responder.answer(Err(Error::PayloadTooLarge(shared.max_body)));
            None
        }
        Body::Broken => {
            responder.answer(Err(Error::BadRequest(
                "the body ended before its declared length".into(),
            )));
            None
        }
    }
}

/// Whether tiny_http takes this for the connection's last request.
fn ends(headers: &Headers, http_1_0: bool) -> bool {
    let connection = headers
        .get("Connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    connection.contains("close")
        || connection.contains("upgrade")
        || (http_1_0 && !connection.contains("keep-alive"))
}

enum Body {
    Whole(Vec<u8>),
    TooLarge,
    Broken,
}

fn read_body(received: &mut tiny_http::Request, headers: &Headers, most: usize) -> Body {
    let declared = received.body_length();
    if declared.is_some_and(|length| length > most) {
        return Body::TooLarge;
    }
    // Where nothing declares a body there is none; reading would wait for the client's next word after an upgrade.
    if declared.unwrap_or(0) == 0 && headers.get("Transfer-Encoding").is_none() {
        return Body::Whole(Vec::new());
    }
    let mut body = Vec::new();
    let limit = declared.unwrap_or(most + 1);
    match received
        .as_reader()
        .take(limit as u64)
        .read_to_end(&mut body)
    {
        Ok(_) if body.len() > most => Body::TooLarge,
        Ok(read) if declared.is_none_or(|length| read == length) => Body::Whole(body),
        _ => Body::Broken,
    }
}

/// tiny_http reads and queues the requests of trusted clients itself, so there is nothing to share out.
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&mut self, _: Option<Holder>) -> bool {
        true
    }
}

struct DirectReply {
    writer: Box<dyn Write + Send>,
}

impl Reply for DirectReply {
    fn send(mut self: Box<Self>, answer: Vec<u8>, _: Option<Holder>) {
        // If the client has gone, there is no one to report the error to.
        let _ = self
            .writer
            .write_all(&answer)
            .and_then(|()| self.writer.flush());
    }
}
