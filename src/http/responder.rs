//! Sends the answer, once, and writes the access log.
//!
//! A [`Responder`] is made when a request is handed over, and may be moved to another thread. If it is dropped unused, because a handler
//! panicked, it answers 500.

use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::error::{Error, Unauthorized};
use super::request::{ClientAddress, Method, Request, RequestId};
use super::response::{Framing, Response};
use crate::audit::{Event, Trail};
use crate::domain::fair_budget::Holder;
use crate::domain::user::UserId;
use crate::logging::ACCESS_LOG;
use crate::metrics;

/// Sends an answer to a client. The owner of the connection implements it.
pub trait Reply: Send {
    /// Sends a whole answer, whose memory counts for `holder`. A closed connection is not an error.
    fn send(self: Box<Self>, answer: Vec<u8>, holder: Option<Holder>);
}

/// Whether a user may have the worker that serves a request. If not, the request waits.
pub type Admit<'w> = dyn FnMut(Option<Holder>) -> bool + 'w;

/// The right to answer one request, once.
pub struct Responder {
    // `None` once the request is answered.
    reply: Option<Box<dyn Reply>>,
    framing: Framing,
    reveal_causes: bool,
    // Added to every answer, errors included.
    headers: Vec<(&'static str, String)>,
    // The level of the access line.
    level: Level,
    method: Method,
    client: ClientAddress,
    received: Instant,
    request_id: RequestId,
    route: Option<Arc<str>>,
    user: Option<UserId>,
    holder: Option<Holder>,
}

impl Responder {
    /// A responder for a request. `reveal_causes` adds the cause to answers of 500 and over; for development only.
    pub fn new(
        request: &Request,
        reply: Box<dyn Reply>,
        framing: Framing,
        reveal_causes: bool,
    ) -> Responder {
        metrics::request_arrived();
        Responder {
            reply: Some(reply),
            framing,
            reveal_causes,
            headers: Vec::new(),
            level: Level::Info,
            method: request.method,
            client: request.client,
            received: request.received,
            request_id: request.id.clone(),
            route: None,
            user: None,
            holder: request.holder,
        }
    }

    /// Logs the request at the level debug only.
    pub fn quiet(mut self) -> Responder {
        self.level = Level::Debug;
        self
    }

    /// Sets the route of the request.
    pub fn set_route(&mut self, pattern: &Arc<str>) {
        self.route = Some(Arc::clone(pattern));
    }

    /// Sets the user of the token, who is the holder of budgets from here on.
    pub fn set_user(&mut self, user: &UserId) {
        self.holder = Some(Holder::of(user));
        self.user = Some(user.clone());
    }

    /// The holder of budgets: the user or, before authentication, the client's network.
    pub fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// Adds a header field to the answer, also if it is an error.
    pub fn add_header(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.push((name, value.into()));
    }

    /// Answers. Errors are logged here and nowhere else.
    pub fn answer(mut self, result: Result<Response, Error>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<Response, Error>) {
        let Some(reply) = self.reply.take() else {
            return;
        };
        let mut response = result.unwrap_or_else(|error| {
            self.log_error(&error);
            let (id, problem) = (&self.request_id, self.framing.problem);
            error.into_response(id, self.reveal_causes, problem)
        });
        for (name, value) in self.headers.drain(..) {
            response = response.header(name, value);
        }
        let (status, bytes) = (response.status, response.body.len());
        let answer = response.encode(&self.framing, self.request_id.as_str());
        // Before it is sent: a client that has the answer may ask for the metrics next.
        self.count(status);
        reply.send(answer, self.holder);
        self.log_access(status, bytes);
    }

    fn log_error(&self, error: &Error) {
        let (id, client) = (self.request_id.as_str(), self.client);
        match error {
            Error::Internal(cause) => log::error!(request_id = id; "request failed: {cause}"),
            Error::Unavailable(cause) => log::warn!(request_id = id; "request refused: {cause}"),
            // The handlers log refused passwords and refresh tokens, with more detail.
            Error::Unauthorized(Unauthorized::Refused(_)) => {}
            Error::Unauthorized(unauthorized) => {
                if let Unauthorized::Token(why, user) = unauthorized
                    && let Some(user) = user.as_ref().or(self.user.as_ref())
                {
                    return Trail::new(client, id).record(user, Event::TokenRefused(*why));
                }
                log::warn!(client:% = client, request_id = id; "authentication failed: {}", error.message());
            }
            Error::Forbidden(_) => {
                let user = self.user.as_ref().map_or("", UserId::as_str);
                log::warn!(
                    user, client:% = client, request_id = id;
                    "authorization violation: {}", error.message()
                );
            }
            _ => {}
        }
    }

    fn count(&self, status: u16) {
        metrics::request_answered(
            self.method.as_str(),
            self.route.as_deref(),
            status,
            self.received.elapsed(),
        );
    }

    fn log_access(&self, status: u16, bytes: usize) {
        // In whole microseconds.
        let duration_ms = (self.received.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        log::log!(
            target: ACCESS_LOG,
            self.level,
            method = self.method.as_str(),
            route = self.route.as_deref().unwrap_or("-"),
            status,
            duration_ms,
            bytes,
            user = self.user.as_ref().map_or("", UserId::as_str),
            client:% = self.client,
            request_id = self.request_id.as_str();
            ""
        );
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.finish(Err(Error::Internal(
            "the request was dropped without an answer".to_owned(),
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Headers;
    use std::sync::mpsc;

    struct Channel(mpsc::Sender<Vec<u8>>);

    impl Reply for Channel {
        fn send(self: Box<Self>, answer: Vec<u8>, _: Option<Holder>) {
            let _ = self.0.send(answer);
        }
    }

    fn responder() -> (Responder, mpsc::Receiver<Vec<u8>>) {
        let request = Request {
            method: Method::Get,
            target: "/".to_owned(),
            headers: Headers::default(),
            body: Vec::new(),
            id: RequestId::from_header(Some("r1")),
            client: ClientAddress::Local,
            holder: None,
            received: Instant::now(),
        };
        let (sender, answers) = mpsc::channel();
        (
            Responder::new(
                &request,
                Box::new(Channel(sender)),
                Framing::default(),
                false,
            ),
            answers,
        )
    }

    #[test]
    fn a_dropped_responder_answers_500() {
        let (responder, answers) = responder();
        drop(responder);
        let answer = String::from_utf8(answers.recv().unwrap()).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"request_id\":\"r1\""),
            "{answer}"
        );
    }

    #[test]
    fn added_fields_are_in_errors_too() {
        let (mut responder, answers) = responder();
        responder.add_header("X-RateLimit-Limit", "1000");
        drop(responder);
        let answer = String::from_utf8(answers.recv().unwrap()).unwrap();
        assert!(
            answer.contains("\r\nX-RateLimit-Limit: 1000\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn an_answer_is_sent_once() {
        let (responder, answers) = responder();
        responder.answer(Ok(Response::empty(204)));
        assert!(answers.recv().unwrap().starts_with(b"HTTP/1.1 204 "));
        assert!(answers.recv().is_err());
    }
}
