//! From an `Authorization` header to who is calling.

use std::collections::HashMap;
use std::sync::Mutex;

use super::api_tokens::ApiTokens;
use super::caller::{Caller, Credential};
use super::opaque::API_TOKEN_PREFIX;
use super::revocation::Revocations;
use super::token::{Origin, Session, TokenVerifier, Verified, bearer};
use crate::domain::session::Revocation;
use crate::domain::user::UserId;
use crate::http::error::{Error, Unauthorized};
use crate::store::{self, Store};
use crate::sync::lock;

/// Users whose kind is remembered.
const REMEMBERED: usize = 10_000;

/// Tells who is calling.
pub struct Guard {
    verifier: TokenVerifier,
    revocations: Revocations,
    api_tokens: ApiTokens,
    // Whether an id that looks like one of ours is one. That never changes while anybody could make use of it: an id is made of
    // random bits when its account is made.
    local: Mutex<HashMap<UserId, bool>>,
}

impl Guard {
    /// A guard that knows of no revocation yet.
    pub fn new(verifier: TokenVerifier) -> Guard {
        Guard {
            verifier,
            revocations: Revocations::default(),
            api_tokens: ApiTokens::default(),
            local: Mutex::default(),
        }
    }

    /// Returns the caller that this value of the `Authorization` header field names. `admit` is called before an API token that is
    /// not remembered is looked up.
    ///
    /// # Errors
    /// The token is missing, is not accepted, or cannot be judged now; or `admit` refuses.
    pub fn identify(
        &self,
        store: &Store,
        authorization: Option<&str>,
        admit: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Caller, Error> {
        let token = bearer(authorization).map_err(Error::Unauthorized)?;
        let caller = if token.starts_with(API_TOKEN_PREFIX) {
            let found = self.api_tokens.look_up(store, token, admit)?;
            Caller {
                user: found.user.clone(),
                email: None,
                issued_at: None,
                credential: Credential::ApiToken(found),
            }
        } else {
            self.of_jwt(store, self.verifier.verify(token)?)?
        };
        if self
            .revocations
            .allow(&caller, &|since| store.revocations_since(since))?
        {
            Ok(caller)
        } else {
            Err(Error::Unauthorized(Unauthorized::Revoked(Some(
                caller.user,
            ))))
        }
    }

    /// Refuses from now on, here, what the store has been told to refuse everywhere.
    pub fn revoke(&self, revocations: &[Revocation]) {
        self.revocations.note(revocations);
    }

    /// Has the keys of others read again, where there are any.
    pub fn reload(&self) {
        self.verifier.reload();
    }

    /// Forgets what is known of a user's API tokens, because one of them was deleted here.
    pub fn forget_api_tokens(&self, user: &UserId) {
        self.api_tokens.forget(user);
    }

    /// Reads what has been revoked, so that the first request finds it done.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub fn warm_up(&self, store: &Store) -> Result<(), store::Error> {
        self.revocations
            .warm_up(&|since| store.revocations_since(since))
    }

    fn of_jwt(&self, store: &Store, token: Verified) -> Result<Caller, Error> {
        // Whoever signs with a key of the set may name any user, but not one who has a password here.
        if token.origin == Origin::KeySet && self.is_local(store, &token.user)? {
            return Err(Error::Unauthorized(Unauthorized::Invalid(
                "its user has an account here, and so must log in here",
            )));
        }
        Ok(Caller {
            user: token.user,
            email: token.email,
            issued_at: token.issued_at,
            credential: match token.session {
                Session::Ours(id) => Credential::Session(id),
                Session::None(token) => Credential::Token(token),
            },
        })
    }

    fn is_local(&self, store: &Store, user: &UserId) -> Result<bool, Error> {
        if !user.looks_local() {
            return Ok(false);
        }
        let lock = || lock(&self.local);
        if let Some(known) = lock().get(user) {
            return Ok(*known);
        }
        let local = store.is_local_account(user)?;
        let mut known = lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(user.clone(), local);
        Ok(local)
    }
}
