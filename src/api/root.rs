//! What this is.

use serde::Serialize;

use super::{App, Call};
use crate::http::error::Error;
use crate::http::response::Response;

/// What this is, and where to go from here.
#[derive(Serialize)]
pub struct About {
    /// `todo-api`
    name: &'static str,
    /// Of the program.
    version: &'static str,
    /// Paths.
    links: Links,
}

#[derive(Serialize)]
struct Links {
    /// The caller's tasks.
    tasks: &'static str,
    /// The caller's tags.
    tags: &'static str,
    /// The caller's tasks in numbers.
    stats: &'static str,
    /// The caller's account.
    account: &'static str,
    /// Where to try the API in a browser.
    docs: &'static str,
    /// The API's reference, for reading.
    reference: &'static str,
    /// The API's description (OpenAPI).
    openapi: &'static str,
    /// Whether the server is alive.
    health: &'static str,
    /// Whether it can serve tasks.
    ready: &'static str,
}

/// `GET /`: name, version, and where to go from here.
pub fn show(_: &App, _: &Call) -> Result<Response, Error> {
    let about = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        links: Links {
            tasks: "/api/tasks",
            tags: "/api/tags",
            stats: "/api/tasks/stats",
            account: "/api/auth/me",
            docs: "/docs",
            reference: "/redoc",
            openapi: "/openapi.json",
            health: "/health",
            ready: "/health/ready",
        },
    };
    Ok(Response::json(200, &about))
}
