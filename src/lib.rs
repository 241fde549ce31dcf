//! A task server to run yourself.

pub mod store;
