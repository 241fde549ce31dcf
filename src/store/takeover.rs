//! Reads the database of another back end, and writes its users.

use postgres::{Client, Error as PgError, SimpleQueryMessage};
use uuid::Uuid;

use super::connector::{self, PostgresConnection, Target};
use super::opening::{AdminConnection, OpenError};
use super::{Effect, Error, Schema, Store, describe};
use crate::config::DatabaseSettings;
use crate::domain::takeover::{Cells, Item, TablePlan, VALUES_MAX, is_task_table};
use crate::domain::user::UserId;

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 1_000;
/// Characters of a value that are read: enough for the longest description with CRLF at the end of each line.
const VALUE_MAX: usize = 5_000;

// One snapshot for everything, without the time limits of requests. Row-level security must not hide rows: with row_security off it is an
// error.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
     SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL enable_seqscan = on;
     SET LOCAL row_security = off; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'";

// All tables and views that can be read, as a JSON list. A schema with a table session_networks is one of this program.
const TABLES: &str = "SELECT coalesce(json_agg(json_build_object('name', name, 'sql', sql, 'columns', columns)), '[]')
     FROM (SELECT CASE nspname WHEN 'public' THEN relname ELSE nspname || '.' || relname END AS name,
                  format('%I.%I', nspname, relname) AS sql,
                  json_agg(json_build_object('name', attname, 'sql', format(
                      CASE WHEN format_type(atttypid, NULL) LIKE '%[]' THEN 'to_json(%I)::text' ELSE '%I::text' END, attname))
                      ORDER BY attnum) AS columns
           FROM pg_class AS class JOIN pg_namespace ON pg_namespace.oid = relnamespace
           JOIN pg_attribute ON attrelid = class.oid AND attnum > 0 AND NOT attisdropped
           WHERE class.relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
             AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
             AND has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT')
             AND NOT EXISTS (SELECT FROM pg_class AS ours
                             WHERE ours.relnamespace = class.relnamespace AND ours.relname = 'session_networks')
           GROUP BY nspname, relname ORDER BY nspname, relname) AS tables";

// Users who are here already stay as they are, but a user known only from tokens gets the account. A user whose account was deleted here is
// not added again. An address that another account has is left out. All tokens of a disabled user are refused.
const ADD_USERS: &str = "WITH given AS (
         SELECT *, row_number() OVER (PARTITION BY email ORDER BY id) AS place
         FROM jsonb_to_recordset($1::text::jsonb)
              AS given (id text, email text, name text, password_hash text, active bool, created_at timestamptz)
     ), added AS (
         INSERT INTO {schema}.users AS account (id, email, name, password_hash, active, created_at, updated_at)
         SELECT id, CASE WHEN place = 1 AND NOT EXISTS (SELECT FROM {schema}.users WHERE email = given.email) THEN email END,
                name, password_hash, active, coalesce(created_at, now()), coalesce(created_at, now())
         FROM given
         WHERE NOT EXISTS (SELECT FROM {schema}.revocations
                           WHERE kind = 'user' AND id = given.id AND (until IS NULL OR until > now()))
         ON CONFLICT (id) DO UPDATE
         SET email = excluded.email, name = coalesce(account.name, excluded.name), password_hash = excluded.password_hash,
             active = excluded.active
         WHERE account.password_hash IS NULL AND account.active AND excluded.password_hash IS NOT NULL
         RETURNING id, email, password_hash, active
     ), refused AS (
         INSERT INTO {schema}.revocations (kind, id) SELECT 'user', id FROM added WHERE NOT active ON CONFLICT DO NOTHING
     )
     SELECT json_build_object('id', id, 'email', email, 'password_hash', password_hash)::text FROM added";

const DELETED_TASKS: &str =
    "SELECT id FROM {schema}.deleted_tasks WHERE user_id = $1 AND id = ANY ($2)";

/// Another back end's database, in one snapshot. Nothing in it is changed.
pub struct ForeignDatabase {
    connection: PostgresConnection,
    /// Its name.
    pub name: String,
}

impl ForeignDatabase {
    /// Connects and takes the snapshot.
    ///
    /// # Errors
    /// The address is wrong, or the database cannot be reached.
    pub fn open(url: &str, settings: &DatabaseSettings) -> Result<ForeignDatabase, String> {
        let target = Target::parse(url)?;
        let connected = connector::connect(&target, settings);
        let mut other = ForeignDatabase {
            connection: connected.map_err(|error| error.to_string())?,
            name: target.database().to_owned(),
        };
        other.ask(BEGIN)?;
        Ok(other)
    }

