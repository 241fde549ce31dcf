//! Attacks by clients with time and resources, over loopback. Run by `scripts/check attack`.
//!
//! - `parser`: a strict reader of HTTP/1.1, to compare the server's reading with
//! - `fuzz`: random and mutated requests
//! - `fortress`: the program under attack, behind each of its doors
//! - `healthy`: a client that measures meanwhile
//! - `doors`: every fault and every oddity, through every door
//! - `floods`: heads without end, pipelines without end, connections without number
//! - `fairness`: one holder that takes all it can of each global budget
//! - `slowness`: slow heads, slow bodies, slow readers
//! - `rudeness`: clients that go away in the middle, or send what is costly to read
//! - `blocked_log`: a log that is not read
//! - `load`: honest work, and a great deal of it, while things change
//!
//! Each prints one line. All are bounded in number and time, and stop what they start.

// The lints against panics are for the program; a test says what it expects by panicking.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod blocked_log;
mod doors;
mod fairness;
mod floods;
mod fortress;
mod fuzz;
mod healthy;
mod load;
mod parser;
mod rudeness;
mod slowness;
// Shared with tests/it, where all of it is used.
#[allow(dead_code, unused_imports)]
#[path = "../it/support/mod.rs"]
mod support;
