//! Rate limits of requests.
//!
//! A request with an accepted token counts for its user, whatever its address. All others, also those with a refused token, count
//! for their address. Both limits are for any hour (see [`limiter`](crate::http::limiter)) and for this process alone.

use std::time::{Duration, Instant};

use crate::auth::error::AuthError;
use crate::config::RequestSettings;
use crate::domain::user::UserId;
use crate::http::error::{Error, whole_seconds};
use crate::http::limiter::{Allowance, KEYS, LimitKey, Limiter, Wait};
use crate::http::request::ClientAddress;
use crate::http::responder::Responder;
use crate::metrics;

const WINDOW: Duration = Duration::from_secs(3600);

/// The two limits.
pub struct RequestLimits {
    users: Option<Limiter>,
    addresses: Option<Limiter>,
}

impl RequestLimits {
    /// The configured limits.
    pub fn new(settings: &RequestSettings) -> RequestLimits {
        let limiter = |most| (most > 0).then(|| Limiter::new(most, WINDOW, KEYS));
        RequestLimits {
            users: limiter(settings.per_user),
            addresses: limiter(settings.per_address),
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
    pub fn count_address(
        &self,
        client: ClientAddress,
        responder: &mut Responder,
    ) -> Result<(), Error> {
        let network = client.network();
        count(&self.addresses, &network, "address", responder)
    }

    /// Whether an address is below its limit. Nothing is counted.
    pub fn admits(&self, client: ClientAddress) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|limiter| limiter.check(&client.network(), Instant::now()).is_ok())
    }

    /// Counts a request without a caller, and returns the error to answer: 429 if there have been too many. A failure of the database
    /// is not counted, because it says nothing about the token.
    pub fn refused(
        &self,
        error: AuthError,
        client: ClientAddress,
        responder: &mut Responder,
    ) -> Error {
        if let AuthError::Store(error) = error {
            return error.into();
        }
        self.count_address(client, responder)
            .err()
            .unwrap_or_else(|| error.into())
    }
}

/// Counts a request, and adds the rest of its limit to the answer.
fn count(
    limiter: &Option<Limiter>,
    key: &impl LimitKey,
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
