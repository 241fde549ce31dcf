//! The way of a request: route, token, rate limit, user in the path, handler. The order is part of the contract.

use std::sync::Arc;

use super::crew::Turn;
use super::tasks::NO_SUCH_TASK;
use super::{App, Call, Grouped, Handler, HandlerOutcome, Job, Resource, pages};
use crate::audit::Event;
use crate::auth::caller::{Caller, Credential};
use crate::auth::guard::Sender;
use crate::domain::session::TokenRefusal;
use crate::domain::user::UserId;
use crate::http::error::{Error, Unauthorized};
use crate::http::request::{Method, Request};
use crate::http::responder::{Admit, Responder};
use crate::http::response::Response;
use crate::http::router::Router;
use crate::http::target;
use crate::store::GroupResult;

/// Answers a request, now or from another thread. Returns the responder if `admit` refuses: nothing has been counted or done for
/// the request then.
pub fn dispatch(
    app: &Arc<App>,
    router: &Router<Handler>,
    request: &Request,
    mut responder: Responder,
    admit: &mut Admit,
) -> Option<Responder> {
    match answer(app, router, request, &mut responder, admit) {
        Ok(Some(HandlerOutcome::Answered(response))) => responder.answer(Ok(response)),
        Ok(Some(HandlerOutcome::Job(job))) => hash_and_answer(app, job, responder),
        Ok(Some(HandlerOutcome::Grouped(grouped))) => {
            group_and_answer(app, grouped, responder, admit)
        }
        Ok(None) => return Some(responder),
        Err(error) => responder.answer(Err(error)),
    }
    None
}

/// Does the rest of a request that hashes a password, on a thread for that.
fn hash_and_answer(app: &Arc<App>, job: Job, responder: Responder) {
    let shared = Arc::clone(app);
    app.hashing.submit(responder.holder(), move |turn| {
        responder.answer(match turn {
            Turn::InTime => job(&shared),
            Turn::TooLate => Err(Error::Unavailable(
                "too many passwords are to be hashed at once".to_owned(),
            )),
        });
    });
}

/// Does the rest of a request whose statement is grouped.
fn group_and_answer(
    app: &Arc<App>,
    Grouped { statement, rest }: Grouped,
    responder: Responder,
    admit: &mut Admit,
) {
    let (shared, holder) = (Arc::clone(app), responder.holder());
    let on_result = move |result| match result {
        GroupResult::Task(task) => responder.answer(rest(&shared, Some(task))),
        GroupResult::Alone => responder.answer(rest(&shared, None)),
        GroupResult::NotFound => responder.answer(Err(NO_SUCH_TASK)),
        GroupResult::Failed(error) => responder.answer(Err(error.into())),
        GroupResult::LeftOut => {
            let app = Arc::clone(&shared);
            shared.lone_writes.submit(responder.holder(), move |turn| {
                responder.answer(match turn {
                    Turn::InTime => rest(&app, None),
                    Turn::TooLate => Err(Error::Unavailable("too many writes wait".to_owned())),
                });
            });
        }
    };
    let kind = statement.kind;
    if app.store.join_group(holder, statement, Box::new(on_result)) {
        // From here on the worker works for all users.
        admit(None);
        app.store.run_groups(kind);
    }
}

/// Answers a request that needs no worker; `None` for all others.
pub fn dispatch_at_once(
    router: &Router<Handler>,
    request: &Request,
    responder: &mut Responder,
) -> Option<Response> {
    // All others would be routed twice.
    if !request.target.starts_with("/health") {
        return None;
    }
    let path = router.find(target::split(&request.target).ok()?.0)?;
    let Some(Handler::AtOnce(handler)) = path.handler(request.method) else {
        return None;
    };
    responder.set_route(path.pattern());
    Some(handler())
}

