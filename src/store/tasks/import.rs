//! Imports tasks.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use postgres::types::ToSql;

use super::columns::{ColumnChanges, TaskRow, insert_many, many, row, rows_as_json, update_many};
use super::create::OWNERS;
use crate::domain::transfer::{ImportCount, ImportedTask, OnConflict};
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::accounts::OWNER;
use crate::store::{Effect, Error, Store};

/// Most tasks that one statement writes.
pub const IMPORTED_AT_ONCE: usize = 1_000;

// `$3` says whether tasks that are there change. The user is locked first, then tasks in the order of their ids, so that two imports do
// not wait for each other. A task that is as the file says is neither written nor locked.
static IMPORT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH known_owner AS MATERIALIZED (
             SELECT id FROM {{schema}}.users WHERE id = $1 FOR KEY SHARE
         ), owner AS ({owner}), owners AS MATERIALIZED ({OWNERS}), new AS MATERIALIZED (
             SELECT * FROM {many}
         ), there AS MATERIALIZED (
             SELECT new.id, {changed} AS changed
             FROM new JOIN {{schema}}.tasks AS task ON task.user_id = $1 AND task.id = new.id
         ), changing AS MATERIALIZED (
             SELECT new.* FROM owners, new JOIN {{schema}}.tasks AS task ON task.user_id = $1 AND task.id = new.id
             WHERE $3 AND {changed} ORDER BY new.id FOR UPDATE OF task
         ), updated AS ({update} RETURNING 1), created AS (
             {insert} WHERE NOT EXISTS (SELECT FROM there WHERE there.id = new.id) ORDER BY new.id
             ON CONFLICT (user_id, id) DO NOTHING RETURNING 1
         )
         SELECT (SELECT count(*) FROM created), (SELECT count(*) FROM updated), (SELECT count(*) FROM there WHERE NOT changed)
         FROM owners",
        many = many(2),
        changed = ColumnChanges::of_many().condition,
        update = update_many("changing AS new"),
        owner = OWNER!(""),
        insert = insert_many("owners, new"),
    )
});

impl Store {
    /// Imports tasks in one transaction, with one statement for each thousand. `dry_run` counts what would be done, and undoes it.
    ///
    /// Of tasks with the same id, `on_conflict` takes the first (skip) or the last (update). A task that is created has the moments and
    /// the version of the file. One that is updated changes as by any other update.
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
        let updates = on_conflict == OnConflict::Update;
        let mut by_id = BTreeMap::new();
        for task in tasks {
            let taken = by_id.entry(task.task.id).or_insert(task);
            if updates {
                *taken = task;
            }
        }
        let rows: Vec<TaskRow> = by_id.into_values().map(imported_row).collect();
        let rows: Vec<String> = rows.chunks(IMPORTED_AT_ONCE).map(rows_as_json).collect();
        let counts = self.run(Effect::Write, |client| {
            let statement = client.prepared(&IMPORT)?;
            let mut steps = client.steps(self.patience())?;
            let mut counts = [0; 3];
            for rows in &rows {
                let values: [&(dyn ToSql + Sync); 3] = [&user.as_str(), &rows.as_str(), &updates];
                let row = steps.query(&statement, &values)?.pop();
                // The user's account was deleted a moment ago.
                let Some(row) = row else {
                    return Ok(None);
                };
                for (at, count) in counts.iter_mut().enumerate() {
                    let more: i64 = row.try_get(at)?;
                    *count += usize::try_from(more).unwrap_or_default();
                }
            }
            if !dry_run {
                steps.commit()?;
            }
            Ok(Some(counts))
        })?;
        let [created, updated, unchanged] = counts.ok_or(Error::UserGone)?;
        Ok(ImportCount {
            created,
            updated,
            unchanged,
            skipped: tasks.len().saturating_sub(created + updated + unchanged),
        })
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
