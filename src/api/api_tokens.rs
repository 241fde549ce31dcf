//! The caller's personal API tokens.

use serde::Serialize;
use uuid::Uuid;

use super::body::json;
use super::{App, Call};
use crate::auth::caller::Caller;
use crate::auth::opaque;
use crate::domain::api_token::{ApiToken, NewApiToken};
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::ApiTokenAdded;

/// A token just made.
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
pub fn create(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    let wanted = json(call.request, NewApiToken::from_json)?;
    let token = opaque::new_api_token().map_err(Error::Internal)?;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    match app
        .store
        .add_api_token(&caller.user, &wanted, &hash, prefix)?
    {
        ApiTokenAdded::Token(about) => Ok(Response::json(201, &NewApiTokenMade { about, token })
            .header("Cache-Control", "no-store")),
        ApiTokenAdded::TooMany => Err(Error::Conflict(
            "you have 100 API tokens, and there may not be more; delete one",
        )),
    }
}

/// `GET /api/auth/tokens`
pub fn list(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    let tokens = app.store.list_api_tokens(&caller.user)?;
    let count = tokens.len();
    Ok(Response::json(200, &ApiTokenList { tokens, count }))
}

/// `DELETE /api/auth/tokens/{id}`
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
