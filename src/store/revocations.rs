//! The statements on what has been revoked.

use postgres::{Error as PgError, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Effect, Error, Store};
use crate::domain::session::{Revocation, Revoked};
use crate::domain::user::UserId;

// Revokes the sessions that a query called `ended` has ended, for as long as an access token of them may live; a minute more, for
// clocks that differ.
macro_rules! ended_are_revoked {
    () => {
        "INSERT INTO {schema}.revocations (kind, id, until)
         SELECT 'session', id::text, access_expires_at + interval '1 minute' FROM ended
         ON CONFLICT (kind, id) DO UPDATE SET until = excluded.until, written_by = excluded.written_by"
    };
}
pub(super) use ended_are_revoked as ENDED_ARE_REVOKED;

/// Revokes a user until `$2`, or for good.
pub(super) const REVOKE_USER: &str =
    "INSERT INTO {schema}.revocations (kind, id, until) VALUES ('user', $1, $2)
     ON CONFLICT (kind, id) DO UPDATE SET until = excluded.until, written_by = excluded.written_by";

// One row at least, so that the next reading always knows where to begin. What was lifted is among them, but for the first reading.
const CHANGES: &str =
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, kind, id, until
     FROM (SELECT) AS once
     LEFT JOIN {schema}.revocations ON written_by >= $1 AND ($1 > 0 OR until IS NULL OR until > now())";

/// What has been revoked, or lifted, since a reading.
#[derive(Debug)]
pub struct RevocationChanges {
    /// The revocations; those whose time is over were lifted.
    pub revocations: Vec<Revocation>,
    /// Where the next reading begins.
    pub next: i64,
}

impl Store {
    /// Reads what has been revoked since the reading that answered `since`; 0 reads everything.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn revocations_since(&self, since: i64) -> Result<RevocationChanges, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(CHANGES)?;
            let rows = client.query(&statement, &[&since])?;
            let next = rows.first().map_or(Ok(since), |row| row.try_get(0))?;
            let revocations = rows
                .iter()
                .filter_map(|row| read_revocation(row).transpose())
                .collect::<Result<_, PgError>>()?;
            Ok(RevocationChanges { revocations, next })
        })
    }
}

/// Reads the columns `kind`, `id`, `until`; `None` where there is nothing.
fn read_revocation(row: &Row) -> Result<Option<Revocation>, PgError> {
    let (kind, id): (Option<&str>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let whose = match (kind, id) {
        (Some("session"), Some(id)) => Uuid::try_parse(&id).ok().map(Revoked::Session),
        (Some("user"), Some(id)) => Some(Revoked::User(UserId::from_store(id))),
        _ => None,
    };
    let until = row.try_get(3)?;
    Ok(whose.map(|whose| Revocation { whose, until }))
}

/// Reads the sessions that were ended: `id`, `access_expires_at`.
pub(super) fn read_ended(rows: &[Row]) -> Result<Vec<Revocation>, PgError> {
    rows.iter()
        .map(|row| {
            let until: OffsetDateTime = row.try_get(1)?;
            Ok(Revocation {
                whose: Revoked::Session(row.try_get(0)?),
                until: Some(until + time::Duration::minutes(1)),
            })
        })
        .collect()
}
