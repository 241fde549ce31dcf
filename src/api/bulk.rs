//! Many tasks in one request.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::json;
use super::conditions::idempotency_key;
use super::lists::UNKNOWN_ZONE;
use super::tasks::{ID_TAKEN, KEY_RUNNING, NO_SUCH_TASK, STALE, key_used};
use super::{App, Call};
use crate::domain::bulk::{Bulk, Op};
use crate::domain::fields::BodyError;
use crate::domain::list::{self, Filters};
use crate::domain::task::draft::Draft;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;
use crate::store::{BulkOutcome, MatchedTasks, MatchingChange, OperationTask, Refusal};

/// The store writes tasks as JSON.
type Task = Box<RawValue>;

/// The results of the operations, in their order.
#[derive(Serialize)]
pub struct BulkResults {
    results: Vec<OperationResult>,
}

/// The result of an operation.
#[derive(Serialize)]
pub struct OperationResult {
    /// The status of the answer to a request for this operation alone: 201 for create, 204 for delete, otherwise 200.
    status: u16,
    /// The task; absent if it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    /// The id of the task; only there without `task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
}

/// `POST /tasks/bulk`
pub fn run(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let key = idempotency_key(call.request)?.map(|key| key.on_route("bulk"));
    let bulk = json(call.request, Bulk::from_json)?;
    let (tasks, is_replayed) = match app.store.bulk(user, &bulk, key.as_ref())? {
        BulkOutcome::Done(tasks) => (tasks, false),
        BulkOutcome::Before(tasks) => (tasks, true),
        BulkOutcome::OtherBody => return Err(key_used()),
        BulkOutcome::Running => return Err(KEY_RUNNING),
        BulkOutcome::Refused(index, refusal) => return Err(refused(index, refusal)),
    };
    let results = bulk.operations.iter().zip(tasks);
    let results = results.map(|(operation, task)| result(operation.op, task));
    let response = Response::json(
        200,
        &BulkResults {
            results: results.collect::<Result<_, Error>>()?,
        },
    );
    Ok(match is_replayed {
        true => response.header("Idempotency-Replayed", "true"),
        false => response,
    })
}

/// What was done to the tasks that match.
#[derive(Serialize)]
pub struct MatchingResult {
    /// How many tasks were changed or deleted, or would be with `dry_run`.
    count: u16,
    /// Whether more tasks match; the same request changes them next.
    has_more: bool,
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
    change_matching(app, user, &wanted, MatchingChange::Update(&changes))
}

/// `DELETE /tasks` with filters
pub fn delete_matching(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    change_matching(app, user, &wanted(call)?, MatchingChange::Delete)
}

fn change_matching(
    app: &App,
    user: &UserId,
    (filters, dry_run): &(Filters, bool),
    change: MatchingChange,
) -> Result<Response, Error> {
    match app.store.change_matching(user, filters, change, *dry_run)? {
        MatchedTasks::Changed { count, has_more } => {
            Ok(Response::json(200, &MatchingResult { count, has_more }))
        }
        MatchedTasks::UnknownZone => Err(Error::BadRequest(UNKNOWN_ZONE.into())),
    }
}

/// The filters of the query, and whether tasks are only counted.
fn wanted(call: &Call) -> Result<(Filters, bool), Error> {
    let parameters =
        target::parameters(call.query).map_err(|text| Error::BadRequest(text.into()))?;
    list::matching(&parameters).map_err(|text| Error::BadRequest(text.into()))
}

fn result(
    op: Option<Op>,
    OperationTask { id, task }: OperationTask,
) -> Result<OperationResult, Error> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
    let task = match task {
        Some(task) => {
            let json = String::from_utf8(task.json).map_err(|error| internal(&error))?;
            Some(RawValue::from_string(json).map_err(|error| internal(&error))?)
        }
        None => None,
    };
    Ok(OperationResult {
        status: match op {
            Some(Op::Create) => 201,
            Some(Op::Delete) => 204,
            _ => 200,
        },
        id: task.is_none().then_some(id),
        task,
    })
}

fn refused(index: usize, refusal: Refusal) -> Error {
    let error = match refusal {
        Refusal::NotFound => NO_SUCH_TASK,
        Refusal::Stale => STALE,
        Refusal::Invalid(errors) => Error::Validation(errors),
        Refusal::IdTaken => ID_TAKEN,
    };
    Error::InOperation(index, Box::new(error))
}
