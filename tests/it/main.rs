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
mod command_line;
mod contract;
mod documents;
mod errors;
mod isolation;
mod outages;
mod serving;
mod starting;
mod support;
mod tasks;
