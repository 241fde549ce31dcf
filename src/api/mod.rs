//! What the API does, one file per resource.
//!
//! - [`routes`]: every route, in one table
//! - [`dispatch`]: the way of a request: route, token, user in the path, handler
//! - `body`: reads a request's JSON
//! - `conditions`: what a request says of the state that it expects
//! - [`health`]: is it alive, is it ready
//! - [`root`]: what this is
//! - [`lists`]: the tasks, page by page
//! - [`stats`]: the tasks in numbers
//! - [`tags`]: the tags of all tasks
//! - [`tasks`]: the tasks, one at a time

mod body;
mod conditions;
pub mod dispatch;
pub mod health;
pub mod lists;
pub mod root;
pub mod routes;
pub mod stats;
pub mod tags;
pub mod tasks;

use crate::auth::token::Verifier;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::router::Path;
use crate::store::{self, Store};

/// What handlers work with.
pub struct App {
    /// The tables.
    pub store: Store,
    /// Checks bearer tokens.
    pub verifier: Verifier,
}

/// A request on its way, with what the routing has found out about it.
pub struct Call<'c> {
    /// The request.
    pub request: &'c Request,
    /// Its path, with the values of the pattern's parameters.
    pub path: Path<'c, 'c>,
    /// Its query string, still encoded.
    pub query: &'c str,
}

/// Answers a request that anybody may make.
pub type PublicHandler = fn(&App, &Call) -> Result<Response, Error>;
/// Answers a request of the user whose token it carries.
pub type UserHandler = fn(&App, &Call, &UserId) -> Result<Response, Error>;

/// A handler, and with it who may call it: a handler that needs a user cannot be entered in the table as public.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Anybody, and at once: it is answered even when no worker is free.
    AtOnce(fn() -> Response),
    /// Anybody.
    Public(PublicHandler),
    /// Whoever has a token; where the path names a user, that user.
    User(UserHandler),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Unavailable(cause) => Error::Unavailable(cause),
            store::Error::Internal(cause) => Error::Internal(cause),
        }
    }
}
