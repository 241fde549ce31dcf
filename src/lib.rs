//! A task server to run yourself: one static binary, PostgreSQL behind it, JSON over HTTP in front.
//!
//! The map, in the order a request goes through it. A module imports only modules listed below it, and [`domain`], [`metrics`],
//! [`logging`], [`log_writer`] and [`sync`], which all may import. `tests/it/arrows.rs` enforces it.
//!
//! - [`cli`]: one file per subcommand; `serve` is the usual one
//! - [`server`]: composition: listeners, workers; start, drain, stop
//! - [`edge`]: connections, limits, deadlines, framing, TLS
//! - [`api`]: the route table, the way of a request, and the handlers, one file per resource
//! - [`http`]: requests, responses, errors, the router, rate limits, the responder
//! - [`auth`]: who is calling: tokens, keys, passwords; its errors become answers in `http::error`
//! - [`audit`]: log lines about accounts
//! - [`store`]: PostgreSQL: connections, migrations, and every SQL statement
//! - [`local_postgres`]: a private PostgreSQL, for running without configuration and for tests
//! - [`config`]: every setting: name, default, parser, documentation, secret or not; imports only `domain`
//! - [`logging`]: log lines
//! - [`log_writer`]: writes them to standard error
//! - [`metrics`]: what is counted
//! - [`domain`]: tasks and users, lists, validation; no I/O
//! - [`sync`]: locks that stay usable after a panic, calls with a deadline

pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod edge;
pub mod http;
pub mod local_postgres;
pub mod log_writer;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod store;
pub mod sync;
