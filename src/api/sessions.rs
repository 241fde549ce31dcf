//! The caller's sessions.

use serde::Serialize;
use uuid::Uuid;

use super::{App, Call, HandlerOutcome};
use crate::audit::Event;
use crate::auth::caller::Caller;
use crate::domain::session::Session;
use crate::http::error::Error;
use crate::http::response::Response;

/// The sessions of a user.
#[derive(Serialize)]
pub struct SessionList {
    sessions: Vec<OwnSession>,
    /// How many there are.
    count: usize,
}

#[derive(Serialize)]
struct OwnSession {
    #[serde(flatten)]
    session: Session,
    /// Whether the request belongs to it.
    current: bool,
}

/// `GET /api/auth/sessions`
pub fn list(app: &App, _: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let sessions: Vec<OwnSession> = app
        .store
        .list_sessions(&caller.user)?
        .into_iter()
        .map(|session| OwnSession {
            current: caller.session() == Some(session.id),
            session,
        })
        .collect();
    let count = sessions.len();
    Ok(Response::json(200, &SessionList { sessions, count }).into())
}

/// `DELETE /api/auth/sessions/{id}`
pub fn end(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    const NO_SUCH_SESSION: Error = Error::NotFound("Session not found");
    let id = call.path.parameter("id").unwrap_or_default();
    let id = Uuid::try_parse(id).map_err(|_| NO_SUCH_SESSION)?;
    let ended = app.store.end_session(&caller.user, id)?;
    app.guard.revoke(&ended);
    if ended.is_empty() {
        return Err(NO_SUCH_SESSION);
    }
    call.request.trail().record(&caller.user, Event::Logout);
    Ok(Response::empty(204).into())
}
