//! Single tasks: parse, check, one call to the store, respond.

use std::borrow::Cow;

use uuid::Uuid;

use super::body::json;
use super::conditions::{idempotency_key, if_match, if_none_match};
use super::{App, Call, Grouped, HandlerOutcome};
use crate::domain::etag::EntityTags;
use crate::domain::fields::FieldError;
use crate::domain::idempotency::Repeatable;
use crate::domain::task::draft::{Completion, Draft};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;
use crate::store::{GroupedStatement, ShownTask, TaskCreation, TaskOutcome};

/// Another user's task, one that does not exist and an id that is no UUID look the same.
pub(super) const NO_SUCH_TASK: Error = Error::NotFound("Task not found");
pub(super) const ID_TAKEN: Error = Error::Conflict("a task with this id exists already");
pub(super) const STALE: Error = Error::PreconditionFailed(
    "the task has changed since: get it again, and send its new ETag in If-Match",
);

pub(super) const KEY_RUNNING: Error = Error::Conflict(
    "a request with this Idempotency-Key is still running; send it again in a moment",
);

/// The error of an idempotency key that named another request.
pub(super) fn key_used() -> Error {
    Error::Validation(vec![FieldError {
        field: Cow::Borrowed("Idempotency-Key"),
        message: Cow::Borrowed("was used with another body; send a new key with a new request"),
    }])
}

/// `POST /tasks`
pub fn create(app: &App, call: &Call, user: &UserId) -> Result<HandlerOutcome, Error> {
    let key = idempotency_key(call.request)?;
    let draft = json(call.request, Draft::new_task)?;
    let write = key
        .is_none()
        .then(|| app.store.creation(user, &draft))
        .flatten();
    let user = user.clone();
    run_in_group(app, write, move |app, task| match task {
        Some(task) => Ok(created(task)),
        None => create_alone(app, &user, &draft, key.as_ref()),
    })
}

/// Runs a statement in a group, if it can be, and else here.
fn run_in_group(
    app: &App,
    statement: Option<GroupedStatement>,
    rest: impl FnOnce(&App, Option<ShownTask>) -> Result<Response, Error> + Send + 'static,
) -> Result<HandlerOutcome, Error> {
    match statement {
        None => rest(app, None).map(HandlerOutcome::Answered),
        Some(statement) => Ok(HandlerOutcome::Grouped(Grouped {
            statement,
            rest: Box::new(rest),
        })),
    }
}

fn create_alone(
    app: &App,
    user: &UserId,
    draft: &Draft,
    key: Option<&Repeatable>,
) -> Result<Response, Error> {
    match app.store.create_task(user, draft, key)? {
        TaskCreation::Created(task) => Ok(created(task)),
        TaskCreation::Before(task) => Ok(created(task).header("Idempotency-Replayed", "true")),
        TaskCreation::OtherBody => Err(key_used()),
        TaskCreation::Running => Err(KEY_RUNNING),
        TaskCreation::IdTaken => Err(ID_TAKEN),
    }
}

/// `GET /tasks/{id}`
pub fn show(app: &App, call: &Call, user: &UserId) -> Result<HandlerOutcome, Error> {
    let id = task_id(call)?;
    let if_match = if_match(call.request)?;
    let known = if_none_match(call.request)?;
    let statement = app.store.reading(user, id);
    let user = user.clone();
    run_in_group(app, Some(statement), move |app, task| {
        let task = match task {
            Some(task) => task,
            None => app.store.get_task(&user, id)?.ok_or(NO_SUCH_TASK)?,
        };
        let tag = task.tag;
        if if_match.is_some_and(|tags| !tags.match_strongly(tag)) {
            return Err(STALE);
        }
        if known.is_some_and(|tags| tags.match_weakly(tag)) {
            return Ok(Response::empty(304).header("ETag", tag.to_string()));
        }
        Ok(shown(200, task))
    })
}

