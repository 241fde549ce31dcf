//! HTTP: requests, answers, errors, the router, rate limits.
//!
//! - [`request`]: a whole request
//! - [`target`]: its path and query, decoded
//! - [`router`]: finds the handler for a method and a path
//! - [`response`]: an answer, and its bytes on the wire
//! - [`error`]: every error, with its status, code and body
//! - [`limiter`]: counts events by key and refuses those over a limit
//! - [`policy`]: header fields for browsers
//! - [`responder`]: sends the answer, once, and writes the access log

pub mod error;
pub mod limiter;
pub mod policy;
pub mod request;
pub mod responder;
pub mod response;
pub mod router;
pub mod target;
