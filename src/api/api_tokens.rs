//! The caller's personal API tokens.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::account::{PASSWORD_CHANGED, confirm_current};
use super::body::json;
use super::groups::API_TOKENS;
use super::{App, Call, Outcome};
use crate::auth::caller::Caller;
use crate::auth::opaque;
use crate::domain::api_token::{ApiToken, NewApiToken};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::ApiTokenAdded;

/// Seconds after its issue in which a token may make an API token for a user without a password here.
const RECENT: i64 = 5 * 60;
/// Seconds by which clocks may differ.
const CLOCK_LEEWAY: i64 = 10;

/// A token just made.
#[derive(Serialize, ToSchema)]
#[schema(as = NewApiTokenMade)]
pub struct Made {
    #[serde(flatten)]
    about: ApiToken,
    /// The token itself; shown this once.
    token: String,
}

/// A user's API tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiTokenList)]
pub struct TokenList {
    tokens: Vec<ApiToken>,
    /// How many there are.
    count: usize,
}

/// `POST /api/auth/tokens`
#[utoipa::path(post, path = "/api/auth/tokens", operation_id = "createApiToken", tag = API_TOKENS, summary = "Make an API token",
    description = "For scripts: it works on all task routes within its scopes, and on no other. Without `scopes` it has all. \
It needs `current_password`; of a user without a password here, a token issued (`iat`) less than 5 minutes ago.",
    request_body = NewApiToken,
    responses(
        (status = 201, description = "The token; it is shown this once", body = Made),
        (status = 403, description = "The password is missing or wrong, or the token was issued too long ago"),
        (status = 409, description = "There are 100 already")))]
pub fn create(app: &App, call: &Call, caller: &Caller) -> Result<Outcome, Error> {
    let wanted = json(call.request, NewApiToken::from_json)?;
    let user = caller.user.clone();
    let Some(credential) = app.store.credential_of(&user)? else {
        check_recent(caller)?;
        return add(app, &user, &wanted, None).map(Outcome::Answered);
    };
    let confirm = confirm_current(app, call, credential, wanted.current_password.clone())?;
    Ok(Outcome::Job(Box::new(move || {
        let credential = confirm()?;
        Ok(Box::new(move |app| {
            add(app, &user, &wanted, Some(&credential.password_hash))
        }))
    })))
}

/// Refuses a token that was stolen long ago, of a user without a password here.
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
            Ok(Response::json(201, &Made { about, token }).header("Cache-Control", "no-store"))
        }
        ApiTokenAdded::TooMany => Err(Error::Conflict(
            "you have 100 API tokens, and there may not be more; delete one",
        )),
        ApiTokenAdded::PasswordChanged => Err(PASSWORD_CHANGED),
    }
}

/// `GET /api/auth/tokens`
#[utoipa::path(get, path = "/api/auth/tokens", operation_id = "listApiTokens", tag = API_TOKENS, summary = "List API tokens",
    responses((status = 200, description = "All but the tokens themselves", body = TokenList)))]
pub fn list(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    let tokens = app.store.list_api_tokens(&caller.user)?;
    let count = tokens.len();
    Ok(Response::json(200, &TokenList { tokens, count }))
}

/// `DELETE /api/auth/tokens/{id}`
#[utoipa::path(delete, path = "/api/auth/tokens/{id}", operation_id = "deleteApiToken", tag = API_TOKENS, summary = "Delete an API token",
    params(("id" = Uuid, Path, description = "The token's id")),
    responses((status = 204, description = "It is deleted, and refused from now on")))]
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    const NO_SUCH_TOKEN: Error = Error::NotFound("API token not found");
    let id = call.path.parameter("id").unwrap_or_default();
    let id = Uuid::try_parse(id).map_err(|_| NO_SUCH_TOKEN)?;
    if !app.store.delete_api_token(&caller.user, id)? {
        return Err(NO_SUCH_TOKEN);
    }
    app.guard.forget_api_tokens(&caller.user);
    Ok(Response::empty(204))
}
