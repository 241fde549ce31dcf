//! The caller's personal API tokens.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::{PASSWORD_CHANGED, confirm_current};
use super::body::json;
use super::{App, Call, HandlerOutcome};
use crate::audit::{Event, Trail};
use crate::auth::caller::Caller;
use crate::auth::opaque;
use crate::domain::api_token::{ApiToken, NewApiToken};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::ApiTokenAdded;

/// For how many seconds after its issue a token can make an API token, if its user has no password here.
const RECENT: i64 = 5 * 60;
/// By how many seconds clocks may differ.
const CLOCK_LEEWAY: i64 = 10;

/// A new API token.
#[derive(Serialize)]
pub struct NewApiTokenMade {
    #[serde(flatten)]
    about: ApiToken,
    /// The token itself; shown this once.
    token: String,
}

/// A user's API tokens.
#[derive(Serialize)]
pub struct ApiTokenList {
    tokens: Vec<ApiToken>,
    /// How many there are.
    count: usize,
}

/// `POST /api/auth/tokens`
pub fn create(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let wanted = json(call.request, NewApiToken::from_json)?;
    let user = caller.user.clone();
    let Some(credential) = app.store.credential_of(&user)? else {
        check_recent(caller)?;
        return add(app, &call.request.trail(), &user, &wanted, None).map(Into::into);
    };
    let confirm = confirm_current(call, credential, wanted.current_password.clone())?;
    let trail = call.request.trail();
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        let hash = confirm(app)?.password_hash;
        add(app, &trail, &user, &wanted, Some(&hash))
    })))
}

/// Refuses a token that was not issued recently: it may have been stolen long ago.
fn check_recent(caller: &Caller) -> Result<(), Error> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let is_recent = |issued_at| (-CLOCK_LEEWAY..RECENT).contains(&(now - issued_at));
    if caller.issued_at.is_some_and(is_recent) {
        Ok(())
    } else {
        Err(Error::Forbidden(
            "this needs a token issued less than 5 minutes ago (iat): get a new one where you log in, and try again",
        ))
    }
}

fn add(
    app: &App,
    trail: &Trail,
    user: &UserId,
    wanted: &NewApiToken,
    password_hash: Option<&str>,
) -> Result<Response, Error> {
    let token = opaque::new_api_token().map_err(Error::Internal)?;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    match app
        .store
        .add_api_token(user, wanted, &hash, prefix, password_hash)?
    {
        ApiTokenAdded::Token(about) => {
            trail.record(user, Event::ApiTokenCreated(about.id));
            Ok(Response::json(201, &NewApiTokenMade { about, token }))
        }
        ApiTokenAdded::TooMany => Err(Error::Conflict(
            "you have 100 API tokens, which is the limit; delete one",
        )),
        ApiTokenAdded::PasswordChanged => Err(PASSWORD_CHANGED),
    }
}

/// `GET /api/auth/tokens`
pub fn list(app: &App, _: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let tokens = app.store.list_api_tokens(&caller.user)?;
    let count = tokens.len();
    Ok(Response::json(200, &ApiTokenList { tokens, count }).into())
}

/// `DELETE /api/auth/tokens/{id}`
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    const NO_SUCH_TOKEN: Error = Error::NotFound("API token not found");
    let id = call.path.parameter("id").unwrap_or_default();
    let id = Uuid::try_parse(id).map_err(|_| NO_SUCH_TOKEN)?;
    if !app.store.delete_api_token(&caller.user, id)? {
        return Err(NO_SUCH_TOKEN);
    }
    app.guard.forget_api_tokens(&caller.user);
    let event = Event::ApiTokenDeleted(id);
    call.request.trail().record(&caller.user, event);
    Ok(Response::empty(204).into())
}
