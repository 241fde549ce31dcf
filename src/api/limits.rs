//! How often requests may come: a user's by user, and those of nobody known by address.
//!
//! Whoever has a good token is counted as its user, wherever they come from; all others, those with a token that is refused
//! among them, by address. Each of the two limits is for any hour (see [`limiter`](crate::http::limiter)) and of this process
//! alone.

use std::time::{Duration, Instant};

use crate::auth::error::AuthError;
use crate::domain::user::UserId;
use crate::http::error::{Error, whole_seconds};
use crate::http::limiter::{KEYS, Key, Limiter, Wait};
use crate::http::request::Client;
use crate::http::responder::Responder;
use crate::metrics;

const WINDOW: Duration = Duration::from_secs(3600);

/// The limits in the way of a request.
pub struct RequestLimits {
    users: Option<Limiter>,
    addresses: Option<Limiter>,
}

impl RequestLimits {
    /// So many requests an hour of one user, and of one address without a token. 0: as many as they like.
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
    /// 429 when there have been too many.
    pub fn count_user(&self, user: &UserId, responder: &mut Responder) -> Result<(), Error> {
        count(self.users.as_ref(), user, "user", responder)
    }

    /// Counts a request that names no user.
    ///
    /// # Errors
    /// 429 when there have been too many.
    pub fn count_address(&self, client: Client, responder: &mut Responder) -> Result<(), Error> {
        count(
            self.addresses.as_ref(),
            &client.network(),
            "address",
            responder,
        )
    }

    /// Whether an address is below its limit. Nothing is counted.
    pub fn admits(&self, client: Client) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|limiter| limiter.check(&client.network(), Instant::now()).is_ok())
    }

    /// Counts a request without a caller, and returns the error to answer: 429 if there have been too many. A failure of the database
    /// is not counted, because it says nothing about the token.
    pub fn refused(&self, error: AuthError, client: Client, responder: &mut Responder) -> Error {
        if let AuthError::Store(error) = error {
            return error.into();
        }
        self.count_address(client, responder)
            .err()
            .unwrap_or_else(|| error.into())
    }
}

/// Takes one, and adds what is left to the answer.
fn count(
    limiter: Option<&Limiter>,
    key: &impl Key,
    by: &'static str,
    responder: &mut Responder,
) -> Result<(), Error> {
    let Some(limiter) = limiter else {
        return Ok(());
    };
    let allowance = limiter
        .take(key, Instant::now())
        .map_err(|wait| refuse(wait, by, responder))?;
    tell(
        responder,
        allowance.limit,
        allowance.remaining,
        allowance.reset,
    );
    Ok(())
}

fn refuse(wait: Wait, by: &'static str, responder: &mut Responder) -> Error {
    let Wait { limit, retry_after } = wait;
    metrics::rate_limited(by);
    tell(responder, limit, 0, retry_after);
    Error::RateLimited {
        text: format!("there may be no more than {limit} requests an hour").into(),
        retry_after,
    }
}

/// The fields that clients look for (draft-ietf-httpapi-ratelimit-headers-06), and their older names. Times are
/// seconds from now: after `reset` there will be more room than there is now.
fn tell(responder: &mut Responder, limit: u32, remaining: u32, reset: Duration) {
    let (limit, remaining) = (limit.to_string(), remaining.to_string());
    let reset = whole_seconds(reset).to_string();
    responder.add_header("X-RateLimit-Limit", limit.clone());
    responder.add_header("X-RateLimit-Remaining", remaining.clone());
    responder.add_header("X-RateLimit-Reset", reset.clone());
    responder.add_header("RateLimit-Limit", limit);
    responder.add_header("RateLimit-Remaining", remaining);
    responder.add_header("RateLimit-Reset", reset);
}
