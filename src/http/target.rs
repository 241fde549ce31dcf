//! A request's path and query, decoded (RFC 3986).
//!
//! The path is split before each segment is decoded once, so that `%2F` never makes a new segment.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The decoded segments of a path.
pub type Segments<'t> = Vec<Cow<'t, str>>;

/// Splits a target into its path's segments and its query. One slash at the end of the path is dropped.
///
/// # Errors
/// One sentence when the path does not start with `/`, or a segment is not percent-encoded UTF-8.
pub fn split(target: &str) -> Result<(Segments<'_>, &str), &'static str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path
        .strip_prefix('/')
        .ok_or("the path must start with a slash")?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok((Vec::new(), query));
    }
    let segments = path
        .split('/')
        .map(|segment| decode(segment, false).ok_or("the path is not percent-encoded UTF-8; write % as %25, and each byte that is not ASCII as %XX"))
        .collect::<Result<_, _>>()?;
    Ok((segments, query))
}

/// Reads a query string: names and values, `+` for a space. A name alone has an empty value. Names that begin with `_` are left out:
/// clients add them to bypass caches.
///
/// # Errors
/// One sentence when a part is not percent-encoded UTF-8.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    query
        .split('&')
        .filter(|part| !part.is_empty() && !part.starts_with('_'))
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?);
            Some((name.into_owned(), value.into_owned()))
        })
        .collect::<Option<_>>()
        .ok_or("the query is not percent-encoded UTF-8; write % as %25, and each byte that is not ASCII as %XX")
}

/// The value of the only parameter that a route takes, if it is there.
///
/// # Errors
/// One sentence if there is another parameter, or this one twice.
pub fn only_parameter(query: &str, name: &str) -> Result<Option<String>, String> {
    let mut found = None;
    for (given, value) in parameters(query)? {
        if given != name {
            return Err(format!(
                "query parameter {given:?} is unknown; this takes {name}"
            ));
        }
        if found.replace(value).is_some() {
            return Err(format!("query parameter {name} is given twice"));
        }
    }
    Ok(found)
}

/// Writes names and values as a query string that [`parameters`] reads back.
pub fn query<'p>(parameters: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(name, RESERVED));
        query.push('=');
        query.extend(utf8_percent_encode(value, RESERVED));
    }
    query
}

/// Decodes `%XX` once. `None` if hexadecimal digits are missing or the bytes are not UTF-8.
fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let is_encoded = |byte: u8| byte == b'%' || (plus_is_space && byte == b'+');
    if !text.bytes().any(is_encoded) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_split_before_they_are_decoded() {
        for (target, segments, query) in [
            ("/", vec![], ""),
            ("/api/tasks", vec!["api", "tasks"], ""),
            ("/api/tasks/", vec!["api", "tasks"], ""),
            ("/api/tasks//", vec!["api", "tasks", ""], ""),
            ("//api", vec!["", "api"], ""),
            ("/a%2Fb/%74asks?x=1?y", vec!["a/b", "tasks"], "x=1?y"),
            ("/%2525/a+b", vec!["%25", "a+b"], ""),
        ] {
            assert_eq!(
                split(target).unwrap(),
                (segments.into_iter().map(Cow::from).collect(), query),
                "{target}"
            );
        }
        for target in ["", "api", "*", "/%", "/%4", "/%zz", "/%ff", "/%c3", "/%+4"] {
            assert!(split(target).is_err(), "{target}");
        }
    }

    #[test]
    fn queries_are_names_and_values() {
        let pairs = parameters("a=1&b=x+y%26z&_=7&c&&=d&_t&e==").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "x y&z"), ("c", ""), ("", "d"), ("e", "=")]
        );
        assert!(parameters("a=%f").is_err());
    }

    proptest! {
        #[test]
        fn any_text_survives_encoding_and_decoding(text in any::<String>()) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded, true).unwrap(), text);
        }

        #[test]
        fn a_query_is_read_back(name in "[^_].*", value in any::<String>()) {
            let text = query([(name.as_str(), value.as_str()), ("limit", "1")].into_iter());
            let read = parameters(&text).unwrap();
            prop_assert_eq!(read, [(name, value), ("limit".to_owned(), "1".to_owned())]);
        }

        #[test]
        fn no_target_makes_the_parser_panic(target in any::<String>()) {
            let _ = split(&target);
            let _ = parameters(&target);
        }
    }
}