/// `None` if the request has to wait.
fn answer(
    app: &App,
    router: &Router<Handler>,
    request: &Request,
    responder: &mut Responder,
    admit: &mut Admit,
) -> Result<Option<HandlerOutcome>, Error> {
    let answered = |response| Ok(Some(HandlerOutcome::Answered(response)));
    // RFC 9110, section 9.3.7: OPTIONS of the server as a whole, or of a path.
    let options = |allow: &str| answered(Response::empty(204).header("Allow", allow));
    if request.method == Method::Options && request.target == "*" {
        return options("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    let (segments, query) =
        target::split(&request.target).map_err(|text| Error::BadRequest(text.into()))?;
    let Some(path) = router.find(segments) else {
        return match request.headers.prefer_html() {
            true => answered(pages::not_found()),
            false => Err(Error::NotFound(
                "there is no such path; GET / says where to start",
            )),
        };
    };
    responder.set_route(path.pattern());
    let Some(handler) = path.handler(request.method) else {
        return match request.method {
            Method::Options => options(&path.allow()),
            _ => Err(Error::MethodNotAllowed(path.allow())),
        };
    };
    let call = Call {
        request,
        path,
        query,
    };
    let response = match handler {
        Handler::AtOnce(handler) => handler(),
        Handler::Unlimited(handler) => handler(app, &call)?,
        Handler::Public(handler) => {
            app.limits.count_address(request.client, responder)?;
            return handler(app, &call).map(Some);
        }
        Handler::User(resource, handler) => {
            let Some(user) = user_of(app, &call, responder, admit, resource)? else {
                return Ok(None);
            };
            handler(app, &call, &user)?
        }
        Handler::Grouped(resource, handler) => {
            let Some(user) = user_of(app, &call, responder, admit, resource)? else {
                return Ok(None);
            };
            return handler(app, &call, &user).map(Some);
        }
        Handler::Account(handler) => {
            let Some(caller) = identify(app, request, responder, admit)? else {
                return Ok(None);
            };
            check_logged_in(&caller)?;
            return handler(app, &call, &caller).map(Some);
        }
    };
    answered(response)
}

/// The user, who may do this. `None` if the request has to wait.
fn user_of(
    app: &App,
    call: &Call,
    responder: &mut Responder,
    admit: &mut Admit,
    resource: &Resource,
) -> Result<Option<UserId>, Error> {
    let Some(caller) = identify(app, call.request, responder, admit)? else {
        return Ok(None);
    };
    check_path(call, &caller.user, resource)?;
    check_scope(call.request.method, &caller, resource)?;
    Ok(Some(caller.user))
}

/// Finds out who is calling, and counts the request. `None` if it has to wait.
fn identify(
    app: &App,
    request: &Request,
    responder: &mut Responder,
    admit: &mut Admit,
) -> Result<Option<Caller>, Error> {
    if request.headers.raw("Authorization").nth(1).is_some() {
        return Err(Error::BadRequest(
            "the header field Authorization is there twice".into(),
        ));
    }
    let authorization = request.headers.get("Authorization");
    let sender = Sender {
        holder: responder.holder(),
        admit: &|| app.limits.admits(request.client),
    };
    let caller = app
        .guard
        .identify(&app.store, authorization, &sender)
        .map_err(|error| app.limits.refused(error, request.client, responder))?;
    responder.set_user(&caller.user);
    if !admit(responder.holder()) {
        return Ok(None);
    }
    app.limits.count_user(&caller.user, responder)?;
    if let Credential::ApiToken(token) = &caller.credential
        && token.is_to_be_noted
    {
        app.store.note_api_token_use(&token.user, token.id)?;
    }
    Ok(Some(caller))
}

fn check_scope(method: Method, caller: &Caller, resource: &Resource) -> Result<(), Error> {
    let scope = match method {
        Method::Get | Method::Head => resource.read,
        _ => resource.write,
    };
    match caller.may(scope) {
        true => Ok(()),
        false => Err(Error::MissingScope(scope)),
    }
}

/// An API token is for tasks, so that a stolen one cannot take over the account.
fn check_logged_in(caller: &Caller) -> Result<(), Error> {
    match caller.credential {
        Credential::ApiToken(_) => Err(Error::Unauthorized(Unauthorized::Token(
            TokenRefusal::Invalid("an API token is for tasks alone; log in for this"),
            None,
        ))),
        Credential::Session(_) | Credential::Token(_) => Ok(()),
    }
}

/// A path that names a user works for that user only.
fn check_path(call: &Call, user: &UserId, resource: &Resource) -> Result<(), Error> {
    match call.path.parameter("user_id") {
        Some(named) if named != user.as_str() => {
            call.request.trail().record(user, Event::ForeignPath(named));
            Err(Error::Forbidden(resource.other_user))
        }
        _ => Ok(()),
    }
}
