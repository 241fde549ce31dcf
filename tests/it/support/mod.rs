//! What the tests stand on.
//!
//! - `postgres`: one PostgreSQL for all tests, and a database for each
//! - `app`: a server of one's own
//! - `actors`: who talks to it: anonymous, a user, another user
//! - `blocked_log`: a server whose log is not read
//! - `hold`: holds a server up, and waits for what must come
//! - `jwt`: tokens of every kind, and the keys that sign them
//! - `key_server`: publishes a key set, well or badly
//! - `http`: a client that sends exactly the given bytes
//! - `login`: somebody who has logged in
//! - `process`: the program itself
//! - `proxy`: a link to PostgreSQL that can be cut or fall silent
//! - `systemd`: starts the program as systemd does, and receives its notifications
//! - `requests`: tables of requests, malformed and merely odd
//! - `schema`: holds JSON against the API's description
//! - `wire`: connections of every kind, for clients that do not behave
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
