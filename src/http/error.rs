//! Every way to say no, and the one place that turns them into status, code and body.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::request::RequestId;
use super::response::{Response, reason};
use crate::auth::error::AuthError;
use crate::domain::api_token::Scope;
use crate::domain::fields::{BodyError, FieldError};
use crate::domain::user::UserId;
use crate::store;

/// Why a request is not answered with what it asked for.
///
/// Texts are sentences for people, without a full stop and, but for those that the contract fixes ("Task not found"), without a
/// capital at the start. What is marked as a cause goes to the log and to nobody else
/// (outside development).
#[derive(Clone, Debug)]
pub enum Error {
    /// 400: it cannot be understood.
    BadRequest(Cow<'static, str>),
    /// 401: no token, or one that is not accepted.
    Unauthorized(Unauthorized),
    /// 403: the token is good, but not for this.
    Forbidden(&'static str),
    /// 403: the token is good, but not for this: it lacks this scope.
    MissingScope(Scope),
    /// 404: nothing is there, or nothing that the caller may know of.
    NotFound(&'static str),
    /// 405: the path is known, the method is not; the methods that are.
    MethodNotAllowed(String),
    /// 408: it did not arrive whole in time.
    RequestTimeout(&'static str),
    /// 409: it contradicts what is there.
    Conflict(&'static str),
    /// 412: what is there is in another state than the request names.
    PreconditionFailed(&'static str),
    /// 413: the body has more bytes than the limit named.
    PayloadTooLarge(usize),
    /// 414: the target has more bytes than the limit named.
    UriTooLong(usize),
    /// 415: the body is in a format that is not read here.
    UnsupportedMediaType(&'static str),
    /// 417: it expects what is not done here.
    ExpectationFailed,
    /// 422: these fields are wrong.
    Validation(Vec<FieldError>),
    /// 429: there have been too many like it; what there may be, and after how long there will be room again.
    RateLimited {
        /// The start of a sentence.
        text: Cow<'static, str>,
        /// Shown in whole seconds.
        retry_after: Duration,
    },
    /// 431: its head is too large; what is.
    HeadersTooLarge(&'static str),
    /// 500: our fault; the cause.
    Internal(String),
    /// 501: it needs what is not done here.
    NotImplemented(&'static str),
    /// 503: not now; the cause.
    Unavailable(String),
    /// 505: it is in a version of HTTP that is not spoken here.
    VersionNotSupported,
}

/// An error as programs and readers know it.
pub struct ErrorRow {
    /// The status code.
    pub status: u16,
    /// The word for programs; it never changes.
    pub code: &'static str,
    /// The sentence for people. A value takes the place of the braces and what is between them. For a variant with a text of its own this
    /// is an example.
    pub sentence: &'static str,
    /// When it is answered.
    pub when: &'static str,
}

impl ErrorRow {
    fn sentence_with(&self, value: &str) -> Cow<'static, str> {
        let (start, rest) = self.sentence.split_once('{').unwrap_or_default();
        let (_, end) = rest.split_once('}').unwrap_or_default();
        Cow::Owned(format!("{start}{value}{end}"))
    }
}

macro_rules! errors {
    ($($variant:pat => $status:literal $code:literal $sentence:literal $when:literal;)*) => {
        /// Every error, in the order of the statuses.
        pub static ERRORS: &[ErrorRow] = &[$(errors!(row $status $code $sentence $when)),*];

        impl Error {
            fn row(&self) -> &'static ErrorRow {
                match self {
                    $($variant => &const { errors!(row $status $code $sentence $when) },)*
                }
            }
        }
    };
    (row $status:literal $code:literal $sentence:literal $when:literal) => {
        ErrorRow { status: $status, code: $code, sentence: $sentence, when: $when }
    };
}

errors! {
    Error::BadRequest(_) => 400 "BAD_REQUEST"
        "the body is empty; send a JSON object"
        "The JSON, the query or a header field cannot be read";
    Error::Unauthorized(Unauthorized::Expired(_)) => 401 "TOKEN_EXPIRED"
        "Token has expired"
        "The token has expired";
    Error::Unauthorized(_) => 401 "UNAUTHORIZED"
        "Missing authentication token"
        "There is no token, or it is not accepted";
    Error::Forbidden(_) => 403 "FORBIDDEN"
        "Forbidden: not authorized to access another user's tasks"
        "The path names another user, the current password is missing or wrong, the token was issued too long ago, registration is closed, or the account is disabled";
    Error::MissingScope(_) => 403 "FORBIDDEN"
        "the token lacks the scope {tasks:write}; make one that has it"
        "The API token lacks the scope for this";
    Error::NotFound(_) => 404 "NOT_FOUND"
        "Task not found"
        "There is no such path, or nothing of the caller's under this name";
    Error::MethodNotAllowed(_) => 405 "METHOD_NOT_ALLOWED"
        "the method is not allowed; this path takes {GET, HEAD, POST, OPTIONS}"
        "The path exists, but not with this method; `Allow` lists the methods";
    Error::RequestTimeout(_) => 408 "REQUEST_TIMEOUT"
        "the request did not arrive in time"
        "The request did not arrive whole in time";
    Error::Conflict(_) => 409 "CONFLICT"
        "a task with this id exists already"
        "The request contradicts what is stored";
    Error::PreconditionFailed(_) => 412 "PRECONDITION_FAILED"
        "the task has changed since: get it again, and send its new ETag in If-Match"
        "The task is not as `If-Match` says";
    Error::PayloadTooLarge(_) => 413 "PAYLOAD_TOO_LARGE"
        "the body has more than {1048576} bytes; send less, or raise the server's MAX_BODY_BYTES"
        "The body is larger than the server takes (`MAX_BODY_BYTES`)";
    Error::UriTooLong(_) => 414 "URI_TOO_LONG"
        "the target has more than {4096} bytes; send less, or raise the server's MAX_PATH_BYTES"
        "The target is longer than the server takes (`MAX_PATH_BYTES`)";
    Error::UnsupportedMediaType(_) => 415 "UNSUPPORTED_MEDIA_TYPE"
        "the body must be JSON; send the header Content-Type: application/json"
        "The server does not read this format";
    Error::ExpectationFailed => 417 "EXPECTATION_FAILED"
        "only the expectation 100-continue is met here"
        "An expectation other than `100-continue`";
    Error::Validation(_) => 422 "VALIDATION_ERROR"
        "title must have 1 to 200 characters"
        "Fields are wrong; `error.details` names all of them";
    Error::RateLimited { .. } => 429 "RATE_LIMITED"
        "there may be no more than 1000 requests an hour; try again in 60 s"
        "Too many requests; `Retry-After` says how long to wait";
    Error::HeadersTooLarge(_) => 431 "HEADERS_TOO_LARGE"
        "the head of the request is too large"
        "The header fields are more or larger than the server takes (`MAX_HEAD_BYTES`, `MAX_HEADERS`)";
    Error::Internal(_) => 500 "INTERNAL_SERVER_ERROR"
        "something went wrong here; the request id finds it in the server's log"
        "A fault of the server";
    Error::NotImplemented(_) => 501 "NOT_IMPLEMENTED"
        "only the transfer coding chunked is read here"
        "A transfer coding other than `chunked`";
    Error::Unavailable(_) => 503 "SERVICE_UNAVAILABLE"
        "the service cannot answer right now; try again in a moment"
        "The database or a worker is not available right now, or there are too many connections";
    Error::VersionNotSupported => 505 "HTTP_VERSION_NOT_SUPPORTED"
        "only HTTP/1.1 and HTTP/1.0 are spoken here"
        "A version of HTTP other than 1.1 and 1.0";
}

/// Why a caller is not known (RFC 6750, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// There is none.
    Missing,
    /// It is not ours, or not well-formed; the text says how.
    Invalid(&'static str),
    /// It has expired; its user, if its signature is valid.
    Expired(Option<UserId>),
    /// It was revoked; its user, if known here.
    Revoked(Option<UserId>),
    /// There is none, because what was to be exchanged for one is wrong; the text says what.
    Refused(&'static str),
}

impl Unauthorized {
    fn message(&self) -> Cow<'static, str> {
        match self {
            Unauthorized::Missing => Cow::Borrowed("Missing authentication token"),
            Unauthorized::Invalid(how) => Cow::Owned(format!("Invalid token: {how}")),
            Unauthorized::Expired(_) => Cow::Borrowed("Token has expired"),
            Unauthorized::Revoked(_) => Cow::Borrowed("Token has been revoked"),
            Unauthorized::Refused(why) => Cow::Borrowed(why),
        }
    }

    /// The `WWW-Authenticate` challenge. A request without a token gets no error code (RFC 6750, section 3.1).
    fn challenge(&self) -> String {
        match self {
            Unauthorized::Missing | Unauthorized::Refused(_) => {
                "Bearer realm=\"todo-api\"".to_owned()
            }
            _ => format!(
                "Bearer realm=\"todo-api\", error=\"invalid_token\", error_description=\"{}\"",
                self.message()
            ),
        }
    }
}

/// Seconds after which a client may try again when the database could not be had.
const RETRY_AFTER_SECONDS: &str = "1";

impl Error {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.row().status
    }

    /// The word for programs, as `error.code` has it.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// The sentence for people: what is wrong and, where it helps, what to do.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Error::BadRequest(text) => Cow::Borrowed(text),
            Error::Unauthorized(why) => why.message(),
            Error::Forbidden(text)
            | Error::NotFound(text)
            | Error::Conflict(text)
            | Error::PreconditionFailed(text)
            | Error::RequestTimeout(text)
            | Error::HeadersTooLarge(text)
            | Error::NotImplemented(text)
            | Error::UnsupportedMediaType(text) => Cow::Borrowed(text),
            Error::MissingScope(scope) => self.row().sentence_with(scope.as_str()),
            Error::MethodNotAllowed(allow) => self.row().sentence_with(allow),
            Error::PayloadTooLarge(limit) | Error::UriTooLong(limit) => {
                self.row().sentence_with(&limit.to_string())
            }
            Error::RateLimited { text, retry_after } => Cow::Owned(format!(
                "{text}; try again in {} s",
                whole_seconds(*retry_after)
            )),
            Error::Validation(errors) => {
                let sentences: Vec<String> = errors
                    .iter()
                    .map(|e| format!("{} {}", e.field, e.message))
                    .collect();
                Cow::Owned(sentences.join("; "))
            }
            Error::ExpectationFailed
            | Error::VersionNotSupported
            | Error::Internal(_)
            | Error::Unavailable(_) => Cow::Borrowed(self.row().sentence),
        }
    }

    /// What only the log may know.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Error::Internal(cause) | Error::Unavailable(cause) => Some(cause),
            _ => None,
        }
    }

    /// The answer: `application/problem+json` (RFC 9457) with the family's `error` object in it.
    ///
    /// `reveal_cause` adds the cause to `error.details`; for development only.
    pub fn into_response(self, request_id: &RequestId, reveal_cause: bool) -> Response {
        let ErrorRow { status, code, .. } = *self.row();
        let message = self.message();
        let details = match &self {
            Error::Validation(errors) => errors.clone(),
            _ => self
                .cause()
                .filter(|_| reveal_cause)
                .map(|cause| FieldError {
                    field: Cow::Borrowed("cause"),
                    message: Cow::Owned(cause.to_owned()),
                })
                .into_iter()
                .collect(),
        };
        let problem = Problem {
            r#type: "about:blank",
            title: reason(status),
            status,
            detail: &message,
            error: ProblemError {
                code,
                message: &message,
                details,
            },
            request_id: request_id.as_str(),
        };
        let response = Response::with_content_type(status, "application/problem+json", &problem);
        match &self {
            Error::Unauthorized(why) => response.header("WWW-Authenticate", why.challenge()),
            // RFC 6750, section 3.1.
            Error::MissingScope(scope) => response.header(
                "WWW-Authenticate",
                format!(
                    "Bearer realm=\"todo-api\", error=\"insufficient_scope\", scope=\"{}\"",
                    scope.as_str()
                ),
            ),
            Error::MethodNotAllowed(allow) => response.header("Allow", allow.as_str()),
            Error::RateLimited { retry_after, .. } => {
                response.header("Retry-After", whole_seconds(*retry_after).to_string())
            }
            Error::Unavailable(_) => response.header("Retry-After", RETRY_AFTER_SECONDS),
            _ => response,
        }
    }
}

/// A time as header fields show it, in seconds: rounded up, so that whoever waits for it does not come too early, and never 0.
pub fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Unavailable(cause) => Error::Unavailable(cause),
            store::Error::Internal(cause) => Error::Internal(cause),
            store::Error::UserGone => Error::Unauthorized(Unauthorized::Revoked(None)),
        }
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Error {
        Error::Unauthorized(match error {
            AuthError::NoToken => Unauthorized::Missing,
            AuthError::Invalid(how) => Unauthorized::Invalid(how),
            AuthError::Expired(user) => Unauthorized::Expired(Some(user)),
            AuthError::Revoked(user) => Unauthorized::Revoked(Some(user)),
            AuthError::UnknownKey(cause) => return Error::Unavailable(cause.to_owned()),
            AuthError::NotAdmitted => {
                return Error::Unavailable("the client may not cause a query now".to_owned());
            }
            AuthError::Store(error) => return error.into(),
        })
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Error {
        match error {
            BodyError::Malformed(text) => Error::BadRequest(Cow::Owned(text)),
            BodyError::Invalid(errors) => Error::Validation(errors),
        }
    }
}

/// The body of every error (RFC 9457), with the family's `error` object in it.
#[derive(Serialize)]
pub struct Problem<'a> {
    /// Always `about:blank`: the status says what kind it is.
    r#type: &'static str,
    /// The status's standard phrase.
    title: &'static str,
    /// The status code again.
    status: u16,
    /// One sentence for people.
    detail: &'a str,
    /// The same for programs.
    error: ProblemError<'a>,
    /// Finds the request in the server's log; the header `X-Request-ID` says the same.
    request_id: &'a str,
}

