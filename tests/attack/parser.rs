//! A strict parser of HTTP/1.1 streams, written from RFC 9112 alone. The server must split a stream in the same way.
//!
//! It parses the complete stream of a client. It is slow and simple on purpose.

/// The limits of the server with which it is compared.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub head: usize,
    pub fields: usize,
    pub target: usize,
    pub body: usize,
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// In origin form, or `*`.
    pub target: String,
    /// Names in lower case, values without white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub http_1_0: bool,
    /// The connection ends after it.
    pub last: bool,
}

/// How a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Between two requests.
    Clean,
    /// In the middle of a request.
    Early,
    /// With bytes that must be refused with one of these statuses; 0 allows no answer.
    Refused(Vec<u16>),
    /// With a request that ends the connection.
    Last,
}

/// Splits a stream into its requests.
pub fn split(stream: &[u8], bounds: Bounds) -> (Vec<Request>, End) {
    let mut requests = Vec::new();
    let mut rest = stream;
    loop {
        match next(rest, bounds) {
            Ok(Some((request, length))) => {
                rest = &rest[length..];
                let last = request.last;
                requests.push(request);
                if last {
                    return (requests, End::Last);
                }
            }
            Ok(None) if rest.iter().all(|byte| b"\r\n".contains(byte)) => {
                return (requests, End::Clean);
            }
            Ok(None) => return (requests, End::Early),
            Err(statuses) => return (requests, End::Refused(statuses)),
        }
    }
}

/// Statuses that are right for an error.
type Refusal = Vec<u16>;

/// A complete part, `None` if it is incomplete, or an error.
type Found<T> = Result<Option<T>, Refusal>;

fn refuse<T>(statuses: &[u16]) -> Result<T, Refusal> {
    Err(statuses.to_vec())
}

/// One line without its CR LF, and the rest. `None` if it is incomplete.
fn line(bytes: &[u8]) -> Found<(&[u8], &[u8])> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => match bytes.get(at + 1) {
                Some(b'\n') => return Ok(Some((&bytes[..at], &bytes[at + 2..]))),
                // Section 2.2: a bare CR is invalid. A parser of whole lines finds it only at the end of the line.
                Some(_) if bytes[at..].contains(&b'\n') => return refuse(&[400]),
                Some(_) => return refuse(&[400, 0]),
                None => return Ok(None),
            },
            // Section 2.2 allows a recipient to accept a bare LF as a line ending. A server behind a proxy must not.
            b'\n' => return refuse(&[400]),
            _ => {}
        }
    }
    Ok(None)
}

fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| b" \t".contains(byte);
    let start = bytes
        .iter()
        .position(|byte| !is_space(byte))
        .unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|byte| !is_space(byte))
        .map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// A field line (section 5): a token, a colon, a value of visible characters, obs-text, space and tab.
fn field(line: &[u8]) -> Result<(String, Vec<u8>), Refusal> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return refuse(&[400]);
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let allowed = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !is_token(name) || !value.iter().all(allowed) {
        return refuse(&[400]);
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).unwrap();
    Ok((name, trim(value).to_vec()))
}

