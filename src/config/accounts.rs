//! The settings of accounts: who may register, how long sessions last, how often one may try.

use std::time::Duration;

use super::source::Source;
use super::values::{decimal, number};
use super::{ConfigError, Environment};
use crate::auth::guessing::GuessingLimits;

/// The settings of accounts, checked.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// `REGISTRATION`
    pub registration_is_open: bool,
    /// `REFRESH_TOKEN_DAYS`
    pub refresh_lifetime: Duration,
    /// `LOGIN_FAILURES_PER_…`, `REGISTRATIONS_PER_IP`, `REFRESHES_PER_IP`
    pub limits: GuessingLimits,
}

impl Accounts {
    pub(super) fn read(source: &Source, environment: Environment) -> Result<Accounts, ConfigError> {
        let registration_is_open = match source.get("REGISTRATION")?.as_deref() {
            None => environment == Environment::Development,
            Some("open") => true,
            Some("closed") => false,
            Some(_) => return Err(ConfigError::new("REGISTRATION", "must be open or closed")),
        };
        let days = decimal(source, "REFRESH_TOKEN_DAYS", 0.001..=3660.0)?.unwrap_or(30.0);
        let limit = |variable, default: u32| {
            Ok(number(source, variable, 0..=1_000_000)?
                .and_then(|limit| u32::try_from(limit).ok())
                .unwrap_or(default))
        };
        Ok(Accounts {
            registration_is_open,
            refresh_lifetime: Duration::from_secs_f64(days * 86_400.0),
            limits: GuessingLimits {
                failures_per_account: limit("LOGIN_FAILURES_PER_ACCOUNT", 10)?,
                failures_per_address: limit("LOGIN_FAILURES_PER_IP", 30)?,
                registrations_per_address: limit("REGISTRATIONS_PER_IP", 20)?,
                refreshes_per_address: limit("REFRESHES_PER_IP", 60)?,
            },
        })
    }
}
