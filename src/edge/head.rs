//! The head of a request: where it ends, and how the body is framed (RFC 9112).
//!
//! `httparse` reads the grammar. It accepts more than the RFC allows a server behind proxies, so this module also checks bare CR and
//! LF, bytes above 0x7F in a target, `Host`, and every ambiguity about the end of a body. A doubtful request is refused and its
//! connection closed. Otherwise a proxy that finds another end of the first request would not see the second one.

use std::borrow::Cow;
use std::ops::Range;

use crate::http::error::Error;
use crate::http::request::{Headers, Method};

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// The most bytes of the request line and the fields together.
    pub bytes: usize,
    /// The most fields.
    pub fields: usize,
    /// The most bytes of the target.
    pub target: usize,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing.
    None,
    /// A body of so many bytes.
    Length(usize),
    /// A chunked body (RFC 9112, section 7.1).
    Chunked,
}

/// A parsed head.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target in origin form, or `*`.
    pub target: String,
    /// The fields.
    pub headers: Headers,
    /// What follows.
    pub body: BodyFraming,
    /// Whether the version is HTTP/1.0.
    pub http_1_0: bool,
    /// Whether the client wants the connection closed after the answer.
    pub close: bool,
    /// Whether the client waits for an interim response before it sends the body.
    pub expects_continue: bool,
}

/// Finds where a head ends, looking at each byte once.
#[derive(Debug, Default)]
pub struct HeadScanner {
    // The start of the current line, and the number of bytes that have been read.
    line: usize,
    seen: usize,
    // Whether the request line has been read.
    started: bool,
}

impl HeadScanner {
    /// The length of the head at the start of `input`, or `None` when more is needed.
    ///
    /// # Errors
    /// A line ends with a bare LF or has a bare CR, which parsers read in different ways; or the target or the head is too large.
    /// Between calls `input` may grow, but not change.
    pub fn find(&mut self, input: &[u8], limits: HeadLimits) -> Result<Option<usize>, Error> {
        while let Some(offset) = input
            .get(self.seen..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let newline = self.seen + offset;
            let line = input.get(self.line..newline).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(bad("a line does not end with CR LF"));
            };
            if line.contains(&b'\r') {
                return Err(bad("a CR stands alone"));
            }
            self.seen = newline + 1;
            self.line = self.seen;
            if !line.is_empty() {
                if !self.started && line.len() > limits.bytes {
                    return Err(Error::UriTooLong(limits.target));
                }
                self.started = true;
            } else if self.started {
                return match self.seen > limits.bytes {
                    true => Err(too_large()),
                    false => Ok(Some(self.seen)),
                };
            }
        }
        if input.len() > limits.bytes {
            // If the request line alone is too long, its target is.
            return Err(match self.started {
                true => too_large(),
                false => Error::UriTooLong(limits.target),
            });
        }
        self.seen = input.len();
        Ok(None)
    }
}

/// Whether a head that could not be read is that of a HEAD request, which is answered without content whatever else it says
/// (RFC 9110, section 9.3.2).
pub fn asks_for_head_alone(input: &[u8]) -> bool {
    input.trim_ascii_start().starts_with(b"HEAD ")
}

fn too_large() -> Error {
    Error::HeadersTooLarge("the request line and header fields are too large")
}

fn bad(text: &'static str) -> Error {
    Error::BadRequest(Cow::Borrowed(text))
}

/// The first `Origin` in a head that is incomplete or was refused, so that a page may read the error.
pub fn origin(head: &[u8]) -> Option<&[u8]> {
    values(head, "Origin").next()
}

/// The values of a field in the complete lines of a head that is incomplete or was refused.
pub fn values<'h>(head: &'h [u8], name: &str) -> impl Iterator<Item = &'h [u8]> {
    head.split_inclusive(|byte| *byte == b'\n')
        .map_while(|line| line.strip_suffix(b"\n").map(<[u8]>::trim_ascii_end))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(move |line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            field
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        })
}

/// Reads a whole head.
///
/// # Errors
/// The request cannot be served. The connection must then be closed.
pub fn parse(head: &[u8], limits: HeadLimits) -> Result<Head, Error> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.fields];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("the head is incomplete")),
        Err(error) => return Err(explain(error, head)),
    }
    let http_1_0 = request.version == Some(0);
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if target.len() > limits.target {
        return Err(Error::UriTooLong(limits.target));
    }
    let headers = in_place(head, request.headers);
    let method = Method::parse(method);
    check_host(&headers, http_1_0)?;
    Ok(Head {
        target: origin_form(target, method)?,
        body: body_framing(&headers, http_1_0)?,
        close: wants_close(&headers, http_1_0),
        expects_continue: expects_continue(&headers, http_1_0)?,
        method,
        http_1_0,
        headers,
    })
}

