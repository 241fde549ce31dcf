//! Brings the schema to the version this program needs.
//!
//! The files in `sql/` are embedded and applied in order, each in a transaction of its own, under an advisory lock, so that
//! several instances may start at once. A database that is newer than this program is refused.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::connector::{self, Connection, Session, Target};
use super::tasks::folding::fold_some;
use super::{SILENCE, Schema, Settings, describe};

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Oldest PostgreSQL that serves us, as `server_version_num` counts.
const OLDEST_SERVER: i32 = 130_000;

/// A role, a password or a database that PostgreSQL does not know or does not accept.
const REFUSALS: [SqlState; 3] = [
    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_CATALOG_NAME,
];

/// Between two looks whether another instance has finished its migrations.
const LOCK_RETRY: Duration = Duration::from_millis(200);

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

/// Checks the server and, where the settings say so, applies what is missing. Until `until` it waits for other instances that
/// are at it; its own migrations take as long as they take.
pub(super) fn prepare(settings: &Settings, until: Instant) -> Result<Opened, OpenError> {
    let target = settings.direct_target.as_ref().unwrap_or(&settings.target);
    let connection = connect(target, &settings.session)?;
    let mut link = Link {
        connection,
        patience: settings.session.statement_timeout + SILENCE,
    };
    let server_version = check_server(&mut link)?;
    let version = current_version(&mut link, &settings.schema)?;
    let latest = latest();
    let applied = match version {
        version if version > latest => {
            return Err(OpenError::Refused(format!(
                "the database is at schema version {version} and this program knows only {latest}: install a newer todo-api"
            )));
        }
        version if version == latest => Vec::new(),
        _ if settings.migrate => migrate(&mut link, &settings.schema, until)?,
        version => {
            return Err(OpenError::Refused(format!(
                "the database is at schema version {version} and this program needs {latest}: run `todo-api migrate`, or set MIGRATE=on"
            )));
        }
    };
    fold(&mut link, &settings.schema)?;
    Ok(Opened {
        server_version,
        schema_version: latest,
        applied,
    })
}

/// Opens a connection. A refused role, password or database does not change by waiting.
pub(super) fn connect(target: &Target, session: &Session) -> Result<Connection, OpenError> {
    connector::connect(target, session).map_err(|error| match error.code() {
        Some(code) if REFUSALS.contains(code) => OpenError::Refused(format!(
            "{error}; check the user, the password and the database's name in DATABASE_URL"
        )),
        _ => OpenError::Unreachable(error.to_string()),
    })
}

/// The connection that all of this goes over.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// How long an answer may take that needs no work.
    pub(super) patience: Duration,
}

impl Link {
    /// Asks for what needs no work: a server that does not answer it in time has fallen silent.
    pub(super) fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut postgres::Client) -> Result<T, postgres::Error>,
    ) -> Result<T, postgres::Error> {
        self.connection.deadline.set(Instant::now() + self.patience);
        let answer = question(&mut self.connection.client);
        self.connection.deadline.clear();
        answer
    }
}

pub(super) fn check_server(link: &mut Link) -> Result<String, OpenError> {
    let question =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                           current_setting('server_encoding')";
    let row = link
        .ask(|client| client.query_one(question, &[]))
        .map_err(failed)?;
    let number: i32 = row.try_get(0).map_err(failed)?;
    let version: String = row.try_get(1).map_err(failed)?;
    let encoding: String = row.try_get(2).map_err(failed)?;
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
pub(super) fn current_version(link: &mut Link, schema: &Schema) -> Result<i32, OpenError> {
    let history = format!("{}.refinery_schema_history", schema.quoted());
    let known: bool = link
        .ask(|client| client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&history]))
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    if !known {
        return Ok(0);
    }
    let question = CURRENT_VERSION.replace("{schema}", &schema.quoted());
    let version: Option<i32> = link
        .ask(|client| client.query_one(&question, &[]))
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    Ok(version.unwrap_or(0))
}

/// Waits for the lock on the schema's migrations, which goes with the connection. It is asked for again and again: who waits for
/// it inside PostgreSQL cannot tell a long migration from a link that has fallen silent.
fn take_lock(link: &mut Link, schema: &Schema, until: Instant) -> Result<(), OpenError> {
    let name = schema.as_str();
    let question =
        format!("SELECT pg_try_advisory_lock(hashtext('todo-api migrations'), hashtext('{name}'))");
    let mut said = false;
    loop {
        let taken: bool = link
            .ask(|client| client.query_one(&question, &[]))
            .and_then(|row| row.try_get(0))
            .map_err(failed)?;
        if taken {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(OpenError::Refused(format!(
                "another instance holds the lock on the migrations of schema {name}: let it finish, or give it more time with STARTUP_TIMEOUT"
            )));
        }
        if !said {
            log::info!("waiting for another instance to finish its migrations of schema {name}");
            said = true;
        }
        thread::sleep(LOCK_RETRY);
    }
}

fn migrate(link: &mut Link, schema: &Schema, until: Instant) -> Result<Vec<String>, OpenError> {
    take_lock(link, schema, until)?;
    let name = schema.quoted();
    // No deadline from here on: a migration takes as long as it takes.
    let client = &mut link.connection.client;
    client
        .batch_execute(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0",
        )
        .map_err(failed)?;
    // To be allowed to create a schema is more than is needed where it is there already.
    let exists: bool = client
        .query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&name])
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    if !exists {
        client
            .batch_execute(&format!("CREATE SCHEMA {name}"))
            .map_err(|error| refused("cannot make the schema", &error))?;
    }
    client
        .batch_execute(&format!("SET search_path = {name}"))
        .map_err(|error| refused("cannot use the schema", &error))?;
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

/// Folds tasks that were written by a program that did not do so yet, some at a time.
fn fold(link: &mut Link, schema: &Schema) -> Result<(), OpenError> {
    let mut all = 0;
    loop {
        match link
            .ask(|client| fold_some(client, schema))
            .map_err(failed)?
        {
            0 => break,
            folded => all += folded,
        }
    }
    if all > 0 {
        log::info!("{all} tasks can now be searched without regard to case and accents");
    }
    Ok(())
}

/// What a failed question means: mostly that the link is gone or PostgreSQL is busy, and another try is worth it.
pub(super) fn failed(error: postgres::Error) -> OpenError {
    let text = describe(&error);
    let Some(code) = error.code() else {
        return OpenError::Unreachable(text);
    };
    // Class 57: an operator or a time limit intervened; 53: resources are short; 08: the connection failed; 55: a lock is held.
    if ["57", "53", "08", "55"].contains(&code.code().get(..2).unwrap_or_default()) {
        return OpenError::Unreachable(text);
    }
    let advice = if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        "GRANT the user of the database address USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on all tables in it"
    } else {
        "see what PostgreSQL's log says of it, and that this is PostgreSQL 13 or newer"
    };
    OpenError::Refused(format!("the database cannot be used: {text}; {advice}"))
}

fn refused(what: &str, error: &postgres::Error) -> OpenError {
    OpenError::Refused(format!("{what}: {}", describe(error)))
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
