//! Limits on failed logins, registrations and refreshes.
//!
//! Each instance has counts of its own, and a restart clears them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::GuessingLimits;
use crate::domain::account::Email;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::limiter::{Allowance, KEYS, LimitKey, Limiter};
use crate::http::request::ClientAddress;
use crate::metrics;

/// Failures of an account from all networks that are new to it, as a multiple of those from one network.
const NETWORKS: u32 = 10;

/// Counts failed logins, registrations and refreshes.
pub struct Guessing {
    failures_by_account_and_network: Option<Arc<Limiter>>,
    failures_by_account: Option<Arc<Limiter>>,
    failures_by_network: Option<Arc<Limiter>>,
    failures_by_user_and_network: Option<Arc<Limiter>>,
    failures_by_user: Option<Arc<Limiter>>,
    registrations: Option<Arc<Limiter>>,
    refreshes: Option<Arc<Limiter>>,
}

impl Guessing {
    /// Limits without counts.
    pub fn new(limits: &GuessingLimits) -> Guessing {
        const QUARTER: Duration = Duration::from_secs(15 * 60);
        let limiter = |most, window| (most > 0).then(|| Arc::new(Limiter::new(most, window, KEYS)));
        let per_account = limits.failures_per_account;
        Guessing {
            failures_by_account_and_network: limiter(per_account, QUARTER),
            failures_by_account: limiter(per_account.saturating_mul(NETWORKS), QUARTER),
            failures_by_network: limiter(limits.failures_per_address, QUARTER),
            failures_by_user_and_network: limiter(per_account, QUARTER),
            failures_by_user: limiter(per_account.saturating_mul(NETWORKS), QUARTER),
            registrations: limiter(limits.registrations_per_address, Duration::from_secs(3600)),
            refreshes: limiter(limits.refreshes_per_address, Duration::from_secs(60)),
        }
    }

    /// Begins a login. If the account had a session from this client's network (`network_is_known`), failures from other networks do
    /// not count.
    ///
    /// # Errors
    /// There were too many failures of the account or from the address.
    pub fn attempt(
        &self,
        account: Option<Email>,
        client: ClientAddress,
        network_is_known: bool,
    ) -> Result<Attempt, Error> {
        const OF_ACCOUNT: &str = "too many failed logins of this account";
        // If a later limit refuses, the drop of the attempt uncounts it in the earlier ones.
        let mut attempt = Attempt::default();
        let network = client.network();
        if let Some(email) = account {
            let pair = (email.clone(), network);
            attempt.hold(&self.failures_by_account_and_network, pair, OF_ACCOUNT)?;
            if !network_is_known {
                attempt.hold(&self.failures_by_account, email, OF_ACCOUNT)?;
            }
        }
        let what = "too many failed logins from this address";
        attempt.hold(&self.failures_by_network, network, what)?;
        Ok(attempt)
    }

    /// Begins a comparison with the caller's own password. It has limits of its own, so that failed logins do not keep the owner from
    /// changing the password; one of them is per network, so that guesses with a stolen token do not either.
    ///
    /// # Errors
    /// There were too many failures of the user.
    pub fn own_attempt(&self, user: &UserId, client: ClientAddress) -> Result<Attempt, Error> {
        let mut attempt = Attempt::default();
        let what = "too many wrong passwords";
        let pair = (user.clone(), client.network());
        attempt.hold(&self.failures_by_user_and_network, pair, what)?;
        attempt.hold(&self.failures_by_user, user.clone(), what)?;
        Ok(attempt)
    }

    /// Counts a registration, or another request whose answer tells whether an address has an account.
    ///
    /// # Errors
    /// There were too many from the address.
    pub fn registration(&self, client: ClientAddress) -> Result<(), Error> {
        let what = "too many registrations from this address";
        take(&self.registrations, &client.network(), what).map(drop)
    }

    /// Counts a refresh.
    ///
    /// # Errors
    /// There were too many from the address.
    pub fn refresh(&self, client: ClientAddress) -> Result<(), Error> {
        let what = "too many refreshes from this address";
        take(&self.refreshes, &client.network(), what).map(drop)
    }
}

fn take(
    limiter: &Option<Arc<Limiter>>,
    key: &impl LimitKey,
    what: &'static str,
) -> Result<Option<Allowance>, Error> {
    let Some(limiter) = limiter else {
        return Ok(None);
    };
    limiter.take(key, Instant::now()).map(Some).map_err(|wait| {
        metrics::rate_limited("tries");
        Error::RateLimited {
            text: what.into(),
            retry_after: wait.retry_after,
        }
    })
}

/// One comparison with a password. It is counted when it begins, so that parallel guesses count too, and uncounted unless it fails. It
/// begins when a thread is ready to hash the password.
#[derive(Default)]
pub struct Attempt {
    give_back: Vec<Box<dyn FnOnce() + Send>>,
}

impl Attempt {
    fn hold(
        &mut self,
        limiter: &Option<Arc<Limiter>>,
        key: impl LimitKey + Send + 'static,
        what: &'static str,
    ) -> Result<(), Error> {
        if let (Some(allowance), Some(limiter)) = (take(limiter, &key, what)?, limiter.clone()) {
            self.give_back
                .push(Box::new(move || limiter.give_back(&key, allowance)));
        }
        Ok(())
    }

    /// Keeps the attempt counted.
    pub fn failed(mut self) {
        self.give_back.clear();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        for give_back in self.give_back.drain(..) {
            give_back();
        }
    }
}
