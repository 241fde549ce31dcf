//! Plain data and pure checks. No I/O. Every module may use it.
//!
//! - [`account`]: accounts with a password here, and what clients send about them
//! - [`api_token`]: tokens that users make for their scripts
//! - [`session`]: logins, where they came from, and what ends them
//! - [`certificate`]: what a TLS certificate says about itself
//! - [`task`]: a task, its fields described once, and what a client sends about one
//! - [`takeover`]: the plan of an import from the database of another back end
//! - [`transfer`]: files of tasks: what an export writes and an import reads
//! - [`shape`]: the JSON type and limits of a value, for the API's description
//! - [`value`]: a value as the database writes, compares and sorts it
//! - [`fair_budget`]: fair shares of a global budget
//! - [`fields`]: reads a JSON object field by field and collects all errors
//! - [`tag`]: words by which a user groups tasks
//! - [`list`]: what is asked of a list of tasks: filters, order, page
//! - [`feed`]: how much of the feed of changes a client knows
//! - [`stats`]: how many tasks there are of which kind
//! - [`etag`]: which state of a task a client has seen
//! - [`bulk`]: many operations in one request
//! - [`idempotency`]: the key by which a client says a request again
//! - [`fold`]: text without case and accents
//! - [`timestamp`]: moments and calendar dates as JSON shows them
//! - [`zone`]: time zones
//! - [`address`], [`networks`], [`origins`]: addresses to listen on, trusted networks, origins that may call
//! - [`schema`]: the name of the PostgreSQL schema
//! - [`user`]: ids of users

pub mod account;
pub mod address;
pub mod api_token;
pub mod bulk;
pub mod certificate;
pub mod etag;
pub mod fair_budget;
pub mod feed;
pub mod fields;
pub mod fold;
pub mod idempotency;
pub mod list;
pub mod networks;
pub mod origins;
pub mod schema;
pub mod session;
pub mod shape;
pub mod stats;
pub mod tag;
pub mod takeover;
pub mod task;
pub mod timestamp;
pub mod transfer;
pub mod user;
pub mod value;
pub mod zone;
