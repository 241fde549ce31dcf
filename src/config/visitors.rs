//! Settings of who may come how often.

use super::ConfigError;
use super::source::Source;
use super::values::number;

/// The most that may be set.
const MOST: usize = 1_000_000_000;

/// What visitors may do.
#[derive(Clone, Debug)]
pub struct Visitors {
    /// `RATE_LIMIT_PER_HOUR`; 0: none
    pub requests_per_user: u32,
    /// `RATE_LIMIT_ANON_PER_HOUR`; 0: none
    pub requests_per_address: u32,
}

impl Visitors {
    pub(super) fn read(source: &Source) -> Result<Visitors, ConfigError> {
        let requests = |variable| {
            let most = number(source, variable, 0..=MOST)?.unwrap_or(1_000);
            Ok::<_, ConfigError>(u32::try_from(most).unwrap_or(u32::MAX))
        };
        Ok(Visitors {
            requests_per_user: requests("RATE_LIMIT_PER_HOUR")?,
            // As many as a user has: enough for an office behind one address to log in, and a client that has lost its token
            // and does not notice comes to an end.
            requests_per_address: requests("RATE_LIMIT_ANON_PER_HOUR")?,
        })
    }
}
