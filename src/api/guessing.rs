//! Limits on failed logins, registrations and refreshes.
//!
//! Each instance counts for itself, and a restart forgets the counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::GuessingLimits;
use crate::domain::account::Email;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::limiter::{Allowance, KEYS, Key, Limiter};
use crate::http::request::Client;
use crate::metrics;

/// How many networks may use up their failures of one account before the account is refused for all that are new to it.
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
    /// Nothing is counted yet.
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

    /// Begins a login. `network_is_known` says that the account had a session from this client's network: the failures from
    /// other networks then do not count against it.
    ///
    /// # Errors
    /// There were too many failures of that account or from that address.
    pub fn attempt(
        &self,
        account: Option<Email>,
        client: Client,
        network_is_known: bool,
    ) -> Result<Attempt, Error> {
        const OF_ACCOUNT: &str = "too many failed logins of this account";
        // If a later limit refuses, dropping the attempt gives back what the earlier ones counted.
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

    /// Begins a comparison with the caller's own password. It has limits of its own, so that failed logins do not keep the owner
    /// from changing the password. They count per network too, so that guesses with a stolen token do not either.
    ///
    /// # Errors
    /// There were too many failures of that user.
    pub fn own_attempt(&self, user: &UserId, client: Client) -> Result<Attempt, Error> {
        let mut attempt = Attempt::default();
        let what = "too many wrong passwords";
        let pair = (user.clone(), client.network());
        attempt.hold(&self.failures_by_user_and_network, pair, what)?;
        attempt.hold(&self.failures_by_user, user.clone(), what)?;
        Ok(attempt)
    }

    /// Counts a registration, or another way to find out who has an account.
    ///
    /// # Errors
    /// There were too many from that address.
    pub fn registration(&self, client: Client) -> Result<(), Error> {
        let what = "too many registrations from this address";
        take(&self.registrations, &client.network(), what).map(drop)
    }

    /// Counts a refresh.
    ///
    /// # Errors
    /// There were too many from that address.
    pub fn refresh(&self, client: Client) -> Result<(), Error> {
        let what = "too many refreshes from this address";
        take(&self.refreshes, &client.network(), what).map(drop)
    }
}

fn take(
    limiter: &Option<Arc<Limiter>>,
    key: &impl Key,
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

/// One comparison with a password. It counts from its start, so that many at once are no more than many one after another; unless
/// it fails, it is given back. So it begins only when a thread is ready to hash the password.
#[derive(Default)]
pub struct Attempt {
    give_back: Vec<Box<dyn FnOnce() + Send>>,
}

impl Attempt {
    fn hold(
        &mut self,
        limiter: &Option<Arc<Limiter>>,
        key: impl Key + Send + 'static,
        what: &'static str,
    ) -> Result<(), Error> {
        if let (Some(allowance), Some(limiter)) = (take(limiter, &key, what)?, limiter.clone()) {
            self.give_back
                .push(Box::new(move || limiter.give_back(&key, allowance)));
        }
        Ok(())
    }

    /// Counts the attempt as a failure.
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
