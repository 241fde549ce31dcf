//! Upkeep: removes rows that are no longer needed.
//!
//! Rows are removed in small lots, so that no statement takes long or holds many locks. One instance does it; the others find the lock
//! taken and do not wait.

use std::fmt;

use postgres::Row;

use super::tasks::remove_contents;
use super::{Effect, Error, Store, feed};

/// Rows that one statement deletes at most.
const LOT: i64 = 1_000;
/// The first key of the advisory lock; the second is a hash of the schema's name.
const LOCK: i32 = 0x746f_646f;

/// A kind of row that is removed.
struct Upkeep {
    what: &'static str,
    /// `{trash}` and `{changes}` stand for the seconds of these settings.
    sql: &'static str,
}

// Revocations stay for an hour after their end: other instances must still read that they have ended.
const UPKEEP: &[Upkeep] = &[
    Upkeep {
        what: "expired sessions",
        sql: "DELETE FROM {schema}.sessions WHERE (user_id, id) IN (
                  SELECT user_id, id FROM {schema}.sessions WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "expired refresh tokens",
        sql: "DELETE FROM {schema}.refresh_tokens WHERE token_hash IN (
                  SELECT token_hash FROM {schema}.refresh_tokens WHERE expires_at < now()
                  ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "networks of old sessions",
        sql: "DELETE FROM {schema}.session_networks WHERE (user_id, network) IN (
                  SELECT user_id, network FROM {schema}.session_networks WHERE last_used_at < now() - interval '30 days'
                  LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "revocations that are over",
        sql: "DELETE FROM {schema}.revocations WHERE (kind, id, token) IN (
                  SELECT kind, id, token FROM {schema}.revocations WHERE until < now() - interval '1 hour'
                    AND written_by < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
                  ORDER BY until LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "idempotency keys",
        sql: "DELETE FROM {schema}.idempotency_keys WHERE (user_id, key) IN (
                  SELECT user_id, key FROM {schema}.idempotency_keys WHERE created_at < now() - interval '24 hours'
                  ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "tasks from the trash",
        sql: "{remove_contents} WHERE (user_id, id) IN (
                  SELECT user_id, id FROM {schema}.deleted_tasks
                  WHERE title IS NOT NULL AND deleted_at <= now() - make_interval(secs => {trash})
                  ORDER BY deleted_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "tombstones",
        sql: "DELETE FROM {schema}.deleted_tasks WHERE (user_id, id) IN (
                  SELECT user_id, id FROM {schema}.deleted_tasks
                  WHERE title IS NULL AND deleted_at <= now() - make_interval(secs => {changes})
                    AND written_by <= (SELECT forgotten FROM {schema}.feed)
                  ORDER BY deleted_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    },
    Upkeep {
        what: "tasks of deleted accounts",
        sql: "DELETE FROM {schema}.tasks WHERE (user_id, id) IN (
                  SELECT task.user_id, task.id FROM {schema}.users AS account JOIN {schema}.tasks AS task ON task.user_id = account.id
                  WHERE account.deleted_at < now() - interval '1 minute' LIMIT $1)",
    },
    // The users are found one by one in the key's index. Most of them exist, and their rows need not be read.
    Upkeep {
        what: "deleted tasks of deleted accounts",
        sql: "WITH RECURSIVE owner (id) AS (
                  SELECT min(user_id) FROM {schema}.deleted_tasks
                  UNION ALL
                  SELECT (SELECT min(user_id) FROM {schema}.deleted_tasks WHERE user_id > owner.id) FROM owner WHERE id IS NOT NULL
              )
              DELETE FROM {schema}.deleted_tasks WHERE (user_id, id) IN (
                  SELECT task.user_id, task.id FROM owner JOIN {schema}.deleted_tasks AS task ON task.user_id = owner.id
                  WHERE NOT EXISTS (SELECT FROM {schema}.users AS account WHERE account.id = owner.id
                                    AND (deleted_at IS NULL OR deleted_at >= now() - interval '1 minute'))
                  LIMIT $1)",
    },
    Upkeep {
        what: "deleted accounts",
        sql: "DELETE FROM {schema}.users WHERE id IN (
                  SELECT id FROM {schema}.users AS account WHERE deleted_at < now() - interval '1 minute'
                    AND NOT EXISTS (SELECT FROM {schema}.tasks WHERE user_id = account.id) LIMIT $1)",
    },
];

