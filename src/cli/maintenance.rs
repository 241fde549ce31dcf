//! `todo-api maintenance`: removes what nobody needs any more. A running server does the same every hour.

use super::{Failure, print, setup};
use crate::config::Config;

/// Removes it, and says what it was.
pub fn run(config: &Config) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    let done = store.maintain()?;
    print(&match done {
        Some(done) => format!("{done}\n"),
        None => "a server is at it already\n".to_owned(),
    })
}
