//! The statements on tasks. Each names the user. All but those of `bulk` run in one round trip, as a transaction of their own; statements
//! on one task may share one with those of other users (see `store::group`).
//!
//! - `columns`: every column and every field, and the statements' lists of them
//! - `json`: shows a row as JSON
//! - `create`: creates a task, once under an idempotency key
//! - `export`: all tasks, for files
//! - `import`: many tasks of a file
//! - `bulk`: many operations in one transaction
//! - `list`: pages of tasks
//! - `filters`: which tasks are in a list
//! - `matching`: changes and deletes all tasks that match filters
//! - `statement`: a statement that is put together from parts
//! - `tags`: counts them, renames and removes them everywhere
//! - `stats`: numbers
//! - `changes`: what has changed since a client asked last
//! - `trash`: deletes tasks, shows deleted ones, restores them

mod bulk;
mod changes;
mod columns;
mod create;
mod export;
mod filters;
mod import;
mod json;
mod list;
mod matching;
mod statement;
mod stats;
mod tags;
mod trash;

use std::sync::LazyLock;

use postgres::types::ToSql;
use postgres::{Error as PgError, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::group::{GroupKind, GroupedStatement, StatementGroup};
use super::pool::PooledClient;
use super::{Effect, Error, Store};
use crate::domain::etag::{ETag, EntityTags};
use crate::domain::task::draft::{Completion, Draft};
use crate::domain::user::UserId;
use crate::domain::value::Value;
use columns::{all, touch};
use create::insert_for_owner;
use json::read_tag;

pub use bulk::{BulkOutcome, Refusal};
pub use changes::TaskChanges;
pub use create::TaskCreation;
pub use import::IMPORTED_AT_ONCE;
pub use json::ShownTask;
pub use list::{ListedTasks, TaskPage};
pub use trash::TaskRestoration;
use trash::deletion_of_new_ids;
pub(super) use trash::remove_contents;

/// The outcome of a write to one task.
#[derive(Debug, PartialEq)]
pub enum TaskOutcome<T> {
    /// It was done.
    Done(T),
    /// The user has no task of that id.
    NotFound,
    /// The task is in another state than the precondition names; nothing was changed.
    Stale,
}

static GET: LazyLock<String> = LazyLock::new(|| {
    let columns = all();
    format!("SELECT {columns} FROM {{schema}}.tasks AS task WHERE user_id = $1 AND id = $2")
});

const TASKS: &str = "{schema}.tasks";

const STATE: &str = "SELECT version, created_at FROM {schema}.tasks WHERE user_id = $1 AND id = $2";

// `$3` is the completion to set, or null to toggle it. Setting what is set already changes nothing.
static COMPLETE: LazyLock<TaskWrite> = LazyLock::new(|| TaskWrite::update(&complete(), 3));

fn complete() -> String {
    let touch = touch("$3::bool IS DISTINCT FROM (completed_at IS NOT NULL)");
    format!(
        "UPDATE {{schema}}.tasks AS task
         SET completed_at = CASE WHEN coalesce($3::bool, completed_at IS NULL) THEN coalesce(completed_at, now()) END, {touch}"
    )
}

/// The statements that are run in groups.
pub(super) struct TaskGroups {
    read: StatementGroup,
    create: StatementGroup,
    complete: StatementGroup,
    delete: StatementGroup,
}

impl Default for TaskGroups {
    fn default() -> TaskGroups {
        let columns = all();
        // The row is locked as the write locks it, or left out.
        let unlocked = |lock: &str| {
            format!(
                "id = $2 AND ctid = (SELECT ctid FROM {{schema}}.tasks WHERE user_id = $1 AND id = $2 FOR {lock} SKIP LOCKED)"
            )
        };
        let create = format!("{} SKIP LOCKED", insert_for_owner());
        let complete = format!(
            "{} WHERE user_id = $1 AND {}",
            complete(),
            unlocked("NO KEY UPDATE")
        );
        let (moved, kept) = deletion_of_new_ids("moved{i}", &unlocked("UPDATE"), false);
        let written = |write: &str| format!("task{{i}} AS ({write} RETURNING {columns})");
        TaskGroups {
            read: StatementGroup::new(&format!("task{{i}} AS ({})", *GET)),
            create: StatementGroup::new(&written(&create)),
            complete: StatementGroup::new(&written(&complete)),
            delete: StatementGroup::new(&format!("{moved}, {}", written(&kept))),
        }
    }
}

impl TaskGroups {
    pub(super) fn of(&self, kind: GroupKind) -> &StatementGroup {
        match kind {
            GroupKind::Read => &self.read,
            GroupKind::Create => &self.create,
            GroupKind::Complete => &self.complete,
            GroupKind::Delete => &self.delete,
        }
    }
}

/// A write to one task in two forms: without and with a precondition.
struct TaskWrite {
    plain: String,
    guarded: String,
}

impl TaskWrite {
    /// The two forms of an UPDATE with so many parameters, which is given up to its condition. They return the task.
    fn update(write: &str, parameters: usize) -> TaskWrite {
        let columns = all();
        let write = format!("{write} WHERE user_id = $1 AND id = $2{{guard}} RETURNING {columns}");
        TaskWrite::new("", &write, TASKS, parameters)
    }

    /// The two forms of a statement with so many parameters, which returns the id first. `with` is the common table expressions before
    /// it. `{guard}` is where the condition on the row in `table` ends.
    ///
    /// The precondition is checked on the row that is changed: a write that waited for another one sees what that one left.
    /// The state at the start of the statement decides between a missing task and one in another state.
    fn new(with: &str, write: &str, table: &str, parameters: usize) -> TaskWrite {
        let (versions, moments) = (parameters + 1, parameters + 2);
        let guard = format!(
            " AND (version, created_at) IN (SELECT * FROM unnest(${versions}::int8[], ${moments}::timestamptz[]))"
        );
        let (before, comma) = match with {
            "" => ("", ""),
            _ => ("WITH ", ", "),
        };
        TaskWrite {
            plain: format!("{before}{with} {write}").replace("{guard}", ""),
            guarded: format!(
                "WITH {with}{comma}written AS ({write})
                 SELECT written.*, EXISTS (SELECT FROM {table} WHERE user_id = $1 AND id = $2) AS there
                 FROM (SELECT) AS always LEFT JOIN written ON true"
            )
            .replace("{guard}", &guard),
        }
    }

    /// Runs the form that the precondition asks for.
    fn run<T>(
        &self,
        client: &mut PooledClient,
        if_match: Option<&EntityTags>,
        parameters: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, PgError>,
    ) -> Result<TaskOutcome<T>, PgError> {
        let Some(EntityTags::OneOf { strong, .. }) = if_match else {
            let statement = client.prepared_built(&self.plain)?;
            let row = client.query_opt(&statement, parameters)?;
            return row.map_or(Ok(TaskOutcome::NotFound), |row| {
                read(&row).map(TaskOutcome::Done)
            });
        };
        let versions: Vec<i64> = strong.iter().map(|tag| tag.version).collect();
        let moments: Vec<OffsetDateTime> =
            strong.iter().map(|tag| tag.created_at.as_utc()).collect();
        let mut parameters = parameters.to_vec();
        parameters.push(&versions);
        parameters.push(&moments);
        let statement = client.prepared_built(&self.guarded)?;
        let row = client.query_one(&statement, &parameters)?;
        // The first column is the id; it is null where nothing was written.
        if row.try_get::<_, Option<Uuid>>(0)?.is_some() {
            read(&row).map(TaskOutcome::Done)
        } else if row.try_get("there")? {
            Ok(TaskOutcome::Stale)
        } else {
            Ok(TaskOutcome::NotFound)
        }
    }
}

impl Store {
    /// The statement of [`Store::get_task`], for a group.
    pub fn reading(&self, user: &UserId, id: Uuid) -> GroupedStatement {
        GroupedStatement::new(GroupKind::Read, user, id, Vec::new())
    }

    /// One task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_task(&self, user: &UserId, id: Uuid) -> Result<Option<ShownTask>, Error> {
        self.row(Effect::Read, &GET, &[&user.as_str(), &id], ShownTask::read)
    }

    /// The entity tag of a task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_state(&self, user: &UserId, id: Uuid) -> Result<Option<ETag>, Error> {
        self.row(Effect::Read, STATE, &[&user.as_str(), &id], read_tag)
    }

    /// Changes a task, if it is in a state that `if_match` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update_task(
        &self,
        user: &UserId,
        id: Uuid,
        draft: &Draft,
        if_match: Option<&EntityTags>,
    ) -> Result<TaskOutcome<ShownTask>, Error> {
        if draft.is_empty() {
            let stale =
                |task: &ShownTask| if_match.is_some_and(|tags| !tags.match_strongly(task.tag));
            return Ok(match self.get_task(user, id)? {
                None => TaskOutcome::NotFound,
                Some(task) if stale(&task) => TaskOutcome::Stale,
                Some(task) => TaskOutcome::Done(task),
            });
        }
        let (text, values) = columns::update(draft);
        let user = user.as_str();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&user, &id];
        parameters.extend(values.iter().map(|value| value as &(dyn ToSql + Sync)));
        let update = TaskWrite::update(&text, parameters.len());
        self.run(Effect::Write, |client| {
            update.run(client, if_match, &parameters, ShownTask::read)
        })
    }

    /// The write of [`Store::complete_task`], for a group.
    pub fn completion(&self, user: &UserId, id: Uuid, completion: Completion) -> GroupedStatement {
        let completed = Value::of(completion.state(), Value::Bool);
        GroupedStatement::new(GroupKind::Complete, user, id, vec![completed])
    }

    /// Sets or toggles a task's completion, if it is in a state that `if_match` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn complete_task(
        &self,
        user: &UserId,
        id: Uuid,
        completion: Completion,
        if_match: Option<&EntityTags>,
    ) -> Result<TaskOutcome<ShownTask>, Error> {
        let completed = completion.state();
        let parameters: [&(dyn ToSql + Sync); 3] = [&user.as_str(), &id, &completed];
        self.run(Effect::Write, |client| {
            COMPLETE.run(client, if_match, &parameters, ShownTask::read)
        })
    }
}
