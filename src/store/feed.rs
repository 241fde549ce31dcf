//! The identity of the feed of changes. When it changes, every reader must read everything again.
//!
//! A reader continues from the number of a transaction. After a restore from a backup, or a failover to a standby that lacks the last
//! transactions, the number means another transaction. So the identity changes then. It consists of the id in the table `feed`, the
//! database, and the timeline.
//!
//! A restore to another cluster keeps the id, and the counter of transactions may be lower there. Rows then name transactions that do not
//! exist yet. When the program starts, and at every maintenance, it compares the counter with the stored one.

use postgres::Error as PgError;

use super::Schema;

/// The identity, as an expression. `timeline()` is in `sql/`.
pub(super) const IDENTITY: &str = "(SELECT md5(concat_ws('/', id, (SELECT oid FROM pg_database WHERE datname = current_database()),
                            {schema}.timeline())) FROM {schema}.feed)";

// Also allowed on a standby.
const IS_BEHIND: &str = "SELECT EXISTS (SELECT FROM {schema}.feed WHERE noted > pg_snapshot_xmax(pg_current_snapshot()))";

const REPAIR: &str = "SET LOCAL statement_timeout = 0;
     UPDATE {schema}.feed SET id = gen_random_uuid(), noted = pg_current_xact_id(), forgotten = '0';
     UPDATE {schema}.tasks SET written_by = pg_current_xact_id() WHERE written_by > pg_current_xact_id();
     UPDATE {schema}.deleted_tasks SET written_by = pg_current_xact_id() WHERE written_by > pg_current_xact_id();
     UPDATE {schema}.revocations SET written_by = DEFAULT WHERE written_by > pg_current_xact_id()::text::bigint";

/// If the counter of transactions is lower than the stored one, gives the feed a new id. Rows that name a later transaction get the
/// number of this one.
pub(super) fn repair(client: &mut postgres::Client, schema: &Schema) -> Result<(), PgError> {
    let named = |sql: &str| sql.replace("{schema}", &schema.quoted());
    if client.query_one(&named(IS_BEHIND), &[])?.try_get(0)? {
        log::warn!(
            "the database was restored from a backup: clients of the feed of changes will copy all tasks again"
        );
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&named(REPAIR))?;
        transaction.commit()?;
    }
    Ok(())
}
