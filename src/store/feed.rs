//! The identity of the feed of changes: whether what a reader knows of the tables still holds.
//!
//! A reader names transactions. Their numbers mean something else after a restore from a backup, and after a failover to a standby that had
//! not received the last ones. The identity changes then: it has the id in the table `feed`, the database, and the timeline.
//!
//! A restore to another cluster keeps the id and may find a lower counter of transactions. Rows then come from transactions that are still
//! to be. When the program starts, and at every maintenance, it compares the counter with the one noted.

use postgres::Error as PgError;

use super::Schema;

pub(super) const IDENTITY: &str = "(SELECT md5(concat_ws('/', id, (SELECT oid FROM pg_database WHERE datname = current_database()),
                            {schema}.timeline())) FROM {schema}.feed)";

// Also allowed on a standby.
const IS_BEHIND: &str = "SELECT EXISTS (SELECT FROM {schema}.feed WHERE noted > pg_snapshot_xmax(pg_current_snapshot()))";

const REPAIR: &str = "SET LOCAL statement_timeout = 0;
     UPDATE {schema}.feed SET id = gen_random_uuid(), noted = pg_current_xact_id(), forgotten = '0';
     UPDATE {schema}.tasks SET written_by = pg_current_xact_id() WHERE written_by > pg_current_xact_id();
     UPDATE {schema}.deleted_tasks SET written_by = pg_current_xact_id() WHERE written_by > pg_current_xact_id();
     UPDATE {schema}.revocations SET written_by = DEFAULT WHERE written_by > pg_current_xact_id()::text::bigint";

/// Gives the feed a new id if the counter of transactions is lower than the one noted, and the rows of transactions that are still to be
/// a present one.
pub(super) fn repair(client: &mut postgres::Client, schema: &Schema) -> Result<(), PgError> {
    let named = |sql: &str| sql.replace("{schema}", &schema.quoted());
    if client.query_one(&named(IS_BEHIND), &[])?.try_get(0)? {
        log::warn!(
            "the database was restored from a backup: clients of the feed of changes copy all tasks afresh"
        );
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&named(REPAIR))?;
        transaction.commit()?;
    }
    Ok(())
}