/// The first request of a stream and its length; `None` if it is incomplete.
fn next(stream: &[u8], bounds: Bounds) -> Found<(Request, usize)> {
    let head = head(stream, bounds)?;
    let Some((mut request, mut rest, framing)) = head else {
        return Ok(None);
    };
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            let Some(body) = rest.get(..length) else {
                return Ok(None);
            };
            request.body = body.to_vec();
            rest = &rest[length..];
        }
        Framing::Chunked => match chunks(rest, bounds)? {
            Some((body, behind)) => {
                request.body = body;
                rest = behind;
            }
            None => return Ok(None),
        },
    }
    Ok(Some((request, stream.len() - rest.len())))
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn head(stream: &[u8], bounds: Bounds) -> Found<(Request, &[u8], Framing)> {
    // A head over the limit is refused even if it is incomplete; an error before the limit comes first.
    let too_large: &[u16] = &[414, 431];
    let whole = |rest: &[u8]| stream.len() - rest.len();
    let mut rest = stream;
    // Section 2.2: empty lines before a request line are skipped.
    let request_line = loop {
        match line(rest) {
            Ok(Some((b"", behind))) => rest = behind,
            Ok(Some((line, behind))) => {
                rest = behind;
                break line;
            }
            Ok(None) if stream.len() > bounds.head => return refuse(&[400, 414, 431]),
            Ok(None) => return Ok(None),
            Err(refusal) => return Err(with_size(refusal, stream, bounds)),
        }
    };
    let mut lines: Vec<&[u8]> = Vec::new();
    loop {
        match line(rest) {
            Ok(Some((b"", behind))) => {
                rest = behind;
                break;
            }
            Ok(Some((line, behind))) => {
                rest = behind;
                lines.push(line);
            }
            Ok(None) if stream.len() > bounds.head => return refuse(&[400, 414, 431]),
            Ok(None) => return Ok(None),
            Err(refusal) => return Err(with_size(refusal, stream, bounds)),
        }
    }
    if whole(rest) > bounds.head {
        return refuse(&[400, 414, 431]);
    }
    // A head may have several faults, and no rule says which is reported; each fault adds its statuses.
    let mut faults: Vec<u16> = Vec::new();
    let parsed = parse_request_line(request_line, bounds, &mut faults);
    let mut fields = Vec::new();
    for line in &lines {
        match field(line) {
            Ok(field) => fields.push(field),
            Err(statuses) => faults.extend(statuses),
        }
    }
    if lines.len() > bounds.fields {
        faults.extend(too_large);
    }
    let http_1_0 = parsed.as_ref().is_some_and(|(_, _, http_1_0)| *http_1_0);
    check_host(&fields, http_1_0, &mut faults);
    let framing = framing(&fields, http_1_0, bounds, &mut faults);
    for value in all(&fields, "expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            faults.push(417);
        }
    }
    let (Some((method, target, http_1_0)), Some(framing), true) =
        (parsed, framing, faults.is_empty())
    else {
        assert!(!faults.is_empty());
        return Err(faults);
    };
    let options: Vec<String> = all(&fields, "connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|option| String::from_utf8_lossy(trim(option)).to_ascii_lowercase())
        .collect();
    let has = |option: &str| options.iter().any(|other| other == option);
    let last = has("close") || (http_1_0 && !has("keep-alive"));
    let request = Request {
        method,
        target,
        fields,
        body: Vec::new(),
        http_1_0,
        last,
    };
    Ok(Some((request, rest, framing)))
}

/// A faulty head over the size limit may be refused for either reason.
fn with_size(mut refusal: Refusal, stream: &[u8], bounds: Bounds) -> Refusal {
    if stream.len() > bounds.head {
        refusal.extend([414, 431]);
    }
    refusal
}

fn all<'f>(fields: &'f [(String, Vec<u8>)], name: &'f str) -> impl Iterator<Item = &'f [u8]> {
    fields
        .iter()
        .filter(move |(field, _)| field == name)
        .map(|(_, value)| value.as_slice())
}

/// Method, target in origin form, and whether it is HTTP/1.0 (section 3).
fn parse_request_line(
    line: &[u8],
    bounds: Bounds,
    faults: &mut Vec<u16>,
) -> Option<(String, String, bool)> {
    let before = faults.len();
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        faults.push(400);
        // The last word may be an unsupported version, and any word may be too long.
        if parts.last().is_some_and(|word| names_a_version(word)) {
            faults.push(505);
        }
        if parts.iter().any(|part| part.len() > bounds.target) {
            faults.push(414);
        }
        return None;
    };
    if !is_token(method) {
        faults.push(400);
    }
    if target.len() > bounds.target {
        faults.push(414);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        _ if names_a_version(version) => faults.push(505),
        _ => faults.push(400),
    }
    let origin = origin_form(method, target);
    if origin.is_none() {
        faults.push(400);
    }
    if faults.len() > before {
        return None;
    }
    Some((
        String::from_utf8(method.to_vec()).unwrap(),
        origin?,
        version == b"HTTP/1.0",
    ))
}

