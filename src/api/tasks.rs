//! The tasks: parse, check, one call to the store, respond.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::json;
use super::openapi::TASKS;
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

/// Some of a user's tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskList {
    tasks: Vec<Task>,
    /// How many there are in this answer.
    #[schema(example = 1)]
    count: usize,
    /// How many there may be in this answer.
    #[schema(minimum = 1, maximum = 1000, example = 1000)]
    limit: u16,
    /// Whether the user has more than these.
    has_more: bool,
}

/// `GET /tasks`
#[utoipa::path(get, path = "/api/tasks", operation_id = "listTasks", tag = TASKS, summary = "List tasks, the newest first",
    params(("limit" = inline(Option<u16>), Query, description = "Most tasks in the answer; 1,000 unless said otherwise", minimum = 1, maximum = 1000)),
    responses((status = 200, description = "The tasks", body = TaskList)))]
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
#[utoipa::path(post, path = "/api/tasks", operation_id = "createTask", tag = TASKS, summary = "Create a task",
    request_body = NewTask,
    responses(
        (status = 201, description = "The task as it was made", body = Task, headers(("Location", description = "Where it is now"))),
        (status = 409, description = "A task with the `id` that was sent exists already")))]
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
#[utoipa::path(get, path = "/api/tasks/{id}", operation_id = "getTask", tag = TASKS, summary = "Show a task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses((status = 200, description = "The task", body = Task)))]
pub fn show(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    found(app.store.get_task(user, task_id(call)?)?)
}

/// `PUT /tasks/{id}` and `PATCH /tasks/{id}`
#[utoipa::path(method(put, patch), path = "/api/tasks/{id}", operation_id = "updateTask", tag = TASKS, summary = "Change a task",
    description = "Fields that are sent change, fields that are absent stay, `null` empties what may be empty. PUT and PATCH are the same.",
    params(("id" = Uuid, Path, description = "The task's id")), request_body = TaskChanges,
    responses((status = 200, description = "The task as it is now", body = Task)))]
pub fn update(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let id = task_id(call)?;
    let changes = json(call.request, TaskChanges::from_json)
        .map_err(|error| missing_first(app, user, id, error))?;
    found(app.store.update_task(user, id, &changes)?)
}

/// `PATCH /tasks/{id}/complete`
#[utoipa::path(patch, path = "/api/tasks/{id}/complete", operation_id = "completeTask", tag = TASKS, summary = "Complete a task, or open it again",
    description = "With a body it is set; with none at all it is turned over.",
    params(("id" = Uuid, Path, description = "The task's id")), request_body = Option<Completion>,
    responses((status = 200, description = "The task as it is now", body = Task)))]
pub fn complete(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let id = task_id(call)?;
    let completion = json(call.request, Completion::from_json)
        .map_err(|error| missing_first(app, user, id, error))?;
    found(app.store.complete_task(user, id, completion)?)
}

/// `DELETE /tasks/{id}`
#[utoipa::path(delete, path = "/api/tasks/{id}", operation_id = "deleteTask", tag = TASKS, summary = "Delete a task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses((status = 204, description = "It is deleted")))]
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
