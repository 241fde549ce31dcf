//! `todo-api openapi`: prints the API's description. It needs no settings and no database.

use super::print;
use crate::api::pages;

commands! {
    "openapi", "Print the API's description (OpenAPI 3.1, JSON)", "", |_| print(&pages::description()?);
}
