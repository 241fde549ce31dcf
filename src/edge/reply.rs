//! How answers leave.

use std::sync::Arc;

use super::Shared;
use super::connections::Connection;
use super::limits::{Budget, Share};
use crate::http::error::Error;
use crate::http::request::RequestId;
use crate::http::responder::Reply;
use crate::http::response::Framing;

/// Sends from whichever thread has the answer, in one system call, and waits for nobody.
pub struct PlainReply {
    /// Where to.
    pub connection: Arc<Connection>,
    /// What is needed when it does not leave at once.
    pub shared: Arc<Shared>,
    /// Named in the answer that is sent in place of one there is no memory for, which is framed in the same way.
    pub request_id: RequestId,
    /// How answers are framed here.
    pub framing: Framing,
}

impl Reply for PlainReply {
    fn send(self: Box<Self>, answer: Vec<u8>) {
        let Some((answer, share)) = within_budget(
            &self.shared.answers,
            answer,
            &self.request_id,
            &self.framing,
        ) else {
            return self.connection.answered();
        };
        match self.connection.socket.send_now(&answer) {
            Ok(sent) if sent < answer.len() => {
                self.shared
                    .flusher
                    .take_over(Arc::clone(&self.connection), answer, sent, share);
            }
            // A client that has gone is nobody to tell.
            _ => self.connection.answered(),
        }
    }
}

/// Hands the answer to the connection's thread, which alone may encrypt it.
pub struct HandedReply {
    /// Whose thread.
    pub connection: Arc<Connection>,
}

impl Reply for HandedReply {
    fn send(self: Box<Self>, answer: Vec<u8>) {
        self.connection.give(answer);
    }
}

/// An answer with its share of the memory for answers, or, where there is none left for it, a 503 in its place.
pub fn within_budget(
    answers: &Arc<Budget>,
    answer: Vec<u8>,
    request_id: &RequestId,
    framing: &Framing,
) -> Option<(Vec<u8>, Share)> {
    if let Some(share) = answers.share(answer.len()) {
        return Some((answer, share));
    }
    let cause = "answers that clients are slow to read fill the memory set aside for them";
    log::warn!(request_id = request_id.as_str(); "an answer is replaced by a 503: {cause}");
    let refusal = Error::Unavailable(cause.to_owned()).into_response(request_id, false);
    let answer = refusal.encode(framing, request_id.as_str());
    answers.share(answer.len()).map(|share| (answer, share))
}
