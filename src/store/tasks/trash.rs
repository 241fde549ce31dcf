//! The trash.
//!
//! A deleted task moves from `tasks` to `deleted_tasks`, in one statement. It stays in the trash with its content for `TRASH_DAYS`. What
//! remains then is a tombstone: the id and when it was deleted, for the feed of changes.

use std::sync::LazyLock;
use std::time::Duration;

use postgres::types::ToSql;
use uuid::Uuid;

use super::columns::{all, contents, restored, stored};
use super::{ShownTask, TASKS, TaskOutcome, TaskWrite};
use crate::domain::etag::EntityTags;
use crate::domain::user::UserId;
use crate::store::group::{GroupKind, GroupedStatement};
use crate::store::{Effect, Error, Store, violates};

/// Tasks of which one statement empties the trash, so that it ends in time.
const EMPTIED_AT_ONCE: i64 = 5_000;

/// The outcome of restoring a task.
#[derive(Debug)]
pub enum TaskRestoration {
    /// It was restored.
    Restored(ShownTask),
    /// The trash has no task of that id.
    NotFound,
    /// The user has a new task of that id; nothing was changed.
    IdTaken,
}

static DELETE: LazyLock<[TaskWrite; 2]> = LazyLock::new(|| delete(false));

static DELETE_FOR_GOOD: LazyLock<[TaskWrite; 2]> = LazyLock::new(|| delete(true));

const KEY: &str = "user_id, id";

/// Two forms of a deletion. The second also works where the id was deleted before. The first fails there, and takes PostgreSQL 6 µs less
/// (pgbench, 10 clients). PostgreSQL logs the failure.
fn delete(for_good: bool) -> [TaskWrite; 2] {
    let (moved, kept) = deletion_of_new_ids("moved", "id = $2{guard}", for_good);
    [String::new(), replacement()]
        .map(|or| TaskWrite::new(&moved, &format!("{kept}{or} RETURNING id"), TASKS, 2))
}

/// An item of a WITH list that deletes tasks of the user `$1`, and an INSERT that keeps them in the trash, or their ids alone.
pub(super) fn deletion(condition: &str, for_good: bool) -> (String, String) {
    let (moved, kept) = deletion_of_new_ids("moved", condition, for_good);
    (moved, kept + &replacement())
}

/// A [`deletion`] that fails where an id was deleted before.
pub(super) fn deletion_of_new_ids(name: &str, condition: &str, for_good: bool) -> (String, String) {
    let stored = stored();
    let columns = if for_good { KEY } else { &stored };
    let moved = format!(
        "{name} AS (DELETE FROM {{schema}}.tasks AS task WHERE user_id = $1 AND {condition} RETURNING {columns})"
    );
    let kept = format!(
        "INSERT INTO {{schema}}.deleted_tasks AS task ({columns}) SELECT {columns} FROM {name}"
    );
    (moved, kept)
}

/// The end of an INSERT of deleted tasks: a row of the same id is replaced.
fn replacement() -> String {
    let stored = stored();
    let new = stored.replace(", ", ", excluded.");
    format!(
        " ON CONFLICT (user_id, id) DO UPDATE
         SET ({stored}, deleted_at, written_by) = (excluded.{new}, excluded.deleted_at, excluded.written_by)"
    )
}

/// That a row of `deleted_tasks` is still in the trash, where tasks stay for so many seconds. Until maintenance removes its content, a
/// row may have it for longer.
///
/// It asks for the version: an index that is for maintenance has the rows with a title, of all users, and PostgreSQL would walk it.
pub(super) fn in_trash(seconds: &str) -> String {
    format!("version IS NOT NULL AND deleted_at > now() - make_interval(secs => {seconds}::float8)")
}

/// The trash as a table, with the time at which a task is removed.
pub(super) fn trash_table(time: Duration) -> String {
    let seconds = time.as_secs_f64().to_string();
    format!(
        "(SELECT *, deleted_at + make_interval(secs => {seconds}) AS purge_at FROM {{schema}}.deleted_tasks WHERE {})",
        in_trash(&seconds)
    )
}

// It locks the user, a new task of that id, and the deleted one: the order of bulk requests and of the deletion of an account. Another
// order would be a deadlock.
static RESTORE: LazyLock<String> = LazyLock::new(|| {
    let here = in_trash("$3");
    let owner = "(SELECT count(*) FROM (SELECT FROM {schema}.users WHERE id = $1 FOR KEY SHARE) AS owner) >= 0";
    let lock = format!(
        "(SELECT count(*) FROM (SELECT FROM {{schema}}.tasks WHERE user_id = $1 AND id = $2 AND {owner} FOR UPDATE) AS new) >= 0"
    );
    restoration(&format!("id = $2 AND {here} AND {lock}"), "")
});

