//! What has changed since a client asked last.

use serde::Serialize;
use uuid::Uuid;

use super::lists::{TaskArray, whole};
use super::{App, Call};
use crate::domain::list::changes;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;

/// Changes of tasks.
// The store writes the first field.
#[derive(Serialize)]
pub struct Changes {
    #[serde(skip)]
    #[expect(dead_code, reason = "the API's description is made from this type")]
    tasks: TaskArray,
    /// Ids of deleted tasks.
    deleted: Vec<Uuid>,
    /// What to send as `since` next.
    next_cursor: String,
    /// Whether there are more changes now.
    has_more: bool,
}

/// `GET /tasks/changes`
pub fn show(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let parameters = call.parameters()?;
    let (since, limit) = changes(&parameters).map_err(|text| Error::BadRequest(text.into()))?;
    let page = app
        .store
        .task_changes(user, since.as_ref(), limit, "{\"tasks\":")?
        .ok_or(Error::Gone)?;
    let changes = Changes {
        tasks: TaskArray,
        deleted: page.deleted,
        next_cursor: page.next.encode(),
        has_more: page.has_more,
    };
    Ok(Response::json_text(200, whole(page.json, &changes)?))
}