/// An error for programs.
#[derive(Serialize)]
pub struct ProblemError<'a> {
    /// A word that stays as it is.
    code: &'static str,
    /// `detail` again.
    message: &'a str,
    /// Every field that is wrong; empty where it is no matter of fields.
    details: Vec<FieldError>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response::Framing;

    fn answer(error: Error, reveal: bool) -> (String, serde_json::Value) {
        let id = RequestId::from_header(Some("r1"));
        let bytes = error
            .into_response(&id, reveal)
            .encode(&Framing::default(), id.as_str());
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_problem_has_one_shape() {
        let errors = vec![
            FieldError {
                field: "title".into(),
                message: "is required".into(),
            },
            FieldError {
                field: "completed".into(),
                message: "must be true or false".into(),
            },
        ];
        let (head, body) = answer(Error::Validation(errors), false);
        assert!(
            head.starts_with("HTTP/1.1 422 Unprocessable Content\r\n"),
            "{head}"
        );
        assert!(
            head.contains("Content-Type: application/problem+json\r\n"),
            "{head}"
        );
        let message = "title is required; completed must be true or false";
        assert_eq!(
            body,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": message,
                "error": {"code": "VALIDATION_ERROR", "message": message, "details": [
                    {"field": "title", "message": "is required"},
                    {"field": "completed", "message": "must be true or false"}]},
                "request_id": "r1"
            })
        );
    }

    #[test]
    fn a_cause_is_told_in_development_only() {
        let error = || Error::Unavailable("connection to db.internal refused".to_owned());
        let (head, body) = answer(error(), false);
        assert!(head.contains("Retry-After: 1\r\n"), "{head}");
        assert!(!body.to_string().contains("db.internal"), "{body}");
        assert!(answer(error(), true).1.to_string().contains("db.internal"));
    }

    #[test]
    fn too_many_are_told_when_to_come_again() {
        for (milliseconds, shown) in [(1, "1"), (1000, "1"), (1001, "2"), (3_599_500, "3600")] {
            let (head, body) = answer(
                Error::RateLimited {
                    text: "there may be no more than 5 requests an hour".into(),
                    retry_after: Duration::from_millis(milliseconds),
                },
                false,
            );
            assert!(
                head.contains(&format!("Retry-After: {shown}\r\n")),
                "{head}"
            );
            assert_eq!(body["error"]["code"], "RATE_LIMITED");
            assert_eq!(
                body["detail"],
                format!("there may be no more than 5 requests an hour; try again in {shown} s")
            );
        }
    }

    #[test]
    fn a_challenge_says_what_is_wrong_with_a_token() {
        let challenge = |why| answer(Error::Unauthorized(why), false).0;
        assert!(
            challenge(Unauthorized::Missing)
                .contains("WWW-Authenticate: Bearer realm=\"todo-api\"\r\n")
        );
        assert!(
            challenge(Unauthorized::Expired(None))
                .contains("error=\"invalid_token\", error_description=\"Token has expired\"")
        );
    }
}
