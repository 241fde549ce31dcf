//! The caller's personal API tokens.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::json;
use super::groups::API_TOKENS;
use super::{App, Call};
use crate::audit::Event;
use crate::auth::caller::Caller;
use crate::auth::opaque;
use crate::domain::api_token::{ApiToken, NewApiToken};
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::ApiTokenAdded;

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
    description = "For scripts: it works on all task routes within its scopes, and on no other. Without `scopes` it has all.",
    request_body = NewApiToken,
    responses(
        (status = 201, description = "The token; it is shown this once", body = Made),
        (status = 409, description = "There are 100 already")))]
pub fn create(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    let wanted = json(call.request, NewApiToken::from_json)?;
    let token = opaque::new_api_token().map_err(Error::Internal)?;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    match app
        .store
        .add_api_token(&caller.user, &wanted, &hash, prefix)?
    {
        ApiTokenAdded::Token(about) => {
            let event = Event::ApiTokenCreated(about.id);
            call.request.trail().record(&caller.user, event);
            Ok(Response::json(201, &Made { about, token }).header("Cache-Control", "no-store"))
        }
        ApiTokenAdded::TooMany => Err(Error::Conflict(
            "you have 100 API tokens, and there may not be more; delete one",
        )),
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
    let event = Event::ApiTokenDeleted(id);
    call.request.trail().record(&caller.user, event);
    Ok(Response::empty(204))
}
