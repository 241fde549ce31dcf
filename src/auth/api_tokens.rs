//! Personal API tokens: what each is good for, asked of the database once a second at most.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::opaque;
use crate::domain::user::UserId;
use crate::http::error::{Error, Unauthorized};
use crate::store::{ApiTokenUse, Store};
use crate::sync::lock;

/// Until then nobody asks again. A token that was deleted elsewhere is refused after that.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is trusted while the database cannot be asked.
const TRUSTED: Duration = Duration::from_secs(30);
/// Tokens that are remembered.
const REMEMBERED: usize = 10_000;

const UNKNOWN: Error = Error::Unauthorized(Unauthorized::Invalid(
    "there is no such API token; it may have been deleted",
));

/// What the database said of tokens.
#[derive(Default)]
pub struct ApiTokens {
    known: Mutex<HashMap<[u8; 32], Answer>>,
    /// How often tokens were deleted here.
    deletions: AtomicU64,
}

struct Answer {
    token: ApiTokenUse,
    asked: Instant,
}

impl ApiTokens {
    /// Returns what a token is good for. `admit` is called before a token that is not remembered is looked up.
    ///
    /// # Errors
    /// The token is not known or has expired, `admit` refuses, or the database cannot be asked.
    pub fn look_up(
        &self,
        store: &Store,
        token: &str,
        admit: impl FnOnce() -> Result<(), Error>,
    ) -> Result<ApiTokenUse, Error> {
        if !opaque::looks_like_api_token(token) {
            return Err(UNKNOWN);
        }
        let hash = opaque::hash(token);
        let found = match self.remembered(&hash, FRESH) {
            Some(token) => token,
            None => {
                if self.remembered(&hash, Duration::MAX).is_none() {
                    admit()?;
                }
                self.ask(store, hash)?
            }
        };
        match found.expires_at {
            Some(end) if end <= OffsetDateTime::now_utc() => {
                Err(Error::Unauthorized(Unauthorized::Expired(Some(found.user))))
            }
            _ => Ok(found),
        }
    }

    fn ask(&self, store: &Store, hash: [u8; 32]) -> Result<ApiTokenUse, Error> {
        let deletions = self.deletions.load(Ordering::SeqCst);
        match store.find_api_token(&hash) {
            Ok(Some(token)) => {
                self.remember(hash, &token, deletions);
                Ok(token)
            }
            Ok(None) => {
                self.lock().remove(&hash);
                Err(UNKNOWN)
            }
            Err(error) => Ok(self.remembered(&hash, TRUSTED).ok_or(error)?),
        }
    }

    /// Forgets what is known of a user's tokens, because one of them was deleted here.
    pub fn forget(&self, user: &UserId) {
        let mut known = self.lock();
        self.deletions.fetch_add(1, Ordering::SeqCst);
        known.retain(|_, answer| answer.token.user != *user);
    }

    fn remembered(&self, hash: &[u8; 32], age: Duration) -> Option<ApiTokenUse> {
        self.lock()
            .get(hash)
            .filter(|answer| answer.asked.elapsed() < age)
            .map(|answer| answer.token.clone())
    }

    /// `deletions` as they were before the database was asked: what it said then may be over.
    fn remember(&self, hash: [u8; 32], token: &ApiTokenUse, deletions: u64) {
        let mut known = self.lock();
        if self.deletions.load(Ordering::SeqCst) != deletions {
            return;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, answer| answer.asked.elapsed() < FRESH);
        }
        // More than that within a second: then each is asked for every time.
        if known.len() < REMEMBERED {
            // One request in a minute notes the use: the one that asked.
            let answer = Answer {
                token: ApiTokenUse {
                    is_to_be_noted: false,
                    ..token.clone()
                },
                asked: Instant::now(),
            };
            known.insert(hash, answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Answer>> {
        lock(&self.known)
    }
}
