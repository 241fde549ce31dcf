//! Why a request has no caller. `http::error` turns it into an answer.

use crate::domain::session::TokenRefusal;
use crate::domain::user::UserId;
use crate::store;

/// Why a request has no caller.
#[derive(Debug)]
pub enum AuthError {
    /// The request has no bearer token.
    NoToken,
    /// The request authenticates by another scheme than `Bearer`.
    OtherScheme,
    /// The token is malformed or not accepted here, and its user is unknown; as in [`TokenRefusal::Invalid`].
    Invalid(&'static str),
    /// The token of this user is refused; its signature is valid.
    Refused(TokenRefusal, UserId),
    /// The token's key is unknown, and the key set cannot be fetched right now; the cause, for the log.
    UnknownKey(&'static str),
    /// The client may not cause a look-up or a fetch now.
    NotAdmitted,
    /// The database cannot be asked.
    Store(store::Error),
}

impl From<store::Error> for AuthError {
    fn from(error: store::Error) -> AuthError {
        AuthError::Store(error)
    }
}
