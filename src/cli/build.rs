//! Builds the parts of the server from the settings.

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, first_steps, no_thread, supervisor};
use crate::api::App;
use crate::api::guessing::Guessing;
use crate::api::limits::RequestLimits;
use crate::api::metrics::MetricsAccess;
use crate::api::root::Installation;
use crate::auth::claims::Expected;
use crate::auth::guard::Guard;
use crate::auth::hashing::Crew;
use crate::auth::issuer::Issuer;
use crate::auth::jwks::{KeySetUrl, Keys, Location, Timing};
use crate::auth::token::TokenVerifier;
use crate::config::{Config, Secret};
use crate::edge::tls::Tls;
use crate::store::Store;

/// The state that handlers use.
pub fn app(config: &Config, secret: &str, store: Store) -> Result<App, Failure> {
    let (accounts, requests) = (&config.accounts, &config.requests);
    let token = requests.metrics_token.as_ref().map(Secret::expose);
    Ok(App {
        store,
        guard: Guard::new(verifier(config, secret)?),
        limits: RequestLimits::new(requests.per_user, requests.per_address),
        issuer: Issuer::new(secret, config.tokens.lifetime, accounts.refresh_lifetime),
        hashing: Crew::start().map_err(no_thread)?,
        guessing: Guessing::new(&config.guessing),
        metrics: MetricsAccess::new(requests.metrics_networks.clone(), token.map(str::trim)),
        registration_is_open: accounts.registration_is_open,
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

/// Checks bearer tokens, with the secret and with the configured key set.
fn verifier(config: &Config, secret: &str) -> Result<TokenVerifier, String> {
    let tokens = &config.tokens;
    let previous = tokens.previous_secret.as_ref().map(Secret::expose);
    let verifier = TokenVerifier::new(secret, previous).expecting(Expected {
        issuers: tokens.issuers.clone(),
        audiences: tokens.audiences.clone(),
    });
    let location = match (&tokens.key_set_file, &tokens.key_set_url) {
        (Some(file), _) => Location::File(file.clone()),
        (None, Some(url)) => Location::Url(KeySetUrl::parse(url)?),
        (None, None) => return Ok(verifier),
    };
    if tokens.audiences.is_empty() {
        log::warn!(
            "JWT_AUDIENCE is not set: tokens that the owner of the key set in {location} makes for other services are accepted here too"
        );
    }
    let keys = Keys::load(&location, Timing::default())
        .map_err(|problem| format!("{location}: {problem}"))?;
    Ok(verifier.trusting(keys))
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
