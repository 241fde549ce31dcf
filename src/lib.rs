//! A task server to run yourself: one static binary, PostgreSQL behind it, JSON over HTTP in front.
//!
//! The map of the house, in the order a request goes through it. A room uses only rooms below it, and [`domain`], which all may use.
//!
//! - [`cli`]: one file per subcommand; `serve` is the usual one
//! - [`logging`], [`log_writer`]: log lines, and how they are written
//! - [`metrics`]: what is counted
//! - [`server`]: puts the rooms together: listeners, workers; start, drain, stop
//! - [`edge`]: what a stranger meets first: connections, bounds, deadlines, framing, TLS
//! - [`api`]: the routing table, the way of a request, and the handlers, one file per resource
//! - [`auth`]: bearer tokens, our own and those of others, and the keys that sign them
//! - [`http`]: requests, answers, errors, the router, the way back to the client
//! - [`store`]: PostgreSQL: connections, migrations, and every SQL statement
//! - [`config`]: every setting: name, default, parser, documentation, secret or not; all rooms may use it, and it uses `domain` alone
//! - [`domain`]: tasks and users, what may be said of them; no I/O
//! - [`local_postgres`]: a private PostgreSQL, for running with no configuration and for tests

pub mod api;
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
