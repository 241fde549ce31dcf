//! A task server to run yourself.
