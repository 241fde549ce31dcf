//! The head of a request: where it ends, and what it says of framing (RFC 9112).
//!
//! `httparse` reads the grammar. What it takes more lightly than the RFC allows a server that stands behind proxies is
//! checked here: bare CR and LF, bytes above 0x7F in a target, `Host`, and every ambiguity about the end of a
//! body. What is doubtful is refused and the connection closed. Otherwise a proxy that reads the first request differently
//! would let a second one pass unseen.

use std::borrow::Cow;
use std::ops::Range;

use crate::http::error::Error;
use crate::http::request::{Headers, Method};

/// Bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line and the fields together.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of the target.
    pub target: usize,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing.
    None,
    /// So many bytes, however many.
    Length(usize),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
}

/// A head that was understood.
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
    /// HTTP/1.0.
    pub http_1_0: bool,
    /// Whether the client wants the connection closed after the answer.
    pub close: bool,
    /// Whether the client waits to be told to send the body.
    pub expects_continue: bool,
}

/// Finds where a head ends, looking at each byte once.
#[derive(Debug, Default)]
pub struct HeadScanner {
    // Where the line that is being looked at starts, and how far it has been looked at.
    line: usize,
    seen: usize,
    // Whether the request line has been passed.
    started: bool,
}

impl HeadScanner {
    /// The length of the head at the start of `input`, or `None` when more is needed.
    ///
    /// # Errors
    /// A bare LF or CR ends a line for some and not for others; a target or head over its bound. `input` may grow between
    /// calls, but not change.
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
                return if self.seen > limits.bytes {
                    Err(too_large())
                } else {
                    Ok(Some(self.seen))
                };
            }
        }
        if input.len() > limits.bytes {
            // Where the request line alone is too long, it is the target.
            return Err(if self.started {
                too_large()
            } else {
                Error::UriTooLong(limits.target)
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

/// The `Origin` in a head that is incomplete or was refused: enough for a page to be let read why. Of several the first.
pub fn origin(head: &[u8]) -> Option<&[u8]> {
    values(head, "Origin").next()
}

/// The values of a field in a head that is incomplete or was refused, as far as its lines go.
pub fn values<'h>(head: &'h [u8], name: &str) -> impl Iterator<Item = &'h [u8]> {
    head.split_inclusive(|byte| *byte == b'\n')
        // What does not end in a newline may not be whole.
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
/// Whatever makes it unfit to be served; the connection must be closed then.
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

/// httparse knows no more than that something is wrong with a version; a client of the future deserves a better word.
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

/// Whether the request line has three words, the last of which is `HTTP/` digit `.` digit.
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

/// The fields, as places in a copy of the head.
fn in_place(head: &[u8], fields: &[httparse::Header<'_>]) -> Headers {
    let start = head.as_ptr() as usize;
    let place = |part: &[u8]| -> Range<usize> {
        // Every part httparse gives out lies in the head it was given; what does not is as good as empty.
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
    let (host, port) = match text.strip_prefix(b"[") {
        // An IPv6 address. The text in the brackets is not used, so it is not checked further.
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => (
                rest.get(..end).unwrap_or_default(),
                rest.get(end + 1..).unwrap_or_default(),
            ),
            None => return false,
        },
        None => text.split_at(
            text.iter()
                .position(|byte| *byte == b':')
                .unwrap_or(text.len()),
        ),
    };
    let bracketed = text.starts_with(b"[");
    let in_host = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~!$&'()*+,;=%".contains(byte)
            || (bracketed && *byte == b':')
    };
    let port_fits = match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    host.iter().all(in_host) && port_fits && !(bracketed && host.is_empty())
}

/// The target as a server at home has it (RFC 9112, section 3.2).
fn origin_form(target: &str, method: Method) -> Result<String, Error> {
    if !target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err(bad("the target holds a character that must be encoded"));
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(target.to_owned());
    }
    let scheme_end = target.find("://").filter(|end| {
        let scheme = target.get(..*end).unwrap_or_default();
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let Some(rest) = scheme_end.and_then(|end| target.get(end + 3..)) else {
        return Err(bad("the target must be a path or an http URL"));
    };
    let path = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(path).unwrap_or((rest, ""));
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(bad("the target must be a path or an http URL"));
    }
    Ok(if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
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
            // A number with more digits than fit is larger than any limit.
            let length = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok());
            Ok(match length.unwrap_or(usize::MAX) {
                0 => BodyFraming::None,
                length => BodyFraming::Length(length),
            })
        }
    }
}

/// Whether `Transfer-Encoding` says `chunked`, the one coding that is read here.
fn is_chunked(headers: &Headers) -> Result<bool, Error> {
    let mut codings = 0;
    let mut unknown = false;
    let mut last_is_chunked = false;
    let mut chunked = 0;
    let mut present = false;
    for value in headers.raw("Transfer-Encoding") {
        present = true;
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            codings += 1;
            chunked += usize::from(last_is_chunked);
            unknown |= !last_is_chunked && !coding.is_empty();
        }
    }
    match (present, last_is_chunked) {
        (false, _) => Ok(false),
        (true, true) if codings == 1 => Ok(true),
        (true, false) if chunked > 0 || !unknown => {
            Err(bad("the final transfer coding must be chunked"))
        }
        (true, _) if chunked > 1 => Err(bad("a body is chunked once")),
        _ if unknown => Err(Error::NotImplemented(
            "the only transfer coding that is read here is chunked",
        )),
        _ => Err(bad("the header field Transfer-Encoding is malformed")),
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
