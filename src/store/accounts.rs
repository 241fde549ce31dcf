//! The statements on accounts.

use postgres::types::ToSql;
use postgres::{Error as PgError, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::revocations::{Everywhere, REVOKE_USER, Refusals, read_ended};
use super::sessions::{END_ALL, LOCK_USER, NewSession, REMEMBER_NETWORK};
use super::{Effect, Error, Store, violates};
use crate::domain::account::{Account, AccountChanges, Email, Name};
use crate::domain::session::{Revocation, Revoked};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// Most tasks that one statement deletes, so that it ends within its time limit.
const DELETED_AT_ONCE: i64 = 10_000;

/// A new account.
pub struct NewAccount<'a> {
    /// Its user.
    pub id: &'a UserId,
    /// The address to log in with.
    pub email: &'a Email,
    /// The name of the person.
    pub name: Option<&'a Name>,
    /// The password, hashed.
    pub password_hash: &'a str,
}

/// The outcome of making an account.
#[derive(Debug)]
pub enum Registered {
    /// It was made.
    Account {
        /// The account.
        account: Account,
        /// When, by the database's clock.
        at: OffsetDateTime,
    },
    /// Another account has that address. Nothing was changed.
    EmailTaken,
}

/// The outcome of changing an account.
#[derive(Debug)]
pub enum Updated {
    /// It was changed.
    Account(Account),
    /// It does not exist.
    NoAccount,
    /// Another account has that address. Nothing was changed.
    EmailTaken,
}

/// The credential that a login is compared with.
#[derive(Clone)]
pub struct PasswordCredential {
    /// The account.
    pub account: Account,
    /// Its password, hashed.
    pub password_hash: String,
    /// Whether the account is active.
    pub active: bool,
}

/// A user as an operator sees them.
#[derive(Debug)]
pub struct UserRow {
    /// The account.
    pub account: Account,
    /// Whether the user is active.
    pub active: bool,
    /// Whether the user can log in here.
    pub has_password: bool,
}

// A user known only from a token gets a row with the first write. A user whose account was deleted a moment ago does not. The update
// changes nothing; it makes the statement return the id even if another request has inserted the row in the meantime.
macro_rules! owner {
    ($from:literal) => {
        concat!(
            "INSERT INTO {schema}.users (id) SELECT $1",
            $from,
            " WHERE NOT EXISTS (SELECT FROM {schema}.users WHERE id = $1)
                AND NOT EXISTS (SELECT FROM {schema}.revocations
                                WHERE kind = 'user' AND id = $1 AND (until IS NULL OR until > now()))
              ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING id"
        )
    };
}
pub(super) use owner as OWNER;

macro_rules! account_columns {
    () => {
        "id, email, name, created_at"
    };
}

const ADD: &str = "INSERT INTO {schema}.users (id, email, name, password_hash) VALUES ($1, $2, $3, $4) RETURNING created_at";

const REGISTER: &str = concat!(
    "WITH account AS (
         INSERT INTO {schema}.users (id, email, name, password_hash) VALUES ($1, $2, $3, $4) RETURNING id, created_at
     ), session AS (
         INSERT INTO {schema}.sessions (user_id, id, expires_at, access_expires_at, address, user_agent)
         SELECT id, $5, now() + make_interval(secs => $7), now() + make_interval(secs => $8), $9, $10 FROM account
         RETURNING user_id, id, expires_at
     ), token AS (
         INSERT INTO {schema}.refresh_tokens (token_hash, user_id, session_id, expires_at)
         SELECT $6, user_id, id, expires_at FROM session
     ), network AS (",
    REMEMBER_NETWORK!("$11"),
    ") SELECT created_at FROM account"
);

const BY_EMAIL: &str = concat!(
    "SELECT ",
    account_columns!(),
    ", password_hash, active, EXISTS (
           SELECT FROM {schema}.session_networks
           WHERE user_id = users.id AND network = $2 AND last_used_at > now() - interval '30 days')
     FROM {schema}.users WHERE email = $1 AND password_hash IS NOT NULL"
);

const BY_ID: &str = concat!(
    "SELECT ",
    account_columns!(),
    ", password_hash, active FROM {schema}.users WHERE id = $1 AND password_hash IS NOT NULL"
);

