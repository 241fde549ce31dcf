//! Plain data and pure checks. No I/O. Every module may use it.
//!
//! - [`account`]: accounts with a password here, and what clients send about them
//! - [`api_token`]: tokens that users make for their scripts
//! - [`session`]: sessions and refused tokens
//! - [`certificate`]: expiry and signature algorithm of a TLS certificate
//! - [`task`]: a task, its fields described once, and the requests about one
//! - [`takeover`]: the plan of an import from the database of another back end
//! - [`transfer`]: files of tasks: what an export writes and an import reads
//! - [`shape`]: the JSON type and limits of a value, for the API's description
//! - [`value`]: a value as the database writes, compares and sorts it
//! - [`fair_budget`], [`fair_queue`]: fair shares of a global budget, and of a queue
//! - [`fields`]: reads a JSON object field by field and collects all errors
//! - [`tag`]: words by which a user groups tasks
//! - [`list`]: the query for a list of tasks: filters, order, page
//! - [`feed`]: how much of the feed of changes a client knows
//! - [`stats`]: statistics of tasks
//! - [`etag`]: entity tags and preconditions
//! - [`bulk`]: many operations in one request
//! - [`idempotency`]: the key with which a client repeats a request
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
pub mod fair_queue;
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
