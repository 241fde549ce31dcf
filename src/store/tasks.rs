//! The statements on tasks. Each names the user, runs in one round trip, and is its own transaction.

use postgres::error::SqlState;
use postgres::{Error as PgError, Row};
use time::{Date, Duration, OffsetDateTime, Time};
use uuid::Uuid;

use super::{Effect, Error, Store};
use crate::domain::draft::{Completion, NewTask, TaskChanges};
use crate::domain::list::ListQuery;
use crate::domain::task::{Description, Due, Priority, Task, Title};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// What came of making a task.
#[derive(Debug)]
pub enum Created {
    /// It was made.
    Task(Task),
    /// The user has a task with that id already; nothing was changed.
    IdTaken,
}

/// Some of a user's tasks.
#[derive(Debug)]
pub struct TaskPage {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// Whether the user has more than these.
    pub has_more: bool,
}

// The order in which `read_task` reads them. The user is the one who asked.
macro_rules! task_columns {
    () => {
        "id, title, description, completed_at, priority, due_at, due_on, created_at, updated_at"
    };
}

const LIST: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {schema}.tasks WHERE user_id = $1
     ORDER BY created_at DESC, id DESC LIMIT $2"
);

const GET: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {schema}.tasks WHERE user_id = $1 AND id = $2"
);

const EXISTS: &str = "SELECT FROM {schema}.tasks WHERE user_id = $1 AND id = $2";

// A user known only from a token gets a row with the first write. The foreign key is checked when the statement ends, so it
// sees that row.
const CREATE: &str = concat!(
    "WITH owner AS (
         INSERT INTO {schema}.users (id) VALUES ($1) ON CONFLICT (id) DO NOTHING
     )
     INSERT INTO {schema}.tasks (user_id, id, title, description, completed_at, priority, due_at, due_on)
     VALUES ($1, $2, $3, $4, CASE WHEN $5::bool THEN now() END, $6, $7, $8)
     RETURNING ",
    task_columns!()
);

// `updated_at` moves when something really changes, and always forward, whatever the clock does.
const UPDATE: &str = concat!(
    "UPDATE {schema}.tasks AS task
     SET (title, description, completed_at, priority, due_at, due_on, updated_at) = (
         SELECT new.title, new.description, new.completed_at, new.priority, new.due_at, new.due_on,
                CASE WHEN (new.title, new.description, new.completed_at, new.priority, new.due_at, new.due_on)
                          IS DISTINCT FROM
                          (task.title, task.description, task.completed_at, task.priority, task.due_at, task.due_on)
                     THEN greatest(now(), task.updated_at + interval '1 microsecond')
                     ELSE task.updated_at END
         FROM (SELECT coalesce($3::text, task.title) AS title,
                      CASE WHEN $4::bool THEN $5::text ELSE task.description END AS description,
                      CASE WHEN coalesce($6::bool, task.completed) THEN coalesce(task.completed_at, now()) END AS completed_at,
                      coalesce($7::int2, task.priority) AS priority,
                      CASE WHEN $8::bool THEN $9::timestamptz ELSE task.due_at END AS due_at,
                      CASE WHEN $8::bool THEN $10::date ELSE task.due_on END AS due_on) AS new
     )
     WHERE user_id = $1 AND id = $2
     RETURNING ",
    task_columns!()
);

// `$3` is the completion to set, or null to turn it over. Setting what is set already changes nothing.
const COMPLETE: &str = concat!(
    "UPDATE {schema}.tasks
     SET completed_at = CASE WHEN coalesce($3::bool, NOT completed) THEN coalesce(completed_at, now()) END,
         updated_at = CASE WHEN $3::bool IS DISTINCT FROM completed
                           THEN greatest(now(), updated_at + interval '1 microsecond')
                           ELSE updated_at END
     WHERE user_id = $1 AND id = $2
     RETURNING ",
    task_columns!()
);

const DELETE: &str = "DELETE FROM {schema}.tasks WHERE user_id = $1 AND id = $2";