fn names_a_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Section 3.2. `None` for a form that an origin server does not accept.
fn origin_form(method: &[u8], target: &[u8]) -> Option<String> {
    let visible = |byte: &u8| (0x21..=0x7e).contains(byte) && *byte != b'#';
    if target.is_empty() || !target.iter().all(visible) {
        return None;
    }
    let target = std::str::from_utf8(target).ok()?;
    if target.starts_with('/') || (target == "*" && method == b"OPTIONS") {
        return Some(target.to_owned());
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return None;
    }
    Some(if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    })
}

/// Host with or without a port (RFC 3986, section 3.2), which may be empty. The name is not looked up; only its characters are
/// checked.
fn is_host(bytes: &[u8]) -> bool {
    let (host, port, literal) = match bytes.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            None | Some(0) => return false,
            Some(end) => (&rest[..end], &rest[end + 1..], true),
        },
        None => {
            let end = bytes.iter().position(|byte| *byte == b':');
            let (host, port) = bytes.split_at(end.unwrap_or(bytes.len()));
            (host, port, false)
        }
    };
    let in_host = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~!$&'()*+,;=%".contains(byte)
            || (literal && *byte == b':')
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host.iter().all(in_host) && port_fits
}

fn check_host(fields: &[(String, Vec<u8>)], http_1_0: bool, faults: &mut Vec<u16>) {
    let hosts: Vec<&[u8]> = all(fields, "host").collect();
    let fine = match hosts[..] {
        [] => http_1_0,
        [host] => is_host(host),
        _ => false,
    };
    if !fine {
        faults.push(400);
    }
}

/// Section 6.3, without the leniency that it allows.
fn framing(
    fields: &[(String, Vec<u8>)],
    http_1_0: bool,
    bounds: Bounds,
    faults: &mut Vec<u16>,
) -> Option<Framing> {
    let before = faults.len();
    let lengths: Vec<&[u8]> = all(fields, "content-length").collect();
    let codings: Vec<Vec<u8>> = all(fields, "transfer-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|coding| trim(coding).to_ascii_lowercase())
        .collect();
    if lengths.len() > 1 || (!lengths.is_empty() && !codings.is_empty()) {
        faults.push(400);
    }
    if !codings.is_empty() && codings != [b"chunked".to_vec()] {
        // The status depends on how the list is read.
        faults.extend([400, 501]);
    }
    if !codings.is_empty() && http_1_0 {
        faults.push(400);
    }
    let mut length = 0;
    if let Some(digits) = lengths.first() {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            faults.push(400);
        } else {
            let significant: &[u8] = {
                let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
                &digits[zeros..]
            };
            let value = match significant.len() {
                0 => 0,
                1..=18 => std::str::from_utf8(significant).unwrap().parse().unwrap(),
                _ => u64::MAX,
            };
            if value > bounds.body as u64 {
                faults.push(413);
            } else {
                length = usize::try_from(value).unwrap();
            }
        }
    }
    if faults.len() > before {
        return None;
    }
    Some(match (codings.is_empty(), length) {
        (false, _) => Framing::Chunked,
        (true, 0) => Framing::None,
        (true, length) => Framing::Length(length),
    })
}

