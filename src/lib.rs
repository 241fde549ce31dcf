//! A task server to run yourself.

pub mod local_postgres;
pub mod store;
