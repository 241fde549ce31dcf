//! The statements on API tokens.

use postgres::{Error as PgError, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::accounts::OWNER;
use super::sessions::LOCK_USER;
use super::{Effect, Error, Store};
use crate::domain::api_token::{ApiToken, NewApiToken, Scopes};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// Most tokens of a user.
const TOKENS_MAX: i64 = 100;

/// The outcome of making a token.
#[derive(Debug)]
pub enum ApiTokenAdded {
    /// It was made.
    Token(ApiToken),
    /// The user already has the maximum number of tokens.
    TooMany,
    /// The user's password hash has changed.
    PasswordChanged,
}

/// The owner and permissions of a presented token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenUse {
    /// Its owner.
    pub user: UserId,
    /// Its id.
    pub id: Uuid,
    /// Its scopes.
    pub scopes: Scopes,
    /// When it expires.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether the last call of [`Store::note_api_token_use`] was more than a minute ago.
    pub is_to_be_noted: bool,
}

macro_rules! token_columns {
    () => {
        "id, name, prefix, scopes, created_at, last_used_at, expires_at"
    };
}

const ADD: &str = concat!(
    "INSERT INTO {schema}.api_tokens (user_id, id, name, token_hash, prefix, scopes, expires_at)
     SELECT $1, $2, $3, $4, $5, $6, $7
     WHERE (SELECT count(*) FROM {schema}.api_tokens WHERE user_id = $1) < $8
     RETURNING ",
    token_columns!()
);

const HAS_PASSWORD: &str = "SELECT FROM {schema}.users WHERE id = $1 AND password_hash = $2";

const LIST: &str = concat!(
    "SELECT ",
    token_columns!(),
    " FROM {schema}.api_tokens WHERE user_id = $1 ORDER BY created_at DESC, id"
);

const DELETE: &str = "DELETE FROM {schema}.api_tokens WHERE user_id = $1 AND id = $2";

const FIND: &str = "SELECT user_id, id, scopes, expires_at,
            last_used_at IS NULL OR last_used_at < now() - interval '1 minute'
     FROM {schema}.api_tokens WHERE token_hash = $1";

const NOTE_USE: &str = "UPDATE {schema}.api_tokens SET last_used_at = now()
     WHERE user_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";

impl Store {
    /// Adds a token, named by its SHA-256, and a row for its owner if there is none. With `password_hash`, the owner's hash must
    /// still be that one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_api_token(
        &self,
        user: &UserId,
        token: &NewApiToken,
        token_hash: &[u8; 32],
        prefix: &str,
        password_hash: Option<&str>,
    ) -> Result<ApiTokenAdded, Error> {
        let expires_at = token.expires_at.map(Timestamp::as_utc);
        self.run(Effect::Write, |client| {
            let (owner, lock, add) = (
                client.prepared(OWNER!(""))?,
                client.prepared(LOCK_USER)?,
                client.prepared(ADD)?,
            );
            let has_password = client.prepared(HAS_PASSWORD)?;
            let mut transaction = client.transaction()?;
            transaction.execute(&owner, &[&user.as_str()])?;
            // The lock makes requests of one user wait for each other, so that each counts the tokens of those before it.
            transaction.execute(&lock, &[&user.as_str()])?;
            if password_hash.is_some()
                && transaction.execute(&has_password, &[&user.as_str(), &password_hash])? == 0
            {
                return Ok(ApiTokenAdded::PasswordChanged);
            }
            let row = transaction.query_opt(
                &add,
                &[
                    &user.as_str(),
                    &Uuid::now_v7(),
                    &token.name.as_str(),
                    &token_hash.as_slice(),
                    &prefix,
                    &token.scopes.names(),
                    &expires_at,
                    &TOKENS_MAX,
                ],
            )?;
            transaction.commit()?;
            row.map_or(Ok(ApiTokenAdded::TooMany), |row| {
                read_token(&row).map(ApiTokenAdded::Token)
            })
        })
    }

    /// A user's tokens, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_api_tokens(&self, user: &UserId) -> Result<Vec<ApiToken>, Error> {
        self.rows(LIST, &[&user.as_str()], read_token)
    }

    /// Deletes a token; false if the user has none with this id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_api_token(&self, user: &UserId, id: Uuid) -> Result<bool, Error> {
        self.execute(Effect::Write, DELETE, &[&user.as_str(), &id])
            .map(|rows| rows > 0)
    }

    /// Owner and permissions of the token with this SHA-256; `None` if there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn find_api_token(&self, token_hash: &[u8; 32]) -> Result<Option<ApiTokenUse>, Error> {
        let hash = token_hash.as_slice();
        self.row(Effect::Read, FIND, &[&hash], |row| {
            Ok(ApiTokenUse {
                user: UserId::from_store(row.try_get(0)?),
                id: row.try_get(1)?,
                scopes: read_scopes(row, 2)?,
                expires_at: row.try_get(3)?,
                is_to_be_noted: row.try_get(4)?,
            })
        })
    }

    /// Records the use of a token, at most once a minute.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn note_api_token_use(&self, user: &UserId, id: Uuid) -> Result<(), Error> {
        // Recording the same use twice changes nothing, so this may be retried like a read.
        self.execute(Effect::Read, NOTE_USE, &[&user.as_str(), &id])
            .map(drop)
    }
}

fn read_token(row: &Row) -> Result<ApiToken, PgError> {
    let moment = |column| -> Result<Option<Timestamp>, PgError> {
        Ok(row
            .try_get::<_, Option<OffsetDateTime>>(column)?
            .map(Timestamp::from))
    };
    Ok(ApiToken {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        prefix: row.try_get(2)?,
        scopes: read_scopes(row, 3)?,
        created_at: row.try_get::<_, OffsetDateTime>(4)?.into(),
        last_used_at: moment(5)?,
        expires_at: moment(6)?,
    })
}

/// Unknown scopes, which a newer program wrote, are ignored.
fn read_scopes(row: &Row, column: usize) -> Result<Scopes, PgError> {
    let names: Vec<String> = row.try_get(column)?;
    Ok(Scopes::known(names.iter().map(String::as_str)))
}
