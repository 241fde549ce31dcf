//! Where the caller is logged in.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::groups::SESSIONS;
use super::{App, Call};
use crate::audit::Event;
use crate::auth::caller::Caller;
use crate::domain::session::Session;
use crate::http::error::Error;
use crate::http::response::Response;

/// Where somebody is logged in.
#[derive(Serialize, ToSchema)]
pub struct SessionList {
    sessions: Vec<Entry>,
    /// How many there are.
    count: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OwnSession)]
struct Entry {
    #[serde(flatten)]
    session: Session,
    /// Whether it is the one that asks.
    current: bool,
}

/// `GET /api/auth/sessions`
#[utoipa::path(get, path = "/api/auth/sessions", operation_id = "listSessions", tag = SESSIONS, summary = "List where one is logged in",
    responses((status = 200, description = "The sessions", body = SessionList)))]
pub fn list(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    let sessions: Vec<Entry> = app
        .store
        .list_sessions(&caller.user)?
        .into_iter()
        .map(|session| Entry {
            current: caller.session() == Some(session.id),
            session,
        })
        .collect();
    let count = sessions.len();
    Ok(Response::json(200, &SessionList { sessions, count }))
}

/// `DELETE /api/auth/sessions/{id}`
#[utoipa::path(delete, path = "/api/auth/sessions/{id}", operation_id = "endSession", tag = SESSIONS, summary = "End a session",
    params(("id" = Uuid, Path, description = "The session's id")),
    responses((status = 204, description = "It is ended, and its tokens are refused")))]
pub fn end(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    const NO_SUCH_SESSION: Error = Error::NotFound("Session not found");
    let id = call.path.parameter("id").unwrap_or_default();
    let id = Uuid::try_parse(id).map_err(|_| NO_SUCH_SESSION)?;
    let ended = app.store.end_session(&caller.user, id)?;
    app.guard.revoke(&ended);
    if ended.is_empty() {
        return Err(NO_SUCH_SESSION);
    }
    call.request.trail().record(&caller.user, Event::Logout);
    Ok(Response::empty(204))
}
