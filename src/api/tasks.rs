//! The tasks: parse, check, one call to the store, respond.

use serde::Serialize;
use uuid::Uuid;

use super::body::json;
use super::{App, Call};
use crate::domain::draft::{Completion, NewTask, TaskChanges};
use crate::domain::list::ListQuery;
use crate::domain::task::Task;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;
use crate::store::Created;

/// Another user's task, one that does not exist and an id that is no UUID look the same.
const NO_SUCH_TASK: Error = Error::NotFound("Task not found");

#[derive(Serialize)]
struct TaskList {
    tasks: Vec<Task>,
    count: usize,
    limit: u16,
    has_more: bool,
}

/// `GET /tasks`
pub fn list(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let parameters =
        target::parameters(call.query).map_err(|text| Error::BadRequest(text.into()))?;
    let query =
        ListQuery::from_parameters(&parameters).map_err(|text| Error::BadRequest(text.into()))?;
    let page = app.store.list_tasks(user, query)?;
    let list = TaskList {
        count: page.tasks.len(),
        has_more: page.has_more,
        limit: query.limit.get(),
        tasks: page.tasks,
    };
    Ok(Response::json(200, &list))
}

/// `POST /tasks`
pub fn create(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let draft = json(call.request, NewTask::from_json)?;
    match app.store.create_task(user, &draft)? {
        Created::Task(task) => {
            let location = format!("/api/tasks/{}", task.id);
            Ok(Response::json(201, &task).header("Location", location))
        }
        Created::IdTaken => Err(Error::Conflict("a task with this id exists already")),
    }
}

/// `GET /tasks/{id}`
pub fn show(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    found(app.store.get_task(user, task_id(call)?)?)
}

/// `PUT /tasks/{id}` and `PATCH /tasks/{id}`
pub fn update(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let id = task_id(call)?;
    let changes = json(call.request, TaskChanges::from_json)
        .map_err(|error| missing_first(app, user, id, error))?;
    found(app.store.update_task(user, id, &changes)?)
}

/// `PATCH /tasks/{id}/complete`
pub fn complete(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let id = task_id(call)?;
    let completion = json(call.request, Completion::from_json)
        .map_err(|error| missing_first(app, user, id, error))?;
    found(app.store.complete_task(user, id, completion)?)
}

/// `DELETE /tasks/{id}`
pub fn delete(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    if app.store.delete_task(user, task_id(call)?)? {
        Ok(Response::empty(204))
    } else {
        Err(NO_SUCH_TASK)
    }
}

fn found(task: Option<Task>) -> Result<Response, Error> {
    task.map(|task| Response::json(200, &task))
        .ok_or(NO_SUCH_TASK)
}

fn task_id(call: &Call) -> Result<Uuid, Error> {
    let id = call.path.parameter("id").unwrap_or_default();
    Uuid::try_parse(id).map_err(|_| NO_SUCH_TASK)
}

/// That there is no task comes before what is wrong with the body. It is looked up only when the body is wrong.
fn missing_first(app: &App, user: &UserId, id: Uuid, error: Error) -> Error {
    match app.store.task_exists(user, id) {
        Ok(true) => error,
        Ok(false) => NO_SUCH_TASK,
        Err(failure) => failure.into(),
    }
}