const GET: &str = concat!(
    "SELECT ",
    account_columns!(),
    " FROM {schema}.users WHERE id = $1"
);

const IS_LOCAL: &str = "SELECT FROM {schema}.users WHERE id = $1 AND password_hash IS NOT NULL";

// Only a user who can log in has an address.
const UPDATE: &str = concat!(
    "UPDATE {schema}.users
     SET email = coalesce($2, email), name = CASE WHEN $3::bool THEN $4 ELSE name END, updated_at = now()
     WHERE id = $1 AND password_hash = coalesce($5, password_hash)
     RETURNING ",
    account_columns!()
);

const SET_PASSWORD: &str = "UPDATE {schema}.users SET password_hash = $3, updated_at = now()
     WHERE id = $1 AND password_hash = coalesce($2, password_hash)";

const REHASH: &str =
    "UPDATE {schema}.users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";

const DELETE_TASKS: &str = "DELETE FROM {schema}.tasks WHERE user_id = $1 AND id IN (
         SELECT id FROM {schema}.tasks WHERE user_id = $1 LIMIT $2
     )";

const IS_LOCAL_LOCKED: &str =
    "SELECT password_hash IS NOT NULL FROM {schema}.users WHERE id = $1 FOR UPDATE";

const MARK_DELETED: &str = "UPDATE {schema}.users
     SET deleted_at = now(), active = false, email = NULL, name = NULL, password_hash = NULL WHERE id = $1";

const FORGET_NETWORKS: &str = "DELETE FROM {schema}.session_networks WHERE user_id = $1";

const DELETE_TRASH: &str = "DELETE FROM {schema}.deleted_tasks WHERE user_id = $1 AND id IN (
         SELECT id FROM {schema}.deleted_tasks WHERE user_id = $1 LIMIT $2
     )";

const DELETE: &str = "DELETE FROM {schema}.users WHERE id = $1";

const LIST: &str = concat!(
    "SELECT ",
    account_columns!(),
    ", active, password_hash IS NOT NULL FROM {schema}.users WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2"
);

const FIND: &str = concat!(
    "SELECT ",
    account_columns!(),
    ", active, password_hash IS NOT NULL FROM {schema}.users WHERE (id = $1 OR email = $2) AND deleted_at IS NULL"
);

const SET_ACTIVE: &str = "INSERT INTO {schema}.users (id, active) VALUES ($1, $2)
     ON CONFLICT (id) DO UPDATE SET active = excluded.active, updated_at = now()";

