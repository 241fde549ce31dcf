//! Every error, as the description shows it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{Components, Schema};
use utoipa::openapi::{Ref, RefOr, Response};

use super::headers;
use crate::domain::api_token::Scope;
use crate::domain::fields::FieldError;
use crate::http::error::{Error, Unauthorized};
use crate::http::request::RequestId;
use crate::http::response::reason;

/// Every error there is, and when it is answered.
fn documented() -> Vec<(Error, &'static str)> {
    let title = FieldError {
        field: "title".into(),
        message: "must have 1 to 200 characters".into(),
    };
    vec![
        (
            Error::BadRequest("the body is empty; send a JSON object".into()),
            "The JSON, the query or a header field cannot be read",
        ),
        (
            Error::Unauthorized(Unauthorized::Missing),
            "There is no token, or none that is accepted",
        ),
        (
            Error::Unauthorized(Unauthorized::Expired),
            "The token's time is over",
        ),
        (
            Error::Forbidden("Forbidden: not authorized to access another user's tasks"),
            "The path names another user, the current password is missing or wrong, the token was issued too long ago, registration is closed, or the account is disabled",
        ),
        (
            Error::MissingScope(Scope::TasksWrite),
            "The API token lacks the scope for this",
        ),
        (
            Error::NotFound("Task not found"),
            "There is no such path, or nothing of the caller's under this name",
        ),
        (
            Error::MethodNotAllowed("GET, HEAD, POST, OPTIONS".to_owned()),
            "The path is known, the method is not; `Allow` says which are",
        ),
        (
            Error::RequestTimeout("the request did not arrive in time"),
            "The request did not arrive whole in time",
        ),
        (
            Error::Conflict("a task with this id exists already"),
            "It contradicts what is there",
        ),
        (
            Error::PreconditionFailed(
                "the task has changed since: get it again, and send its new ETag in If-Match",
            ),
            "It is not as `If-Match` says",
        ),
        (
            Error::PayloadTooLarge(1_048_576),
            "The body is larger than the server takes (`MAX_BODY_BYTES`)",
        ),
        (
            Error::UriTooLong(4_096),
            "The target is longer than the server takes (`MAX_PATH_BYTES`)",
        ),
        (
            Error::UnsupportedMediaType(
                "the body must be JSON; send the header Content-Type: application/json",
            ),
            "The body is in a format that is not read here",
        ),
        (
            Error::ExpectationFailed,
            "An expectation other than `100-continue`",
        ),
        (
            Error::Validation(vec![title]),
            "Fields are wrong; all of them are named at once",
        ),
        (
            Error::RateLimited {
                text: "there may be no more than 1000 requests an hour".into(),
                retry_after: Duration::from_secs(60),
            },
            "Too many requests; `Retry-After` says when there is room again",
        ),
        (
            Error::HeadersTooLarge("the head of the request is too large"),
            "The header fields are more or larger than the server takes (`MAX_HEAD_BYTES`, `MAX_HEADERS`)",
        ),
        (Error::Internal(String::new()), "The server's fault"),
        (
            Error::NotImplemented("only the transfer coding chunked is read here"),
            "A transfer coding other than `chunked`",
        ),
        (
            Error::Unavailable(String::new()),
            "The database or a worker cannot be had right now, or there are too many connections",
        ),
        (Error::VersionNotSupported, "HTTP other than 1.1 and 1.0"),
    ]
}

/// Enters every error among the components, one answer a status, and lists the codes.
pub fn describe(components: &mut Components) {
    for status in statuses() {
        components
            .responses
            .insert(name(status), RefOr::T(response(status)));
    }
    let codes: BTreeSet<&str> = documented().iter().map(|(error, _)| error.code()).collect();
    if let Some(RefOr::T(Schema::Object(problem))) = components.schemas.get_mut("ProblemError")
        && let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code")
    {
        code.enum_values = Some(codes.into_iter().map(Value::from).collect());
    }
}

