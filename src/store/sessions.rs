//! The statements on sessions and their refresh tokens.

use std::time::Duration;

use postgres::types::ToSql;
use postgres::{Error as PgError, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::revocations::{ENDED_ARE_REVOKED, Everywhere, Refusals, Refused, read_ended};
use super::{Effect, Error, Store};
use crate::domain::session::{Revocation, Session, SessionOrigin};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// Most sessions of a user. A further login ends the one that was used least recently.
const SESSIONS_MAX: i64 = 100;

/// A new session.
pub struct NewSession {
    /// Its id, the claim `sid` of its access tokens.
    pub id: Uuid,
    /// SHA-256 of its first refresh token.
    pub refresh_hash: [u8; 32],
    /// The lifetime of a refresh token.
    pub refresh_lifetime: Duration,
    /// The lifetime of an access token.
    pub access_lifetime: Duration,
    /// The client of the login.
    pub origin: SessionOrigin,
}

/// A session that was opened.
#[derive(Debug)]
pub struct OpenedSession {
    /// When, by the database's clock.
    pub at: OffsetDateTime,
    /// The revocations of sessions that were ended to make room.
    pub revoked: Vec<Revocation>,
}

/// The outcome of presenting a refresh token.
#[derive(Debug)]
pub enum Refreshed {
    /// It was valid, or was reused within the grace period: the session continues.
    Session(RefreshedSession),
    /// There is no such token, it has expired, or its user is disabled.
    Unknown,
    /// It was used before the grace period, so somebody has a copy, and its session was ended.
    Reused {
        /// Its user.
        user: UserId,
        /// The new revocations.
        revoked: Vec<Revocation>,
    },
}

/// A session that continues.
#[derive(Debug)]
pub struct RefreshedSession {
    /// Its id.
    pub id: Uuid,
    /// Its user.
    pub user: UserId,
    /// The user's email address.
    pub email: Option<String>,
    /// The name of the person.
    pub name: Option<String>,
    /// When the user became known here.
    pub created_at: Timestamp,
    /// When the token was first presented; the same for every reuse.
    pub used_at: OffsetDateTime,
}

/// Stores the network in the parameter `$network` as known for the user of the row in `session`.
macro_rules! remember_network {
    ($network:literal) => {
        concat!(
            "INSERT INTO {schema}.session_networks AS known (user_id, network) SELECT user_id, ",
            $network,
            " FROM session
             WHERE (SELECT count(*) FROM {schema}.session_networks AS of_user WHERE of_user.user_id = session.user_id) < 1000
             ON CONFLICT (user_id, network) DO UPDATE SET last_used_at = now()
             WHERE known.last_used_at < now() - interval '1 day'"
        )
    };
}
pub(super) use remember_network as REMEMBER_NETWORK;

// The lock on the user's row orders this against a change of password or a ban, which would otherwise not see this session.
// `ended` makes room.
const OPEN: &str = concat!(
    "WITH account AS (
         SELECT id FROM {schema}.users WHERE id = $1 AND active AND password_hash = $2 FOR SHARE
     ), ended AS (
         DELETE FROM {schema}.sessions WHERE user_id = $1 AND id IN (
             SELECT id FROM {schema}.sessions WHERE user_id = $1 ORDER BY last_used_at DESC OFFSET $9
         ) AND EXISTS (SELECT FROM account) RETURNING id, access_expires_at
     ), revoked AS (",
    ENDED_ARE_REVOKED!(),
    "), session AS (
         INSERT INTO {schema}.sessions (user_id, id, expires_at, access_expires_at, address, user_agent)
         SELECT id, $3, now() + make_interval(secs => $5), now() + make_interval(secs => $6), $7, $8 FROM account
         RETURNING user_id, id, expires_at
     ), token AS (
         INSERT INTO {schema}.refresh_tokens (token_hash, user_id, session_id, expires_at)
         SELECT $4, user_id, id, expires_at FROM session
     ), network AS (",
    REMEMBER_NETWORK!("$10"),
    ") SELECT ended.id, ended.access_expires_at, now() FROM session LEFT JOIN ended ON true"
);

// If several requests present one token at once, the first marks it used and the others wait for that row. All of them make the
// same successor. The session is locked first, as in the statements that end it.
const REFRESH: &str = concat!(
    "WITH locked AS (
         SELECT session.user_id, session.id
         FROM {schema}.refresh_tokens AS token
         JOIN {schema}.sessions AS session ON session.user_id = token.user_id AND session.id = token.session_id
         WHERE token.token_hash = $1
         FOR UPDATE OF session
     ), presented AS (
         UPDATE {schema}.refresh_tokens AS token
         SET used_at = coalesce(token.used_at, now())
         FROM locked JOIN {schema}.users AS account ON account.id = locked.user_id
         WHERE token.token_hash = $1 AND token.expires_at > now() AND account.active
         RETURNING token.user_id, token.session_id, token.used_at, account.email, account.name, account.created_at,
                   token.used_at > now() - make_interval(secs => $3) AS in_time
     ), session AS (
         UPDATE {schema}.sessions AS session
         SET last_used_at = now(), address = $6, user_agent = $7,
             expires_at = greatest(session.expires_at, presented.used_at + make_interval(secs => $4)),
             access_expires_at = greatest(session.access_expires_at, presented.used_at + make_interval(secs => $5))
         FROM presented
         WHERE presented.in_time AND session.user_id = presented.user_id AND session.id = presented.session_id
         RETURNING session.user_id, session.id, session.expires_at
     ), successor AS (
         INSERT INTO {schema}.refresh_tokens (token_hash, user_id, session_id, expires_at)
         SELECT $2, user_id, id, expires_at FROM session
         ON CONFLICT (token_hash) DO NOTHING
     ), network AS (",
    REMEMBER_NETWORK!("$8"),
    ") SELECT user_id, session_id, used_at, email, name, created_at, in_time FROM presented"
);

const END: &str = concat!(
    "WITH ended AS (
         DELETE FROM {schema}.sessions WHERE user_id = $1 AND id = $2 RETURNING id, access_expires_at
     ), revoked AS (",
    ENDED_ARE_REVOKED!(),
    ") SELECT id, access_expires_at FROM ended"
);

/// Locks a user's row, so that no login succeeds until the transaction ends. Later statements of the transaction see every
/// session.
pub(super) const LOCK_USER: &str = "SELECT FROM {schema}.users WHERE id = $1 FOR UPDATE";

/// Ends all sessions of a user but one.
pub(super) const END_ALL: &str = concat!(
    "WITH ended AS (
         DELETE FROM {schema}.sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2 RETURNING id, access_expires_at
     ), revoked AS (",
    ENDED_ARE_REVOKED!(),
    ") SELECT id, access_expires_at FROM ended"
);

const LIST: &str =
    "SELECT id, created_at, last_used_at, expires_at, address, user_agent FROM {schema}.sessions
     WHERE user_id = $1 AND expires_at > now() ORDER BY last_used_at DESC";

impl Store {
    /// Opens a session for an active user if the password hash is still this one; otherwise `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open_session(
        &self,
        user: &UserId,
        password_hash: &str,
        session: &NewSession,
    ) -> Result<Option<OpenedSession>, Error> {
        self.run(Effect::Write, |client| {
            let statement = client.prepared(OPEN)?;
            let rows = client.query(
                &statement,
                &[
                    &user.as_str(),
                    &password_hash,
                    &session.id,
                    &session.refresh_hash.as_slice(),
                    &session.refresh_lifetime.as_secs_f64(),
                    &session.access_lifetime.as_secs_f64(),
                    &session.origin.address,
                    &session.origin.user_agent,
                    &(SESSIONS_MAX - 1),
                    &session.origin.network,
                ],
            )?;
            let Some(first) = rows.first() else {
                return Ok(None);
            };
            let at = first.try_get(2)?;
            let made_room = first.try_get::<_, Option<Uuid>>(0)?.is_some();
            let revoked = if made_room {
                read_ended(&rows)?
            } else {
                Vec::new()
            };
            Ok(Some(OpenedSession { at, revoked }))
        })
    }

    /// Exchanges a refresh token for its successor, both named by their SHA-256. Within `grace` of its first use it may be
    /// presented again; a later use ends its session.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn refresh_session(
        &self,
        presented: &[u8; 32],
        successor: &[u8; 32],
        grace: Duration,
        lifetimes: (Duration, Duration),
        origin: &SessionOrigin,
    ) -> Result<Refreshed, Error> {
        let (refresh_lifetime, access_lifetime) = lifetimes;
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &presented.as_slice(),
            &successor.as_slice(),
            &grace.as_secs_f64(),
            &refresh_lifetime.as_secs_f64(),
            &access_lifetime.as_secs_f64(),
            &origin.address,
            &origin.user_agent,
            &origin.network,
        ];
        let found = self.row(Effect::Write, REFRESH, &parameters, |row| {
            Ok((read_refreshed(row)?, row.try_get::<_, bool>(6)?))
        })?;
        Ok(match found {
            None => Refreshed::Unknown,
            Some((session, true)) => Refreshed::Session(session),
            Some((session, false)) => Refreshed::Reused {
                revoked: self.end_session(&session.user, session.id)?,
                user: session.user,
            },
        })
    }

    /// Ends one session of a user. Returns the new revocations; none if there is no such session.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn end_session(&self, user: &UserId, id: Uuid) -> Result<Vec<Revocation>, Error> {
        self.run(Effect::Write, |client| {
            let statement = client.prepared(END)?;
            let rows = client.query(&statement, &[&user.as_str(), &id])?;
            read_ended(&rows)
        })
    }

    /// Ends every session of a user, and refuses every JWT of the user issued before this second.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn log_out_everywhere(
        &self,
        user: &UserId,
        everywhere: Everywhere<'_>,
    ) -> Result<Refused, Error> {
        self.run(Effect::Write, |client| {
            let (lock, end) = (client.prepared(LOCK_USER)?, client.prepared(END_ALL)?);
            let refusals = Refusals::prepare(client)?;
            let mut transaction = client.transaction()?;
            transaction.execute(&lock, &[&user.as_str()])?;
            let rows = transaction.query(&end, &[&user.as_str(), &None::<Uuid>])?;
            let mut refused = refusals.refuse_all(&mut transaction, user, everywhere)?;
            refused.revocations.extend(read_ended(&rows)?);
            transaction.commit()?;
            Ok(refused)
        })
    }

    /// A user's sessions, the most recently used first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_sessions(&self, user: &UserId) -> Result<Vec<Session>, Error> {
        self.rows(LIST, &[&user.as_str()], read_session)
    }
}

fn read_refreshed(row: &Row) -> Result<RefreshedSession, PgError> {
    Ok(RefreshedSession {
        user: UserId::from_store(row.try_get(0)?),
        id: row.try_get(1)?,
        used_at: row.try_get(2)?,
        email: row.try_get(3)?,
        name: row.try_get(4)?,
        created_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(5)?),
    })
}

fn read_session(row: &Row) -> Result<Session, PgError> {
    let moment = |column| -> Result<Timestamp, PgError> {
        Ok(row.try_get::<_, OffsetDateTime>(column)?.into())
    };
    Ok(Session {
        id: row.try_get(0)?,
        created_at: moment(1)?,
        last_used_at: moment(2)?,
        expires_at: moment(3)?,
        address: row.try_get(4)?,
        user_agent: row.try_get(5)?,
    })
}
