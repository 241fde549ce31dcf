//! Tests through the front door: real HTTP to a real PostgreSQL. Each has a server and a database of its own.

// The lints against panics are for the program; a test says what it expects by panicking.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod authentication;
mod backup;
mod bounds;
mod command_line;
mod contract;
mod deadlines;
mod doctor;
mod documents;
mod doors;
mod drain;
mod errors;
mod framing;
mod isolation;
mod outages;
mod pipelining;
mod serving;
mod starting;
mod supervision;
mod support;
mod tasks;
