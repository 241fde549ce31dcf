//! Creates a task, once under an idempotency key.

use std::sync::LazyLock;

use postgres::Error as PgError;
use postgres::types::ToSql;
use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::{insert, insert_parameters, new_values};
use crate::domain::fold::search_text;
use crate::domain::idempotency::Repeatable;
use crate::domain::task::draft::Draft;
use crate::domain::task::{Description, Task};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::store::accounts::OWNER;
use crate::store::pool::Client;
use crate::store::{Effect, Error, Store, violates};

/// The outcome of creating a task.
#[derive(Debug)]
pub enum TaskCreation {
    /// It was created.
    Created(Task),
    /// A request with the same key created it before; as it was then.
    Before(Task),
    /// The key was used with another body.
    OtherBody,
    /// A request with this key is still running.
    Running,
    /// The user has a task with that id already; nothing was changed.
    IdTaken,
}

// For a user who has a row; without one it inserts nothing. The client knows all else about the task.
static CREATE: LazyLock<String> =
    LazyLock::new(|| insert(" FROM {schema}.users WHERE id = $1") + " RETURNING created_at");

// A user known only from a token gets a row with the first write. The foreign key is checked when the statement ends, so it
// sees that row. Two statements, because one that does both made every other write slower.
static CREATE_FIRST: LazyLock<String> = LazyLock::new(|| {
    let owner = OWNER!("");
    format!(
        "WITH owner AS ({owner}) {} RETURNING created_at",
        insert("")
    )
});

// One statement, and so one transaction. The row of a request that is still running cannot be seen, but its lock can; the lock
// ends with the transaction. A statement that began before that end sees neither row nor lock and creates the task again; the
// key's uniqueness undoes that, and the second try sees the row.
// A key is good for 24 hours. Each new key deletes some old ones, so that they do not pile up.
static CREATE_ONCE: LazyLock<String> = LazyLock::new(|| {
    let (key, digest) = (insert_parameters() + 1, insert_parameters() + 2);
    format!(
        "WITH lock AS MATERIALIZED (
             SELECT pg_try_advisory_xact_lock(hashtextextended($1, hashtextextended(${key}, 0))) AS held
         ), known AS MATERIALIZED (
             SELECT digest, task_id, created_at FROM {{schema}}.idempotency_keys
             WHERE user_id = $1 AND key = ${key} AND created_at > now() - interval '24 hours'
         ), mine AS MATERIALIZED (
             SELECT FROM lock WHERE held AND NOT EXISTS (SELECT FROM known)
         ), oldest AS MATERIALIZED (
             SELECT user_id, key FROM {{schema}}.idempotency_keys
             WHERE created_at <= now() - interval '24 hours' ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED
         ), old AS MATERIALIZED (
             SELECT user_id, key FROM oldest UNION SELECT $1, ${key}
         ), cleared AS (
             DELETE FROM {{schema}}.idempotency_keys AS expired USING mine
             WHERE (user_id, key) IN (SELECT user_id, key FROM old) AND created_at <= now() - interval '24 hours'
             RETURNING 1
         ), owner AS ({owner}), made AS (
             {insert} RETURNING id, created_at
         ), noted AS (
             INSERT INTO {{schema}}.idempotency_keys (user_id, key, digest, task_id)
             SELECT $1, ${key}, ${digest}::bytea, made.id FROM made, (SELECT count(*) FROM cleared) AS first
         )
         SELECT lock.held, made.created_at, known.digest, known.task_id, known.created_at
         FROM lock LEFT JOIN known ON true LEFT JOIN made ON true",
        owner = OWNER!(" FROM mine"),
        insert = insert(" FROM mine"),
    )
});

impl Store {
    /// Creates a task, and its owner's row where this is the owner's first write; once where the request has a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_task(
        &self,
        user: &UserId,
        draft: &Draft,
        key: Option<&Repeatable>,
    ) -> Result<TaskCreation, Error> {
        let task = draft.task();
        let description = task.description.as_ref().map(Description::as_str);
        let (user, search) = (user.as_str(), search_text(task.title.as_str(), description));
        let values = new_values(draft);
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&user, &task.id, &task.completed, &search];
        parameters.extend(values.iter().map(|value| value as &(dyn ToSql + Sync)));
        self.run(Effect::Write, |client| {
            let create = |client: &mut Client| match key {
                None => create(client, draft, &parameters),
                Some(key) => create_once(client, draft, &parameters, key),
            };
            let outcome = match create(client) {
                Err(error) if violates(&error, "idempotency_keys_pkey") => create(client),
                outcome => outcome,
            };
            match outcome {
                Err(error) if violates(&error, "tasks_pkey") => Ok(TaskCreation::IdTaken),
                outcome => outcome,
            }
        })
    }
}

fn create(
    client: &mut Client,
    draft: &Draft,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<TaskCreation, PgError> {
    let statement = client.prepared(&CREATE)?;
    let row = match client.query_opt(&statement, parameters)? {
        Some(row) => row,
        None => {
            let statement = client.prepared(&CREATE_FIRST)?;
            client.query_one(&statement, parameters)?
        }
    };
    let at = row.try_get(0)?;
    Ok(TaskCreation::Created(created(draft, draft.task().id, at)))
}

fn create_once(
    client: &mut Client,
    draft: &Draft,
    parameters: &[&(dyn ToSql + Sync)],
    key: &Repeatable,
) -> Result<TaskCreation, PgError> {
    let statement = client.prepared(&CREATE_ONCE)?;
    let (key, digest) = (key.key(), key.digest());
    let parameters = [parameters, &[&key, &digest]].concat();
    let row = client.query_one(&statement, &parameters)?;
    if let Some(known) = row.try_get::<_, Option<Vec<u8>>>(2)? {
        if known != digest {
            return Ok(TaskCreation::OtherBody);
        }
        let (id, at) = (row.try_get(3)?, row.try_get(4)?);
        return Ok(TaskCreation::Before(created(draft, id, at)));
    }
    if !row.try_get::<_, bool>(0)? {
        return Ok(TaskCreation::Running);
    }
    let at = row.try_get(1)?;
    Ok(TaskCreation::Created(created(draft, draft.task().id, at)))
}

fn created(draft: &Draft, id: Uuid, at: OffsetDateTime) -> Task {
    draft.created(id, Timestamp::from(at))
}
