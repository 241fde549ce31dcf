//! Brings the schema to the version this program needs.
//!
//! The files in `sql/` are embedded and applied in order, each in its own transaction. The table `schema_migrations` records them.
//! An advisory lock lets several instances start at once: one applies, the others wait. After the first release, a file is never
//! changed, only added: every start compares the checksums of the files with those of the applied migrations.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use ring::digest::{SHA256, digest};

use super::Schema;
use super::opening::{AdminConnection, OpenError, refused};

struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// The files of `sql/` in order; the first one is version 1.
const MIGRATIONS: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// Interval between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(200);

/// Reads the version of the schema; null before the first migration.
pub(super) const CURRENT_VERSION: &str = "SELECT max(version) FROM {schema}.schema_migrations";

impl Migration {
    /// SHA-256 of the text, in hexadecimal.
    fn checksum(&self) -> String {
        let hash = digest(&SHA256, self.sql.as_bytes());
        hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The schema version this program needs.
pub fn latest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Reads the version of the schema, 0 before the first migration. Unless the schema is newer than this program, the applied
/// migrations must be those of this program.
pub(super) fn current_version(
    connection: &mut AdminConnection,
    schema: &Schema,
) -> Result<i32, OpenError> {
    let name = schema.quoted();
    let tables = "SELECT to_regclass($1 || '.schema_migrations') IS NOT NULL,
                         to_regclass($1 || '.refinery_schema_history') IS NOT NULL";
    let row = connection.ask(|client| client.query_one(tables, &[&name]))?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => {}
        (false, false) => return Ok(0),
        (false, true) => Err(OpenError::Refused(format!(
            "schema {} was made by a todo-api from before the first release, whose tables cannot be brought up to date: set DB_SCHEMA to a new name, or drop the schema",
            schema.as_str()
        )))?,
    }
    let history =
        format!("SELECT version, checksum FROM {name}.schema_migrations ORDER BY version");
    let rows = connection.ask(|client| client.query(&history, &[]))?;
    let current = rows.last().map_or(Ok(0), |row| row.try_get(0))?;
    if current > latest() {
        return Ok(current);
    }
    for ((row, migration), expected) in rows.iter().zip(MIGRATIONS).zip(1..) {
        let version: i32 = row.try_get(0)?;
        let checksum: String = row.try_get(1)?;
        if version != expected || checksum != migration.checksum() {
            return Err(OpenError::Refused(format!(
                "migration {} of this program is not the one that was applied to schema {}: install the todo-api that made the schema, or a newer one",
                migration.name,
                schema.as_str()
            )));
        }
    }
    Ok(current)
}

/// Applies the missing migrations and returns their names. Until `until` it waits for another instance that applies them. The
/// migrations themselves have no time limit.
pub(super) fn migrate(
    connection: &mut AdminConnection,
    schema: &Schema,
    until: Instant,
) -> Result<Vec<String>, OpenError> {
    take_lock(connection, schema, until)?;
    let done = usize::try_from(current_version(connection, schema)?).unwrap_or(0);
    let mut applied = Vec::new();
    for (version, migration) in (1..).zip(MIGRATIONS).skip(done) {
        apply(connection.client(), schema, version, migration)?;
        applied.push(migration.name.to_owned());
    }
    Ok(applied)
}

/// Takes the lock on the migrations of this schema; the end of the connection releases it. A statement that waits for the lock
/// cannot distinguish a long migration from a dead connection, so the lock is polled.
fn take_lock(
    connection: &mut AdminConnection,
    schema: &Schema,
    until: Instant,
) -> Result<(), OpenError> {
    let name = schema.as_str();
    let lock =
        format!("SELECT pg_try_advisory_lock(hashtext('todo-api migrations'), hashtext('{name}'))");
    let mut logged = false;
    loop {
        let row = connection.ask(|client| client.query_one(&lock, &[]))?;
        if row.try_get(0)? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(OpenError::Refused(format!(
                "another instance holds the lock on the migrations of schema {name}: let it finish, or give it more time with STARTUP_TIMEOUT"
            )));
        }
        if !logged {
            log::info!("waiting for another instance to finish its migrations of schema {name}");
            logged = true;
        }
        thread::sleep(LOCK_RETRY);
    }
}

/// Applies one migration and records it, in one transaction. The first one also creates the schema and the table of records.
fn apply(
    client: &mut Client,
    schema: &Schema,
    version: i32,
    migration: &Migration,
) -> Result<(), OpenError> {
    let name = schema.quoted();
    let mut transaction = client.transaction()?;
    transaction.batch_execute(&format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
             SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL search_path = {name}"
    ))?;
    // A role that may not create schemas can use one that exists.
    let exists = "SELECT to_regnamespace($1) IS NOT NULL";
    if !transaction.query_one(exists, &[&name])?.try_get(0)? {
        transaction
            .batch_execute(&format!("CREATE SCHEMA {name}"))
            .map_err(|error| refused("cannot create the schema", &error))?;
    }
    let record = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)";
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
                 version    integer NOT NULL CONSTRAINT schema_migrations_pkey PRIMARY KEY,
                 name       text NOT NULL,
                 checksum   text NOT NULL,
                 applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .and_then(|()| transaction.batch_execute(migration.sql))
        .and_then(|()| {
            transaction.execute(record, &[&version, &migration.name, &migration.checksum()])
        })
        .and_then(|_| transaction.commit())
        .map_err(|error| {
            let failure = format!("migration {} failed and was rolled back", migration.name);
            refused(&failure, &error)
        })
}
