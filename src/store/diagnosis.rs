//! The checks of `todo-api doctor` in the database. They change nothing.

use std::time::{Duration, SystemTime};

use super::StoreSettings;
use super::migrations::{current_version, latest};
use super::opening::{AdminConnection, OpenError, check_server};
use super::rules::{BrokenRule, broken_rules};
use super::takeover::waiting_tasks;

/// The results.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The server's version, as it reports it.
    pub server_version: String,
    /// The schema's version; 0 where there is none.
    pub schema_version: i32,
    /// The version this program needs.
    pub needed_version: i32,
    /// Whether the schema's tables may be made and changed by this user, for migrations.
    pub may_migrate: bool,
    /// Tables in the schema that this user may not read, or not write.
    pub forbidden_tables: Vec<String>,
    /// A table with tasks of another back end, if this program has no users yet.
    pub waiting_tasks: Option<String>,
    /// Rules that rows break. Empty where the tables cannot be read.
    pub broken_rules: Vec<BrokenRule>,
    /// Whether the database is read-only: a replica, or set so.
    pub read_only: bool,
    /// How far this machine's clock is ahead of the database's or behind it, without the time that the query took.
    pub clock_difference: Duration,
    /// Connections that this user may open in addition to those that are open now.
    pub connections_left: i64,
    /// Connections that todo-api servers have open now, with this user.
    pub connections_ours: i64,
}

// Tables belong to the user who made them, and only their owner may change them.
const RIGHTS: &str = "SELECT
            CASE WHEN namespace.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                 ELSE has_schema_privilege(namespace.oid, 'CREATE') AND NOT EXISTS (
                    SELECT FROM pg_class
                    WHERE relnamespace = namespace.oid AND relkind = 'r' AND NOT pg_has_role(relowner, 'USAGE')) END,
            ARRAY(SELECT relname::text FROM pg_class
                  WHERE relnamespace = namespace.oid AND relkind = 'r' AND relname <> 'schema_migrations'
                    AND NOT (has_table_privilege(pg_class.oid, 'SELECT') AND has_table_privilege(pg_class.oid, 'INSERT')
                         AND has_table_privilege(pg_class.oid, 'UPDATE') AND has_table_privilege(pg_class.oid, 'DELETE'))
                  ORDER BY relname),
            current_setting('transaction_read_only') = 'on'
        FROM (SELECT to_regnamespace(quote_ident($1)) AS name) AS wanted
        LEFT JOIN pg_namespace AS namespace ON namespace.oid = wanted.name";

const ROOM: &str = "SELECT least(
            current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
            (SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit
                - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) END
             FROM pg_roles WHERE rolname = current_user),
            (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit
                - (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) END
             FROM pg_database WHERE datname = current_database())),
            (SELECT count(*) FROM pg_stat_activity
             WHERE usename = current_user AND application_name = current_setting('application_name') AND pid <> pg_backend_pid())";

const CLOCK: &str = "SELECT extract(epoch FROM clock_timestamp())::float8";

/// Checks the configured database, through its direct address if there is one.
///
/// # Errors
/// The database cannot be reached, or this program cannot use it.
pub fn diagnose(settings: &StoreSettings) -> Result<Diagnosis, OpenError> {
    let mut connection = AdminConnection::open(settings)?;
    let server_version = check_server(&mut connection)?;
    let schema_version = current_version(&mut connection, &settings.database.schema)?;
    let schema = settings.database.schema.as_str();
    let rights = connection.ask(|client| client.query_one(RIGHTS, &[&schema]))?;
    let forbidden_tables: Vec<String> = rights.try_get(1)?;
    let room = connection.ask(|client| client.query_one(ROOM, &[]))?;
    let before = since_epoch();
    let theirs = connection.ask(|client| client.query_one(CLOCK, &[])?.try_get(0))?;
    let after = since_epoch();
    let readable = schema_version == latest() && forbidden_tables.is_empty();
    let wanted = &settings.database.schema;
    let broken_rules = match readable {
        true => broken_rules(&mut connection, wanted)?,
        false => Vec::new(),
    };
    let waiting_tasks = match readable || schema_version == 0 {
        true => waiting_tasks(&mut connection, readable.then_some(wanted))?,
        false => None,
    };
    Ok(Diagnosis {
        server_version,
        schema_version,
        needed_version: latest(),
        may_migrate: rights.try_get(0)?,
        forbidden_tables,
        waiting_tasks,
        broken_rules,
        read_only: rights.try_get(2)?,
        clock_difference: Duration::from_secs_f64(outside(theirs, before, after)),
        connections_left: room.try_get(0)?,
        connections_ours: room.try_get(1)?,
    })
}

/// How far a time lies outside of a span, in seconds.
fn outside(time: f64, from: f64, to: f64) -> f64 {
    (from - time).max(time - to).max(0.0)
}

fn since_epoch() -> f64 {
    // Before 1970 the clock is wrong anyway.
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_the_query_cannot_explain_counts() {
        assert_eq!(outside(5.0, 4.0, 6.0), 0.0);
        assert_eq!(outside(3.0, 4.0, 6.0), 1.0);
        assert_eq!(outside(8.5, 4.0, 6.0), 2.5);
    }
}
