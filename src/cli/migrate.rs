//! `todo-api migrate`: brings the database's schema up to date, and ends.

use std::time::Instant;

use super::{Failure, print, setup};
use crate::config::Config;

/// Applies what is missing, whatever `MIGRATE` says.
pub fn run(config: &Config) -> Result<(), Failure> {
    // It may have to wait, and should say for what.
    setup::logging(config);
    let config = Config {
        migrate: true,
        ..config.clone()
    };
    let (store, private) = setup::store(&config)?;
    let opened = store
        .open(Instant::now() + config.startup_timeout)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    drop(store);
    drop(private);
    let applied = if opened.applied.is_empty() {
        "nothing to do".to_owned()
    } else {
        format!("applied {}", opened.applied.join(", "))
    };
    print(&format!(
        "schema {} is at version {}: {applied}\n",
        config.schema.as_str(),
        opened.schema_version
    ))
}