/// `PUT /tasks/{id}` and `PATCH /tasks/{id}`
pub fn update(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let id = task_id(call)?;
    let if_match = if_match(call.request)?;
    refuse_known(app, call, user, id)?;
    let changes = json(call.request, Draft::changes)
        .map_err(|error| task_first(app, user, id, if_match.as_ref(), error))?;
    done(
        app.store
            .update_task(user, id, &changes, if_match.as_ref())?,
    )
    .map(|task| shown(200, task))
}

/// `PATCH /tasks/{id}/complete`
pub fn complete(app: &App, call: &Call, user: &UserId) -> Result<HandlerOutcome, Error> {
    let id = task_id(call)?;
    let if_match = if_match(call.request)?;
    refuse_known(app, call, user, id)?;
    let completion = json(call.request, Completion::from_json)
        .map_err(|error| task_first(app, user, id, if_match.as_ref(), error))?;
    let write = app.store.completion(user, id, completion);
    let user = user.clone();
    run_in_group(
        app,
        if_match.is_none().then_some(write),
        move |app, task| {
            let outcome = match task {
                Some(task) => TaskOutcome::Done(task),
                None => (app.store).complete_task(&user, id, completion, if_match.as_ref())?,
            };
            done(outcome).map(|task| shown(200, task))
        },
    )
}

/// `DELETE /tasks/{id}`
pub fn delete(app: &App, call: &Call, user: &UserId) -> Result<HandlerOutcome, Error> {
    let id = task_id(call)?;
    let permanent = permanent(call).map_err(|text| Error::BadRequest(text.into()))?;
    let if_match = if_match(call.request)?;
    refuse_known(app, call, user, id)?;
    let grouped = !permanent && if_match.is_none();
    let write = grouped.then(|| app.store.deletion(user, id)).flatten();
    let user = user.clone();
    run_in_group(app, write, move |app, task| {
        let outcome = match task {
            Some(_) => TaskOutcome::Done(()),
            None => (app.store).delete_task(&user, id, permanent, if_match.as_ref())?,
        };
        done(outcome).map(|()| Response::empty(204))
    })
}

/// Whether a task is deleted without going to the trash.
fn permanent(call: &Call) -> Result<bool, String> {
    match target::only_parameter(call.query, "permanent")?.as_deref() {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err("query parameter permanent must be true or false".to_owned()),
    }
}

/// A task, with its entity tag.
pub(super) fn shown(status: u16, task: ShownTask) -> Response {
    Response::json_text(status, task.json).header("ETag", task.tag.to_string())
}

fn created(task: ShownTask) -> Response {
    let place = format!("/api/tasks/{}", task.id);
    shown(201, task).header("Location", place)
}

fn done<T>(outcome: TaskOutcome<T>) -> Result<T, Error> {
    match outcome {
        TaskOutcome::Done(value) => Ok(value),
        TaskOutcome::NotFound => Err(NO_SUCH_TASK),
        TaskOutcome::Stale => Err(STALE),
    }
}

/// Refuses a write to a task in a state that `If-None-Match` names, or to any if it is `*` (RFC 9110, section 13.1.2). The task is
/// looked up before the write: a task that has left a state cannot return to it.
fn refuse_known(app: &App, call: &Call, user: &UserId, id: Uuid) -> Result<(), Error> {
    let Some(known) = if_none_match(call.request)? else {
        return Ok(());
    };
    match app.store.task_state(user, id)? {
        None => Err(NO_SUCH_TASK),
        Some(tag) if known.match_weakly(tag) => Err(STALE),
        Some(_) => Ok(()),
    }
}

pub(super) fn task_id(call: &Call) -> Result<Uuid, Error> {
    let id = call.path.parameter("id").unwrap_or_default();
    Uuid::try_parse(id).map_err(|_| NO_SUCH_TASK)
}

/// 404 and 412 come before an error in the body. The task is looked up only if the body is wrong.
fn task_first(
    app: &App,
    user: &UserId,
    id: Uuid,
    if_match: Option<&EntityTags>,
    error: Error,
) -> Error {
    match app.store.task_state(user, id) {
        Ok(None) => NO_SUCH_TASK,
        Ok(Some(tag)) if if_match.is_some_and(|tags| !tags.match_strongly(tag)) => STALE,
        Ok(Some(_)) => error,
        Err(failure) => failure.into(),
    }
}
