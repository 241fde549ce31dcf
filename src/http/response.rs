//! An answer, and its bytes on the wire.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The header fields that are the same in all answers of a kind, as whole lines. SECURITY.md gives the reason for each.
macro_rules! constant_fields {
    ($content_type:literal, $cache:literal, $($policy:literal),+ $(; $more:literal)?) => {
        concat!(
            "Server: todo-api\r\nContent-Type: ", $content_type,
            "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: ", $cache,
            "\r\nContent-Security-Policy: ", $($policy,)+ "frame-ancestors 'none'\r\n" $(, $more)?
        )
    };
    (page $cache:literal, $loads:literal) => {
        constant_fields!(
            "text/html; charset=utf-8", $cache,
            "default-src 'none'; base-uri 'none'; form-action 'none'; ", $loads, "; ";
            "X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n"
        )
    };
}
pub(crate) use constant_fields;

const JSON: &str = constant_fields!("application/json", "no-store", "");
const PROBLEM: &str = constant_fields!("application/problem+json", "no-store", "");
const NO_CONTENT: &str = "Server: todo-api\r\n";

/// An answer: a status, header fields, a body.
///
/// Fields of the connection (`Date`, `Content-Length`, `Connection`) are added when it is sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    constant_fields: &'static str,
    headers: Vec<(&'static str, String)>,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response::new(status, NO_CONTENT, Vec::new())
    }

    /// An answer with any body. `constant_fields` comes from the macro of that name.
    pub fn new(status: u16, constant_fields: &'static str, body: Vec<u8>) -> Response {
        Response {
            status,
            constant_fields,
            headers: Vec::new(),
            body,
        }
    }

    /// An answer in JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Response {
        Response::serialized(status, JSON, value)
    }

    /// An answer whose body is JSON already.
    pub fn json_text(status: u16, body: Vec<u8>) -> Response {
        Response::new(status, JSON, body)
    }

    /// An error as `application/problem+json` (RFC 9457).
    pub fn problem(status: u16, value: &impl Serialize) -> Response {
        Response::serialized(status, PROBLEM, value)
    }

    /// A value that cannot be written as JSON becomes a 500 without a body. No type of this program is such a value.
    fn serialized(status: u16, fields: &'static str, value: &impl Serialize) -> Response {
        let mut body = Vec::with_capacity(512);
        match serde_json::to_writer(&mut body, value) {
            Ok(()) => Response::new(status, fields, body),
            Err(error) => {
                log::error!("an answer cannot be written as JSON: {error}");
                Response::empty(500)
            }
        }
    }

    /// Adds a header field. Control characters are removed from the value, so that it cannot start another field.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        let mut value = value.into();
        value.retain(|c| !c.is_control());
        self.headers.push((name, value));
        self
    }
}

/// How an answer is framed for its connection.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// The request was HEAD: only the head of the answer is sent.
    pub head_only: bool,
    /// The request was HTTP/1.0: an answer on a connection that stays open says so.
    pub http_1_0: bool,
    /// The connection ends with this answer.
    pub close: bool,
    /// Whole lines of header fields: those of [`Policy`](super::policy::Policy) for this client.
    pub fields: Arc<str>,
    /// The request's `Accept` names `application/problem+json`: errors are sent as that.
    pub problem: bool,
}

/// Initial capacity for the fields of an answer, in bytes.
const FIELDS: usize = 640;

/// The head is inserted before a body of at least this many bytes, so that a large answer is in memory only once. Smaller bodies are
/// copied behind the head.
const LARGE: usize = 32 * 1024;

impl Response {
    /// The whole answer as bytes, for one write.
    pub fn encode(mut self, framing: &Framing, request_id: &str) -> Vec<u8> {
        let large = self.body.len() >= LARGE;
        let copied = if large { 0 } else { self.body.len() };
        let mut out = Vec::with_capacity(FIELDS + framing.fields.len() + copied);
        // RFC 9110, section 8.6: neither 204 nor 304 has content, and neither says how long it is.
        let content = !matches!(self.status, 204 | 304);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        out.extend_from_slice(self.constant_fields.as_bytes());
        write_date(&mut out);
        if content {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            // Takes a third of the time of `write!`.
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(framing.fields.as_bytes());
        for part in ["X-Request-ID: ", request_id, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        if framing.close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if framing.http_1_0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if content && !framing.head_only {
            if large {
                self.body.splice(..0, out);
                return self.body;
            }
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// The status's standard phrase (RFC 9110, section 15; RFC 6585).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "Date: [weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT\r\n"
);

/// Writes the field `Date` (RFC 9110, section 5.6.7), which each thread formats once a second.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = OffsetDateTime::now_utc();
    LAST.with_borrow_mut(|(second, line)| {
        if *second != now.unix_timestamp() {
            *second = now.unix_timestamp();
            *line = now.format(DATE).unwrap_or_default();
        }
        out.extend_from_slice(line.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Response, framing: &Framing) -> String {
        String::from_utf8(response.encode(framing, "r1")).unwrap()
    }

    #[test]
    fn an_answer_is_encoded_into_one_block_of_bytes() {
        let response = Response::json(200, &serde_json::json!({"a": 1})).header("Allow", "GET");
        let text = text(response, &Framing::default());
        let (before_date, rest) = text.split_once("Date: ").unwrap();
        assert_eq!(
            before_date,
            "HTTP/1.1 200 OK\r\nServer: todo-api\r\nContent-Type: application/json\r\n\
             X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\
             Content-Security-Policy: frame-ancestors 'none'\r\n"
        );
        let (_, after_date) = rest.split_once(" GMT\r\n").unwrap();
        assert_eq!(
            after_date,
            "Content-Length: 7\r\nAllow: GET\r\nX-Request-ID: r1\r\n\r\n{\"a\":1}"
        );
    }

    #[test]
    fn a_large_answer_has_the_same_head() {
        let response = |length| Response::json_text(200, vec![b'a'; length]).header("Link", "<x>");
        let [large, small] = [LARGE, 10_000].map(|length| {
            let text = text(response(length), &Framing::default());
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, "a".repeat(length));
            head.replace(&format!("Length: {length}\r"), "Length\r")
        });
        assert_eq!(large.split("Date: ").next(), small.split("Date: ").next());
        assert_eq!(large.split(" GMT").last(), small.split(" GMT").last());
    }

    #[test]
    fn an_answer_to_head_keeps_the_length_and_drops_the_body() {
        let framing = Framing {
            head_only: true,
            ..Framing::default()
        };
        let text = text(Response::json(200, &"x"), &framing);
        assert!(
            text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_204_has_no_length() {
        let framing = Framing {
            close: true,
            ..Framing::default()
        };
        let text = text(Response::empty(204), &framing);
        assert!(
            !text.contains("Content-Length") && text.contains("Connection: close\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_value_cannot_start_another_field() {
        let response = Response::empty(200).header("Location", "/a\r\nSet-Cookie: b");
        assert!(text(response, &Framing::default()).contains("Location: /aSet-Cookie: b\r\n"));
    }
}
