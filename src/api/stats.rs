//! The tasks in numbers.

use super::lists::UNKNOWN_ZONE;
use super::{App, Call};
use crate::domain::user::UserId;
use crate::domain::zone::Zone;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;

/// `GET /tasks/stats`
pub fn show(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let zone = zone(call).map_err(|text| Error::BadRequest(text.into()))?;
    let stats = app
        .store
        .task_stats(user, &zone)?
        .ok_or(Error::BadRequest(UNKNOWN_ZONE.into()))?;
    Ok(Response::json(200, &stats))
}

fn zone(call: &Call) -> Result<Zone, String> {
    let zone = target::only_parameter(call.query, "tz")?;
    let zone = zone.map(|text| Zone::parse(&text)).transpose();
    let zone = zone.map_err(|error| format!("query parameter tz {error}"))?;
    Ok(zone.unwrap_or_default())
}
