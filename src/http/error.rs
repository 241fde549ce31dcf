//! Every error, and the one place that turns errors into status, code and body.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::request::RequestId;
use super::response::{Response, reason};
use crate::auth::error::AuthError;
use crate::domain::api_token::Scope;
use crate::domain::fields::{BodyError, FieldError};
use crate::domain::session::TokenRefusal;
use crate::domain::user::UserId;
use crate::store;

/// The media type of RFC 9457.
pub const PROBLEM: &str = "application/problem+json";

/// Why a request is refused or failed.
///
/// Texts are sentences without a full stop. They begin in lower case, except those that the contract fixes ("Task not found"). Causes
/// go to the log only; in development also into the answer.
#[derive(Clone, Debug)]
pub enum Error {
    /// 400: the request cannot be read.
    BadRequest(Cow<'static, str>),
    /// 401: the token is missing or not accepted.
    Unauthorized(Unauthorized),
    /// 403: the token is accepted, but not for this.
    Forbidden(&'static str),
    /// 403: the API token lacks this scope.
    MissingScope(Scope),
    /// 404: there is no such path or resource, or it is another user's.
    NotFound(&'static str),
    /// 405: the path does not take this method; it takes these.
    MethodNotAllowed(String),
    /// 408: the request did not arrive whole in time.
    RequestTimeout(&'static str),
    /// 409: the request contradicts what is stored.
    Conflict(&'static str),
    /// 410: the changes since the client's cursor are not stored any more.
    Gone,
    /// 412: the stored state is not the one that the request names.
    PreconditionFailed(&'static str),
    /// 413: the body has more bytes than this limit.
    PayloadTooLarge(usize),
    /// 414: the target has more bytes than this limit.
    UriTooLong(usize),
    /// 415: the server does not read this format.
    UnsupportedMediaType(&'static str),
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed,
    /// 422: these fields are wrong.
    Validation(Vec<FieldError>),
    /// 429: a rate limit is reached.
    RateLimited {
        /// The start of a sentence.
        text: Cow<'static, str>,
        /// Shown in whole seconds.
        retry_after: Duration,
    },
    /// 431: the head is too large.
    HeadersTooLarge(&'static str),
    /// 500: a fault of the server, with its cause.
    Internal(String),
    /// 501: the request needs something that the server does not support.
    NotImplemented(&'static str),
    /// 503: not possible now, with the cause.
    Unavailable(String),
    /// The error of the operation at this place of a request with many.
    InOperation(usize, Box<Error>),
    /// 505: a version of HTTP that the server does not support.
    VersionNotSupported,
}

/// The description of an error.
pub struct ErrorRow {
    /// The status code.
    pub status: u16,
    /// The code for programs; it never changes.
    pub code: &'static str,
    /// The sentence for people. A value replaces the part in braces. For a variant with a text of its own this is an example.
    pub sentence: &'static str,
    /// The condition for this answer.
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
                    Error::InOperation(_, error) => error.row(),
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
    Error::Unauthorized(Unauthorized::Token(TokenRefusal::Expired, _)) => 401 "TOKEN_EXPIRED"
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
    Error::Gone => 410 "GONE"
        "the changes since then are not stored any more; get all tasks again, without since"
        "The changes since the cursor are not stored any more; the client must copy all tasks again";
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
        "only the expectation 100-continue is supported"
        "An expectation other than `100-continue`";
    Error::Validation(_) => 422 "VALIDATION_ERROR"
        "title must have 1 to 200 characters"
        "Fields are wrong; `error.details` names all of them";
    Error::RateLimited { .. } => 429 "RATE_LIMITED"
        "at most 1000 requests an hour are allowed; try again in 60 s"
        "Too many requests; `Retry-After` says how long to wait";
    Error::HeadersTooLarge(_) => 431 "HEADERS_TOO_LARGE"
        "the head of the request is too large"
        "The header fields are more or larger than the server takes (`MAX_HEAD_BYTES`, `MAX_HEADERS`)";
    Error::Internal(_) => 500 "INTERNAL_SERVER_ERROR"
        "the server failed; its log has the cause under this request id"
        "A fault of the server";
    Error::NotImplemented(_) => 501 "NOT_IMPLEMENTED"
        "only the transfer coding chunked is supported"
        "A transfer coding other than `chunked`";
    Error::Unavailable(_) => 503 "SERVICE_UNAVAILABLE"
        "the service cannot answer right now; try again in a moment"
        "The database or a worker is not available right now, or there are too many connections";
    Error::VersionNotSupported => 505 "HTTP_VERSION_NOT_SUPPORTED"
        "only HTTP/1.1 and HTTP/1.0 are supported"
        "A version of HTTP other than 1.1 and 1.0";
}

/// Why a request is answered 401 (RFC 6750, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// There is no token.
    Missing,
    /// `Authorization` has a scheme other than `Bearer`.
    OtherScheme,
    /// The token is not accepted. Its user, if its signature is valid.
    Token(TokenRefusal, Option<UserId>),
    /// There is no token, but a password or a refresh token that is not accepted; the text says which.
    Refused(&'static str),
}

impl Unauthorized {
    fn message(&self) -> Cow<'static, str> {
        match self {
            Unauthorized::Missing => Cow::Borrowed("Missing authentication token"),
            Unauthorized::OtherScheme => Cow::Borrowed(
                "Unsupported authorization scheme: send Authorization: Bearer <token>",
            ),
            Unauthorized::Token(TokenRefusal::Invalid(how), _) => {
                Cow::Owned(format!("Invalid token: {how}"))
            }
            Unauthorized::Token(TokenRefusal::Expired, _) => Cow::Borrowed("Token has expired"),
            Unauthorized::Token(TokenRefusal::Revoked, _) => {
                Cow::Borrowed("Token has been revoked")
            }
            Unauthorized::Refused(why) => Cow::Borrowed(why),
        }
    }

    /// The `WWW-Authenticate` challenge. A request without a bearer token gets no error code (RFC 6750, section 3.1).
    fn challenge(&self) -> String {
        match self {
            Unauthorized::Missing | Unauthorized::OtherScheme | Unauthorized::Refused(_) => {
                REALM.to_owned()
            }
            _ => format!(
                "{REALM}, error=\"invalid_token\", error_description=\"{}\"",
                self.message()
            ),
        }
    }
}

/// The start of every `WWW-Authenticate` challenge.
const REALM: &str = "Bearer realm=\"todo-api\"";
/// Wrong fields that the sentence of a 422 names.
const SENTENCES: usize = 10;
/// The `Retry-After` of a 503, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

impl Error {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.row().status
    }

    /// The code for programs, as in `error.code`.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// The sentence for people: what is wrong and, if that helps, what to do.
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
            // Fields are named with the operation's place.
            Error::InOperation(_, error) if matches!(**error, Error::Validation(_)) => {
                error.message()
            }
            Error::InOperation(index, error) => {
                Cow::Owned(format!("operations[{index}]: {}", error.message()))
            }
            Error::Validation(errors) => {
                let sentences = errors.iter().take(SENTENCES);
                let sentences = sentences.map(|e| format!("{} {}", e.field, e.message));
                let more = errors.len().saturating_sub(SENTENCES);
                let more = (more > 0).then(|| format!("and {more} more"));
                let sentences: Vec<String> = sentences.chain(more).collect();
                Cow::Owned(sentences.join("; "))
            }
            Error::ExpectationFailed
            | Error::Gone
            | Error::VersionNotSupported
            | Error::Internal(_)
            | Error::Unavailable(_) => Cow::Borrowed(self.row().sentence),
        }
    }

    /// The cause, for the log only.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Error::Internal(cause) | Error::Unavailable(cause) => Some(cause),
            _ => None,
        }
    }

    /// The answer, with the body of RFC 9457 and the `error` object of this family of servers. `problem` sends it as
    /// `application/problem+json`; front ends of this family read errors only from `application/json`.
    ///
    /// `reveal_cause` adds the cause to `error.details`; for development only.
    pub fn into_response(
        self,
        request_id: &RequestId,
        reveal_cause: bool,
        problem: bool,
    ) -> Response {
        let ErrorRow { status, code, .. } = *self.row();
        let message = self.message();
        let (index, error) = match &self {
            Error::InOperation(index, error) => (Some(*index), &**error),
            error => (None, error),
        };
        let details = match (error, self.cause()) {
            (Error::Validation(errors), _) => errors.clone(),
            (_, Some(cause)) if reveal_cause => vec![FieldError {
                field: Cow::Borrowed("cause"),
                message: Cow::Owned(cause.to_owned()),
            }],
            _ => Vec::new(),
        };
        let body = Problem {
            r#type: "about:blank",
            title: reason(status),
            status,
            detail: &message,
            error: ProblemError {
                code,
                message: &message,
                details,
                index,
            },
            request_id: request_id.as_str(),
        };
        let response = match problem {
            true => Response::problem(status, &body),
            false => Response::json(status, &body),
        };
        match &self {
            Error::Unauthorized(why) => response.header("WWW-Authenticate", why.challenge()),
            // RFC 6750, section 3.1.
            Error::MissingScope(scope) => {
                let scope = scope.as_str();
                let error = format!("{REALM}, error=\"insufficient_scope\", scope=\"{scope}\"");
                response.header("WWW-Authenticate", error)
            }
            Error::MethodNotAllowed(allow) => response.header("Allow", allow.as_str()),
            Error::RateLimited { retry_after, .. } => {
                response.header("Retry-After", whole_seconds(*retry_after).to_string())
            }
            Error::Unavailable(_) => response.header("Retry-After", RETRY_AFTER_SECONDS),
            _ => response,
        }
    }
}

/// A time in whole seconds, at least 1. Rounded up, so that a client that waits so long does not come too early.
pub fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Unavailable(cause) => Error::Unavailable(cause),
            store::Error::Internal(cause) => Error::Internal(cause),
            store::Error::UserGone => {
                Error::Unauthorized(Unauthorized::Token(TokenRefusal::Revoked, None))
            }
        }
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Error {
        Error::Unauthorized(match error {
            AuthError::NoToken => Unauthorized::Missing,
            AuthError::OtherScheme => Unauthorized::OtherScheme,
            AuthError::Invalid(how) => Unauthorized::Token(TokenRefusal::Invalid(how), None),
            AuthError::Refused(why, user) => Unauthorized::Token(why, Some(user)),
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

/// The body of every error (RFC 9457), with the `error` object of this family of servers.
#[derive(Serialize)]
pub struct Problem<'a> {
    /// Always `about:blank`: the status says what kind of error it is.
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
    /// A code that never changes.
    code: &'static str,
    /// `detail` again.
    message: &'a str,
    /// Every field that is wrong; empty if the error is about something else.
    details: Vec<FieldError>,
    /// The place of the operation that cannot be done, from 0; in answers to a request with many operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response::Framing;

    fn answer(error: Error, reveal: bool) -> (String, serde_json::Value) {
        let id = RequestId::from_header(Some("r1"));
        let bytes = error
            .into_response(&id, reveal, false)
            .encode(&Framing::default(), id.as_str());
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn every_error_has_the_same_body() {
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
            head.contains("Content-Type: application/json\r\n"),
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
    fn a_cause_is_sent_in_development_only() {
        let error = || Error::Unavailable("connection to db.internal refused".to_owned());
        let (head, body) = answer(error(), false);
        assert!(head.contains("Retry-After: 1\r\n"), "{head}");
        assert!(!body.to_string().contains("db.internal"), "{body}");
        assert!(answer(error(), true).1.to_string().contains("db.internal"));
    }

    #[test]
    fn a_429_says_when_to_try_again() {
        for (milliseconds, shown) in [(1, "1"), (1000, "1"), (1001, "2"), (3_599_500, "3600")] {
            let (head, body) = answer(
                Error::RateLimited {
                    text: "at most 5 requests an hour are allowed".into(),
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
                format!("at most 5 requests an hour are allowed; try again in {shown} s")
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
            challenge(Unauthorized::Token(TokenRefusal::Expired, None))
                .contains("error=\"invalid_token\", error_description=\"Token has expired\"")
        );
    }
}
