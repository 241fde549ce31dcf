//! The trash.
//!
//! A deleted task moves from `tasks` to `deleted_tasks`, in one statement. It stays in the trash with its content for `TRASH_DAYS`. What
//! remains then is a tombstone: the id and when it was deleted, for the feed of changes.

use std::sync::LazyLock;

use uuid::Uuid;

use super::columns::stored;
use super::{TASKS, TaskOutcome, TaskWrite};
use crate::domain::etag::EntityTags;
use crate::domain::user::UserId;
use crate::store::{Error, Store};

static DELETE: LazyLock<TaskWrite> = LazyLock::new(|| delete(&stored()));

static DELETE_FOR_GOOD: LazyLock<TaskWrite> = LazyLock::new(|| delete(KEY));

const KEY: &str = "user_id, id";

fn delete(columns: &str) -> TaskWrite {
    let moved = format!(
        "moved AS (DELETE FROM {{schema}}.tasks AS task WHERE user_id = $1 AND id = $2{{guard}} RETURNING {columns})"
    );
    let write = format!("{} RETURNING id", keep(columns));
    TaskWrite::new(&moved, &write, TASKS, 2)
}

/// An INSERT of the deleted tasks that a query called `moved` returns, with these columns. The id may have been deleted before.
fn keep(columns: &str) -> String {
    let stored = stored();
    let new = stored.replace(", ", ", excluded.");
    format!(
        "INSERT INTO {{schema}}.deleted_tasks AS task ({columns}) SELECT {columns} FROM moved
         ON CONFLICT (user_id, id) DO UPDATE
         SET ({stored}, deleted_at, written_by) = (excluded.{new}, excluded.deleted_at, excluded.written_by)"
    )
}

impl Store {
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
        let delete = match for_good || self.settings.database.trash.is_zero() {
            true => &DELETE_FOR_GOOD,
            false => &DELETE,
        };
        self.write_task(delete, if_match, &[&user.as_str(), &id], |_| Ok(()))
    }
}
