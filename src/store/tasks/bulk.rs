//! Many operations in one transaction: all are done, or none.
//!
//! All tasks are locked first, each kind of row in the order of ids, so that two of these requests do not wait for each other. After
//! that it is known whether every operation can be done, but for a new id that another transaction creates at the same time. Then each
//! kind of operation is one statement. With an idempotency key and all kinds these are 8 round trips.
//!
//! The answer to a repeated request is not stored. It follows from the body and the key's row, which has the first id: which
//! operations were done, and on which tasks. The tasks are shown as they are now.

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use postgres::types::ToSql;
use postgres::{Error as PgError, Row, Statement};
use uuid::Uuid;

use super::columns::{TaskRow, all, insert_many, many, row, rows_as_json, update_many};
use super::create::{OWNERS, claim_key, note_key};
use super::json::{read_tag, show_task};
use super::trash::{deletion, in_trash, restoration};
use crate::domain::bulk::{Bulk, Op};
use crate::domain::etag::ETag;
use crate::domain::fields::FieldError;
use crate::domain::idempotency::Repeatable;
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::accounts::OWNER;
use crate::store::pool::{PooledClient, Steps};
use crate::store::{Effect, Error, Store, violates};

/// The outcome of many operations.
#[derive(Debug)]
pub enum BulkOutcome {
    /// All were done. The results as JSON, and whether a request with the same key did the operations before.
    Done(Vec<u8>, bool),
    /// The key was used with another body.
    OtherBody,
    /// A request with this key is still running.
    Running,
    /// The operation at this place cannot be done, and the ones before it could be; nothing was changed.
    Refused(usize, Refusal),
}

/// Why an operation cannot be done.
#[derive(Debug)]
pub enum Refusal {
    /// The user has no such task, or none in the trash.
    NotFound,
    /// The task is in another state than the precondition names.
    Stale,
    /// Fields are wrong: these of all operations.
    Invalid(Vec<FieldError>),
    /// The user has a task with that id already.
    IdTaken,
}

static CLAIM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH {claim}, noted AS ({note}) SELECT held, digest, task_id FROM lock LEFT JOIN known ON true",
        claim = claim_key(2),
        note = note_key(2, "$4::uuid", "mine"),
    )
});

// The user is locked first, then tasks, then deleted ones: each item depends on the count of the one before. New ids are among them: of
// two transactions that create or restore the same deleted task, one waits here. A user known only from a token gets a row; for one whose
// account was deleted a moment ago there is no row in the result.
static LOCK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH known_owner AS MATERIALIZED (
             SELECT id FROM {{schema}}.users WHERE id = $1 FOR KEY SHARE
         ), owner AS ({owner}), live AS MATERIALIZED (
             SELECT id, version, created_at FROM {{schema}}.tasks
             WHERE user_id = $1 AND id = ANY ($2) AND (SELECT count(*) FROM known_owner) >= 0 ORDER BY id FOR UPDATE
         ), deleted AS MATERIALIZED (
             SELECT id, version, created_at, {here} AS here FROM {{schema}}.deleted_tasks
             WHERE user_id = $1 AND id = ANY ($2) AND (SELECT count(*) FROM live) >= 0 ORDER BY id FOR UPDATE
         )
         SELECT state.* FROM ({OWNERS}) AS owners LEFT JOIN (
             SELECT false AS deleted, id, version, created_at FROM live
             UNION ALL SELECT true, id, version, created_at FROM deleted WHERE here
         ) AS state ON true",
        owner = OWNER!(""),
        here = in_trash("$3"),
    )
});

// An id that is used since the tasks were locked is left out, and not waited for: a request that deletes that task may wait for the row
// in the trash, which is locked here.
const IS_FREE: &str =
    "NOT EXISTS (SELECT FROM {schema}.tasks AS live WHERE live.user_id = $1 AND live.id = new.id)";

static CREATE: LazyLock<String> = LazyLock::new(|| {
    let (insert, columns) = (insert_many(&many(2)), all());
    format!(
        "{insert} WHERE {IS_FREE} ORDER BY new.id ON CONFLICT (user_id, id) DO NOTHING RETURNING {columns}"
    )
});

static UPDATE: LazyLock<String> =
    LazyLock::new(|| format!("{} RETURNING {}", update_many(&many(2)), all()));