impl Store {
    /// Makes an account and opens its first session.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn register(
        &self,
        account: &NewAccount<'_>,
        session: &NewSession,
    ) -> Result<Registered, Error> {
        self.insert_account(
            REGISTER,
            account,
            &[
                &session.id,
                &session.refresh_hash.as_slice(),
                &session.refresh_lifetime.as_secs_f64(),
                &session.access_lifetime.as_secs_f64(),
                &session.origin.address,
                &session.origin.user_agent,
                &session.origin.network,
            ],
        )
    }

    /// Makes an account.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_account(&self, account: &NewAccount<'_>) -> Result<Registered, Error> {
        self.insert_account(ADD, account, &[])
    }

    fn insert_account(
        &self,
        sql: &'static str,
        account: &NewAccount<'_>,
        more: &[&(dyn ToSql + Sync)],
    ) -> Result<Registered, Error> {
        let (id, email) = (account.id.as_str(), account.email.as_str());
        let name = account.name.map(Name::as_str);
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&id, &email, &name, &account.password_hash];
        parameters.extend(more);
        self.run(Effect::Write, |client| {
            let statement = client.prepared(sql)?;
            match client.query_one(&statement, &parameters) {
                Ok(row) => {
                    let at: OffsetDateTime = row.try_get(0)?;
                    let account = Account {
                        id: account.id.clone(),
                        email: Some(email.to_owned()),
                        name: name.map(str::to_owned),
                        created_at: Some(at.into()),
                    };
                    Ok(Registered::Account { account, at })
                }
                Err(error) if violates(&error, "users_email_key") => Ok(Registered::EmailTaken),
                Err(error) => Err(error),
            }
        })
    }

    /// The credential of the account with this address, and whether the account had a session from this network in the last
    /// 30 days.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn credential_by_email(
        &self,
        email: &str,
        network: &str,
    ) -> Result<(Option<PasswordCredential>, bool), Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(BY_EMAIL)?;
            Ok(match client.query_opt(&statement, &[&email, &network])? {
                Some(row) => (Some(read_credential(&row)?), row.try_get(6)?),
                None => (None, false),
            })
        })
    }

    /// The credential of this user; `None` without a password here.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn credential_of(&self, user: &UserId) -> Result<Option<PasswordCredential>, Error> {
        self.row(Effect::Read, BY_ID, &[&user.as_str()], read_credential)
    }

    /// A user; `None` if unknown.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn account(&self, user: &UserId) -> Result<Option<Account>, Error> {
        self.row(Effect::Read, GET, &[&user.as_str()], read_account)
    }

    /// Whether this user has a password here.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn is_local_account(&self, user: &UserId) -> Result<bool, Error> {
        self.execute(Effect::Read, IS_LOCAL, &[&user.as_str()])
            .map(|rows| rows > 0)
    }

    /// Changes an account if its password hash is still `hash`; `None` matches any hash.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update_account(
        &self,
        user: &UserId,
        changes: &AccountChanges,
        hash: Option<&str>,
    ) -> Result<Updated, Error> {
        let email = changes.email.as_ref().map(Email::as_str);
        let name = changes.name.value().map(Name::as_str);
        self.run(Effect::Write, |client| {
            let statement = client.prepared(UPDATE)?;
            let row = client.query_opt(
                &statement,
                &[
                    &user.as_str(),
                    &email,
                    &changes.name.is_sent(),
                    &name,
                    &hash,
                ],
            );
            match row {
                Ok(Some(row)) => Ok(Updated::Account(read_account(&row)?)),
                Ok(None) => Ok(Updated::NoAccount),
                Err(error) if violates(&error, "users_email_key") => Ok(Updated::EmailTaken),
                Err(error) => Err(error),
            }
        })
    }

    /// Replaces a password hash if it is still `old` (`None` matches any), and ends every session but `keep`, or also everything
    /// that `everywhere` names. Returns the new revocations; `None` if there is no such account or its hash is another.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_password(
        &self,
        user: &UserId,
        old: Option<&str>,
        new: &str,
        keep: Option<Uuid>,
        everywhere: Option<Everywhere<'_>>,
    ) -> Result<Option<Vec<Revocation>>, Error> {
        self.run(Effect::Write, |client| {
            let (lock, set, end) = (
                client.prepared(LOCK_USER)?,
                client.prepared(SET_PASSWORD)?,
                client.prepared(END_ALL)?,
            );
            let refusals = Refusals::prepare(client)?;
            let mut transaction = client.transaction()?;
            transaction.execute(&lock, &[&user.as_str()])?;
            if transaction.execute(&set, &[&user.as_str(), &old, &new])? == 0 {
                return Ok(None);
            }
            let mut ended = read_ended(&transaction.query(&end, &[&user.as_str(), &keep])?)?;
            if let Some(everywhere) = everywhere {
                let refused = refusals.refuse_all(&mut transaction, user, everywhere)?;
                ended.extend(refused.revocations);
            }
            transaction.commit()?;
            Ok(Some(ended))
        })
    }

    /// Replaces a password hash with another one of the same password.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn rehash_password(&self, user: &UserId, old: &str, new: &str) -> Result<(), Error> {
        self.execute(Effect::Write, REHASH, &[&user.as_str(), &old, &new])
            .map(drop)
    }

    /// Marks a user as deleted: logins fail, the address is free, the sessions end, and the tokens of an account
    /// made here are refused for good. Returns the revocations, or `None` if there is no such user.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn begin_deletion(&self, user: &UserId) -> Result<Option<Vec<Revocation>>, Error> {
        self.run(Effect::Write, |client| {
            let (lock, mark, end, forget, revoke) = (
                client.prepared(IS_LOCAL_LOCKED)?,
                client.prepared(MARK_DELETED)?,
                client.prepared(END_ALL)?,
                client.prepared(FORGET_NETWORKS)?,
                client.prepared(REVOKE_USER)?,
            );
            let mut transaction = client.transaction()?;
            let Some(found) = transaction.query_opt(&lock, &[&user.as_str()])? else {
                return Ok(None);
            };
            transaction.execute(&mark, &[&user.as_str()])?;
            let mut ended =
                read_ended(&transaction.query(&end, &[&user.as_str(), &None::<Uuid>])?)?;
            // After the sessions: that statement waits for a refresh in another transaction, which may add a network.
            transaction.execute(&forget, &[&user.as_str()])?;
            if found.try_get(0)? {
                let for_good = None::<OffsetDateTime>;
                transaction.execute(&revoke, &[&user.as_str(), &for_good])?;
                ended.push(Revocation {
                    whose: Revoked::User(user.clone()),
                    until: None,
                });
            }
            transaction.commit()?;
            Ok(Some(ended))
        })
    }

    /// Deletes a user and the user's rows, after [`Store::begin_deletion`]. It deletes tasks in batches. A user of another issuer
    /// may return later.
    ///
    /// # Errors
    /// See [`Error`]. After an error, a second call continues.
    pub fn finish_deletion(&self, user: &UserId) -> Result<(), Error> {
        let some: [&(dyn ToSql + Sync); 2] = [&user.as_str(), &DELETED_AT_ONCE];
        for delete in [DELETE_TASKS, DELETE_TRASH] {
            while self.execute(Effect::Write, delete, &some)? > 0 {}
        }
        let rest: [&(dyn ToSql + Sync); 2] = [&user.as_str(), &i64::MAX];
        self.run(Effect::Write, |client| {
            let (delete, tasks, trash) = (
                client.prepared(DELETE)?,
                client.prepared(DELETE_TASKS)?,
                client.prepared(DELETE_TRASH)?,
            );
            let mut transaction = client.transaction()?;
            // This waits for running writes to the user's tasks. The next statements see the tasks of those writes.
            transaction.execute(&delete, &[&user.as_str()])?;
            transaction.execute(&tasks, &rest)?;
            transaction.execute(&trash, &rest)?;
            transaction.commit()
        })
    }

    /// Disables a user for tokens of every issuer and ends their sessions, or enables the user again.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_active(&self, user: &UserId, active: bool) -> Result<(), Error> {
        // Enabling ends the revocation. Disabling revokes without an end.
        let until = active.then_some(OffsetDateTime::UNIX_EPOCH);
        self.run(Effect::Write, |client| {
            let (set, end, revoke) = (
                client.prepared(SET_ACTIVE)?,
                client.prepared(END_ALL)?,
                client.prepared(REVOKE_USER)?,
            );
            let mut transaction = client.transaction()?;
            transaction.execute(&set, &[&user.as_str(), &active])?;
            if !active {
                transaction.execute(&end, &[&user.as_str(), &None::<Uuid>])?;
            }
            transaction.execute(&revoke, &[&user.as_str(), &until])?;
            transaction.commit()
        })
    }

    /// Users after this id, in the order of their ids.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_users(&self, after: &str, most: i64) -> Result<Vec<UserRow>, Error> {
        self.rows(LIST, &[&after, &most], read_user)
    }

    /// The users with this id or this address. There are two if the id of one is the address of the other.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn find_users(&self, id_or_email: &str) -> Result<Vec<UserRow>, Error> {
        let email = Email::parse(id_or_email).ok();
        self.rows(
            FIND,
            &[&id_or_email, &email.as_ref().map(Email::as_str)],
            read_user,
        )
    }
}

/// Reads the columns of `account_columns!`.
fn read_account(row: &Row) -> Result<Account, PgError> {
    Ok(Account {
        id: UserId::from_store(row.try_get(0)?),
        email: row.try_get(1)?,
        name: row.try_get(2)?,
        created_at: Some(Timestamp::from(row.try_get::<_, OffsetDateTime>(3)?)),
    })
}

/// Reads the columns of `account_columns!`, the hash and whether the account is active.
fn read_credential(row: &Row) -> Result<PasswordCredential, PgError> {
    Ok(PasswordCredential {
        account: read_account(row)?,
        password_hash: row.try_get(4)?,
        active: row.try_get(5)?,
    })
}

fn read_user(row: &Row) -> Result<UserRow, PgError> {
    Ok(UserRow {
        account: read_account(row)?,
        active: row.try_get(4)?,
        has_password: row.try_get(5)?,
    })
}
