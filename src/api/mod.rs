//! What the API does, one file per resource.
//!
//! - [`routes`]: every route, in one table
//! - [`dispatch`]: the way of a request: route, token, how often, user in the path, handler
//! - [`limits`]: how often requests may come
//! - [`guessing`]: how often passwords may be tried
//! - `body`: reads a request's body
//! - `conditions`: what a request says of the state that it expects
//! - [`health`]: is it alive, is it ready
//! - [`metrics`]: what is counted
//! - [`root`]: what this is
//! - [`lists`]: the tasks, page by page
//! - [`stats`]: the tasks in numbers
//! - [`tags`]: the tags of all tasks
//! - [`tasks`]: the tasks, one at a time
//! - [`auth`]: register, log in, go on, log out
//! - [`account`], [`sessions`], [`api_tokens`]: the caller's own
//! - [`pages`]: the API's description, and pages for browsers

pub mod account;
pub mod api_tokens;
pub mod auth;
mod body;
mod conditions;
pub mod dispatch;
pub mod guessing;
pub mod health;
pub mod limits;
pub mod lists;
pub mod metrics;
pub mod pages;
pub mod root;
pub mod routes;
pub mod sessions;
pub mod stats;
pub mod tags;
pub mod tasks;

use self::guessing::Guessing;
use self::limits::RequestLimits;
use self::metrics::MetricsAccess;
use crate::auth::caller::Caller;
use crate::auth::guard::Guard;
use crate::auth::hashing::Crew;
use crate::auth::issuer::Issuer;
use crate::domain::api_token::Scope;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::router::Path;
use crate::store::Store;

/// What handlers work with.
pub struct App {
    /// The tables.
    pub store: Store,
    /// Tells who is calling.
    pub guard: Guard,
    /// How often requests may come.
    pub limits: RequestLimits,
    /// Issues tokens.
    pub issuer: Issuer,
    /// Threads for requests that hash a password.
    pub hashing: Crew,
    /// Counts tries at passwords.
    pub guessing: Guessing,
    /// Who may see the metrics.
    pub metrics: MetricsAccess,
    /// Whether anybody may make an account.
    pub registration_is_open: bool,
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

/// The rest of a request that hashes a password. It runs on a thread for that.
pub type Job = Box<dyn FnOnce(&App) -> Result<Response, Error> + Send>;

/// Answers a request that anybody may make.
pub type PublicHandler = fn(&App, &Call) -> Result<Response, Error>;
/// Answers a request of the user whose token it carries.
pub type UserHandler = fn(&App, &Call, &UserId) -> Result<Response, Error>;
/// Answers a request about the caller's own account.
pub type AccountHandler = fn(&App, &Call, &Caller) -> Result<Response, Error>;

/// What routes on data of one kind share.
pub struct Resource {
    /// An API token needs this scope for GET and HEAD,
    pub read: Scope,
    /// and this one for all other methods.
    pub write: Scope,
    /// Answered with 403 where the path names another user.
    pub other_user: &'static str,
}

/// A handler, and with it who may call it: a handler that needs a user cannot be entered in the table as public.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Anybody, as often as they like, and at once: it is answered even when no worker is free.
    AtOnce(fn() -> Response),
    /// Anybody, as often as they like: what costs little, or must not be refused to those who watch over the service.
    Unlimited(PublicHandler),
    /// Anybody; each address so many times an hour.
    Public(PublicHandler),
    /// Anybody, as [`Handler::Public`]; a password is hashed for the answer.
    PublicHashing(fn(&App, &Call) -> Result<Job, Error>),
    /// Whoever has a token that is good for this method, each so many times an hour; where the path names a user, that user.
    User(&'static Resource, UserHandler),
    /// Whoever has a token that is no API token, each so many times an hour.
    Account(AccountHandler),
    /// As [`Handler::Account`]; a password may be hashed for the answer.
    AccountHashing(fn(&App, &Call, &Caller) -> Result<HandlerOutcome, Error>),
}

/// What a handler gives.
pub enum HandlerOutcome {
    /// The answer.
    Answered(Response),
    /// The rest of the work, which hashes a password.
    Job(Job),
}
