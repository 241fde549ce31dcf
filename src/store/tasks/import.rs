//! Imports tasks.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use postgres::{Error as PgError, Row};
use uuid::Uuid;

use super::columns::{TaskRow, insert_many, many, row, rows_as_json, update_many};
use crate::domain::transfer::{ImportCount, ImportedTask, OnConflict};
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::accounts::OWNER;
use crate::store::{Effect, Error, Store};

/// Most tasks that one statement writes.
pub const IMPORTED_AT_ONCE: usize = 1_000;

// Rows are written and locked in the order of their ids, so that two imports do not wait for each other. A row that is as the file says
// is neither written nor locked.
static SKIP: LazyLock<String> =
    LazyLock::new(|| import("updated AS (SELECT WHERE false)".to_owned()));

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let (sets, changed) = update_many();
    import(format!(
        "changing AS MATERIALIZED (
             SELECT new.* FROM new JOIN {{schema}}.tasks AS task ON task.user_id = $1 AND task.id = new.id
             WHERE {changed} ORDER BY new.id FOR UPDATE OF task
         ), updated AS (
             UPDATE {{schema}}.tasks AS task
             SET {sets}, version = greatest(task.version + 1, new.version),
                 updated_at = greatest(coalesce(new.updated_at, now()), task.updated_at + interval '1 microsecond'),
                 written_by = pg_current_xact_id()
             FROM changing AS new WHERE task.user_id = $1 AND task.id = new.id
             RETURNING 1
         )"
    ))
});

/// An import whose changes of stored tasks are in a query called `updated`.
fn import(updated: String) -> String {
    let (_, changed) = update_many();
    format!(
        "WITH new AS MATERIALIZED (
             SELECT * FROM {many}
         ), there AS MATERIALIZED (
             SELECT new.id, {changed} AS changed
             FROM new JOIN {{schema}}.tasks AS task ON task.user_id = $1 AND task.id = new.id
         ), {updated}, owner AS ({owner}), created AS (
             {insert} WHERE NOT EXISTS (SELECT FROM there WHERE there.id = new.id) ORDER BY new.id
             ON CONFLICT (user_id, id) DO NOTHING RETURNING 1
         )
         SELECT (SELECT count(*) FROM created) AS created, (SELECT count(*) FROM updated) AS updated,
                (SELECT count(*) FROM there WHERE NOT changed) AS unchanged",
        many = many(2),
        owner = OWNER!(""),
        insert = insert_many("new"),
    )
}

impl Store {
    /// Imports tasks in one transaction, with one statement for each thousand. `dry_run` counts what would be done, and undoes it.
    ///
    /// Of tasks with the same id, `on_conflict` takes the first (skip) or the last (update). A task that is created has the moments and
    /// the version of the file. One that is updated keeps its `created_at`, and its version goes up.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn import_tasks(
        &self,
        user: &UserId,
        tasks: &[ImportedTask],
        on_conflict: OnConflict,
        dry_run: bool,
    ) -> Result<ImportCount, Error> {
        let mut by_id: BTreeMap<Uuid, &ImportedTask> = BTreeMap::new();
        for task in tasks {
            let place = by_id.entry(task.task.id).or_insert(task);
            if on_conflict == OnConflict::Update {
                *place = task;
            }
        }
        let rows: Vec<TaskRow> = by_id.into_values().map(imported_row).collect();
        let parameters: Vec<String> = rows.chunks(IMPORTED_AT_ONCE).map(rows_as_json).collect();
        let text: &'static str = match on_conflict {
            OnConflict::Skip => &SKIP,
            OnConflict::Update => &UPDATE,
        };
        let mut count = self.run(Effect::Write, |client| {
            let statement = client.prepared(text)?;
            let mut transaction = client.transaction()?;
            let mut count = ImportCount::default();
            for rows in &parameters {
                let row = transaction.query_one(&statement, &[&user.as_str(), rows])?;
                count += read_count(&row)?;
            }
            match dry_run {
                true => transaction.rollback()?,
                false => transaction.commit()?,
            }
            Ok(count)
        })?;
        let counted = count.created + count.updated + count.unchanged;
        count.skipped = tasks.len().saturating_sub(counted);
        Ok(count)
    }
}

fn imported_row(task: &ImportedTask) -> TaskRow {
    let ImportedTask { task, kept, sent } = task;
    let mut row = row(task);
    let moments = [
        ("completed_at", kept.completed_at),
        ("created_at", kept.created_at),
        ("updated_at", kept.updated_at),
    ];
    row.extend(moments.map(|(column, moment)| (column, Value::of(moment, Value::Moment))));
    row.insert("version", Value::of(kept.version, Value::Number));
    let sent = sent.iter().map(|field| (*field).to_owned());
    row.insert("sent", Value::Texts(sent.collect()));
    row
}

fn read_count(row: &Row) -> Result<ImportCount, PgError> {
    let number = |name| {
        let number = row.try_get::<_, i64>(name)?;
        Ok(usize::try_from(number).unwrap_or_default())
    };
    Ok(ImportCount {
        created: number("created")?,
        updated: number("updated")?,
        unchanged: number("unchanged")?,
        skipped: 0,
    })
}
