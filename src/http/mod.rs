//! The words in which the rooms speak of HTTP: what was asked, what is answered, and which handler it goes to.
//!
//! - [`request`]: a whole request, already read
//! - [`target`]: its path and query, decoded
//! - [`router`]: finds the handler for a method and a path
//! - [`response`]: an answer, and its bytes on the wire
//! - [`error`]: every way to say no, and the one place that turns them into status, code and body
//! - [`limiter`]: how often somebody may do something
//! - [`policy`]: what browsers are told with every answer
//! - [`responder`]: takes the answer to the client, once, and writes the access log

pub mod error;
pub mod limiter;
pub mod policy;
pub mod request;
pub mod responder;
pub mod response;
pub mod router;
pub mod target;
