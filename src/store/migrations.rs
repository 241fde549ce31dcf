//! Brings the schema to the version this program needs.
//!
//! The files in `sql/` are embedded and applied in order, each in a transaction of its own, under an advisory lock, so that
//! several instances may start at once. A database that is newer than this program is refused.

use std::fmt;

use super::connector::{self, Connection};
use super::{Schema, Settings, describe};

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Oldest PostgreSQL that serves us, as `server_version_num` counts.
const OLDEST_SERVER: i32 = 130_000;

/// Reads the schema's version; no row, or null, where no migration has been applied.
pub(super) const CURRENT_VERSION: &str =
    "SELECT max(version) FROM {schema}.refinery_schema_history";

/// What was found and done when the store was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The server's version, as it tells it.
    pub server_version: String,
    /// The schema's version now.
    pub schema_version: i32,
    /// Names of the migrations that were applied.
    pub applied: Vec<String>,
}

/// Why the store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The database cannot be reached (yet): worth another try.
    Unreachable(String),
    /// Trying again will not help; the sentence says what will.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unreachable(text) | OpenError::Refused(text) => f.write_str(text),
        }
    }
}

/// The schema version this program needs: the highest number in `sql/`.
pub fn latest() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

/// Checks the server and, where the settings say so, applies what is missing.
pub(super) fn prepare(settings: &Settings) -> Result<Opened, OpenError> {
    let target = settings.direct_target.as_ref().unwrap_or(&settings.target);
    let mut connection = connector::connect(target, &settings.session)
        .map_err(|error| OpenError::Unreachable(error.to_string()))?;
    let server_version = check_server(&mut connection)?;
    let version = current_version(&mut connection, &settings.schema)?;
    let latest = latest();
    let applied = match version {
        version if version > latest => {
            return Err(OpenError::Refused(format!(
                "the database is at schema version {version} and this program knows only {latest}: install a newer todo-api"
            )));
        }
        version if version == latest => Vec::new(),
        _ if settings.migrate => migrate(&mut connection, &settings.schema)?,
        version => {
            return Err(OpenError::Refused(format!(
                "the database is at schema version {version} and this program needs {latest}: run `todo-api migrate`, or set MIGRATE=on"
            )));
        }
    };
    Ok(Opened {
        server_version,
        schema_version: latest,
        applied,
    })
}

fn check_server(connection: &mut Connection) -> Result<String, OpenError> {
    let row = connection
        .client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding')",
            &[],
        )
        .map_err(unreachable)?;
    let number: i32 = row.try_get(0).map_err(unreachable)?;
    let version: String = row.try_get(1).map_err(unreachable)?;
    let encoding: String = row.try_get(2).map_err(unreachable)?;
    if number < OLDEST_SERVER {
        return Err(OpenError::Refused(format!(
            "this is PostgreSQL {version}; todo-api needs 13 or newer"
        )));
    }
    if encoding != "UTF8" {
        return Err(OpenError::Refused(format!(
            "the database is encoded in {encoding}; todo-api needs UTF8: create the database with ENCODING 'UTF8'"
        )));
    }
    Ok(version)
}

/// The schema's version; 0 where nothing has been applied.
fn current_version(connection: &mut Connection, schema: &Schema) -> Result<i32, OpenError> {
    let history = format!("{}.refinery_schema_history", schema.as_str());
    let known: bool = connection
        .client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&history])
        .and_then(|row| row.try_get(0))
        .map_err(unreachable)?;
    if !known {
        return Ok(0);
    }
    let version: Option<i32> = connection
        .client
        .query_one(&CURRENT_VERSION.replace("{schema}", schema.as_str()), &[])
        .and_then(|row| row.try_get(0))
        .map_err(|error| OpenError::Refused(describe(&error)))?;
    Ok(version.unwrap_or(0))
}

fn migrate(connection: &mut Connection, schema: &Schema) -> Result<Vec<String>, OpenError> {
    let name = schema.as_str();
    let client = &mut connection.client;
    // A migration takes as long as it takes, and so does the instance that came first. The lock goes with the connection.
    client
        .batch_execute(&format!(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
             SELECT pg_advisory_lock(hashtext('todo-api migrations'), hashtext('{name}'))"
        ))
        .map_err(unreachable)?;
    // To be allowed to create a schema is more than is needed where it is there already.
    let exists: bool = client
        .query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&name])
        .and_then(|row| row.try_get(0))
        .map_err(unreachable)?;
    if !exists {
        client
            .batch_execute(&format!("CREATE SCHEMA {name}"))
            .map_err(|error| refused("make the schema", &error))?;
    }
    client
        .batch_execute(&format!("SET search_path = {name}"))
        .map_err(|error| refused("use the schema", &error))?;
    let report = embedded::migrations::runner()
        .run(client)
        .map_err(|error| {
            OpenError::Refused(format!(
                "a migration failed and was undone: {}",
                chain(&error)
            ))
        })?;
    Ok(report
        .applied_migrations()
        .iter()
        .map(|migration| format!("V{}__{}", migration.version(), migration.name()))
        .collect())
}

fn unreachable(error: postgres::Error) -> OpenError {
    OpenError::Unreachable(describe(&error))
}

fn refused(what: &str, error: &postgres::Error) -> OpenError {
    OpenError::Refused(format!("cannot {what}: {}", describe(error)))
}

/// An error with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
