//! Sessions and refused tokens.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::timestamp::Timestamp;
use super::user::UserId;

/// Longest stored user agent, in characters.
const USER_AGENT_MAX: usize = 200;

/// The client of a login or a refresh.
#[derive(Clone, Debug)]
pub struct SessionOrigin {
    /// The client's address, or `local`.
    pub address: String,
    /// The client's network: an IPv4 address, an IPv6 /64, or `local`.
    pub network: String,
    /// The `User-Agent` of the client.
    pub user_agent: Option<String>,
}

impl SessionOrigin {
    /// Shortens the user agent to its limit, and removes control characters.
    pub fn new(address: String, network: String, user_agent: Option<&str>) -> SessionOrigin {
        let user_agent = user_agent.map(|text| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(USER_AGENT_MAX)
                .collect()
        });
        SessionOrigin {
            address,
            network,
            user_agent,
        }
    }
}

/// A session as its owner sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// The id, with which it is ended; the claim `sid` of its access tokens.
    pub id: Uuid,
    /// When its owner logged in.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub last_used_at: Timestamp,
    /// When it expires unless it is refreshed.
    pub expires_at: Timestamp,
    /// The address of the last login or refresh.
    pub address: String,
    /// The `User-Agent` of the last login or refresh.
    pub user_agent: Option<String>,
}

/// A JWT without a session of this server: signed with the shared secret or a key of the key set, or printed by `todo-api token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionlessToken {
    /// SHA-256 that names the token and its user.
    pub id: TokenId,
    /// The claim `iat`, in whole seconds since 1970.
    pub issued_at: Option<i64>,
    /// The first second, since 1970, in which it has expired.
    pub expires_at: i64,
}

/// Names a [`SessionlessToken`].
pub type TokenId = [u8; 32];

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is malformed or not accepted here; the text says why and repeats nothing of the token.
    Invalid(&'static str),
}

/// Which tokens are refused although they have not expired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Those of a session.
    Session(Uuid),
    /// All tokens of a user, API tokens included.
    User(UserId),
    /// One token without a session.
    Token(TokenId),
    /// The JWTs of a user whose claim `iat` is earlier than this second since 1970.
    IssuedBefore(UserId, i64),
}

/// A refusal of tokens.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Which tokens.
    pub whose: Revoked,
    /// When the refusal ends; `None`: never.
    pub until: Option<OffsetDateTime>,
}
