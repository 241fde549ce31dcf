//! The way of a request: route, token, user in the path, handler. The order is the contract's.

use super::{App, Call, Handler};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::{Method, Request};
use crate::http::responder::Responder;
use crate::http::response::Response;
use crate::http::router::{Found, Path, Router};
use crate::http::target;

/// Answers a request.
pub fn dispatch(app: &App, router: &Router<Handler>, request: &Request, mut responder: Responder) {
    let result = answer(app, router, request, &mut responder);
    responder.answer(result);
}

/// Answers a request that needs no worker; `None` for all others.
pub fn dispatch_at_once(
    router: &Router<Handler>,
    request: &Request,
    responder: &mut Responder,
) -> Option<Response> {
    // Few requests are such, and the others should not be routed twice.
    if !request.target.starts_with("/health") {
        return None;
    }
    let (segments, _) = target::split(&request.target).ok()?;
    match router.find(request.method, segments) {
        Found::Handler(Handler::AtOnce(handler), path) => {
            responder.set_route(path.pattern);
            Some(handler())
        }
        _ => None,
    }
}

fn answer(
    app: &App,
    router: &Router<Handler>,
    request: &Request,
    responder: &mut Responder,
) -> Result<Response, Error> {
    if request.method == Method::Options && request.target == "*" {
        // RFC 9110, section 9.3.7: the server as a whole.
        return Ok(
            Response::empty(204).header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        );
    }
    let (segments, query) =
        target::split(&request.target).map_err(|text| Error::BadRequest(text.into()))?;
    let (handler, path) = match router.find(request.method, segments) {
        Found::Handler(handler, path) => (handler, path),
        Found::OtherMethods { allow, pattern } => {
            responder.set_route(pattern);
            // RFC 9110, section 9.3.7: what may be done with this path. It tells nothing that the API description does not.
            return if request.method == Method::Options {
                Ok(Response::empty(204).header("Allow", allow))
            } else {
                Err(Error::MethodNotAllowed(allow.to_owned()))
            };
        }
        Found::Nothing => {
            return Err(Error::NotFound(
                "nothing is here; GET / says where to start",
            ));
        }
    };
    responder.set_route(path.pattern);
    let call = Call {
        request,
        path,
        query,
    };
    match handler {
        Handler::AtOnce(handler) => Ok(handler()),
        Handler::Public(handler) => handler(app, &call),
        Handler::User(handler) => {
            let user = app
                .verifier
                .authenticate(request.headers.get("Authorization"))?
                .user;
            responder.set_user(&user);
            check_path(&call.path, &user)?;
            handler(app, &call, &user)
        }
    }
}

/// A path that names a user is that user's alone.
fn check_path(path: &Path<'_, '_>, user: &UserId) -> Result<(), Error> {
    match path.parameter("user_id") {
        Some(named) if named != user.as_str() => Err(Error::Forbidden(
            "Forbidden: not authorized to access another user's tasks",
        )),
        _ => Ok(()),
    }
}
