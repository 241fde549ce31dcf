//! Issues the access token and the refresh token of a login and of a refresh.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::minter::{Minter, NewToken};
use super::opaque::{self, Succession, Successor};
use crate::config::{AccountSettings, TokenSettings};
use crate::domain::account::Account;
use crate::domain::session::SessionOrigin;
use crate::store::NewSession;

/// Issues pairs of tokens.
pub struct Issuer {
    minter: Minter,
    succession: Succession,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
}

/// The answer to a login and to a refresh (RFC 6749, section 5.1), with the account.
#[derive(Serialize)]
pub struct TokenPair {
    /// For the header field `Authorization: Bearer …`.
    access_token: String,
    /// `bearer`
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// For one refresh.
    refresh_token: String,
    /// The user of the tokens.
    user: Account,
}

impl Issuer {
    /// An issuer that signs with this secret.
    pub fn new(secret: &str, tokens: &TokenSettings, accounts: &AccountSettings) -> Issuer {
        Issuer {
            minter: Minter::new(secret),
            succession: Succession::new(secret),
            access_lifetime: tokens.lifetime,
            refresh_lifetime: accounts.refresh_lifetime,
        }
    }

    /// The lifetimes of refresh tokens and of access tokens.
    pub fn lifetimes(&self) -> (Duration, Duration) {
        (self.refresh_lifetime, self.access_lifetime)
    }

    /// A session to be stored, and its first refresh token.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn begin(&self, origin: SessionOrigin) -> Result<(NewSession, String), String> {
        let refresh_token = opaque::new_refresh_token()?;
        let session = NewSession {
            id: Uuid::new_v4(),
            refresh_hash: opaque::hash(&refresh_token),
            refresh_lifetime: self.refresh_lifetime,
            access_lifetime: self.access_lifetime,
            origin,
        };
        Ok((session, refresh_token))
    }

    /// The tokens that follow a refresh token.
    pub fn successor(&self, refresh_token: &str) -> Successor {
        self.succession.after(refresh_token)
    }

    /// The first pair of a session that began at `at`, by the database's clock, with which revocations are compared.
    ///
    /// # Errors
    /// The signing library's sentence.
    pub fn first(
        &self,
        session: &NewSession,
        refresh_token: String,
        at: OffsetDateTime,
        user: Account,
    ) -> Result<TokenPair, String> {
        let tokens = Successor {
            refresh_token,
            token_id: Uuid::new_v4(),
        };
        self.pair(session.id, tokens, at, user)
    }

    /// A pair of a session. The same arguments give the same tokens.
    ///
    /// # Errors
    /// The signing library's sentence.
    pub fn pair(
        &self,
        session: Uuid,
        tokens: Successor,
        issued_at: OffsetDateTime,
        user: Account,
    ) -> Result<TokenPair, String> {
        let issued_at = issued_at.unix_timestamp();
        let access_token = self.minter.sign(&NewToken {
            user: &user.id,
            email: user.email.as_deref(),
            session: Some(session),
            jti: tokens.token_id,
            issued_at,
            lifetime: self.access_lifetime,
        })?;
        let lifetime = i64::try_from(self.access_lifetime.as_secs()).unwrap_or(i64::MAX);
        let age = OffsetDateTime::now_utc()
            .unix_timestamp()
            .saturating_sub(issued_at);
        Ok(TokenPair {
            access_token,
            token_type: "bearer",
            expires_in: lifetime.saturating_sub(age.max(0)).max(0),
            refresh_token: tokens.refresh_token,
            user,
        })
    }
}