/// Notes the counter of transactions, and the newest tombstone that the statement above may remove. From then on, clients that do not
/// know it are answered 410.
const NOTE: &str = "UPDATE {schema}.feed SET noted = pg_current_xact_id(), forgotten = greatest(forgotten, (
         SELECT written_by FROM {schema}.deleted_tasks
         WHERE title IS NULL AND deleted_at <= now() - make_interval(secs => $1) ORDER BY written_by DESC LIMIT 1))";

/// Tables without statistics, and whether they have enough rows for some.
const NEW_TABLES: &str = "SELECT relname::text, pg_relation_size(oid) >= 8 * 8192 FROM pg_class
     WHERE relnamespace = '{schema}'::regnamespace AND relname IN ('tasks', 'deleted_tasks') AND reltuples <= 0";

/// The numbers of removed rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done(Vec<(&'static str, u64)>);

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there was nothing to do");
        }
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(what, number)| format!("{number} {what}"))
            .collect();
        write!(f, "removed {}", parts.join(", "))
    }
}

impl Done {
    /// Whether no row was removed.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Store {
    /// Removes rows that are no longer needed; `None` if another instance does so now.
    ///
    /// # Errors
    /// See [`Error`]. What was removed before stays removed.
    pub fn maintain(&self) -> Result<Option<Done>, Error> {
        let mut done = Done::default();
        let settings = &self.settings.database;
        let (trash, changes) = (settings.trash.as_secs_f64(), settings.changes.as_secs_f64());
        self.run(Effect::Write, |client| {
            feed::repair(client, &settings.schema)?;
            let note = client.prepared(NOTE)?;
            client.execute(&note, &[&changes])
        })?;
        for upkeep in UPKEEP {
            let sql = upkeep
                .sql
                .replace("{remove_contents}", &remove_contents())
                .replace("{trash}", &trash.to_string())
                .replace("{changes}", &changes.to_string());
            let mut removed = 0;
            loop {
                match self.remove_a_lot(&sql)? {
                    None => return Ok(None),
                    Some(0) => break,
                    Some(number) => removed += number,
                }
            }
            if removed > 0 {
                done.0.push((upkeep.what, removed));
            }
        }
        Ok(Some(done))
    }

    /// Gives tables statistics that have none yet. Returns whether all have some.
    ///
    /// Without statistics PostgreSQL takes all indexes that begin with the user for equally good, and reads all of a user's tasks to
    /// find one. Autovacuum would give them some after a minute, if it is on: until then a request of 500 operations took 30 to 100 ms
    /// here, with statistics 12 ms.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn analyze_new_tables(&self) -> Result<bool, Error> {
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let tables: Vec<(String, bool)> = self.rows(NEW_TABLES, &[], read)?;
        for (name, _) in tables.iter().filter(|(_, is_filled)| *is_filled) {
            self.run(Effect::Write, |client| {
                let sql = client.with_schema(&format!("ANALYZE {{schema}}.{name}"));
                client.batch_execute(&sql)
            })?;
        }
        Ok(tables.iter().all(|(_, is_filled)| *is_filled))
    }

    /// The lock belongs to the transaction, so that it is released even behind a pooler.
    fn remove_a_lot(&self, sql: &str) -> Result<Option<u64>, Error> {
        self.run(Effect::Write, |client| {
            let (lock, remove) = (
                client.prepared("SELECT pg_try_advisory_xact_lock($1, hashtext('{schema}'))")?,
                client.prepared_built(sql)?,
            );
            let mut transaction = client.transaction()?;
            if !transaction
                .query_one(&lock, &[&LOCK])?
                .try_get::<_, bool>(0)?
            {
                return Ok(None);
            }
            let removed = transaction.execute(&remove, &[&LOT])?;
            transaction.commit()?;
            Ok(Some(removed))
        })
    }
}