/// The error for one of `httparse`. It does not say whether a version is malformed or not supported.
fn explain(error: httparse::Error, head: &[u8]) -> Error {
    match error {
        httparse::Error::TooManyHeaders => {
            Error::HeadersTooLarge("there are too many header fields")
        }
        httparse::Error::Version if names_another_version(head) => Error::VersionNotSupported,
        httparse::Error::Version => bad("the request line does not end with a version of HTTP"),
        httparse::Error::HeaderName => bad("a header field's name is malformed"),
        httparse::Error::HeaderValue => bad("a header field's value is malformed"),
        httparse::Error::NewLine => bad("a line does not end with CR LF"),
        _ => bad("the request line is malformed"),
    }
}

/// Whether the request line has three words and the last one is `HTTP/` digit `.` digit.
fn names_another_version(head: &[u8]) -> bool {
    let line = head
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    matches!(version, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
        && words.next().is_none()
}

/// The fields, as ranges in a copy of the head.
fn in_place(head: &[u8], fields: &[httparse::Header<'_>]) -> Headers {
    let start = head.as_ptr() as usize;
    let place = |part: &[u8]| -> Range<usize> {
        // `httparse` returns parts of the head. A range outside of it would be read as empty.
        let at = (part.as_ptr() as usize).wrapping_sub(start);
        at..at.saturating_add(part.len())
    };
    let places = fields
        .iter()
        .map(|field| (place(field.name.as_bytes()), place(field.value)))
        .collect();
    Headers::in_place(head.to_vec(), places)
}

/// RFC 9112, section 3.2: one `Host`, which HTTP/1.0 may leave out.
fn check_host(headers: &Headers, http_1_0: bool) -> Result<(), Error> {
    let mut hosts = headers.raw("Host");
    match (hosts.next(), hosts.next()) {
        (None, _) if http_1_0 => Ok(()),
        (None, _) => Err(bad("the header field Host is missing")),
        (Some(_), Some(_)) => Err(bad("the header field Host is there twice")),
        (Some(host), None) if is_authority(host) => Ok(()),
        (Some(_), None) => Err(bad("the header field Host is malformed")),
    }
}

/// Whether this may be a host with or without a port (RFC 3986, section 3.2, without user information). `Host` may be empty.
fn is_authority(text: &[u8]) -> bool {
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let (host_fits, port) = match text.strip_prefix(b"[") {
        // An IPv6 address. The text in the brackets is not used, so it is not checked further.
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let (host, port) = rest.split_at(end);
            let fits = |byte: &u8| in_host(byte) || *byte == b':';
            (
                end > 0 && host.iter().all(fits),
                port.get(1..).unwrap_or_default(),
            )
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':');
            let (host, port) = text.split_at(end.unwrap_or(text.len()));
            (host.iter().all(in_host), port)
        }
    };
    let port_fits = match port.split_first() {
        None => true,
        Some((colon, digits)) => *colon == b':' && digits.iter().all(u8::is_ascii_digit),
    };
    host_fits && port_fits
}

/// The target in origin form (RFC 9112, section 3.2.1).
fn origin_form(target: &str, method: Method) -> Result<String, Error> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !target.bytes().all(fits) {
        return Err(bad("the target holds a character that must be encoded"));
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(target.to_owned());
    }
    let (scheme, rest) = target.split_once("://").unwrap_or_default();
    let is_http = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
    let path = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(path).unwrap_or((rest, ""));
    if !is_http || authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(bad("the target must be a path or an http URL"));
    }
    Ok(match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    })
}

/// Where the body ends (RFC 9112, section 6).
fn body_framing(headers: &Headers, http_1_0: bool) -> Result<BodyFraming, Error> {
    let mut lengths = headers.raw("Content-Length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(bad("the header field Content-Length is there twice"));
    }
    let chunked = is_chunked(headers)?;
    match (length, chunked) {
        (Some(_), true) => Err(bad(
            "Content-Length and Transfer-Encoding exclude each other",
        )),
        (None, true) if http_1_0 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
        (None, true) => Ok(BodyFraming::Chunked),
        (None, false) => Ok(BodyFraming::None),
        (Some(digits), false) => {
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(bad("the header field Content-Length is not a number"));
            }
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            // A number that does not fit is larger than any limit.
            Ok(match digits.parse().unwrap_or(usize::MAX) {
                0 => BodyFraming::None,
                length => BodyFraming::Length(length),
            })
        }
    }
}

