//! Whether the server is alive and ready.

use serde::Serialize;

use super::{App, Call};
use crate::domain::timestamp::Timestamp;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::Readiness;

/// The server is alive.
#[derive(Serialize)]
pub struct Alive {
    /// `healthy`
    status: &'static str,
    /// The server's clock.
    timestamp: Timestamp,
}

/// Whether tasks can be served.
#[derive(Serialize)]
pub struct Ready {
    /// `ready` or `not ready`
    status: &'static str,
    /// What tasks need.
    checks: Checks,
    /// The server's clock.
    timestamp: Timestamp,
}

#[derive(Serialize)]
struct Checks {
    /// Whether the database answers.
    database: &'static str,
    /// Whether it has our tables.
    schema: &'static str,
    /// `missing` until the key set at `AUTH_JWKS_URL` is fetched: tokens of other issuers are answered 503 until then, and the server is
    /// ready for all others. Else `ready`.
    keys: &'static str,
}

/// `GET /health`: 200 as long as the process answers at all. It does not ask the database.
pub fn alive() -> Response {
    let alive = Alive {
        status: "healthy",
        timestamp: Timestamp::now(),
    };
    Response::json(200, &alive)
}

/// `GET /health/ready`: 200 if tasks can be served, else 503 with what is not ready. The body of the 503 is not an error body: it has
/// the same fields as that of the 200.
pub fn ready(app: &App, _: &Call) -> Result<Response, Error> {
    let (status, database, schema) = match app.store.readiness() {
        Readiness::Ready => (200, "ready", "ready"),
        Readiness::DatabaseNotReady => (503, "not ready", "unknown"),
        Readiness::SchemaNotReady => (503, "ready", "not ready"),
    };
    let report = Ready {
        status: if status == 200 { "ready" } else { "not ready" },
        checks: Checks {
            database,
            schema,
            keys: if app.guard.lacks_keys() {
                "missing"
            } else {
                "ready"
            },
        },
        timestamp: Timestamp::now(),
    };
    let response = Response::json(status, &report);
    Ok(if status == 200 {
        response
    } else {
        response.header("Retry-After", "1")
    })
}
