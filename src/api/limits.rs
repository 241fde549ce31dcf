//! Rate limits of requests.
//!
//! A request with an accepted token counts for its user, whatever its address. All others, also those with a refused token, count
//! for their address. Both limits are for any hour (see [`limiter`](crate::http::limiter)) and for this process alone.

use std::time::{Duration, Instant};

use crate::domain::user::UserId;
use crate::http::error::{Error, whole_seconds};
use crate::http::limiter::{Allowance, KEYS, Key, Limiter, Wait};
use crate::http::request::Client;
use crate::http::responder::Responder;
use crate::metrics;

const WINDOW: Duration = Duration::from_secs(3600);

/// The two limits.
pub struct RequestLimits {
    users: Option<Limiter>,
    addresses: Option<Limiter>,
}

impl RequestLimits {
    /// Limits in requests an hour, for a user and for an address; 0 is no limit.
    pub fn new(per_user: u32, per_address: u32) -> RequestLimits {
        let limiter = |most| (most > 0).then(|| Limiter::new(most, WINDOW, KEYS));
        RequestLimits {
            users: limiter(per_user),
            addresses: limiter(per_address),
        }
    }

    /// Counts a user's request.
    ///
    /// # Errors
    /// 429 if the limit is reached.
    pub fn count_user(&self, user: &UserId, responder: &mut Responder) -> Result<(), Error> {
        count(&self.users, user, "user", responder)
    }

    /// Counts a request without an accepted token.
    ///
    /// # Errors
    /// 429 if the limit is reached.
    pub fn count_address(&self, client: Client, responder: &mut Responder) -> Result<(), Error> {
        let network = client.network();
        count(&self.addresses, &network, "address", responder)
    }

    /// Checks whether an address is below its limit, and counts nothing.
    ///
    /// # Errors
    /// 429 if the limit is reached.
    pub fn check_address(&self, client: Client, responder: &mut Responder) -> Result<(), Error> {
        let Some(limiter) = &self.addresses else {
            return Ok(());
        };
        limiter
            .check(&client.network(), Instant::now())
            .map_err(|wait| refuse(wait, "address", responder))
    }

    /// Counts a request whose token is refused, and returns its error, or 429 if the limit is reached. Other errors, such as that a
    /// token cannot be looked up now, are passed on.
    pub fn refused(&self, error: Error, client: Client, responder: &mut Responder) -> Error {
        match error {
            Error::Unauthorized(_) => self.count_address(client, responder).err().unwrap_or(error),
            error => error,
        }
    }
}

/// Counts a request, and adds the rest of its limit to the answer.
fn count(
    limiter: &Option<Limiter>,
    key: &impl Key,
    by: &'static str,
    responder: &mut Responder,
) -> Result<(), Error> {
    let Some(limiter) = limiter else {
        return Ok(());
    };
    let Allowance {
        limit,
        remaining,
        reset,
        ..
    } = limiter
        .take(key, Instant::now())
        .map_err(|wait| refuse(wait, by, responder))?;
    add_fields(responder, limit, remaining, reset);
    Ok(())
}

fn refuse(wait: Wait, by: &'static str, responder: &mut Responder) -> Error {
    let Wait { limit, retry_after } = wait;
    metrics::rate_limited(by);
    add_fields(responder, limit, 0, retry_after);
    Error::RateLimited {
        text: format!("at most {limit} requests an hour are allowed").into(),
        retry_after,
    }
}

/// The fields that front ends read. `X-RateLimit-Reset` is seconds from now: after that there is more room than now.
fn add_fields(responder: &mut Responder, limit: u32, remaining: u32, reset: Duration) {
    responder.add_header("X-RateLimit-Limit", limit.to_string());
    responder.add_header("X-RateLimit-Remaining", remaining.to_string());
    responder.add_header("X-RateLimit-Reset", whole_seconds(reset).to_string());
}
