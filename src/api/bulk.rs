//! Many tasks in one request.

use super::body::json;
use super::conditions::idempotency_key;
use super::lists::UNKNOWN_ZONE;
use super::tasks::{ID_TAKEN, KEY_RUNNING, NO_SUCH_TASK, STALE, key_used};
use super::{App, Call};
use crate::domain::bulk::Bulk;
use crate::domain::fields::BodyError;
use crate::domain::list::{self, Filters};
use crate::domain::task::draft::Draft;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::{BulkOutcome, Refusal};

/// `POST /tasks/bulk`
pub fn run(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let key = idempotency_key(call.request)?.map(|key| key.on_route("bulk"));
    let bulk = json(call.request, Bulk::from_json)?;
    let (index, refusal) = match app.store.bulk(user, &bulk, key.as_ref())? {
        BulkOutcome::Done(results, false) => return Ok(Response::json_text(200, results)),
        BulkOutcome::Done(results, true) => {
            let response = Response::json_text(200, results);
            return Ok(response.header("Idempotency-Replayed", "true"));
        }
        BulkOutcome::OtherBody => return Err(key_used()),
        BulkOutcome::Running => return Err(KEY_RUNNING),
        BulkOutcome::Refused(index, refusal) => (index, refusal),
    };
    let error = match refusal {
        Refusal::NotFound => NO_SUCH_TASK,
        Refusal::Stale => STALE,
        Refusal::Invalid(errors) => Error::Validation(errors),
        Refusal::IdTaken => ID_TAKEN,
    };
    Err(Error::InOperation(index, Box::new(error)))
}

/// `PATCH /tasks` with filters
pub fn update_matching(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let wanted = wanted(call)?;
    let changes = json(call.request, Draft::changes)?;
    if changes.is_empty() {
        return Err(BodyError::in_field("body", "must have a field to change").into());
    }
    if changes.sends("title") {
        return Err(BodyError::in_field("title", "cannot be the same on many tasks").into());
    }
    change_matching(app, user, &wanted, Some(&changes))
}

/// `DELETE /tasks` with filters
pub fn delete_matching(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    change_matching(app, user, &wanted(call)?, None)
}

/// The filters of the query, and whether tasks are only counted.
fn wanted(call: &Call) -> Result<(Filters, bool), Error> {
    let parameters = call.parameters()?;
    list::matching(&parameters).map_err(|text| Error::BadRequest(text.into()))
}

fn change_matching(
    app: &App,
    user: &UserId,
    (filters, dry_run): &(Filters, bool),
    changes: Option<&Draft>,
) -> Result<Response, Error> {
    let changed = app
        .store
        .change_matching(user, filters, changes, *dry_run)?;
    changed
        .map(|result| Response::json(200, &result))
        .ok_or(Error::BadRequest(UNKNOWN_ZONE.into()))
}
