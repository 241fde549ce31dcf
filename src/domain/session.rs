//! Logins, where they came from, and what ends them.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::timestamp::Timestamp;
use super::user::UserId;

/// Longest user agent that is kept, in characters.
const USER_AGENT_MAX: usize = 200;

/// Where somebody logged in or refreshed from, as the request said.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address, or `local`.
    pub address: String,
    /// The client's network: an IPv4 address, an IPv6 /64, or `local`.
    pub network: String,
    /// What the client says it is.
    pub user_agent: Option<String>,
}

impl Origin {
    /// Cuts off what of the user agent is too long, and leaves out control characters.
    pub fn new(address: String, network: String, user_agent: Option<&str>) -> Origin {
        let user_agent = user_agent.map(|text| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(USER_AGENT_MAX)
                .collect()
        });
        Origin {
            address,
            network,
            user_agent,
        }
    }
}

/// A session as its owner sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    /// What it is ended by; the claim `sid` of its access tokens.
    pub id: Uuid,
    /// When its owner logged in.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: Timestamp,
    /// When it ends if it is not refreshed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Where it was last refreshed from.
    #[schema(example = "192.0.2.1")]
    pub address: String,
    /// What the client said it was.
    #[schema(required, example = "curl/8.5.0")]
    pub user_agent: Option<String>,
}

/// Whose tokens are refused although they have not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Those of a session.
    Session(Uuid),
    /// All that name a user, whoever signed them.
    User(UserId),
}

/// A refusal of tokens.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Whose tokens.
    pub whose: Revoked,
    /// Until when; `None` is for good.
    pub until: Option<OffsetDateTime>,
}
