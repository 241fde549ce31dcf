//! The statements on revocations.

use std::sync::LazyLock;

use postgres::{Error as PgError, Row, Statement, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::feed::IDENTITY;
use super::pool::PooledClient;
use super::{Effect, Error, Store};
use crate::domain::session::{Revocation, Revoked, SessionlessToken};
use crate::domain::user::UserId;

// Revokes the sessions that a query called `ended` has ended, until their last access token has expired, plus a minute for clocks
// that differ.
macro_rules! ended_are_revoked {
    () => {
        "INSERT INTO {schema}.revocations (kind, id, until)
         SELECT 'session', id::text, access_expires_at + interval '1 minute' FROM ended
         ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by"
    };
}
pub(super) use ended_are_revoked as ENDED_ARE_REVOKED;

/// Revokes a user until `$2`; null: forever.
pub(super) const REVOKE_USER: &str =
    "INSERT INTO {schema}.revocations (kind, id, until) VALUES ('user', $1, $2)
     ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by";

/// Most refused tokens without a session that are stored for one user.
const REFUSED_TOKENS_MAX: i64 = 1_000;
/// The first key of the advisory lock on a user's refused tokens; the second is a hash of the user.
const REFUSALS_LOCK: i32 = 0x7265_6675;

// An advisory lock, because a user known only from tokens has no row to lock.
const LOCK_REFUSALS: &str = "SELECT pg_advisory_xact_lock($1, hashtext($2))";

const REFUSE_TOKEN: &str = "INSERT INTO {schema}.revocations (kind, id, token, issued, until)
     SELECT 'token', $1, $2, $3, $4
     WHERE (SELECT count(*) FROM {schema}.revocations WHERE kind = 'token' AND id = $1 AND token <> $2) < $5
     ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by";

// It never ends, because tokens of another issuer may have any lifetime. It uses the clock of PostgreSQL, as the access tokens of
// sessions do.
const REFUSE_ISSUED_BEFORE: &str = "INSERT INTO {schema}.revocations (kind, id, issued)
     VALUES ('issued_before', $1, floor(extract(epoch FROM now()))::bigint)
     ON CONFLICT (kind, id, token) DO UPDATE
     SET issued = greatest(revocations.issued, excluded.issued), written_by = excluded.written_by
     RETURNING issued";

// The row above refuses these tokens too.
const FORGET_ISSUED_BEFORE: &str =
    "DELETE FROM {schema}.revocations WHERE kind = 'token' AND id = $1 AND issued < $2";

const DELETE_API_TOKENS: &str = "DELETE FROM {schema}.api_tokens WHERE user_id = $1";

/// What to end besides a user's sessions.
#[derive(Clone, Copy, Debug)]
pub struct Everywhere<'t> {
    /// The token of the request, if it is a JWT without a session: it is refused even without `iat`.
    pub presented: Option<&'t SessionlessToken>,
    /// Whether the user's API tokens are deleted.
    pub api_tokens: bool,
}

/// The outcome of refusing tokens.
#[derive(Debug)]
pub struct Refused {
    /// The new revocations.
    pub revocations: Vec<Revocation>,
    /// Whether the presented token is still accepted, because no further token of the user can be stored.
    pub no_room: bool,
}

// At least one row, so that the result always has the start of the next reading. All but the first reading include lifted revocations.
static CHANGES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, kind, id, until, token, issued, feed
         FROM (SELECT coalesce({IDENTITY}, '') AS feed) AS once
         LEFT JOIN {{schema}}.revocations ON written_by >= $1 AND ($1 > 0 OR until IS NULL OR until > now())"
    )
});

/// Revocations that were added or ended since a reading.
#[derive(Debug)]
pub struct RevocationChanges {
    /// The revocations. Those that end in the past were lifted.
    pub revocations: Vec<Revocation>,
    /// The start of the next reading.
    pub next: i64,
    /// The identity of the numbers of transactions; see `feed`. If it is another one, the next reading begins at 0.
    pub feed: String,
}

