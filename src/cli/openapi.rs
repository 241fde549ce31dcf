//! `todo-api openapi`: prints the API's description. It needs no configuration and no database.

use super::{Failure, print};
use crate::api::pages;

/// Prints it as JSON.
pub fn run() -> Result<(), Failure> {
    print(&pages::description().map_err(|error| Failure::Failed(error.to_string()))?)
}
