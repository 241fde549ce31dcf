//! Attacks on the server by persistent clients, over loopback. Run by `scripts/check attack`.
//!
//! - `parser`: a strict parser of HTTP/1.1, with which the server is compared
//! - `fuzz`: random and mutated requests
//! - `attacked`: the server under attack, on each kind of listener
//! - `healthy`: a well-behaved client that measures its latency during an attack
//! - `listeners`: malformed and unusual requests, on each kind of listener
//! - `floods`: endless heads, endless pipelines, thousands of connections
//! - `fairness`: one user that takes as much as it can of each global budget
//! - `slowness`: slow heads, slow bodies, slow readers
//! - `abuse`: clients that disconnect early, reconnect at once, or send expensive requests
//! - `blocked_log`: a log that is not read
//! - `load`: heavy load of valid requests, during a stop and a change of certificates
//!
//! Each prints one line, is limited in number and time, and stops what it starts.

// The lints against panics are for the program. Tests panic to fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod abuse;
mod attacked;
mod blocked_log;
mod fairness;
mod floods;
mod fuzz;
mod healthy;
mod listeners;
mod load;
mod parser;
mod slowness;
// Shared with tests/it, where all of it is used.
#[allow(dead_code, unused_imports)]
#[path = "../it/support/mod.rs"]
mod support;
