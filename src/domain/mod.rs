//! Plain data and pure checks: what a task is, and what may be said about one. No I/O; every room may use it.
//!
//! - [`account`]: accounts with a password here, and what clients send about them
//! - [`api_token`]: tokens that users make for their scripts
//! - [`session`]: logins, where they came from, and what ends them
//! - [`task`]: a task, its fields as types that cannot hold a wrong value
//! - [`draft`]: what a client sends: a new task, changes to one, a completion
//! - [`fields`]: reads a JSON object field by field and collects every complaint
//! - [`list`]: what is asked of a list of tasks
//! - [`timestamp`]: moments and calendar dates as JSON shows them
//! - [`user`]: who owns tasks

pub mod account;
pub mod api_token;
pub mod draft;
pub mod fields;
pub mod list;
pub mod session;
pub mod task;
pub mod timestamp;
pub mod user;
