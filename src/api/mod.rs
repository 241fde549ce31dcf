//! What the API does, one file per resource.
//!
//! - [`routes`]: every route, in one table
//! - [`dispatch`]: the way of a request: route, token, rate limit, user in the path, handler
//! - [`limits`]: rate limits of requests
//! - [`guessing`]: limits on guesses of passwords
//! - [`crew`]: threads for the rest of requests that would hold up a worker
//! - `body`: reads a request's body
//! - `conditions`: reads `If-Match`, `If-None-Match` and `Idempotency-Key`
//! - [`health`]: whether the server is alive and ready
//! - [`metrics`]: metrics for Prometheus
//! - [`root`]: the answer to `GET /`
//! - [`lists`]: lists of tasks
//! - [`stats`]: tasks in numbers
//! - [`tags`]: the tags of all tasks
//! - [`tasks`]: single tasks
//! - [`transfer`]: export and import of tasks
//! - [`bulk`]: many tasks in one request
//! - [`trash`]: deleted tasks
//! - [`changes`]: what has changed since a client asked last
//! - [`auth`]: registration, login, refresh, logout
//! - [`account`], [`sessions`], [`api_tokens`]: the caller's account, sessions and API tokens
//! - [`pages`]: the API's description, and pages for browsers

pub mod account;
pub mod api_tokens;
pub mod auth;
mod body;
pub mod bulk;
pub mod changes;
mod conditions;
pub mod crew;
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
pub mod transfer;
pub mod trash;

use self::crew::Crew;
use self::guessing::Guessing;
use self::limits::RequestLimits;
use self::metrics::MetricsAccess;
use self::root::Installation;
use crate::auth::caller::Caller;
use crate::auth::guard::Guard;
use crate::auth::issuer::Issuer;
use crate::config::AccountSettings;
use crate::domain::api_token::Scope;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::router::Path;
use crate::http::target;
use crate::store::{GroupedStatement, ShownTask, Store};

/// What handlers work with.
pub struct App {
    /// The tables.
    pub store: Store,
    /// Finds out who is calling.
    pub guard: Guard,
    /// Rate limits of requests.
    pub limits: RequestLimits,
    /// Issues tokens.
    pub issuer: Issuer,
    /// Threads for requests that hash a password.
    pub hashing: Crew,
    /// Threads for writes that were left out of their group.
    pub lone_writes: Crew,
    /// Limits failed logins, registrations and refreshes.
    pub guessing: Guessing,
    /// Who may see the metrics.
    pub metrics: MetricsAccess,
    /// The settings of accounts.
    pub accounts: AccountSettings,
    /// How this installation is used.
    pub installation: Installation,
}

/// A request with the result of its routing.
pub struct Call<'c> {
    /// The request itself.
    pub request: &'c Request,
    /// Its path, with the values of the pattern's parameters.
    pub path: Path<'c, 'c, Handler>,
    /// Its query string, still encoded.
    pub query: &'c str,
}

impl Call<'_> {
    /// The names and values of its query string.
    ///
    /// # Errors
    /// 400.
    pub fn parameters(&self) -> Result<Vec<(String, String)>, Error> {
        target::parameters(self.query).map_err(|text| Error::BadRequest(text.into()))
    }
}

/// The rest of a request that hashes a password. It runs on a thread for that.
pub type Job = Box<dyn FnOnce(&App) -> Result<Response, Error> + Send>;

/// A statement that is run together with others, and the rest of its request.
pub struct Grouped {
    /// The statement.
    pub statement: GroupedStatement,
    /// Gets the task as it is now; `None` if it has to run the statement itself.
    pub rest: GroupedRest,
}

/// See [`Grouped`].
pub type GroupedRest = Box<dyn FnOnce(&App, Option<ShownTask>) -> Result<Response, Error> + Send>;

/// The result of a handler.
pub enum HandlerOutcome {
    /// The answer.
    Answered(Response),
    /// The rest of the work, which hashes a password.
    Job(Job),
    /// The rest of the work, which begins with a statement on one task.
    Grouped(Grouped),
}

impl From<Response> for HandlerOutcome {
    fn from(response: Response) -> HandlerOutcome {
        HandlerOutcome::Answered(response)
    }
}

/// What routes on data of one kind share.
pub struct Resource {
    /// The scope that an API token needs for GET and HEAD.
    pub read: Scope,
    /// The scope that it needs for all other methods.
    pub write: Scope,
    /// The sentence of the 403 if the path names another user.
    pub other_user: &'static str,
}

/// A handler and who may call it: a handler that needs a user cannot be entered in the table as public.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Every client, without a limit, and even when no worker is free.
    AtOnce(fn() -> Response),
    /// Every client, without a limit: for cheap answers, and for those that monitoring needs.
    Unlimited(fn(&App, &Call) -> Result<Response, Error>),
    /// Every client; requests are limited per address.
    Public(fn(&App, &Call) -> Result<HandlerOutcome, Error>),
    /// Clients with a token that has the scope; requests are limited per user. A user in the path must be the token's.
    User(
        &'static Resource,
        fn(&App, &Call, &UserId) -> Result<Response, Error>,
    ),
    /// As `User`, with a statement that may be run in a group.
    Grouped(
        &'static Resource,
        fn(&App, &Call, &UserId) -> Result<HandlerOutcome, Error>,
    ),
    /// Clients with a token that is not an API token; requests are limited per user.
    Account(fn(&App, &Call, &Caller) -> Result<HandlerOutcome, Error>),
}
