//! Who calls, and with what.

use uuid::Uuid;

use crate::domain::api_token::Scope;
use crate::domain::session::SessionlessToken;
use crate::domain::user::UserId;
use crate::store::ApiTokenUse;

/// Somebody whose token was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub user: UserId,
    /// The address their token names: to be shown, and believed no further.
    pub email: Option<String>,
    /// The claim `iat` of a JWT, in whole seconds since 1970.
    pub issued_at: Option<i64>,
    /// What they have shown.
    pub credential: Credential,
}

/// What a caller has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token of this session.
    Session(Uuid),
    /// A JWT of no session of ours.
    Token(SessionlessToken),
    /// A personal API token.
    ApiToken(ApiTokenUse),
}

impl Caller {
    /// The session, where the call belongs to one.
    pub fn session(&self) -> Option<Uuid> {
        match self.credential {
            Credential::Session(id) => Some(id),
            Credential::Token(_) | Credential::ApiToken(_) => None,
        }
    }

    /// The token, where it is a JWT of no session of ours.
    pub fn sessionless(&self) -> Option<&SessionlessToken> {
        match &self.credential {
            Credential::Token(token) => Some(token),
            Credential::Session(_) | Credential::ApiToken(_) => None,
        }
    }

    /// Whether this may be done. Whoever has logged in may do everything.
    pub fn may(&self, scope: Scope) -> bool {
        match &self.credential {
            Credential::Session(_) | Credential::Token(_) => true,
            Credential::ApiToken(token) => token.scopes.has(scope),
        }
    }
}
