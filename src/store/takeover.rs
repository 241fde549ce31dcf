//! Reads the database of another back end, and writes its users.

use postgres::{Client, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::connector::{self, Connection, Target};
use super::opening::{self, AdminConnection, OpenError};
use super::{Effect, Error, Schema, Store, describe};
use crate::config::DatabaseSettings;
use crate::domain::account::{Email, Name};
use crate::domain::takeover::{Column, TASK_TABLES, Table, TablePlan, VALUES_MAX};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 1_000;
/// Characters of a value that are read: all of the longest description, even if each line ends with CRLF.
const VALUE_MAX: usize = 5_000;

// One snapshot for all. The limits of requests do not apply, because the operator reads the plan while the transaction is open.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
     SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL enable_seqscan = on;
     SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'";

/// Schemas of todo-api. Their tables are ours.
macro_rules! is_ours {
    ($schema:literal) => {
        concat!(
            "EXISTS (SELECT FROM pg_class AS ours WHERE ours.relnamespace = ",
            $schema,
            " AND ours.relname = 'session_networks')"
        )
    };
}

const TABLES: &str = concat!(
    "SELECT namespace.nspname::text, class.relname::text, array_agg(attname::text ORDER BY attnum),
            array_agg(format_type(atttypid, atttypmod) ORDER BY attnum)
     FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
     JOIN pg_attribute ON attrelid = class.oid AND attnum > 0 AND NOT attisdropped
     WHERE class.relkind IN ('r', 'p', 'v', 'm') AND NOT class.relispartition
       AND namespace.nspname <> 'information_schema' AND namespace.nspname NOT LIKE 'pg\\_%'
       AND has_schema_privilege(namespace.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT')
       AND NOT ",
    is_ours!("namespace.oid"),
    " GROUP BY namespace.nspname, class.relname ORDER BY 1, 2"
);

// `$1`: names of tables with tasks.
const WAITING_TASKS: &str = concat!(
    "SELECT min(namespace.nspname || '.' || class.relname)
     FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE class.relkind IN ('r', 'p') AND lower(class.relname) = ANY ($1)
       AND namespace.nspname <> 'information_schema' AND namespace.nspname NOT LIKE 'pg\\_%'
       AND NOT ",
    is_ours!("namespace.oid"),
);

// An address that another account has is left out. A user who is known from tokens alone gets the account; every other user stays as
// it is, and one whose account was deleted here does not come back. A disabled user is refused with every token.
const ADD_USERS: &str = "WITH given AS (
         SELECT *, row_number() OVER (PARTITION BY email ORDER BY id) AS place
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::timestamptz[])
              AS given (id, email, name, password_hash, active, created_at)
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
     SELECT id, email, password_hash FROM added";

const DELETED_TASKS: &str =
    "SELECT id FROM {schema}.deleted_tasks WHERE user_id = $1 AND id = ANY ($2)";

/// A user of another back end.
#[derive(Debug)]
pub struct ImportedUser {
    /// The id, as tokens name it.
    pub id: UserId,
    /// The address, for one who can log in here.
    pub email: Option<Email>,
    /// The name.
    pub name: Option<Name>,
    /// The hash, for one who has an account here. One that matches no password: a new one is needed.
    pub password_hash: Option<String>,
    /// Whether the user may use it.
    pub active: bool,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// A user that was added.
#[derive(Debug)]
pub struct AddedUser {
    /// The id.
    pub id: String,
    /// The address; `None` if there is none, or another account has it.
    pub email: Option<String>,
    /// The hash.
    pub password_hash: Option<String>,
}

/// Another back end's database, in one snapshot. Nothing in it is changed.
pub struct ForeignDatabase {
    connection: Connection,
    name: String,
}

impl ForeignDatabase {
    /// Connects and takes the snapshot.
    ///
    /// # Errors
    /// The address is wrong, or the database cannot be reached.
    pub fn open(url: &str, settings: &DatabaseSettings) -> Result<ForeignDatabase, String> {
        let target = Target::parse(url)?;
        let mut connection =
            connector::connect(&target, settings).map_err(|error| error.to_string())?;
        connection.client.batch_execute(BEGIN).map_err(failed)?;
        Ok(ForeignDatabase {
            connection,
            name: target.database().to_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every table and view that may be read, except ours.
    ///
    /// # Errors
    /// PostgreSQL's sentence, as for all that follow.
    pub fn tables(&mut self) -> Result<Vec<Table>, String> {
        let rows = self.client().query(TABLES, &[]).map_err(failed)?;
        let table = |row: &Row| {
            let (names, kinds): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
            let columns = names.into_iter().zip(kinds);
            Ok(Table {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                columns: columns.map(|(name, kind)| Column { name, kind }).collect(),
            })
        };
        rows.iter()
            .map(table)
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    /// The number of rows of a table.
    ///
    /// # Errors
    /// See [`ForeignDatabase::tables`].
    pub fn count(&mut self, table: &Table) -> Result<i64, String> {
        let count = format!("SELECT count(*) FROM {}", quoted_table(table));
        let row = self.client().query_one(&count, &[]).map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    /// The values of a column except null, most frequent first, and how many rows have each; one more than [`VALUES_MAX`] at most.
    ///
    /// # Errors
    /// See [`ForeignDatabase::tables`].
    pub fn values(&mut self, table: &Table, column: &Column) -> Result<Vec<(String, i64)>, String> {
        let (table, column) = (quoted_table(table), quoted(&column.name));
        let limit = VALUES_MAX + 1;
        let values = format!(
            "SELECT {column}::text, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}"
        );
        let rows = self.client().query(&values, &[]).map_err(failed)?;
        let value = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter()
            .map(value)
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    /// Reads the rows of a table as texts, in the order of the plan's fields, sorted by the column of one field. `each` gets a part
    /// of them at a time, until it returns false.
    ///
    /// # Errors
    /// See [`ForeignDatabase::tables`], and those of `each`.
    pub fn read<E: From<String>>(
        &mut self,
        plan: &TablePlan<'_>,
        order: &str,
        mut each: impl FnMut(Vec<Vec<Option<String>>>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let cells: Vec<String> = plan
            .sources
            .iter()
            .map(|source| cell(source.column))
            .collect();
        let order = plan
            .column(order)
            .map_or("1".to_owned(), |column| quoted(&column.name));
        let (cells, table) = (cells.join(", "), quoted_table(plan.table));
        let declare = format!(
            "DECLARE rows NO SCROLL CURSOR FOR SELECT {cells} FROM {table} ORDER BY {order}"
        );
        self.client().batch_execute(&declare).map_err(failed)?;
        let fetch = format!("FETCH {ROWS_AT_ONCE} FROM rows");
        loop {
            let rows = self.client().query(&fetch, &[]).map_err(failed)?;
            let texts = |row: &Row| (0..row.len()).map(|at| row.try_get(at)).collect();
            let rows = rows.iter().map(texts).collect::<Result<Vec<_>, _>>();
            let rows = rows.map_err(failed)?;
            if rows.is_empty() || !each(rows)? {
                break;
            }
        }
        Ok(self.client().batch_execute("CLOSE rows").map_err(failed)?)
    }

    fn client(&mut self) -> &mut Client {
        &mut self.connection.client
    }
}

impl Store {
    /// Those of these ids under which the user has deleted a task.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn deleted_tasks(&self, user: &UserId, ids: Vec<Uuid>) -> Result<Vec<Uuid>, Error> {
        self.rows(DELETED_TASKS, &[&user.as_str(), &ids], |row| row.try_get(0))
    }

    /// Adds users, and returns those who are new or have got their account.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_imported_users(&self, users: &[ImportedUser]) -> Result<Vec<AddedUser>, Error> {
        let of = |field: fn(&ImportedUser) -> Option<&str>| users.iter().map(field).collect();
        let ids: Vec<_> = of(|user| Some(user.id.as_str()));
        let emails: Vec<_> = of(|user| user.email.as_ref().map(Email::as_str));
        let names: Vec<_> = of(|user| user.name.as_ref().map(Name::as_str));
        let hashes: Vec<_> = of(|user| user.password_hash.as_deref());
        let active: Vec<bool> = users.iter().map(|user| user.active).collect();
        let created = users
            .iter()
            .map(|user| user.created_at.map(Timestamp::as_utc));
        let created: Vec<Option<OffsetDateTime>> = created.collect();
        self.run(Effect::Write, |client| {
            let statement = client.prepared(ADD_USERS)?;
            let rows = client.query(
                &statement,
                &[&ids, &emails, &names, &hashes, &active, &created],
            )?;
            let added = |row: &Row| {
                Ok(AddedUser {
                    id: row.try_get(0)?,
                    email: row.try_get(1)?,
                    password_hash: row.try_get(2)?,
                })
            };
            rows.iter().map(added).collect()
        })
    }
}

/// A table with tasks of another back end, if the tables in `schema` have no user yet. Without a schema there are no tables.
pub(super) fn waiting_tasks(
    connection: &mut AdminConnection,
    schema: Option<&Schema>,
) -> Result<Option<String>, OpenError> {
    if let Some(schema) = schema {
        let question = format!("SELECT FROM {}.users LIMIT 1", schema.quoted());
        if !connection
            .ask(|client| client.query(&question, &[]))?
            .is_empty()
        {
            return Ok(None);
        }
    }
    let row = connection.ask(|client| client.query_one(WAITING_TASKS, &[&TASK_TABLES]))?;
    row.try_get(0).map_err(opening::failed)
}

fn failed(error: postgres::Error) -> String {
    format!("the other database: {}", describe(&error))
}

/// The text of a column: null where there is none.
fn cell(column: Option<&Column>) -> String {
    let Some(column) = column else {
        return "NULL::text".to_owned();
    };
    let name = quoted(&column.name);
    let text = match column.kind.ends_with("[]") {
        true => format!("to_json({name})::text"),
        false => format!("{name}::text"),
    };
    format!("left({text}, {VALUE_MAX})")
}

fn quoted_table(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