/// A statement that restores deleted tasks of the user `$1`, with the text behind its rows, and returns the tasks. It locks the user as
/// a new task does.
pub(super) fn restoration(condition: &str, behind: &str) -> String {
    format!(
        "WITH taken AS (
             DELETE FROM {{schema}}.deleted_tasks WHERE user_id = $1 AND {condition} RETURNING {stored}
         )
         INSERT INTO {{schema}}.tasks AS task ({stored})
         SELECT {restored} FROM taken, (SELECT FROM {{schema}}.users WHERE id = $1 FOR KEY SHARE) AS owner{behind}
         RETURNING {shown}",
        stored = stored(),
        restored = restored(),
        shown = all(),
    )
}

// The id stays, for the feed of changes.
static PURGE: LazyLock<String> = LazyLock::new(|| {
    let (remove, here) = (remove_contents(), in_trash("$3"));
    format!("{remove} WHERE user_id = $1 AND id = $2 AND {here}")
});

static EMPTY: LazyLock<String> = LazyLock::new(|| {
    let (remove, here) = (remove_contents(), in_trash("$3"));
    format!(
        "{remove} WHERE user_id = $1 AND id IN (
             SELECT id FROM {{schema}}.deleted_tasks WHERE user_id = $1 AND {here} ORDER BY id LIMIT $2 FOR UPDATE
         )"
    )
});

/// Makes tombstones of deleted tasks, up to the condition that says which.
pub(in crate::store) fn remove_contents() -> String {
    let nulls: Vec<String> = contents()
        .map(|column| format!("{column} = NULL"))
        .collect();
    format!("UPDATE {{schema}}.deleted_tasks SET {}", nulls.join(", "))
}

impl Store {
    /// The write of [`Store::delete_task`], for a group. `None` where there is no trash.
    pub fn deletion(&self, user: &UserId, id: Uuid) -> Option<GroupedStatement> {
        let write = || GroupedStatement::new(GroupKind::Delete, user, id, Vec::new());
        (!self.settings.database.trash.is_zero()).then(write)
    }

    /// Deletes a task, if it is in a state that `if_match` names. It goes to the trash, unless there is none or it is deleted for good.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_task(
        &self,
        user: &UserId,
        id: Uuid,
        for_good: bool,
        if_match: Option<&EntityTags>,
    ) -> Result<TaskOutcome<()>, Error> {
        let [first, again] = match for_good || self.settings.database.trash.is_zero() {
            true => &*DELETE_FOR_GOOD,
            false => &*DELETE,
        };
        let parameters: [&(dyn ToSql + Sync); 2] = [&user.as_str(), &id];
        self.run(Effect::Write, |client| {
            match first.run(client, if_match, &parameters, |_| Ok(())) {
                Err(error) if violates(&error, "deleted_tasks_pkey") => {
                    again.run(client, if_match, &parameters, |_| Ok(()))
                }
                outcome => outcome,
            }
        })
    }

    /// Restores a task from the trash. Its version is one higher than before.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn restore_task(&self, user: &UserId, id: Uuid) -> Result<TaskRestoration, Error> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&user.as_str(), &id, &self.trash()];
        self.run(Effect::Write, |client| {
            let statement = client.prepared(&RESTORE)?;
            match client.query_opt(&statement, &parameters) {
                Ok(Some(row)) => ShownTask::read(&row).map(TaskRestoration::Restored),
                Ok(None) => Ok(TaskRestoration::NotFound),
                Err(error) if violates(&error, "tasks_pkey") => Ok(TaskRestoration::IdTaken),
                Err(error) => Err(error),
            }
        })
    }

    /// Removes a task from the trash for good; false if it is not there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn purge_task(&self, user: &UserId, id: Uuid) -> Result<bool, Error> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&user.as_str(), &id, &self.trash()];
        Ok(self.execute(Effect::Write, &PURGE, &parameters)? > 0)
    }

    /// Removes all of a user's tasks from the trash for good, some at a time, and returns their number.
    ///
    /// # Errors
    /// See [`Error`]; a second call goes on.
    pub fn empty_trash(&self, user: &UserId) -> Result<u64, Error> {
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&user.as_str(), &EMPTIED_AT_ONCE, &self.trash()];
        let mut all = 0;
        loop {
            let emptied = self.execute(Effect::Write, &EMPTY, &parameters)?;
            all += emptied;
            if emptied < EMPTIED_AT_ONCE.unsigned_abs() {
                return Ok(all);
            }
        }
    }

    /// Seconds that a deleted task stays in the trash.
    pub(super) fn trash(&self) -> f64 {
        self.settings.database.trash.as_secs_f64()
    }
}
