//! The caller of a request, and the credential of the request.

use uuid::Uuid;

use crate::domain::api_token::Scope;
use crate::domain::session::SessionlessToken;
use crate::domain::user::UserId;
use crate::store::ApiTokenUse;

/// The caller of a request whose token was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The email address in the token. It is shown, and nothing depends on it.
    pub email: Option<String>,
    /// The claim `iat` of a JWT, in whole seconds since 1970.
    pub issued_at: Option<i64>,
    /// What proves the user.
    pub credential: Credential,
}

/// What proves the user of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token of this session.
    Session(Uuid),
    /// A JWT without a session of this server.
    Token(SessionlessToken),
    /// A personal API token.
    ApiToken(ApiTokenUse),
}

impl Caller {
    /// The session of the caller's token.
    pub fn session(&self) -> Option<Uuid> {
        match self.credential {
            Credential::Session(id) => Some(id),
            Credential::Token(_) | Credential::ApiToken(_) => None,
        }
    }

    /// The token, if it is a JWT without a session of this server.
    pub fn sessionless(&self) -> Option<&SessionlessToken> {
        match &self.credential {
            Credential::Token(token) => Some(token),
            Credential::Session(_) | Credential::ApiToken(_) => None,
        }
    }

    /// Whether the caller may do this. Only API tokens have scopes.
    pub fn may(&self, scope: Scope) -> bool {
        match &self.credential {
            Credential::Session(_) | Credential::Token(_) => true,
            Credential::ApiToken(token) => token.scopes.has(scope),
        }
    }
}