/// A chunked body (section 7.1) and the rest; `None` if it is incomplete.
fn chunks(stream: &[u8], bounds: Bounds) -> Found<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    let mut rest = stream;
    loop {
        // A size that is malformed or too large is refused before its line is complete.
        let digits = rest
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let Some(behind_digits) = rest.get(digits) else {
            return if digits > 15 || larger_than_fits(&rest[..digits], &body, bounds) {
                // More digits may follow, but the size is already too long or too large: refused now or later.
                Err(vec![400, 413, 0])
            } else {
                Ok(None)
            };
        };
        if digits == 0 {
            return refuse(&[400]);
        }
        let mut too_large: Vec<u16> = Vec::new();
        if larger_than_fits(&rest[..digits], &body, bounds) {
            too_large.push(413);
        }
        if digits > 15 {
            too_large.extend([400, 413]);
        }
        // The standard discourages white space here but asks recipients to accept it. The server refuses it, because parsers read
        // it differently.
        if !matches!(behind_digits, b'\r' | b';') {
            too_large.push(400);
            return Err(too_large);
        }
        let size_line = match line(&rest[digits..]) {
            Ok(Some((extension, behind))) => {
                rest = behind;
                extension
            }
            Ok(None) if too_large.is_empty() => return Ok(None),
            Ok(None) => {
                too_large.push(0);
                return Err(too_large);
            }
            Err(mut refusal) => {
                refusal.extend(too_large);
                return Err(refusal);
            }
        };
        let digits = &stream[stream.len() - rest.len() - 2 - size_line.len() - digits..][..digits];
        if !is_extension(size_line) {
            too_large.push(400);
            return Err(too_large);
        }
        if !too_large.is_empty() {
            return Err(too_large);
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        let Some(data) = rest.get(..size) else {
            body.extend_from_slice(rest);
            return Ok(None);
        };
        body.extend_from_slice(data);
        rest = &rest[size..];
        match rest {
            [b'\r', b'\n', ..] => rest = &rest[2..],
            [] | [b'\r'] => return Ok(None),
            _ => return refuse(&[400]),
        }
    }
    // The trailer section.
    loop {
        match line(rest)? {
            Some((b"", behind)) => return Ok(Some((body, behind))),
            Some((line, behind)) => {
                field(line)?;
                rest = behind;
            }
            None => return Ok(None),
        }
    }
}

fn larger_than_fits(digits: &[u8], body: &[u8], bounds: Bounds) -> bool {
    let significant: Vec<u8> = digits
        .iter()
        .copied()
        .skip_while(|digit| *digit == b'0')
        .collect();
    match significant.len() {
        0 => false,
        1..=15 => {
            let size =
                usize::from_str_radix(std::str::from_utf8(&significant).unwrap(), 16).unwrap();
            body.len() + size > bounds.body
        }
        _ => true,
    }
}

/// What may follow a chunk size: nothing, or extensions, which are skipped.
fn is_extension(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    bytes.is_empty() || (trim(bytes).first() == Some(&b';') && bytes.iter().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::requests::{LAST, MALFORMED, REFUSED_WITH_ONE_OF, UNUSUAL, bytes};

    const BOUNDS: Bounds = Bounds {
        head: 16_384,
        fields: 64,
        target: 4_096,
        body: 1_048_576,
    };

    #[test]
    fn the_strict_parser_agrees_with_the_tables_of_requests() {
        for (status, template) in MALFORMED {
            let (requests, end) = split(&bytes(template, "Bearer x"), BOUNDS);
            let End::Refused(statuses) = &end else {
                panic!("{}: {requests:?} {end:?}", template.escape_ascii());
            };
            assert!(
                statuses.contains(status),
                "{}: {end:?}",
                template.escape_ascii()
            );
            assert!(requests.is_empty(), "{}", template.escape_ascii());
        }
        for (_, template) in REFUSED_WITH_ONE_OF {
            let (requests, end) = split(&bytes(template, "Bearer x"), BOUNDS);
            assert!(
                matches!(end, End::Refused(_)),
                "{}: {requests:?} {end:?}",
                template.escape_ascii()
            );
        }
        for (statuses, template) in UNUSUAL {
            let (requests, end) = split(&bytes(template, "Bearer x"), BOUNDS);
            assert_eq!(
                (requests.len(), end),
                (statuses.len(), End::Clean),
                "{}",
                template.escape_ascii()
            );
        }
        for (_, template) in LAST {
            let (requests, end) = split(&bytes(template, "Bearer x"), BOUNDS);
            assert_eq!(
                (requests.len(), end),
                (1, End::Last),
                "{}",
                template.escape_ascii()
            );
        }
    }
}
