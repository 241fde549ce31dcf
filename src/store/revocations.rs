//! The statements on what has been revoked.

use postgres::{Error as PgError, Row, Statement, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::feed::IDENTITY;
use super::pool::Client;
use super::{Effect, Error, Store};
use crate::domain::session::{Revocation, Revoked, SessionlessToken};
use crate::domain::user::UserId;

// Revokes the sessions that a query called `ended` has ended, for as long as an access token of them may live; a minute more, for
// clocks that differ.
macro_rules! ended_are_revoked {
    () => {
        "INSERT INTO {schema}.revocations (kind, id, until)
         SELECT 'session', id::text, access_expires_at + interval '1 minute' FROM ended
         ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by"
    };
}
pub(super) use ended_are_revoked as ENDED_ARE_REVOKED;

/// Revokes a user until `$2`, or for good.
pub(super) const REVOKE_USER: &str =
    "INSERT INTO {schema}.revocations (kind, id, until) VALUES ('user', $1, $2)
     ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by";

/// Tokens without a session of ours that are stored as refused for one user.
const REFUSED_TOKENS_MAX: i64 = 1_000;
/// The namespace of the advisory locks that order a user's refusals; the lock's second number is a hash of the user.
const REFUSALS_LOCK: i32 = 0x7265_6675;

// A user known only from tokens has no row to lock.
const LOCK_REFUSALS: &str = "SELECT pg_advisory_xact_lock($1, hashtext($2))";

const REFUSE_TOKEN: &str = "INSERT INTO {schema}.revocations (kind, id, token, issued, until)
     SELECT 'token', $1, $2, $3, $4
     WHERE (SELECT count(*) FROM {schema}.revocations WHERE kind = 'token' AND id = $1 AND token <> $2) < $5
     ON CONFLICT (kind, id, token) DO UPDATE SET until = excluded.until, written_by = excluded.written_by";

// It holds for good, because the tokens of another issuer may last for any time. The clock is PostgreSQL's, as it is for the
// access tokens of sessions.
const REFUSE_ISSUED_BEFORE: &str = "INSERT INTO {schema}.revocations (kind, id, issued)
     VALUES ('issued_before', $1, floor(extract(epoch FROM now()))::bigint)
     ON CONFLICT (kind, id, token) DO UPDATE
     SET issued = greatest(revocations.issued, excluded.issued), written_by = excluded.written_by
     RETURNING issued";

// Those that the row above refuses too.
const FORGET_ISSUED_BEFORE: &str =
    "DELETE FROM {schema}.revocations WHERE kind = 'token' AND id = $1 AND issued < $2";

const DELETE_API_TOKENS: &str = "DELETE FROM {schema}.api_tokens WHERE user_id = $1";

/// What ends besides a user's sessions.
#[derive(Clone, Copy, Debug)]
pub struct Everywhere<'t> {
    /// The token of the request, where it is a JWT of no session: it is refused even without `iat`.
    pub presented: Option<&'t SessionlessToken>,
    /// Whether the user's API tokens are deleted.
    pub api_tokens: bool,
}

/// The outcome of refusing tokens.
#[derive(Debug)]
pub struct Refused {
    /// What is refused from now on.
    pub revocations: Vec<Revocation>,
    /// Whether the presented token is still accepted, because no further token of the user can be stored.
    pub no_room: bool,
}

// One row at least, so that the next reading always knows where to begin. What was lifted is among them, but for the first reading.
const CHANGES: &str = concat!(
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, kind, id, until, token, issued, feed
     FROM (SELECT ",
    IDENTITY!(),
    " AS feed) AS once
     LEFT JOIN {schema}.revocations ON written_by >= $1 AND ($1 > 0 OR until IS NULL OR until > now())"
);

/// What has been revoked, or lifted, since a reading.
#[derive(Debug)]
pub struct RevocationChanges {
    /// The revocations; those whose time is over were lifted.
    pub revocations: Vec<Revocation>,
    /// Where the next reading begins.
    pub next: i64,
    /// The identity of the numbers of transactions; see `feed`. If it is another one, the next reading begins at 0.
    pub feed: String,
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
            let (next, feed) = match rows.first() {
                Some(row) => (row.try_get(0)?, row.try_get::<_, Option<String>>(6)?),
                None => (since, None),
            };
            let revocations = rows
                .iter()
                .filter_map(|row| read_revocation(row).transpose())
                .collect::<Result<_, PgError>>()?;
            Ok(RevocationChanges {
                revocations,
                next,
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
    pub(super) fn prepare(client: &mut Client) -> Result<Refusals, PgError> {
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

    /// `None` where there is no room.
    fn refuse(
        &self,
        transaction: &mut Transaction<'_>,
        user: &UserId,
        token: &SessionlessToken,
    ) -> Result<Option<Revocation>, PgError> {
        // Past the year 9999 it is for good. A minute more is for clocks that differ.
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

    /// Refuses every JWT of the user issued before this second, and what else is named.
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

/// Reads the columns `kind`, `id`, `until`, `token`, `issued`; `None` where there is nothing.
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
