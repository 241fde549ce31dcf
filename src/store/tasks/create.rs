//! Creates a task, once under an idempotency key.

use std::iter;
use std::sync::LazyLock;

use postgres::Error as PgError;
use postgres::types::ToSql;
use uuid::Uuid;

use super::columns::{all, insert, insert_parameters, made, new_values};
use super::json::ShownTask;
use crate::domain::idempotency::Repeatable;
use crate::domain::task::draft::Draft;
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::accounts::OWNER;
use crate::store::group::{GroupKind, GroupedStatement};
use crate::store::pool::PooledClient;
use crate::store::{Effect, Error, Store, violates};

/// The outcome of creating a task.
#[derive(Debug)]
pub enum TaskCreation {
    /// It was created.
    Created(ShownTask),
    /// A request with the same key created it before; as it was then.
    Before(ShownTask),
    /// The key was used with another body.
    OtherBody,
    /// A request with this key is still running.
    Running,
    /// The user has a task with that id already; nothing was changed.
    IdTaken,
}

// For a user who has a row; without one it inserts nothing. The lock makes the deletion of the user wait; PostgreSQL's check of a
// foreign key takes the same lock, and 15 to 20 µs more.
static CREATE: LazyLock<String> =
    LazyLock::new(|| format!("{} RETURNING {}", insert_for_owner(), all()));

pub(super) fn insert_for_owner() -> String {
    insert(" FROM {schema}.users WHERE users.id = $1 FOR KEY SHARE")
}

// A user known only from a token gets a row with the first write. Two statements, because one that does both made every other
// write slower.
static CREATE_FIRST: LazyLock<String> = LazyLock::new(|| {
    let owner = OWNER!("");
    let (insert, columns) = (insert(" FROM owner"), all());
    format!("WITH owner AS ({owner}) {insert} RETURNING {columns}")
});

/// The user's row, from the items of a WITH list that lock or insert it.
pub(super) const OWNERS: &str = "SELECT id FROM known_owner UNION ALL SELECT id FROM owner";

/// The first items of a WITH list, which claim the idempotency key of this parameter. `lock.held` says whether no other request with the
/// key is running, `known` is the row of one that is done, `mine` has a row if this is the first. What is then written takes its rows
/// from `mine`, and adds the key with [`note_key`]. The row of the user is locked or inserted, if this is the first.
///
/// The row of a request that is still running cannot be seen, but its lock can; the lock ends with the transaction. A statement that
/// began before that end sees neither row nor lock and does the work again; the key's uniqueness undoes that, and the second try sees
/// the row.
///
/// A key is good for 24 hours. Each new key deletes some old ones, so that they do not pile up.
pub(super) fn claim_key(key: usize) -> String {
    format!(
        "lock AS MATERIALIZED (
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
         ), known_owner AS MATERIALIZED (
             SELECT users.id FROM mine, {{schema}}.users WHERE users.id = $1 FOR KEY SHARE OF users
         ), owner AS ({owner})",
        owner = OWNER!(" FROM mine"),
    )
}

/// An INSERT of the key of [`claim_key`], where the digest of the body is the next parameter, for each row of a table.
pub(super) fn note_key(key: usize, task_id: &str, from: &str) -> String {
    format!(
        "INSERT INTO {{schema}}.idempotency_keys (user_id, key, digest, task_id)
         SELECT $1, ${key}, ${digest}::bytea, {task_id} FROM {from}, (SELECT count(*) FROM cleared) AS first",
        digest = key + 1,
    )
}

// One statement, and so one transaction.
static CREATE_ONCE: LazyLock<String> = LazyLock::new(|| {
    let key = insert_parameters() + 1;
    format!(
        "WITH {claim}, made AS (
             {insert} RETURNING id, created_at
         ), noted AS ({note})
         SELECT {columns}, lock.held, known.digest
         FROM lock LEFT JOIN known ON true LEFT JOIN made ON true,
              LATERAL {task}",
        claim = claim_key(key),
        insert = insert(&format!(" FROM ({OWNERS}) AS owners")),
        note = note_key(key, "made.id", "made"),
        columns = all(),
        task = made(
            "coalesce(made.id, known.task_id)",
            "coalesce(made.created_at, known.created_at)"
        ),
    )
});

impl Store {
    /// The write of [`Store::create_task`] without a key, for a group. `None` if the client chose the id: the write may have to wait for
    /// another one of that id.
    pub fn creation(&self, user: &UserId, draft: &Draft) -> Option<GroupedStatement> {
        let task = draft.task();
        let values = iter::once(Value::Bool(task.completed)).chain(new_values(draft));
        (!draft.sends("id"))
            .then(|| GroupedStatement::new(GroupKind::Create, user, task.id, values.collect()))
    }

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
        let (user, task) = (user.as_str(), draft.task());
        let values = new_values(draft);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&user, &task.id, &task.completed];
        parameters.extend(values.iter().map(|value| value as &(dyn ToSql + Sync)));
        self.run(Effect::Write, |client| {
            let create = |client: &mut PooledClient| match key {
                None => create(client, &parameters),
                Some(key) => create_once(client, &parameters, key),
            };
            let outcome = match create(client) {
                Err(error) if violates(&error, "idempotency_keys_pkey") => create(client),
                outcome => outcome,
            };
            match outcome {
                Err(error) if violates(&error, "tasks_pkey") => Ok(Some(TaskCreation::IdTaken)),
                outcome => outcome,
            }
        })?
        .ok_or(Error::UserGone)
    }
}

/// `None` if the user's account was deleted a moment ago.
fn create(
    client: &mut PooledClient,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<TaskCreation>, PgError> {
    // Another request may insert the user's row between the first two.
    for text in [&CREATE, &CREATE_FIRST, &CREATE] {
        let statement = client.prepared(text)?;
        if let Some(row) = client.query_opt(&statement, parameters)? {
            return Ok(Some(TaskCreation::Created(ShownTask::read(&row)?)));
        }
    }
    Ok(None)
}

/// As [`create`].
fn create_once(
    client: &mut PooledClient,
    parameters: &[&(dyn ToSql + Sync)],
    key: &Repeatable,
) -> Result<Option<TaskCreation>, PgError> {
    let statement = client.prepared(&CREATE_ONCE)?;
    let (key, digest) = (key.key(), key.digest());
    let parameters = [parameters, &[&key, &digest]].concat();
    let row = client.query_one(&statement, &parameters)?;
    let task = match row.try_get::<_, Option<Uuid>>("id")? {
        Some(_) => Some(ShownTask::read(&row)?),
        None => None,
    };
    Ok(match (task, row.try_get::<_, Option<Vec<u8>>>("digest")?) {
        (_, Some(known)) if known != digest => Some(TaskCreation::OtherBody),
        (task, Some(_)) => task.map(TaskCreation::Before),
        (task, None) if row.try_get("held")? => task.map(TaskCreation::Created),
        (_, None) => Some(TaskCreation::Running),
    })
}
