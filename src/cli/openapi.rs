//! `todo-api openapi`: prints the API's description. It needs no settings and no database.

use super::{Command, print};
use crate::api::pages;

pub const COMMAND: Command = Command {
    usage: "openapi",
    about: "Print the API's description (OpenAPI 3.1, JSON)",
    help: "",
    run: |_| print(&pages::description().map_err(|error| error.to_string())?),
};
