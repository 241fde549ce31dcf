//! How answers leave.

use std::sync::Arc;

use super::Shared;
use super::connections::Connection;
use crate::domain::fair_budget::Holder;
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
    fn send(self: Box<Self>, answer: Vec<u8>, holder: Option<Holder>) {
        let answers = &self.shared.answers;
        let (answer, share) = answers.admit(answer, holder, &self.request_id, &self.framing);
        match self.connection.socket.send_now(&answer) {
            Ok(sent) if sent < answer.len() => {
                let sending = answers.watch(&self.connection, holder, share);
                self.shared
                    .flusher
                    .take_over(Arc::clone(&self.connection), answer, sent, sending);
            }
            // A closed connection is not an error.
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
    fn send(self: Box<Self>, answer: Vec<u8>, holder: Option<Holder>) {
        self.connection.give(answer, holder);
    }
}
