//! Tests over real HTTP against a real PostgreSQL. Each has a server and a database of its own.

// The lints against panics are for the program. Tests panic to fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod accounts;
mod api_tokens;
mod arrows;
mod audit;
mod authentication;
mod backup;
mod blocked_log;
mod bounds;
mod bulk;
mod bulk_races;
mod changes;
mod command_line;
mod contract;
mod cors;
mod deadlines;
mod description;
mod docs;
mod doctor;
mod documents;
mod drain;
mod errors;
mod fair_shares;
mod framing;
mod groups;
mod guessing;
mod idempotency;
mod incident;
mod isolation;
mod jwks;
mod jwt_attacks;
mod listeners;
mod lists;
mod logout;
mod maintenance;
mod matching;
mod metrics;
mod migrations;
mod outages;
mod pages;
mod pipelining;
mod private_postgres;
mod rate_limits;
mod revocation;
mod security_headers;
mod serving;
mod sessions;
mod starting;
mod stats;
mod supervision;
mod support;
mod tags;
mod takeover;
mod tasks;
mod transfer;
mod trash;
mod user_command;
mod versions;
