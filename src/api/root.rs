//! What this is.

use serde_json::json;

use super::{App, Call};
use crate::http::error::Error;
use crate::http::response::Response;

/// `GET /`: name, version, and where to go from here.
pub fn show(_: &App, _: &Call) -> Result<Response, Error> {
    let about = json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "tasks": "/api/tasks",
            "account": "/api/auth/me",
            "tags": "/api/tags",
            "stats": "/api/tasks/stats",
            "health": "/health",
            "ready": "/health/ready",
        },
    });
    Ok(Response::json(200, &about))
}