static DELETE: LazyLock<String> = LazyLock::new(|| delete(false));
static DELETE_FOR_GOOD: LazyLock<String> = LazyLock::new(|| delete(true));

fn delete(for_good: bool) -> String {
    let (moved, kept) = deletion(&in_many("true"), for_good);
    format!("WITH {moved} {kept} RETURNING id")
}

static RESTORE: LazyLock<String> = LazyLock::new(|| {
    let behind = " ORDER BY id ON CONFLICT (user_id, id) DO NOTHING";
    restoration(&in_many(IS_FREE), behind)
});

fn in_many(condition: &str) -> String {
    format!("id IN (SELECT new.id FROM {} WHERE {condition})", many(2))
}

static AS_NOW: LazyLock<String> = LazyLock::new(|| {
    let columns = all();
    format!("SELECT {columns} FROM {{schema}}.tasks AS task WHERE user_id = $1 AND id = ANY ($2)")
});

impl Store {
    /// Does many operations, or none of them; once where the request has a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bulk(
        &self,
        user: &UserId,
        bulk: &Bulk,
        key: Option<&Repeatable>,
    ) -> Result<BulkOutcome, Error> {
        let ids = bulk.ids(bulk.first_id);
        let delete = match self.settings.database.trash.is_zero() {
            true => &DELETE_FOR_GOOD,
            false => &DELETE,
        };
        let kinds: [(&'static str, &[Op]); 4] = [
            (&CREATE, &[Op::Create]),
            (&UPDATE, &[Op::Update, Op::Complete]),
            (delete, &[Op::Delete]),
            (&RESTORE, &[Op::Restore]),
        ];
        let writes = kinds.map(|(sql, kinds)| (sql, rows(bulk, &ids, kinds)));
        self.run(Effect::Write, |client| {
            match self.bulk_once(client, user.as_str(), bulk, key, &ids, &writes) {
                Err(error) if violates(&error, "idempotency_keys_pkey") => {
                    Ok(Some(BulkOutcome::Running))
                }
                outcome => outcome,
            }
        })?
        .ok_or(Error::UserGone)
    }

    /// `None` if the user's account was deleted a moment ago.
    fn bulk_once(
        &self,
        client: &mut PooledClient,
        user: &str,
        bulk: &Bulk,
        key: Option<&Repeatable>,
        ids: &[Uuid],
        writes: &[(&'static str, Option<String>)],
    ) -> Result<Option<BulkOutcome>, PgError> {
        let [claim, as_now] = [client.prepared(&CLAIM)?, client.prepared(&AS_NOW)?];
        let lock = client.prepared(&LOCK)?;
        let mut prepared = Vec::new();
        for (sql, rows) in writes {
            if let Some(rows) = rows {
                prepared.push((client.prepared(sql)?, rows));
            }
        }
        let mut steps = client.steps(self.patience())?;
        if let Some(key) = key
            && let parameters = [
                &user as &(dyn ToSql + Sync),
                &key.key(),
                &key.digest(),
                &bulk.first_id,
            ]
            && let Some(row) = steps.query(&claim, &parameters)?.first()
        {
            match row.try_get::<_, Option<&[u8]>>("digest")? {
                Some(digest) if digest != key.digest() => return Ok(Some(BulkOutcome::OtherBody)),
                Some(_) => {
                    let ids = bulk.ids(row.try_get("task_id")?);
                    let mut tasks = HashMap::new();
                    read_tasks(&mut steps, &as_now, &[&user, &ids], &mut tasks)?;
                    return Ok(Some(BulkOutcome::Done(results(bulk, &ids, &tasks), true)));
                }
                None if row.try_get("held")? => {}
                None => return Ok(Some(BulkOutcome::Running)),
            }
        }
        let locked = steps.query(&lock, &[&user, &ids, &self.trash()])?;
        if locked.is_empty() {
            return Ok(None);
        }
        if let Some((at, refusal)) = refusal(bulk, ids, &read_states(&locked)?) {
            return Ok(Some(BulkOutcome::Refused(at, refusal)));
        }
        let mut tasks = HashMap::new();
        for (statement, rows) in &prepared {
            read_tasks(&mut steps, statement, &[&user, rows], &mut tasks)?;
        }
        if let Some(at) = ids.iter().position(|id| !tasks.contains_key(id)) {
            return Ok(Some(BulkOutcome::Refused(at, Refusal::IdTaken)));
        }
        steps.commit()?;
        Ok(Some(BulkOutcome::Done(results(bulk, ids, &tasks), false)))
    }
}

/// The states of tasks, by whether they are deleted.
type States = HashMap<(bool, Uuid), ETag>;

fn read_states(rows: &[Row]) -> Result<States, PgError> {
    let mut states = States::new();
    for row in rows {
        if let Some(id) = row.try_get("id")? {
            states.insert((row.try_get("deleted")?, id), read_tag(row)?);
        }
    }
    Ok(states)
}

/// The first operation that cannot be done, by the order of checks of a request for one task.
fn refusal(bulk: &Bulk, ids: &[Uuid], states: &States) -> Option<(usize, Refusal)> {
    let operations = bulk.operations.iter().zip(ids).enumerate();
    let mut refused = operations.filter_map(|(at, (operation, id))| {
        let [live, deleted] = [false, true].map(|deleted| states.get(&(deleted, *id)));
        let (state, makes) = match operation.op {
            None => (None, false),
            Some(Op::Create) => (None, true),
            Some(Op::Restore) => (Some(deleted), true),
            Some(Op::Update | Op::Complete | Op::Delete) => (Some(live), false),
        };
        let refusal = match (state, &operation.if_match) {
            (Some(None), _) => Some(Refusal::NotFound),
            (Some(Some(tag)), Some(tags)) if !tags.match_strongly(*tag) => Some(Refusal::Stale),
            _ if !operation.errors.is_empty() => Some(Refusal::Invalid(bulk.errors())),
            _ => (makes && live.is_some()).then_some(Refusal::IdTaken),
        };
        Some((at, refusal?))
    });
    refused.next()
}

/// The operations of these kinds as the parameter of [`many`]; `None` if there are none.
fn rows(bulk: &Bulk, ids: &[Uuid], kinds: &[Op]) -> Option<String> {
    let operations = bulk.operations.iter().zip(ids);
    let operations =
        operations.filter(|(operation, _)| operation.op.is_some_and(|op| kinds.contains(&op)));
    let rows = operations.map(|(operation, id)| {
        let sent = operation.draft.sent().iter().map(|name| (*name).to_owned());
        let mut row = row(operation.draft.task());
        row.insert("id", Value::Text(id.to_string()));
        row.insert("sent", Value::Texts(sent.collect()));
        row
    });
    let rows: Vec<TaskRow> = rows.collect();
    (!rows.is_empty()).then(|| rows_as_json(&rows))
}

/// Runs a statement, and notes the tasks that it returns, as JSON. A row that is an id alone is a deleted task; its JSON is empty.
fn read_tasks(
    steps: &mut Steps,
    statement: &Statement,
    parameters: &[&(dyn ToSql + Sync)],
    tasks: &mut HashMap<Uuid, Vec<u8>>,
) -> Result<(), PgError> {
    for row in steps.query(statement, parameters)? {
        let mut json = Vec::new();
        if row.len() > 1 {
            show_task(&mut json, &row)?;
        }
        tasks.insert(row.try_get("id")?, json);
    }
    Ok(())
}

/// The answer: the status of each operation, and its task; of one that is deleted, its id.
fn results(bulk: &Bulk, ids: &[Uuid], tasks: &HashMap<Uuid, Vec<u8>>) -> Vec<u8> {
    let mut json = b"{\"results\":".to_vec();
    for (at, (operation, id)) in bulk.operations.iter().zip(ids).enumerate() {
        let before = if at == 0 { '[' } else { ',' };
        let status = match operation.op {
            Some(Op::Create) => 201,
            Some(Op::Delete) => 204,
            _ => 200,
        };
        // Writing to a Vec does not fail.
        let _ = write!(json, "{before}{{\"status\":{status},");
        match tasks.get(id).filter(|task| !task.is_empty()) {
            Some(task) => {
                json.extend_from_slice(b"\"task\":");
                json.extend_from_slice(task);
            }
            None => {
                let _ = write!(json, "\"id\":\"{id}\"");
            }
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    json
}
