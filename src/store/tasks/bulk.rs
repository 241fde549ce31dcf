//! Many operations in one transaction: all are done, or none.
//!
//! All tasks are locked first, each kind of row in the order of ids, so that two of these requests do not wait for each other. After
//! that it is known whether every operation can be done, but for a new id that another transaction creates at the same time. Then each
//! kind of operation is one statement. With an idempotency key and all kinds these are 8 round trips.
//!
//! The answer to a repeated request is not stored. It follows from the body and the key's row, which has the first id: which
//! operations were done, and on which tasks. The tasks are shown as they are now.

use std::collections::HashMap;
use std::sync::LazyLock;

use postgres::types::ToSql;
use postgres::{Error as PgError, Statement};
use uuid::Uuid;

use super::columns::{TaskRow, all, insert_many, many, row, rows_as_json, update_many};
use super::create::{OWNERS, claim_key, note_key};
use super::json::{ShownTask, read_tag};
use super::trash::{deletion, in_trash, restoration};
use crate::domain::bulk::{Bulk, Op};
use crate::domain::etag::ETag;
use crate::domain::fields::FieldError;
use crate::domain::idempotency::Repeatable;
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::accounts::OWNER;
use crate::store::pool::{Client, Steps};
use crate::store::{Effect, Error, Store, violates};

/// The outcome of many operations.
#[derive(Debug)]
pub enum BulkOutcome {
    /// All were done.
    Done(Vec<OperationTask>),
    /// A request with the same key did them before.
    Before(Vec<OperationTask>),
    /// The key was used with another body.
    OtherBody,
    /// A request with this key is still running.
    Running,
    /// The operation at this place cannot be done, and the ones before it could be; nothing was changed.
    Refused(usize, Refusal),
}

/// The task of an operation.
#[derive(Debug)]
pub struct OperationTask {
    /// Its id.
    pub id: Uuid,
    /// The task; `None` if it is deleted.
    pub task: Option<ShownTask>,
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
// two transactions that create or restore the same deleted task, one waits here. A user known only from a token gets a row; one whose
// account was deleted a moment ago has none.
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
         SELECT 'owner' AS what, NULL::uuid AS id, NULL::bigint AS version, NULL::timestamptz AS created_at FROM ({OWNERS}) AS owners
         UNION ALL SELECT 'live', id, version, created_at FROM live
         UNION ALL SELECT 'deleted', id, version, created_at FROM deleted WHERE here",
        owner = OWNER!(""),
        here = in_trash("$3"),
    )
});

static CREATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} ORDER BY new.id ON CONFLICT (user_id, id) DO NOTHING RETURNING {}",
        insert_many(&many(2)),
        all("task"),
    )
});

static UPDATE: LazyLock<String> =
    LazyLock::new(|| format!("{} RETURNING {}", update_many(&many(2)), all("task")));

static DELETE: LazyLock<String> = LazyLock::new(|| delete(false));
static DELETE_FOR_GOOD: LazyLock<String> = LazyLock::new(|| delete(true));

static RESTORE: LazyLock<String> = LazyLock::new(|| {
    restoration(
        "id = ANY ($2)",
        " ORDER BY id ON CONFLICT (user_id, id) DO NOTHING",
    )
});

static AS_NOW: LazyLock<String> = LazyLock::new(|| {
    let columns = all("task");
    format!("SELECT {columns} FROM {{schema}}.tasks AS task WHERE user_id = $1 AND id = ANY ($2)")
});

fn delete(for_good: bool) -> String {
    let (moved, kept) = deletion("id = ANY ($2)", for_good);
    format!("WITH {moved} {kept} RETURNING id")
}

/// A statement for all operations of a kind. Its parameters are the user and this one. It returns tasks, or ids alone.
type Write = (&'static str, Box<dyn ToSql + Sync>);

/// The states of the tasks that are locked.
#[derive(Default)]
struct Locked {
    has_owner: bool,
    live: HashMap<Uuid, ETag>,
    in_trash: HashMap<Uuid, ETag>,
}

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
        let writes = writes(bulk, &ids, self.settings.database.trash.is_zero());
        self.run(Effect::Write, |client| {
            let mut run = || self.bulk_once(client, user.as_str(), bulk, key, &ids, &writes);
            match run() {
                Err(error) if violates(&error, "idempotency_keys_pkey") => run(),
                outcome => outcome,
            }
        })?
        .ok_or(Error::UserGone)
    }

    /// `None` if the user's account was deleted a moment ago.
    fn bulk_once(
        &self,
        client: &mut Client,
        user: &str,
        bulk: &Bulk,
        key: Option<&Repeatable>,
        ids: &[Uuid],
        writes: &[Write],
    ) -> Result<Option<BulkOutcome>, PgError> {
        let claim = match key {
            Some(key) => Some((key, client.prepared(&CLAIM)?, client.prepared(&AS_NOW)?)),
            None => None,
        };
        let lock = client.prepared(&LOCK)?;
        let writes = writes.iter();
        let writes = writes.map(|(sql, parameter)| Ok((client.prepared(sql)?, parameter.as_ref())));
        let writes: Vec<(Statement, _)> = writes.collect::<Result<_, PgError>>()?;
        let mut steps = client.steps(self.patience())?;
        if let Some((key, claim, as_now)) = &claim
            && let Some(outcome) = earlier(&mut steps, user, bulk, key, [claim, as_now])?
        {
            return Ok(Some(outcome));
        }
        let locked = Locked::read(&mut steps, &lock, &[&user, &ids, &self.trash()])?;
        if !locked.has_owner {
            return Ok(None);
        }
        if let Some((at, refusal)) = locked.refusal(bulk, ids) {
            return Ok(Some(BulkOutcome::Refused(at, refusal)));
        }
        let mut done = HashMap::new();
        for (statement, parameter) in &writes {
            read_tasks(&mut steps, statement, &[&user, *parameter], &mut done)?;
        }
        if let Some(at) = ids.iter().position(|id| !done.contains_key(id)) {
            return Ok(Some(BulkOutcome::Refused(at, Refusal::IdTaken)));
        }
        steps.commit()?;
        Ok(Some(BulkOutcome::Done(in_order(ids, done))))
    }
}