impl Store {
    /// A user's tasks, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_tasks(&self, user: &UserId, query: ListQuery) -> Result<TaskPage, Error> {
        let limit = usize::from(query.limit.get());
        // One more than asked for tells whether there are more.
        let rows_wanted = i64::from(query.limit.get()) + 1;
        let mut tasks = self.run(Effect::Read, |client| {
            let statement = client.prepared(LIST)?;
            let rows = client.query(&statement, &[&user.as_str(), &rows_wanted])?;
            rows.iter()
                .map(|row| read_task(user, row))
                .collect::<Result<Vec<Task>, PgError>>()
        })?;
        let has_more = tasks.len() > limit;
        tasks.truncate(limit);
        Ok(TaskPage { tasks, has_more })
    }

    /// One task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_task(&self, user: &UserId, id: Uuid) -> Result<Option<Task>, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(GET)?;
            client
                .query_opt(&statement, &[&user.as_str(), &id])?
                .map(|row| read_task(user, &row))
                .transpose()
        })
    }

    /// Whether the user has a task of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_exists(&self, user: &UserId, id: Uuid) -> Result<bool, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(EXISTS)?;
            Ok(client
                .query_opt(&statement, &[&user.as_str(), &id])?
                .is_some())
        })
    }

    /// Makes a task, and its owner where this is the first that is heard of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_task(&self, user: &UserId, task: &NewTask) -> Result<Created, Error> {
        let (due_at, due_on) = due_columns(task.due_date);
        let description = task.description.as_ref().map(Description::as_str);
        self.run(Effect::Write, |client| {
            let statement = client.prepared(CREATE)?;
            let created = client.query_one(
                &statement,
                &[
                    &user.as_str(),
                    &task.id,
                    &task.title.as_str(),
                    &description,
                    &task.completed,
                    &task.priority.rank(),
                    &due_at,
                    &due_on,
                ],
            );
            match created {
                Ok(row) => Ok(Created::Task(read_task(user, &row)?)),
                Err(error) if violates(&error, "tasks_pkey") => Ok(Created::IdTaken),
                Err(error) => Err(error),
            }
        })
    }

    /// Changes a task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update_task(
        &self,
        user: &UserId,
        id: Uuid,
        changes: &TaskChanges,
    ) -> Result<Option<Task>, Error> {
        if *changes == TaskChanges::default() {
            return self.get_task(user, id);
        }
        let (due_at, due_on) = due_columns(changes.due_date.value().copied());
        self.run(Effect::Write, |client| {
            let statement = client.prepared(UPDATE)?;
            let row = client.query_opt(
                &statement,
                &[
                    &user.as_str(),
                    &id,
                    &changes.title.as_ref().map(Title::as_str),
                    &changes.description.is_sent(),
                    &changes.description.value().map(Description::as_str),
                    &changes.completed,
                    &changes.priority.map(Priority::rank),
                    &changes.due_date.is_sent(),
                    &due_at,
                    &due_on,
                ],
            )?;
            row.map(|row| read_task(user, &row)).transpose()
        })
    }

    /// Sets or turns over a task's completion; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn complete_task(
        &self,
        user: &UserId,
        id: Uuid,
        completion: Completion,
    ) -> Result<Option<Task>, Error> {
        let completed = match completion {
            Completion::Toggle => None,
            Completion::Set(completed) => Some(completed),
        };
        self.run(Effect::Write, |client| {
            let statement = client.prepared(COMPLETE)?;
            let row = client.query_opt(&statement, &[&user.as_str(), &id, &completed])?;
            row.map(|row| read_task(user, &row)).transpose()
        })
    }

    /// Deletes a task; false where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_task(&self, user: &UserId, id: Uuid) -> Result<bool, Error> {
        self.run(Effect::Write, |client| {
            let statement = client.prepared(DELETE)?;
            Ok(client.execute(&statement, &[&user.as_str(), &id])? > 0)
        })
    }
}

/// Reads the columns of `task_columns!`.
fn read_task(user: &UserId, row: &Row) -> Result<Task, PgError> {
    let completed_at: Option<OffsetDateTime> = row.try_get(3)?;
    let due_at: Option<OffsetDateTime> = row.try_get(5)?;
    let due_on: Option<Date> = row.try_get(6)?;
    Ok(Task {
        id: row.try_get(0)?,
        user_id: user.clone(),
        title: row.try_get(1)?,
        description: row.try_get(2)?,
        completed: completed_at.is_some(),
        completed_at: completed_at.map(Timestamp::from),
        // The constraint tasks_priority_rank lets no other rank in.
        priority: Priority::from_rank(row.try_get(4)?).unwrap_or_default(),
        due_date: due_on
            .map(Due::On)
            .or_else(|| due_at.map(|at| Due::At(Timestamp::from(at)))),
        created_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(7)?),
        updated_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(8)?),
    })
}

/// The columns `due_at` and `due_on`. A plain date counts as due until the last microsecond of its day in UTC.
fn due_columns(due: Option<Due>) -> (Option<OffsetDateTime>, Option<Date>) {
    match due {
        None => (None, None),
        Some(Due::At(moment)) => (Some(moment.as_utc()), None),
        Some(Due::On(date)) => {
            let last = Time::MIDNIGHT - Duration::microseconds(1);
            (Some(date.with_time(last).assume_utc()), Some(date))
        }
    }
}

fn violates(error: &PgError, constraint: &str) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && error.as_db_error().and_then(|db| db.constraint()) == Some(constraint)
}
