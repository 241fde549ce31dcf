//! Builds the parts of the server from the settings.

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, first_steps, no_thread, supervisor};
use crate::api::App;
use crate::api::crew::Crew;
use crate::api::guessing::Guessing;
use crate::api::limits::RequestLimits;
use crate::api::metrics::MetricsAccess;
use crate::api::root::Installation;
use crate::auth::guard::Guard;
use crate::auth::issuer::Issuer;
use crate::auth::token::TokenVerifier;
use crate::config::Config;
use crate::edge::tls::Tls;
use crate::store::Store;

/// The state that handlers use.
pub fn app(config: &Config, secret: &str, store: Store) -> Result<App, Failure> {
    let verifier = TokenVerifier::of_settings(secret, &config.tokens)?;
    Ok(App {
        store,
        guard: Guard::new(verifier),
        limits: RequestLimits::new(&config.requests),
        issuer: Issuer::new(secret, &config.tokens, &config.accounts),
        hashing: Crew::hashing().map_err(no_thread)?,
        lone_writes: Crew::lone_writes().map_err(no_thread)?,
        guessing: Guessing::new(&config.guessing),
        metrics: MetricsAccess::new(&config.requests),
        accounts: config.accounts.clone(),
        installation: Installation {
            command: first_steps::command(config),
            tls: config.listening.tls_cert_file.is_some(),
        },
    })
}

/// The certificates, if they are configured.
pub fn tls(config: &Config) -> Result<Option<Arc<Tls>>, String> {
    let listening = &config.listening;
    match (&listening.tls_cert_file, &listening.tls_key_file) {
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(Tls::load(certificate, key)?))),
        _ => Ok(None),
    }
}

/// The time between two self-checks: as configured, and at most half the time of the watchdog.
pub fn self_check(config: &Config) -> Result<Duration, String> {
    let Some(watchdog) = supervisor::watchdog() else {
        return Ok(config.process.self_check);
    };
    let mut addresses = config.listening.addresses.iter();
    if !config.origin.activated && addresses.all(|listen| listen.direct) {
        Err(
            "LISTEN names direct: addresses only, where the server cannot check itself for systemd's watchdog: name another, or remove WatchdogSec= from the unit",
        )?;
    }
    Ok(match config.process.self_check {
        Duration::ZERO => watchdog / 2,
        often => often.min(watchdog / 2),
    })
}