/// Claims the key; gives the outcome if another request has it.
fn earlier(
    steps: &mut Steps,
    user: &str,
    bulk: &Bulk,
    key: &Repeatable,
    [claim, as_now]: [&Statement; 2],
) -> Result<Option<BulkOutcome>, PgError> {
    let parameters: [&(dyn ToSql + Sync); 4] = [&user, &key.key(), &key.digest(), &bulk.first_id];
    let Some(row) = steps.query(claim, &parameters)?.into_iter().next() else {
        return Ok(None);
    };
    match row.try_get::<_, Option<&[u8]>>("digest")? {
        Some(digest) if digest != key.digest() => Ok(Some(BulkOutcome::OtherBody)),
        Some(_) => {
            let ids = bulk.ids(row.try_get("task_id")?);
            let mut tasks = HashMap::new();
            read_tasks(steps, as_now, &[&user, &ids], &mut tasks)?;
            Ok(Some(BulkOutcome::Before(in_order(&ids, tasks))))
        }
        None if row.try_get("held")? => Ok(None),
        None => Ok(Some(BulkOutcome::Running)),
    }
}

impl Locked {
    fn read(
        steps: &mut Steps,
        lock: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Locked, PgError> {
        let mut locked = Locked::default();
        for row in steps.query(lock, parameters)? {
            let states = match row.try_get("what")? {
                "live" => &mut locked.live,
                "deleted" => &mut locked.in_trash,
                _ => {
                    locked.has_owner = true;
                    continue;
                }
            };
            states.insert(row.try_get("id")?, read_tag(&row)?);
        }
        Ok(locked)
    }

    /// The first operation that cannot be done.
    fn refusal(&self, bulk: &Bulk, ids: &[Uuid]) -> Option<(usize, Refusal)> {
        let operations = bulk.operations.iter().zip(ids).enumerate();
        let mut refused = operations.filter_map(|(at, (operation, id))| {
            // In the order of checks of a request for one task.
            let state = match operation.op {
                Some(Op::Update | Op::Complete | Op::Delete) => Some(self.live.get(id)),
                Some(Op::Restore) => Some(self.in_trash.get(id)),
                Some(Op::Create) | None => None,
            };
            let makes = matches!(operation.op, Some(Op::Create | Op::Restore));
            let refusal = match (state, &operation.if_match) {
                (Some(None), _) => Some(Refusal::NotFound),
                (Some(Some(tag)), Some(tags)) if !tags.match_strongly(*tag) => Some(Refusal::Stale),
                _ if !operation.errors.is_empty() => Some(Refusal::Invalid(bulk.errors())),
                _ => (makes && self.live.contains_key(id)).then_some(Refusal::IdTaken),
            };
            Some((at, refusal?))
        });
        refused.next()
    }
}

fn writes(bulk: &Bulk, ids: &[Uuid], for_good: bool) -> Vec<Write> {
    let of = |kinds: &'static [Op]| {
        let operations = bulk.operations.iter().zip(ids);
        operations.filter(|(operation, _)| operation.op.is_some_and(|op| kinds.contains(&op)))
    };
    let mut writes: Vec<Write> = Vec::new();
    let with_rows: [(&'static str, &[Op]); 2] = [
        (&CREATE, &[Op::Create]),
        (&UPDATE, &[Op::Update, Op::Complete]),
    ];
    for (sql, kinds) in with_rows {
        let rows = of(kinds).map(|(operation, id)| {
            let sent = operation.draft.sent().iter().map(|name| (*name).to_owned());
            let mut row = row(operation.draft.task());
            row.insert("id", Value::Text(id.to_string()));
            row.insert("sent", Value::Texts(sent.collect()));
            row
        });
        let rows: Vec<TaskRow> = rows.collect();
        if !rows.is_empty() {
            writes.push((sql, Box::new(rows_as_json(&rows))));
        }
    }
    let delete = if for_good { &DELETE_FOR_GOOD } else { &DELETE };
    let with_ids: [(&'static str, &[Op]); 2] =
        [(delete, &[Op::Delete]), (&RESTORE, &[Op::Restore])];
    for (sql, kinds) in with_ids {
        let ids: Vec<Uuid> = of(kinds).map(|(_, id)| *id).collect();
        if !ids.is_empty() {
            writes.push((sql, Box::new(ids)));
        }
    }
    writes
}

/// Runs a statement, and notes the tasks that it returns. A row that is an id alone is a deleted task.
fn read_tasks(
    steps: &mut Steps,
    statement: &Statement,
    parameters: &[&(dyn ToSql + Sync)],
    tasks: &mut HashMap<Uuid, Option<ShownTask>>,
) -> Result<(), PgError> {
    for row in steps.query(statement, parameters)? {
        let is_task = row.len() > 1;
        let task = is_task.then(|| ShownTask::read(&row)).transpose()?;
        tasks.insert(row.try_get("id")?, task);
    }
    Ok(())
}

fn in_order(ids: &[Uuid], mut tasks: HashMap<Uuid, Option<ShownTask>>) -> Vec<OperationTask> {
    let ids = ids.iter().copied();
    ids.map(|id| OperationTask {
        id,
        task: tasks.remove(&id).flatten(),
    })
    .collect()
}
