//! Personal API tokens, cached for a second.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::error::AuthError;
use super::guard::Sender;
use super::opaque;
use crate::domain::session::TokenRefusal;
use crate::domain::user::UserId;
use crate::store::{ApiTokenUse, Store};
use crate::sync::lock;

/// Time for which a token is not looked up again. A token that another instance deletes is refused after this time.
const FRESH: Duration = Duration::from_secs(1);
/// Time for which a token is accepted while the database does not answer.
const TRUSTED: Duration = Duration::from_secs(30);
/// Tokens that are cached. A token beyond that is looked up by every request.
const CACHED_MAX: usize = 10_000;

const UNKNOWN: AuthError =
    AuthError::Invalid("there is no such API token; it may have been deleted");

/// A cache of API tokens.
#[derive(Default)]
pub struct ApiTokens {
    known: Mutex<HashMap<[u8; 32], CachedApiToken>>,
    /// How often [`ApiTokens::forget`] was called.
    deletions: AtomicU64,
}

struct CachedApiToken {
    token: ApiTokenUse,
    looked_up: Instant,
}

impl ApiTokens {
    /// Returns the user and the scopes of a token. Before it looks up a token that is not cached, it checks whether the sender
    /// may cause a query.
    ///
    /// # Errors
    /// The token is unknown or has expired, the sender may not cause a query, or the database does not answer.
    pub fn look_up(
        &self,
        store: &Store,
        token: &str,
        sender: &Sender,
    ) -> Result<ApiTokenUse, AuthError> {
        if !opaque::looks_like_api_token(token) {
            return Err(UNKNOWN);
        }
        let hash = opaque::hash(token);
        let found = match self.cached(&hash, FRESH) {
            Some(token) => token,
            None => {
                if self.cached(&hash, Duration::MAX).is_none() && !(sender.admit)() {
                    return Err(AuthError::NotAdmitted);
                }
                self.query(store, hash)?
            }
        };
        match found.expires_at {
            Some(end) if end <= OffsetDateTime::now_utc() => {
                Err(AuthError::Refused(TokenRefusal::Expired, found.user))
            }
            _ => Ok(found),
        }
    }

    fn query(&self, store: &Store, hash: [u8; 32]) -> Result<ApiTokenUse, AuthError> {
        let deletions = self.deletions.load(Ordering::SeqCst);
        match store.find_api_token(&hash) {
            Ok(Some(token)) => {
                self.insert(hash, &token, deletions);
                Ok(token)
            }
            Ok(None) => {
                lock(&self.known).remove(&hash);
                Err(UNKNOWN)
            }
            Err(error) => Ok(self.cached(&hash, TRUSTED).ok_or(error)?),
        }
    }

    /// Forgets a user's tokens, because one of them was deleted.
    pub fn forget(&self, user: &UserId) {
        let mut known = lock(&self.known);
        self.deletions.fetch_add(1, Ordering::SeqCst);
        known.retain(|_, cached| cached.token.user != *user);
    }

    fn cached(&self, hash: &[u8; 32], age: Duration) -> Option<ApiTokenUse> {
        lock(&self.known)
            .get(hash)
            .filter(|cached| cached.looked_up.elapsed() < age)
            .map(|cached| cached.token.clone())
    }

    /// `deletions` is the count before the query. If it has changed, the token may have been deleted after the query.
    fn insert(&self, hash: [u8; 32], token: &ApiTokenUse, deletions: u64) {
        let mut known = lock(&self.known);
        if self.deletions.load(Ordering::SeqCst) != deletions {
            return;
        }
        if known.len() >= CACHED_MAX {
            known.retain(|_, cached| cached.looked_up.elapsed() < FRESH);
        }
        if known.len() < CACHED_MAX {
            // Only the request that made the query notes the use of the token.
            let token = ApiTokenUse {
                is_to_be_noted: false,
                ..token.clone()
            };
            let looked_up = Instant::now();
            known.insert(hash, CachedApiToken { token, looked_up });
        }
    }
}