/// Refers to the answer of this status.
pub fn reference(status: u16) -> RefOr<Response> {
    RefOr::Ref(Ref::from_response_name(name(status)))
}

/// Gives an error that a handler has but mentioned the body that all errors have.
pub fn fill(status: &str, own: &mut Response) {
    let Some(status) = status.parse().ok().filter(|status| *status >= 400) else {
        return;
    };
    if own.content.is_empty() {
        let usual = response(status);
        own.content = usual.content;
        own.headers.extend(usual.headers);
    }
}

/// All errors, as a table in Markdown.
pub fn table() -> String {
    let mut table = String::from(
        "Any request may be answered so.\n\n| status | `error.code` | when |\n|---|---|---|\n",
    );
    for (error, when) in documented() {
        table.push_str(&format!(
            "| {} | `{}` | {when} |\n",
            error.status(),
            error.code()
        ));
    }
    table
}

fn statuses() -> BTreeSet<u16> {
    documented()
        .iter()
        .map(|(error, _)| error.status())
        .collect()
}

/// The status's phrase in one word: `NotFound`.
fn name(status: u16) -> String {
    reason(status).split([' ', '-']).collect()
}

fn response(status: u16) -> Response {
    let errors: Vec<(Error, &str)> = documented()
        .into_iter()
        .filter(|(error, _)| error.status() == status)
        .collect();
    let whens: Vec<&str> = errors.iter().map(|(_, when)| *when).collect();
    let mut content =
        ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    match errors.as_slice() {
        [(error, _)] => content = content.example(Some(example(error))),
        several => {
            for (number, (error, when)) in several.iter().enumerate() {
                let example = ExampleBuilder::new()
                    .summary(*when)
                    .value(Some(example(error)))
                    .build();
                content = content
                    .examples_from_iter([(format!("{}-{}", error.code(), number + 1), example)]);
            }
        }
    }
    let mut response = Response::new(whens.join(". "));
    response.content.insert(
        "application/problem+json".to_owned(),
        content.build().into(),
    );
    headers::add_common(&mut response, true);
    for (own, name) in [
        (matches!(status, 401 | 403), "WWW-Authenticate"),
        (status == 405, "Allow"),
        (matches!(status, 429 | 503), "Retry-After"),
    ] {
        if own {
            headers::add(&mut response, name);
        }
    }
    response
}

/// The body as it is really sent.
fn example(error: &Error) -> Value {
    let id = RequestId::from_header(Some("8a3c5e1f0b7d4c62a1e9f3d5b7c80214"));
    let response = error.clone().into_response(&id, false);
    serde_json::from_slice(&response.body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of error has a number; a new kind makes this incomplete, and gets the next one.
    fn number(error: &Error) -> usize {
        match error {
            Error::BadRequest(_) => 0,
            Error::Unauthorized(_) => 1,
            Error::Forbidden(_) => 2,
            Error::MissingScope(_) => 3,
            Error::NotFound(_) => 4,
            Error::MethodNotAllowed(_) => 5,
            Error::RequestTimeout(_) => 6,
            Error::Conflict(_) => 7,
            Error::PayloadTooLarge(_) => 8,
            Error::UriTooLong(_) => 9,
            Error::UnsupportedMediaType(_) => 10,
            Error::ExpectationFailed => 11,
            Error::Validation(_) => 12,
            Error::RateLimited { .. } => 13,
            Error::HeadersTooLarge(_) => 14,
            Error::Internal(_) => 15,
            Error::NotImplemented(_) => 16,
            Error::Unavailable(_) => 17,
            Error::VersionNotSupported => 18,
            Error::PreconditionFailed(_) => 19,
        }
    }

    #[test]
    fn every_error_is_documented() {
        let documented: BTreeSet<usize> = documented()
            .iter()
            .map(|(error, _)| number(error))
            .collect();
        assert_eq!(documented, (0..20).collect());
    }
}
