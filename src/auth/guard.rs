//! From an `Authorization` header field to the caller.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::api_tokens::ApiTokens;
use super::caller::{Caller, Credential};
use super::error::AuthError;
use super::opaque::API_TOKEN_PREFIX;
use super::revocation::Revocations;
use super::token::{TokenOrigin, TokenSession, TokenVerifier, Verified, bearer};
use crate::domain::fair_budget::Holder;
use crate::domain::session::{Revocation, TokenRefusal};
use crate::domain::user::UserId;
use crate::store::{self, Store};
use crate::sync::lock;

/// Users for whom [`Guard::is_local`] is remembered.
const REMEMBERED: usize = 10_000;
/// How long it is remembered that a user has no account here. An import may make one for the same id.
const NOT_LOCAL_FOR: Duration = Duration::from_secs(2);

/// The client that sends a token. A token can cause a query or a fetch before its user is known.
pub struct Sender<'s> {
    /// The client's network.
    pub holder: Option<Holder>,
    /// Whether the client may cause a query or a fetch now.
    pub admit: &'s dyn Fn() -> bool,
}

/// Finds the caller of a request.
pub struct Guard {
    verifier: TokenVerifier,
    revocations: Revocations,
    api_tokens: ApiTokens,
    // Users without an account here, and when that was read. Users with an account are not cached, because their
    // own tokens do not need this check.
    outside: Mutex<HashMap<UserId, Instant>>,
}

impl Guard {
    /// A guard that has not read the revocations yet.
    pub fn new(verifier: TokenVerifier) -> Guard {
        Guard {
            verifier,
            revocations: Revocations::default(),
            api_tokens: ApiTokens::default(),
            outside: Mutex::default(),
        }
    }

    /// Returns the caller that an `Authorization` header field names.
    ///
    /// # Errors
    /// The token is missing or not accepted, or cannot be checked now.
    pub fn identify(
        &self,
        store: &Store,
        authorization: Option<&str>,
        sender: &Sender,
    ) -> Result<Caller, AuthError> {
        let token = bearer(authorization)?;
        let caller = if token.starts_with(API_TOKEN_PREFIX) {
            let found = self.api_tokens.look_up(store, token, sender)?;
            Caller {
                user: found.user.clone(),
                email: None,
                issued_at: None,
                credential: Credential::ApiToken(found),
            }
        } else {
            self.of_jwt(store, self.verifier.verify(token, sender)?)?
        };
        let read = |since| store.revocations_since(since);
        if self.revocations.allow(&caller, &read)? {
            Ok(caller)
        } else {
            Err(AuthError::Refused(TokenRefusal::Revoked, caller.user))
        }
    }

    /// Whether a key set is configured and has not been fetched yet.
    pub fn lacks_keys(&self) -> bool {
        self.verifier
            .keys()
            .is_some_and(|keys| keys.current().is_none())
    }

    /// Applies revocations that were just stored, so that they hold on this instance at once.
    pub fn revoke(&self, revocations: &[Revocation]) {
        self.revocations.note(revocations);
    }

    /// Reads the key set again, if one is configured.
    pub fn reload(&self) {
        if let Some(keys) = self.verifier.keys() {
            keys.reload();
        }
    }

    /// Forgets a user's API tokens, because one of them was deleted.
    pub fn forget_api_tokens(&self, user: &UserId) {
        self.api_tokens.forget(user);
    }

    /// Reads the revocations, so that the first request need not.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub fn warm_up(&self, store: &Store) -> Result<(), store::Error> {
        self.revocations
            .warm_up(&|since| store.revocations_since(since))
    }

    fn of_jwt(&self, store: &Store, token: Verified) -> Result<Caller, AuthError> {
        // The owner of the key set may name any user except those who have a password here.
        if token.origin == TokenOrigin::KeySet && self.is_local(store, &token.user)? {
            const LOCAL: &str = "its user has an account here, and so must log in here";
            return Err(AuthError::Refused(TokenRefusal::Invalid(LOCAL), token.user));
        }
        Ok(Caller {
            user: token.user,
            email: token.email,
            issued_at: token.issued_at,
            credential: match token.session {
                TokenSession::Ours(id) => Credential::Session(id),
                TokenSession::None(token) => Credential::Token(token),
            },
        })
    }

    /// Whether this user has an account with a password here. The form of the id does not show it, because
    /// imported accounts keep their ids.
    fn is_local(&self, store: &Store, user: &UserId) -> Result<bool, AuthError> {
        let known = lock(&self.outside).get(user).copied();
        if known.is_some_and(|read| read.elapsed() < NOT_LOCAL_FOR) {
            return Ok(false);
        }
        let read = Instant::now();
        let local = store.is_local_account(user)?;
        if !local {
            let mut outside = lock(&self.outside);
            if outside.len() >= REMEMBERED {
                outside.clear();
            }
            outside.insert(user.clone(), read);
        }
        Ok(local)
    }
}
