//! How often one may try: against guessing passwords, and against filling the tables.
//!
//! Counted here, on this instance. What is counted is forgotten with the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::GuessingLimits;
use crate::domain::account::Email;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::limiter::{Allowance, KEYS, Key, Limiter};
use crate::http::request::{Client, Network};
use crate::metrics;

/// Counts tries.
pub struct Guessing {
    failures_by_account: Option<Limiter>,
    failures_by_address: Option<Limiter>,
    failures_by_user: Option<Limiter>,
    registrations: Option<Limiter>,
    refreshes: Option<Limiter>,
}

impl Guessing {
    /// Nothing has been tried yet.
    pub fn new(limits: &GuessingLimits) -> Guessing {
        const QUARTER: Duration = Duration::from_secs(15 * 60);
        let limiter = |most, window| (most > 0).then(|| Limiter::new(most, window, KEYS));
        Guessing {
            failures_by_account: limiter(limits.failures_per_account, QUARTER),
            failures_by_address: limiter(limits.failures_per_address, QUARTER),
            failures_by_user: limiter(limits.failures_per_account, QUARTER),
            registrations: limiter(limits.registrations_per_address, Duration::from_secs(3600)),
            refreshes: limiter(limits.refreshes_per_address, Duration::from_secs(60)),
        }
    }

    /// Lets somebody try a password.
    ///
    /// # Errors
    /// There were too many failures of that account or from that address.
    pub fn attempt(
        self: &Arc<Guessing>,
        account: Option<&Email>,
        client: Client,
    ) -> Result<Attempt, Error> {
        let mut attempt = Attempt {
            guessing: Arc::clone(self),
            account: None,
            network: None,
            user: None,
        };
        // What has been taken when the second refuses is given back with the attempt.
        if let Some(email) = account {
            let email = email.as_str().to_owned();
            let what = "too many failed logins of this account";
            attempt.account = take(&self.failures_by_account, email.as_str(), what)?
                .map(|allowance| (email, allowance));
        }
        let network = client.network();
        let what = "too many failed logins from this address";
        attempt.network =
            take(&self.failures_by_address, &network, what)?.map(|allowance| (network, allowance));
        Ok(attempt)
    }

    /// Lets somebody who is logged in try the password of their own account. Counted for itself: whoever guesses at it from outside
    /// does not keep its owner from changing it.
    ///
    /// # Errors
    /// There were too many failures of that user.
    pub fn own_attempt(self: &Arc<Guessing>, user: &UserId) -> Result<Attempt, Error> {
        let what = "too many wrong passwords";
        let allowance = take(&self.failures_by_user, user, what)?;
        Ok(Attempt {
            guessing: Arc::clone(self),
            account: None,
            network: None,
            user: allowance.map(|allowance| (user.clone(), allowance)),
        })
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
    limiter: &Option<Limiter>,
    key: &(impl Key + ?Sized),
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

/// A try at a password. It counts from the start, so that many at once are no more than many after another; unless it fails it is
/// given back. So it is taken only when the password's turn to be hashed has come.
pub struct Attempt {
    guessing: Arc<Guessing>,
    account: Option<(String, Allowance)>,
    network: Option<(Network, Allowance)>,
    user: Option<(UserId, Allowance)>,
}

impl Attempt {
    /// It was a wrong one: it counts.
    pub fn failed(mut self) {
        self.account = None;
        self.network = None;
        self.user = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let (Some(limiter), Some((email, allowance))) =
            (&self.guessing.failures_by_account, self.account.take())
        {
            limiter.give_back(email.as_str(), allowance);
        }
        if let (Some(limiter), Some((network, allowance))) =
            (&self.guessing.failures_by_address, self.network.take())
        {
            limiter.give_back(&network, allowance);
        }
        if let (Some(limiter), Some((user, allowance))) =
            (&self.guessing.failures_by_user, self.user.take())
        {
            limiter.give_back(&user, allowance);
        }
    }
}
