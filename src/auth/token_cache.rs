//! The claims of tokens that were verified a moment ago.
//!
//! A hit saves the check of the signature and the reading of JSON. Times and revocations are checked on every request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::claims::Verified;
use super::key_set::KeySet;
use crate::sync::lock;

/// Parts with a lock of their own, so that workers seldom wait for each other.
const SHARDS: usize = 16;
/// Tokens in one part. All parts together have 4,096, of 0.3 to 1 KB each.
const SHARD_MAX: usize = 256;

/// Verified claims by the SHA-256 of the whole token.
///
/// A part that is full is emptied. So a user with many tokens costs other users one more verification now and then.
#[derive(Default)]
pub struct TokenCache {
    shards: [Mutex<HashMap<[u8; 32], CachedToken>>; SHARDS],
}

struct CachedToken {
    verified: Verified,
    /// The key set that verified the token, if it was not the secret.
    keys: Option<Arc<KeySet>>,
}

impl TokenCache {
    /// The claims of the token with this hash. Claims that another key set than `current` has verified do not count.
    pub fn get(&self, hash: &[u8; 32], current: Option<&Arc<KeySet>>) -> Option<Verified> {
        let shard = lock(self.shard(hash)?);
        let cached = shard.get(hash)?;
        let is_valid = match &cached.keys {
            Some(keys) => current.is_some_and(|current| Arc::ptr_eq(keys, current)),
            None => true,
        };
        is_valid.then(|| cached.verified.clone())
    }

    /// Remembers verified claims.
    pub fn insert(&self, hash: [u8; 32], verified: &Verified, keys: Option<Arc<KeySet>>) {
        let Some(shard) = self.shard(&hash) else {
            return;
        };
        let mut shard = lock(shard);
        if shard.len() >= SHARD_MAX {
            shard.clear();
        }
        let verified = verified.clone();
        shard.insert(hash, CachedToken { verified, keys });
    }

    fn shard(&self, hash: &[u8; 32]) -> Option<&Mutex<HashMap<[u8; 32], CachedToken>>> {
        self.shards.get(usize::from(hash[0]) % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::claims::{Claims, Expected, Signer};
    use crate::auth::opaque;

    fn verified() -> Verified {
        let claims: Claims = serde_json::from_str(r#"{"sub": "u", "exp": 1}"#).unwrap();
        let checked = claims.check("message", Signer::Secret, &Expected::default());
        checked.unwrap()
    }

    #[test]
    fn tokens_beyond_the_limit_replace_others() {
        let (cache, verified) = (TokenCache::default(), verified());
        for number in 0..10 * SHARDS * SHARD_MAX {
            let hash = opaque::hash(&number.to_string());
            cache.insert(hash, &verified, None);
            assert_eq!(cache.get(&hash, None).as_ref(), Some(&verified));
        }
        let cached: usize = cache.shards.iter().map(|shard| lock(shard).len()).sum();
        assert!(cached <= SHARDS * SHARD_MAX, "{cached}");
    }

    #[test]
    fn claims_count_only_with_the_key_set_that_verified_them() {
        let (cache, verified) = (TokenCache::default(), verified());
        let (old, new) = (Arc::new(KeySet::default()), Arc::new(KeySet::default()));
        let hash = opaque::hash("token");
        cache.insert(hash, &verified, Some(Arc::clone(&old)));
        assert!(cache.get(&hash, Some(&old)).is_some());
        assert!(cache.get(&hash, Some(&new)).is_none());
        assert!(cache.get(&hash, None).is_none());
        assert!(cache.get(&opaque::hash("other"), Some(&old)).is_none());
    }
}
