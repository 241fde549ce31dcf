//! Helpers of the tests.
//!
//! - `postgres`: one PostgreSQL for all tests, and a database for each
//! - `app`: a server in the test's process
//! - `actors`: clients with or without a token
//! - `blocked_log`: a server whose log is not read
//! - `hold`: blocks requests in the database, and waits for conditions
//! - `jwt`: tokens of every kind, and the keys that sign them
//! - `key_server`: publishes a key set, correctly or not
//! - `http`: a client that sends exactly the given bytes
//! - `login`: a user who has logged in
//! - `process`: the program as a process
//! - `proxy`: a link to PostgreSQL that can be cut or fall silent
//! - `systemd`: starts the program as systemd does, and receives its notifications
//! - `requests`: tables of malformed and of unusual requests
//! - `schema`: compares JSON with the API's description
//! - `wire`: raw connections of every kind, for misbehaving clients
//! - `tls`: certificates and clients that trust them

pub mod actors;
pub mod app;
pub mod blocked_log;
pub mod hold;
pub mod http;
pub mod jwt;
pub mod key_server;
pub mod login;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod requests;
pub mod schema;
pub mod systemd;
pub mod tls;
pub mod wire;

pub use actors::Actor;
pub use app::TestApp;
pub use http::Answer;