/// Whether `Transfer-Encoding` is `chunked`, the only coding that is supported.
fn is_chunked(headers: &Headers) -> Result<bool, Error> {
    let values = headers.raw("Transfer-Encoding");
    let codings: Vec<&[u8]> = values
        .flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
        .collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let chunked = codings
        .iter()
        .copied()
        .filter(|coding| is_chunked(coding))
        .count();
    let unknown = codings
        .iter()
        .any(|coding| !is_chunked(coding) && !coding.is_empty());
    match codings.last() {
        None => Ok(false),
        Some(_) if chunked == 1 && codings.len() == 1 => Ok(true),
        Some(last) if !is_chunked(last) && (chunked > 0 || !unknown) => {
            Err(bad("the final transfer coding must be chunked"))
        }
        Some(_) if chunked > 1 => Err(bad("a body is chunked once")),
        Some(_) if unknown => Err(Error::NotImplemented(
            "the only supported transfer coding is chunked",
        )),
        Some(_) => Err(bad("the header field Transfer-Encoding is malformed")),
    }
}

/// RFC 9112, section 9.3.
fn wants_close(headers: &Headers, http_1_0: bool) -> bool {
    let has = |wanted: &[u8]| {
        headers
            .raw("Connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    has(b"close") || (http_1_0 && !has(b"keep-alive"))
}

/// RFC 9110, section 10.1.1. HTTP/1.0 has no expectations.
fn expects_continue(headers: &Headers, http_1_0: bool) -> Result<bool, Error> {
    let mut expected = false;
    for value in headers.raw("Expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Error::ExpectationFailed);
        }
        expected = true;
    }
    Ok(expected && !http_1_0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 16 * 1024,
        fields: 64,
        target: 4096,
    };

    fn status(head: &str) -> u16 {
        let mut scanner = HeadScanner::default();
        match scanner.find(head.as_bytes(), LIMITS) {
            Ok(Some(length)) => parse(&head.as_bytes()[..length], LIMITS)
                .map_or_else(|error| error.status(), |_| 200),
            Ok(None) => 0,
            Err(error) => error.status(),
        }
    }

    fn with(fields: &str) -> String {
        format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    #[test]
    fn an_origin_is_found_in_a_head_that_is_refused() {
        for (head, found) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n\r\n",
                Some("https://a"),
            ),
            ("\x01\r\norigin:\thttps://a \r\nX: ", Some("https://a")),
            ("GET / HTTP/1.1\nOrigin: https://a\n", Some("https://a")),
            ("GET / HTTP/1.1\r\nOrigin: https://a", None),
            ("GET / HTTP/1.1\r\nX-Origin: https://a\r\n", None),
            ("GET / HTTP/1.1\r\n\r\nOrigin: https://a\r\n", None),
            ("Origin: https://a\r\n", None),
            ("", None),
        ] {
            let origin = origin(head.as_bytes()).map(|origin| str::from_utf8(origin).unwrap());
            assert_eq!(origin, found, "{head:?}");
        }
    }

    #[test]
    fn doubtful_framing_is_refused() {
        for (fields, expected) in [
            ("", 200),
            ("Content-Length: 5\r\n", 200),
            ("Content-Length: 18446744073709551616\r\n", 200),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 5x\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 5 5\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 200),
            ("transfer-encoding: Chunked\r\n", 200),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            (
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                501,
            ),
            ("Transfer-Encoding: identity\r\n", 501),
            ("Transfer-Encoding: xchunked\r\n", 501),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
            ("Transfer-Encoding: chunked, chunked\r\n", 400),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                400,
            ),
            ("Transfer-Encoding: chunked, identity\r\n", 400),
            ("Transfer-Encoding: \r\n", 400),
            ("Transfer-Encoding: ,chunked\r\n", 400),
            ("Transfer-Encoding: \u{b}chunked\r\n", 400),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("X: a\r\n b\r\n", 400),
            (" X: a\r\n", 400),
            ("X: a\rb\r\n", 400),
            ("X: a\nY: b\r\n", 400),
            ("X: a\0b\r\n", 400),
            (": a\r\n", 400),
            ("no colon\r\n", 400),
            ("Host: a\r\n", 400),
            ("Expect: 100-continue\r\n", 200),
            ("Expect: 200-maybe\r\n", 417),
            ("X: h\u{e9}\r\n", 200),
        ] {
            assert_eq!(status(&with(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn request_lines_are_judged() {
        for (line, expected) in [
            ("GET / HTTP/1.1", 200),
            ("\r\nGET / HTTP/1.1", 200),
            ("GET http://a/x?y HTTP/1.1", 200),
            ("GET HTTPS://a:1 HTTP/1.1", 200),
            ("GET http://a?x HTTP/1.1", 200),
            ("OPTIONS * HTTP/1.1", 200),
            ("BREW / HTTP/1.1", 200),
            ("GET * HTTP/1.1", 400),
            ("GET x HTTP/1.1", 400),
            ("GET ftp://a/x HTTP/1.1", 400),
            ("GET http:///x HTTP/1.1", 400),
            ("GET http://u@a/x HTTP/1.1", 400),
            ("CONNECT a:1 HTTP/1.1", 400),
            ("GET /#x HTTP/1.1", 400),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            ("G@T / HTTP/1.1", 400),
            ("GET /", 400),
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/1.2", 505),
            ("GET / HTTP/1.10", 400),
            ("GET / http/1.1", 400),
        ] {
            assert_eq!(
                status(&format!("{line}\r\nHost: a\r\n\r\n")),
                expected,
                "{line:?}"
            );
        }
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "no Host");
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200, "HTTP/1.0 needs none");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400);
        assert_eq!(
            status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            400
        );
    }

    #[test]
    fn targets_lose_their_authority() {
        let target = |line: &str| {
            let head = format!("{line}\r\nHost: a\r\n\r\n");
            parse(head.as_bytes(), LIMITS).unwrap().target
        };
        assert_eq!(target("GET http://a.example:1/x?y=1 HTTP/1.1"), "/x?y=1");
        assert_eq!(target("GET http://a HTTP/1.1"), "/");
        assert_eq!(target("GET http://a?y HTTP/1.1"), "/?y");
    }

    #[test]
    fn limits_hold_at_the_byte() {
        let head = |target: usize| {
            format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
                "x".repeat(target - 1)
            )
        };
        assert_eq!(
            (
                status(&head(4096)),
                status(&head(4097)),
                status(&head(20_000))
            ),
            (200, 414, 414)
        );
        let padded = |length: usize| {
            let rest = with("X: \r\n").len();
            with(&format!("X: {}\r\n", "x".repeat(length - rest)))
        };
        assert_eq!(
            (status(&padded(16 * 1024)), status(&padded(16 * 1024 + 1))),
            (200, 431)
        );
        assert_eq!(
            (
                status(&with(&"X: y\r\n".repeat(63))),
                status(&with(&"X: y\r\n".repeat(64)))
            ),
            (200, 431)
        );
    }

    #[test]
    fn fields_are_found_in_place() {
        let head = b"GET / HTTP/1.1\r\nhOsT: a\r\nX:\t  y \xff z\t\r\nY: \r\nZ:  b\r\n\r\n";
        let headers = parse(head, LIMITS).unwrap().headers;
        assert_eq!(
            (headers.get("host"), headers.get("z"), headers.get("y")),
            (Some("a"), Some("b"), Some(""))
        );
        assert_eq!(headers.get("x"), None, "no UTF-8");
        assert_eq!(headers.raw("x").next(), Some(&b"y \xff z"[..]));
    }

    #[test]
    fn connections_close_when_asked() {
        let close = |line: &str, connection: &str| {
            let head = format!("GET / {line}\r\nHost: a\r\n{connection}\r\n");
            parse(head.as_bytes(), LIMITS).unwrap().close
        };
        assert!(!close("HTTP/1.1", ""));
        assert!(close("HTTP/1.1", "Connection: Close\r\n"));
        assert!(close("HTTP/1.1", "Connection: x, close\r\n"));
        assert!(!close("HTTP/1.1", "Connection: closed\r\n"));
        assert!(close("HTTP/1.0", ""));
        assert!(!close("HTTP/1.0", "Connection: keep-alive\r\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&head, LIMITS);
            let _ = HeadScanner::default().find(&head, LIMITS);
        }

        #[test]
        fn a_head_that_comes_in_pieces_ends_at_the_same_byte(
            head in "([A-Z/ ]{1,9}(\r\n|\n|\r)?){0,9}(\r\n){0,3}", cuts in proptest::collection::vec(0_usize..99, 0..5)
        ) {
            let whole = HeadScanner::default().find(head.as_bytes(), LIMITS).map_err(|error| error.status());
            let mut scanner = HeadScanner::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(head.len())).collect();
            cuts.push(head.len());
            cuts.sort_unstable();
            let mut pieces = Ok(None);
            for cut in cuts {
                pieces = scanner.find(&head.as_bytes()[..cut], LIMITS).map_err(|error| error.status());
                if !matches!(pieces, Ok(None)) {
                    break;
                }
            }
            prop_assert_eq!(whole, pieces);
        }
    }
}
