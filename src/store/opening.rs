//! Opens the store: connects, checks the server, and brings the schema to the version this program needs.

use std::fmt;
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::connector::{self, PostgresConnection, Target};
use super::migrations::{current_version, latest, migrate};
use super::takeover::waiting_tasks;
use super::{SILENCE, StoreSettings, describe, feed};

/// The oldest PostgreSQL that is supported, as `server_version_num`.
const OLDEST_SERVER: i32 = 130_000;

/// PostgreSQL does not know or does not accept the role, the password or the database. Waiting does not change that.
const REFUSALS: [SqlState; 3] = [
    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_CATALOG_NAME,
];

/// The result of opening the store.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The version of the server, as it reports it.
    pub server_version: String,
    /// The version of the schema now.
    pub schema_version: i32,
    /// Names of the migrations that were applied.
    pub applied: Vec<String>,
    /// A table with tasks of another back end, if this program has no users yet.
    pub waiting_tasks: Option<String>,
}

/// Why the store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The database cannot be reached now. A later attempt may succeed.
    Unreachable(String),
    /// A later attempt fails too. The sentence names the remedy.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unreachable(text) | OpenError::Refused(text) => f.write_str(text),
        }
    }
}

/// Checks the server and, where the settings allow it, applies the missing migrations. Until `until` it waits for another instance
/// that applies them.
pub(super) fn open(settings: &StoreSettings, until: Instant) -> Result<Opened, OpenError> {
    let mut connection = AdminConnection::open(settings)?;
    let server_version = check_server(&mut connection)?;
    let behind_pooler = settings.direct_target.is_some()
        || settings.target.refuses_settings()
        || has_no_limits(&mut connection)?;
    // If a pooler cannot be reached now, requests report it.
    if behind_pooler && let Err(error @ OpenError::Refused(_)) = check_pooler(settings) {
        return Err(error);
    }
    let (schema, latest) = (&settings.database.schema, latest());
    let applied = match current_version(&mut connection, schema)? {
        version if version > latest => Err(OpenError::Refused(format!(
            "the database is at schema version {version} and this program knows only {latest}: install a newer todo-api"
        )))?,
        version if version == latest => Vec::new(),
        _ if settings.database.migrate => migrate(&mut connection, schema, until)?,
        version => Err(OpenError::Refused(format!(
            "the database is at schema version {version} and this program needs {latest}: run `todo-api migrate`, or set MIGRATE=on"
        )))?,
    };
    feed::repair(connection.client(), schema)?;
    // Only for a line in the log.
    let waiting_tasks = waiting_tasks(&mut connection, Some(schema)).unwrap_or(None);
    Ok(Opened {
        server_version,
        schema_version: latest,
        applied,
        waiting_tasks,
    })
}

/// Whether a pooler has dropped the time limits that were sent at the start of the session.
fn has_no_limits(connection: &mut AdminConnection) -> Result<bool, OpenError> {
    let question = "SELECT current_setting('statement_timeout') = '0' AND current_setting('lock_timeout') = '0'
                           AND current_setting('idle_in_transaction_session_timeout') = '0'";
    connection.ask(|client| client.query_one(question, &[])?.try_get(0))
}

/// Makes sessions set the time limits by a statement if a pooler drops them from the startup message. Refuses a pooler that runs
/// the statements of one session on several connections to PostgreSQL without preparing them on each, such as PgBouncer before
/// 1.21 in transaction mode: prepared statements would sometimes fail there.
///
/// One session prepares a statement. Another session then opens a transaction, which holds the connection to PostgreSQL that was used
/// last. The first session must still be able to run its statement. If two sessions are not possible, nothing is checked.
fn check_pooler(settings: &StoreSettings) -> Result<(), OpenError> {
    let mut session = AdminConnection::to(&settings.target, settings)?;
    if has_no_limits(&mut session)? {
        settings.target.set_settings_by_statement();
    }
    let statement = session.ask(|client| client.prepare("SELECT 1"))?;
    let Ok(mut other) = AdminConnection::to(&settings.target, settings) else {
        return Ok(());
    };
    if other.ask(|client| client.batch_execute("BEGIN")).is_ok() {
        session.ask(|client| client.query(&statement, &[]))?;
    }
    Ok(())
}

/// A connection for migrations and diagnosis, through the direct address if there is one.
pub(super) struct AdminConnection {
    connection: PostgresConnection,
    /// Longest wait for the answer to a short question.
    patience: Duration,
}

impl AdminConnection {
    pub(super) fn open(settings: &StoreSettings) -> Result<AdminConnection, OpenError> {
        let target = settings.direct_target.as_ref().unwrap_or(&settings.target);
        AdminConnection::to(target, settings)
    }

    fn to(target: &Target, settings: &StoreSettings) -> Result<AdminConnection, OpenError> {
        let connection =
            connector::connect(target, &settings.database).map_err(|error| match error.code() {
                Some(code) if REFUSALS.contains(code) => OpenError::Refused(format!(
                    "{error}; check the user, the password and the database's name in DATABASE_URL"
                )),
                _ => OpenError::Unreachable(error.to_string()),
            })?;
        Ok(AdminConnection {
            connection,
            patience: settings.database.statement_timeout + SILENCE,
        })
    }

    /// Runs a statement that PostgreSQL answers at once, under a deadline.
    pub(super) fn ask<T>(
        &mut self,
        question: impl FnOnce(&mut postgres::Client) -> Result<T, postgres::Error>,
    ) -> Result<T, OpenError> {
        self.connection.deadline.set(Instant::now() + self.patience);
        let answer = question(&mut self.connection.client);
        self.connection.deadline.clear();
        Ok(answer?)
    }

    /// The client, without a deadline.
    pub(super) fn client(&mut self) -> &mut postgres::Client {
        &mut self.connection.client
    }
}

/// Checks version and encoding of the server and returns its version.
pub(super) fn check_server(connection: &mut AdminConnection) -> Result<String, OpenError> {
    let question =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                           current_setting('server_encoding')";
    let row = connection.ask(|client| client.query_one(question, &[]))?;
    let number: i32 = row.try_get(0)?;
    let version: String = row.try_get(1)?;
    let encoding: String = row.try_get(2)?;
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

impl From<postgres::Error> for OpenError {
    fn from(error: postgres::Error) -> OpenError {
        let text = describe(&error);
        let Some(code) = error.code() else {
            return OpenError::Unreachable(text);
        };
        // Another attempt may succeed. Class 57: an operator or a time limit intervened; 53: resources are short; 08: the connection
        // failed; 55: a lock is held.
        if ["57", "53", "08", "55"].contains(&code.code().get(..2).unwrap_or_default()) {
            return OpenError::Unreachable(text);
        }
        let advice = match *code {
            SqlState::INSUFFICIENT_PRIVILEGE => {
                "GRANT the user of the database address USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on all tables in it"
            }
            SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => {
                "the pooler before PostgreSQL does not keep prepared statements: set pool_mode = session, or use PgBouncer 1.21 or newer with max_prepared_statements = 200, or set DATABASE_URL to PostgreSQL itself"
            }
            _ => "see PostgreSQL's log, and check that this is PostgreSQL 13 or newer",
        };
        OpenError::Refused(format!("the database cannot be used: {text}; {advice}"))
    }
}

pub(super) fn refused(what: &str, error: &postgres::Error) -> OpenError {
    OpenError::Refused(format!("{what}: {}", describe(error)))
}