impl Store {
    /// Reads the revocations since the reading that returned `since`; 0 reads all.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn revocations_since(&self, since: i64) -> Result<RevocationChanges, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(&CHANGES)?;
            let rows = client.query(&statement, &[&since])?;
            let first = rows.first().map(|row| row.try_get(0)).transpose()?;
            let feed = rows.first().map(|row| row.try_get(6)).transpose()?;
            let revocations = rows
                .iter()
                .filter_map(|row| read_revocation(row).transpose())
                .collect::<Result<_, PgError>>()?;
            Ok(RevocationChanges {
                revocations,
                next: first.unwrap_or(since),
                feed: feed.unwrap_or_default(),
            })
        })
    }

    /// Refuses one token of a user until it expires, unless [`REFUSED_TOKENS_MAX`] others are refused already.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn refuse_token(&self, user: &UserId, token: &SessionlessToken) -> Result<Refused, Error> {
        self.run(Effect::Write, |client| {
            let refusals = Refusals::prepare(client)?;
            let mut transaction = client.transaction()?;
            refusals.lock(&mut transaction, user)?;
            let refused = refusals.refuse(&mut transaction, user, token)?;
            transaction.commit()?;
            Ok(Refused {
                no_room: refused.is_none(),
                revocations: refused.into_iter().collect(),
            })
        })
    }
}

/// The statements that refuse tokens without a session.
pub(super) struct Refusals {
    lock: Statement,
    token: Statement,
    issued_before: Statement,
    forget: Statement,
    api_tokens: Statement,
}

impl Refusals {
    pub(super) fn prepare(client: &mut PooledClient) -> Result<Refusals, PgError> {
        Ok(Refusals {
            lock: client.prepared(LOCK_REFUSALS)?,
            token: client.prepared(REFUSE_TOKEN)?,
            issued_before: client.prepared(REFUSE_ISSUED_BEFORE)?,
            forget: client.prepared(FORGET_ISSUED_BEFORE)?,
            api_tokens: client.prepared(DELETE_API_TOKENS)?,
        })
    }

    fn lock(&self, transaction: &mut Transaction<'_>, user: &UserId) -> Result<(), PgError> {
        transaction
            .execute(&self.lock, &[&REFUSALS_LOCK, &user.as_str()])
            .map(drop)
    }

    /// `None` if no further token can be stored.
    fn refuse(
        &self,
        transaction: &mut Transaction<'_>,
        user: &UserId,
        token: &SessionlessToken,
    ) -> Result<Option<Revocation>, PgError> {
        // After the year 9999 it never ends. A minute is added for clocks that differ.
        let until = OffsetDateTime::from_unix_timestamp(token.expires_at + 60).ok();
        let stored = transaction.execute(
            &self.token,
            &[
                &user.as_str(),
                &token.id.as_slice(),
                &token.issued_at,
                &until,
                &REFUSED_TOKENS_MAX,
            ],
        )?;
        Ok((stored > 0).then_some(Revocation {
            whose: Revoked::Token(token.id),
            until,
        }))
    }

    /// Refuses every JWT of the user issued before this second, and what `everywhere` names.
    pub(super) fn refuse_all(
        &self,
        transaction: &mut Transaction<'_>,
        user: &UserId,
        everywhere: Everywhere<'_>,
    ) -> Result<Refused, PgError> {
        self.lock(transaction, user)?;
        let second: i64 = transaction
            .query_one(&self.issued_before, &[&user.as_str()])?
            .try_get(0)?;
        transaction.execute(&self.forget, &[&user.as_str(), &second])?;
        if everywhere.api_tokens {
            transaction.execute(&self.api_tokens, &[&user.as_str()])?;
        }
        let mut refused = Refused {
            revocations: vec![Revocation {
                whose: Revoked::IssuedBefore(user.clone(), second),
                until: None,
            }],
            no_room: false,
        };
        let remaining = everywhere
            .presented
            .filter(|token| token.issued_at.is_none_or(|issued| issued >= second));
        if let Some(token) = remaining {
            let revocation = self.refuse(transaction, user, token)?;
            refused.no_room = revocation.is_none();
            refused.revocations.extend(revocation);
        }
        Ok(refused)
    }
}

/// Reads the columns `kind`, `id`, `until`, `token`, `issued`; `None` if they are null.
fn read_revocation(row: &Row) -> Result<Option<Revocation>, PgError> {
    let (kind, id): (Option<&str>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let whose = match (kind, id) {
        (Some("session"), Some(id)) => Uuid::try_parse(&id).ok().map(Revoked::Session),
        (Some("user"), Some(id)) => Some(Revoked::User(UserId::from_store(id))),
        (Some("token"), Some(_)) => row
            .try_get::<_, &[u8]>(4)?
            .try_into()
            .ok()
            .map(Revoked::Token),
        (Some("issued_before"), Some(id)) => row
            .try_get::<_, Option<i64>>(5)?
            .map(|second| Revoked::IssuedBefore(UserId::from_store(id), second)),
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
