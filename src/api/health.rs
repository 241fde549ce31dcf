//! Is it alive, is it ready.

use serde_json::json;

use super::{App, Call};
use crate::domain::timestamp::Timestamp;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::Readiness;

/// `GET /health`: 200 as long as the process answers at all. Asks the database nothing.
pub fn alive() -> Response {
    Response::json(
        200,
        &json!({ "status": "healthy", "timestamp": Timestamp::now() }),
    )
}

/// `GET /health/ready`: 200 when tasks can be served, else 503 naming what is not ready.
///
/// It is no error of the service and no error body: a load balancer reads the status, a person the rest.
pub fn ready(app: &App, _: &Call) -> Result<Response, Error> {
    let (status, database, schema) = match app.store.readiness() {
        Readiness::Ready => (200, "ready", "ready"),
        Readiness::DatabaseNotReady => (503, "not ready", "unknown"),
        Readiness::SchemaNotReady => (503, "ready", "not ready"),
    };
    let report = json!({
        "status": if status == 200 { "ready" } else { "not ready" },
        "checks": { "database": database, "schema": schema },
        "timestamp": Timestamp::now(),
    });
    let response = Response::json(status, &report);
    Ok(if status == 200 {
        response
    } else {
        response.header("Retry-After", "1")
    })
}
