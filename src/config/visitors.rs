//! Settings of who may come how often, from whose pages, and that it be over TLS.

use std::time::Duration;

use super::source::Source;
use super::values::number;
use super::{ConfigError, Environment};
use crate::api::metrics::MetricsAccess;
use crate::edge::client::networks;
use crate::http::policy::Origins;

/// The most that may be set.
const MOST: usize = 1_000_000_000;
/// In seconds.
const YEAR: usize = 365 * 24 * 60 * 60;
/// Where front ends of this family are developed.
const DEVELOPED_AT: &str = "http://localhost:3000";

/// What visitors may do.
#[derive(Clone, Debug)]
pub struct Visitors {
    /// `RATE_LIMIT_PER_HOUR`; 0: none
    pub requests_per_user: u32,
    /// `RATE_LIMIT_ANON_PER_HOUR`; 0: none
    pub requests_per_address: u32,
    /// `ALLOWED_ORIGINS`
    pub origins: Origins,
    /// `HSTS_SECONDS`
    pub tls_alone: Duration,
    /// `METRICS_ALLOW` and `METRICS_TOKEN`
    pub metrics: MetricsAccess,
}

impl Visitors {
    pub(super) fn read(source: &Source, environment: Environment) -> Result<Visitors, ConfigError> {
        let requests = |variable| {
            let most = number(source, variable, 0..=MOST)?.unwrap_or(1_000);
            Ok::<_, ConfigError>(u32::try_from(most).unwrap_or(u32::MAX))
        };
        Ok(Visitors {
            requests_per_user: requests("RATE_LIMIT_PER_HOUR")?,
            // As many as a user has: enough for an office behind one address to log in, and a client that has lost its token
            // and does not notice comes to an end.
            requests_per_address: requests("RATE_LIMIT_ANON_PER_HOUR")?,
            origins: origins(source, environment)?,
            tls_alone: Duration::from_secs(
                number(source, "HSTS_SECONDS", 0..=10 * YEAR)?.unwrap_or(YEAR) as u64,
            ),
            metrics: metrics(source)?,
        })
    }
}

fn metrics(source: &Source) -> Result<MetricsAccess, ConfigError> {
    let list = source.get("METRICS_ALLOW")?;
    let networks = match list.as_deref().unwrap_or("127.0.0.0/8,::1") {
        "none" => Vec::new(),
        list => networks(list).ok_or_else(|| {
            ConfigError::new(
                "METRICS_ALLOW",
                "must be none, or a list of addresses and networks such as 10.0.0.0/8, comma-separated",
            )
        })?,
    };
    let token = source.get("METRICS_TOKEN")?;
    if token.as_ref().is_some_and(|token| token.trim().len() < 16) {
        return Err(ConfigError::new(
            "METRICS_TOKEN",
            "must have at least 16 bytes; `openssl rand -hex 16` makes a good one",
        ));
    }
    Ok(MetricsAccess::new(
        networks,
        token.as_deref().map(str::trim),
    ))
}

fn origins(source: &Source, environment: Environment) -> Result<Origins, ConfigError> {
    let list = source.get("ALLOWED_ORIGINS")?;
    let list = match environment {
        Environment::Development => list.as_deref().unwrap_or(DEVELOPED_AT),
        Environment::Production => list.as_deref().unwrap_or("none"),
    };
    Origins::parse(list).map_err(|problem| ConfigError::new("ALLOWED_ORIGINS", problem))
}
