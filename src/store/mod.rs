//! PostgreSQL: how it is reached, and every statement that is sent to it.

pub mod connector;
