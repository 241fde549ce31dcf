//! tiny_http's own connection to a client: reads a request whole and answers on the same connection.
//!
//! For trusted clients only: no handler can prevent what tiny_http allows a client to do (see docs/architecture.md).

use std::io::{Read, Write};
use std::time::Instant;

use super::WorkerShared;
use crate::domain::fair_budget::Holder;
use crate::http::error::{Error, PROBLEM};
use crate::http::policy;
use crate::http::request::{ClientAddress, Headers, Method, Request, RequestId};
use crate::http::responder::{Reply, Responder};
use crate::http::response::Framing;

/// Reads the request whole. Answers it and returns `None` if its body is too large or incomplete.
pub fn receive(
    mut received: tiny_http::Request,
    shared: &WorkerShared,
    last: bool,
) -> Option<(Request, Responder)> {
    let mut headers = Headers::default();
    for header in received.headers() {
        headers.push(header.field.as_str().as_str(), header.value.as_str());
    }
    let http_1_0 = *received.http_version() == tiny_http::HTTPVersion(1, 0);
    let method = Method::parse(received.method().as_str());
    let peer = ClientAddress::of_peer(received.remote_addr().copied());
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
    // A tiny_http request that is dropped with its writer sends an answer of its own.
    let reply = Box::new(DirectReply(received.into_writer()));
    let responder = Responder::new(&request, reply, framing, shared.reveal_causes);
    match body {
        Ok(body) => Some((Request { body, ..request }, responder)),
        Err(error) => {
            responder.answer(Err(error));
            None
        }
    }
}

/// Whether tiny_http closes the connection after this request.
fn ends(headers: &Headers, http_1_0: bool) -> bool {
    let connection = headers
        .get("Connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    connection.contains("close")
        || connection.contains("upgrade")
        || (http_1_0 && !connection.contains("keep-alive"))
}

fn read_body(
    received: &mut tiny_http::Request,
    headers: &Headers,
    most: usize,
) -> Result<Vec<u8>, Error> {
    let declared = received.body_length();
    if declared.is_some_and(|length| length > most) {
        return Err(Error::PayloadTooLarge(most));
    }
    let mut body = Vec::new();
    // A request that declares no body has none. After an upgrade, reading would wait for more bytes of the client.
    if declared.unwrap_or(0) == 0 && headers.get("Transfer-Encoding").is_none() {
        return Ok(body);
    }
    let limit = declared.unwrap_or(most + 1) as u64;
    match received.as_reader().take(limit).read_to_end(&mut body) {
        Ok(_) if body.len() > most => Err(Error::PayloadTooLarge(most)),
        Ok(read) if declared.is_none_or(|length| read == length) => Ok(body),
        _ => Err(Error::BadRequest(
            "the body ended before its declared length".into(),
        )),
    }
}

/// tiny_http's writer to the client.
struct DirectReply(Box<dyn Write + Send>);

impl Reply for DirectReply {
    fn send(mut self: Box<Self>, answer: Vec<u8>, _: Option<Holder>) {
        // A closed connection is not an error.
        let _ = self.0.write_all(&answer).and_then(|()| self.0.flush());
    }
}
