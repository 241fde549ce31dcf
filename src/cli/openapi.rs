//! `todo-api openapi`: prints the API's description. It needs no configuration and no database.

use super::{Failure, print};
use crate::api::openapi;

/// Prints it as JSON.
pub fn run() -> Result<(), Failure> {
    print(openapi::json())
}