    /// Every table and view that can be read, except those of this program.
    ///
    /// # Errors
    /// PostgreSQL's sentence.
    pub fn tables(&mut self) -> Result<Vec<Item>, String> {
        self.ask(TABLES).map(tables)
    }

    /// The values of a column except null, most frequent first, each with the number of its rows; at most one more than
    /// [`VALUES_MAX`].
    ///
    /// # Errors
    /// PostgreSQL's sentence.
    pub fn values(&mut self, table: &Item, column: &Item) -> Result<Vec<Cells>, String> {
        let (table, value, most) = (&table.sql, &column.sql, VALUES_MAX + 1);
        self.ask(&format!(
            "SELECT {value}, count(*) FROM {table} WHERE {value} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}"
        ))
    }

    /// Reads a table, a thousand rows at a time, sorted by the field with this place. Each cell is for one of the plan's fields.
    ///
    /// # Errors
    /// PostgreSQL's sentence, and what `each` returns.
    pub fn read<E: From<String>>(
        &mut self,
        plan: &TablePlan,
        order: usize,
        mut each: impl FnMut(Vec<Cells>) -> Result<(), E>,
    ) -> Result<(), E> {
        let columns = plan.sources.iter().map(|source| source.column);
        let values = columns.map(|column| column.map_or("NULL", |column| &column.sql));
        let cells: Vec<String> = values
            .map(|value| format!("left({value}, {VALUE_MAX})"))
            .collect();
        let (cells, table, order) = (cells.join(", "), &plan.table.sql, order + 1);
        let rows = format!("SELECT {cells} FROM {table} ORDER BY {order}");
        self.ask(&format!("DECLARE part NO SCROLL CURSOR FOR {rows}"))?;
        let fetch = format!("FETCH {ROWS_AT_ONCE} FROM part");
        let mut rows = self.ask(&fetch)?;
        while !rows.is_empty() {
            each(rows)?;
            rows = self.ask(&fetch)?;
        }
        self.ask("CLOSE part")?;
        Ok(())
    }

    fn ask(&mut self, sql: &str) -> Result<Vec<Cells>, String> {
        let rows = texts(&mut self.connection.client, sql);
        rows.map_err(|error| format!("the other database: {}", describe(&error)))
    }
}

impl Store {
    /// Adds users, a JSON list, and returns those who are new or have got their account, each as JSON.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_imported_users(&self, users: &str) -> Result<Vec<String>, Error> {
        self.run(Effect::Write, |client| {
            let statement = client.prepared(ADD_USERS)?;
            let rows = client.query(&statement, &[&users])?;
            rows.iter().map(|row| row.try_get(0)).collect()
        })
    }

    /// Which of these ids belong to deleted tasks of the user.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn deleted_tasks(&self, user: &UserId, ids: Vec<Uuid>) -> Result<Vec<Uuid>, Error> {
        self.rows(DELETED_TASKS, &[&user.as_str(), &ids], |row| row.try_get(0))
    }
}

/// A table with tasks of another back end, if the tables in `schema` have no user yet. Without a schema there are no tables.
pub(super) fn waiting_tasks(
    connection: &mut AdminConnection,
    schema: Option<&Schema>,
) -> Result<Option<String>, OpenError> {
    if let Some(schema) = schema {
        let user = format!("SELECT id FROM {}.users LIMIT 1", schema.quoted());
        if !connection.ask(|client| texts(client, &user))?.is_empty() {
            return Ok(None);
        }
    }
    let mut tables = tables(connection.ask(|client| texts(client, TABLES))?).into_iter();
    let waiting = tables.find(is_task_table);
    Ok(waiting.map(|table| table.name))
}

/// The rows of a query. All values are text in the simple protocol.
fn texts(client: &mut Client, sql: &str) -> Result<Vec<Cells>, PgError> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql)? {
        if let SimpleQueryMessage::Row(row) = message {
            let cells = (0..row.len()).map(|at| row.get(at));
            rows.push(cells.map(|cell| cell.map(str::to_owned)).collect());
        }
    }
    Ok(rows)
}

/// From the row of [`TABLES`].
fn tables(rows: Vec<Cells>) -> Vec<Item> {
    let json = rows.into_iter().flatten().flatten().next();
    json.and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default()
}
