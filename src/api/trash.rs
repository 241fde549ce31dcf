//! Deleted tasks.

use serde::Serialize;

use super::lists::page;
use super::tasks::{ID_TAKEN, NO_SUCH_TASK, shown, task_id};
use super::{App, Call};
use crate::domain::list::ListQuery;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::TaskRestoration;

/// Number of tasks.
#[derive(Serialize)]
pub struct TaskCount {
    /// How many tasks were removed.
    count: u64,
}

/// `GET /tasks/trash`
pub fn list(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    page(app, call, user, ListQuery::of_trash)
}

/// `POST /tasks/{id}/restore`
pub fn restore(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    match app.store.restore_task(user, task_id(call)?)? {
        TaskRestoration::Restored(task) => Ok(shown(200, task)),
        TaskRestoration::NotFound => Err(NO_SUCH_TASK),
        TaskRestoration::IdTaken => Err(ID_TAKEN),
    }
}

/// `DELETE /tasks/trash/{id}`
pub fn purge(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    match app.store.purge_task(user, task_id(call)?)? {
        true => Ok(Response::empty(204)),
        false => Err(NO_SUCH_TASK),
    }
}

/// `DELETE /tasks/trash`
pub fn empty(app: &App, _: &Call, user: &UserId) -> Result<Response, Error> {
    let count = app.store.empty_trash(user)?;
    Ok(Response::json(200, &TaskCount { count }))
}
