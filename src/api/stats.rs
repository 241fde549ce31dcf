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
    let mut zone = None;
    for (name, value) in target::parameters(call.query)? {
        if name != "tz" {
            return Err(format!(
                "query parameter {name:?} is unknown; stats take tz"
            ));
        }
        let read = Zone::parse(&value).map_err(|error| format!("query parameter tz {error}"))?;
        if zone.replace(read).is_some() {
            return Err("query parameter tz is given twice".to_owned());
        }
    }
    Ok(zone.unwrap_or_default())
}
