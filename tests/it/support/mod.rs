//! What the tests stand on.
//!
//! - `postgres`: one PostgreSQL for all tests, and a database for each
//! - `app`: a server of one's own
//! - `actors`: who talks to it: anonymous, a user, another user
//! - `http`: a client that sends exactly what it is told
//! - `process`: the program itself
//! - `proxy`: a link to PostgreSQL that can be cut or fall silent

pub mod actors;
pub mod app;
pub mod http;
pub mod postgres;
pub mod process;
pub mod proxy;

pub use actors::Actor;
pub use app::TestApp;
pub use http::Answer;
