//! Builds the application and the server's options from the settings.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, first_steps, supervisor};
use crate::api::App;
use crate::api::limits::RequestLimits;
use crate::api::metrics::MetricsAccess;
use crate::api::root::Installation;
use crate::auth::claims::Expected;
use crate::auth::guard::Guard;
use crate::auth::guessing::Guessing;
use crate::auth::hashing::Crew;
use crate::auth::issuer::Issuer;
use crate::auth::jwks::{KeySetUrl, Keys, Location, Timing};
use crate::auth::token::TokenVerifier;
use crate::config::{Config, Environment, Secret};
use crate::edge::tls::Tls;
use crate::http::policy::Policy;
use crate::server::Options;
use crate::store::Store;

/// The failure to start a thread.
pub fn no_thread(error: io::Error) -> Failure {
    format!("cannot start a thread: {error}").into()
}

/// What the handlers work with.
pub fn app(config: &Config, secret: &str, store: Store) -> Result<App, Failure> {
    let (accounts, requests) = (&config.accounts, &config.requests);
    let token = requests.metrics_token.as_ref().map(Secret::expose);
    Ok(App {
        store,
        guard: Guard::new(verifier(config, secret)?),
        limits: RequestLimits::new(requests.per_user, requests.per_address),
        issuer: Issuer::new(secret, config.tokens.lifetime, accounts.refresh_lifetime),
        hashing: Crew::for_hashing().map_err(no_thread)?,
        finishing: Crew::for_finishing().map_err(no_thread)?,
        guessing: Arc::new(Guessing::new(&config.guessing)),
        metrics: MetricsAccess::new(requests.metrics_networks.clone(), token.map(str::trim)),
        registration_is_open: accounts.registration_is_open,
        installation: Installation {
            command: first_steps::command(config),
            tls: config.listening.tls_cert_file.is_some(),
        },
    })
}

/// What the server needs to know.
pub fn options(config: &Config) -> Result<Options, Failure> {
    let listening = &config.listening;
    let tls = match (&listening.tls_cert_file, &listening.tls_key_file) {
        (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate, key)?)),
        _ => None,
    };
    let policy = Policy::new(&config.requests.origins, Some(config.requests.hsts));
    let is_development = config.process.environment == Environment::Development;
    Ok(Options {
        listen: listening.addresses.clone(),
        inherit: config.origin.activated,
        socket_mode: listening.socket_mode,
        workers: config.process.workers,
        limits: config.edge.clone(),
        tls,
        self_check: self_check(config)?,
        on_alive: Arc::new(supervisor::alive),
        reveal_causes: is_development,
        policy: Arc::new(match is_development {
            true => policy.logging_refused_origins(),
            false => policy,
        }),
    })
}

/// Checks bearer tokens, with the secret and with the configured key set.
fn verifier(config: &Config, secret: &str) -> Result<TokenVerifier, Failure> {
    let tokens = &config.tokens;
    let previous = tokens.previous_secret.as_ref().map(Secret::expose);
    let verifier = TokenVerifier::new(secret, previous).expecting(Expected {
        issuers: tokens.issuers.clone(),
        audiences: tokens.audiences.clone(),
    });
    let location = match (&tokens.key_set_file, &tokens.key_set_url) {
        (Some(file), _) => Location::File(file.clone()),
        (None, Some(url)) => {
            let url = KeySetUrl::parse(url).map_err(str::to_owned)?;
            Location::Url(url)
        }
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

/// The time between two self checks: as set, and at most half the time of the watchdog.
fn self_check(config: &Config) -> Result<Duration, Failure> {
    let Some(watchdog) = supervisor::watchdog() else {
        return Ok(config.process.self_check);
    };
    if !config.origin.activated
        && config
            .listening
            .addresses
            .iter()
            .all(|listen| listen.direct)
    {
        return Err(Failure::Failed(
            "LISTEN names direct: addresses alone, where the server cannot check itself for systemd's watchdog: name another, or remove WatchdogSec= from the unit"
                .to_owned(),
        ));
    }
    Ok(match config.process.self_check {
        Duration::ZERO => watchdog / 2,
        often => often.min(watchdog / 2),
    })
}
