//! An answer, and its bytes on the wire.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// An answer: a status, header fields, a body.
///
/// What belongs to the connection (`Date`, `Content-Length`, `Connection`) is added when it is sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    headers: Vec<(&'static str, String)>,
    content_type: Option<&'static str>,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            content_type: None,
            body: Vec::new(),
        }
    }

    /// An answer in JSON. What cannot be shown as JSON (no type of ours) becomes a 500 without a body.
    pub fn json(status: u16, value: &impl Serialize) -> Response {
        Response::with_content_type(status, "application/json", value)
    }

    /// An answer in text of some kind.
    pub fn text(status: u16, content_type: &'static str, body: Vec<u8>) -> Response {
        Response {
            content_type: Some(content_type),
            body,
            ..Response::empty(status)
        }
    }

    /// An answer in JSON under another media type.
    pub fn with_content_type(
        status: u16,
        content_type: &'static str,
        value: &impl Serialize,
    ) -> Response {
        let mut body = Vec::with_capacity(512);
        match serde_json::to_writer(&mut body, value) {
            Ok(()) => Response {
                status,
                headers: Vec::new(),
                content_type: Some(content_type),
                body,
            },
            Err(error) => {
                log::error!("an answer cannot be shown as JSON: {error}");
                Response::empty(500)
            }
        }
    }

    /// An answer that is no JSON.
    pub fn bytes(status: u16, content_type: &'static str, body: Vec<u8>) -> Response {
        Response {
            status,
            headers: Vec::new(),
            content_type: Some(content_type),
            body,
        }
    }

    /// Adds a header field. What cannot stand in one (a control character) is dropped from the value, so that no value can
    /// start a field of its own.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        let mut value = value.into();
        value.retain(|c| !c.is_control());
        self.headers.push((name, value));
        self
    }
}

/// How an answer has to be framed for the connection it goes to, and what it carries whatever it says.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// The request was HEAD: the head of the answer alone is sent.
    pub head_only: bool,
    /// The request was HTTP/1.0, whose clients must be told when a connection stays open.
    pub http_1_0: bool,
    /// The connection ends with this answer.
    pub close: bool,
    /// Whole lines of header fields: what [`Policy`](super::policy::Policy) says to this client.
    pub fields: Arc<str>,
}

/// What no answer goes without: it is what it says it is, stands in nobody's frame, and tells no other site where one came from.
const ALWAYS: &str =
    "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n";
/// Nothing may be loaded or run by an answer that is looked at as a page. Pages say themselves what they need.
const NO_CONTENT: (&str, &str) = (
    "Content-Security-Policy",
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n",
);
/// Nearly everything is somebody's own, and errors pass.
const NOT_KEPT: (&str, &str) = ("Cache-Control", "Cache-Control: no-store\r\n");
/// Room for an answer's own fields.
const OWN_FIELDS: usize = 768;

impl Response {
    /// The whole answer as bytes, for one write. Of what is said of caches and of what a page may load, the answer's own word
    /// stands in place of the usual one.
    pub fn encode(&self, framing: &Framing, request_id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(OWN_FIELDS + framing.fields.len() + self.body.len());
        // RFC 9110, section 8.6: neither 204 nor 304 has content, and neither says how long it is.
        let content = !matches!(self.status, 204 | 304);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = write!(out, "Server: todo-api\r\nDate: {}\r\n", date());
        if let Some(content_type) = self.content_type {
            let _ = write!(out, "Content-Type: {content_type}\r\n");
        }
        if content {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            // A third of the time that formatting takes.
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        for (name, line) in [NO_CONTENT, NOT_KEPT] {
            if !self
                .headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
            {
                out.extend_from_slice(line.as_bytes());
            }
        }
        out.extend_from_slice(ALWAYS.as_bytes());
        out.extend_from_slice(framing.fields.as_bytes());
        let _ = write!(out, "X-Request-ID: {request_id}\r\n");
        if framing.close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if framing.http_1_0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if content && !framing.head_only {
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

const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The time of day as RFC 9110, section 5.6.7 shows it, made once a second on each thread.
fn date() -> String {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = OffsetDateTime::now_utc();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.unix_timestamp() {
            *second = now.unix_timestamp();
            *text = now.format(IMF_FIXDATE).unwrap_or_default();
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response, framing: &Framing) -> String {
        String::from_utf8(response.encode(framing, "r1")).unwrap()
    }

    #[test]
    fn an_answer_is_one_piece() {
        let response = Response::json(200, &serde_json::json!({"a": 1})).header("Allow", "GET");
        let text = text(&response, &Framing::default());
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\nServer: todo-api\r\nDate: "),
            "{text}"
        );
        assert!(
            text.contains(
                " GMT\r\nContent-Type: application/json\r\nContent-Length: 7\r\nAllow: GET\r\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("X-Request-ID: r1\r\n\r\n{\"a\":1}"),
            "{text}"
        );
    }

    #[test]
    fn an_answers_own_word_stands_in_place_of_the_usual_one() {
        let usual = text(&Response::empty(204), &Framing::default());
        assert!(usual.contains("\r\nCache-Control: no-store\r\n"), "{usual}");
        assert!(
            usual.contains(
                "\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
            ),
            "{usual}"
        );
        let response = Response::json(200, &"x")
            .header("cache-control", "private, no-cache")
            .header("Content-Security-Policy", "default-src 'self'");
        let own = text(&response, &Framing::default());
        assert!(
            !own.contains("no-store") && !own.contains("'none'"),
            "{own}"
        );
        assert!(
            own.contains("cache-control: private, no-cache\r\n"),
            "{own}"
        );
    }

    #[test]
    fn head_keeps_the_length_and_drops_the_body() {
        let response = Response::json(200, &"x");
        let text = text(
            &response,
            &Framing {
                head_only: true,
                ..Framing::default()
            },
        );
        assert!(
            text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn no_content_has_no_length() {
        let text = text(
            &Response::empty(204),
            &Framing {
                close: true,
                ..Framing::default()
            },
        );
        assert!(
            !text.contains("Content-Length") && text.contains("Connection: close\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_value_cannot_start_a_field_of_its_own() {
        let response = Response::empty(200).header("Location", "/a\r\nSet-Cookie: b");
        assert!(text(&response, &Framing::default()).contains("Location: /aSet-Cookie: b\r\n"));
    }
}
