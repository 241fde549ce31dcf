//! Reads a request's body: JSON or a form.

use crate::domain::fields::BodyError;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::target;

/// Reads the body with `parse`. A missing Content-Type is read as JSON; without a body the type does not matter.
///
/// # Errors
/// 415 for another media type, 400 for invalid JSON, 422 for wrong fields.
pub fn json<T>(
    request: &Request,
    parse: impl FnOnce(&[u8]) -> Result<T, BodyError>,
) -> Result<T, Error> {
    let content_type = request
        .headers
        .get("Content-Type")
        .unwrap_or("application/json");
    let twice = request.headers.raw("Content-Type").nth(1).is_some();
    if !request.body.is_empty() && (twice || !is_json(content_type)) {
        return Err(Error::UnsupportedMediaType(
            "the body must be JSON; send the header Content-Type: application/json",
        ));
    }
    check_encoding(request)?;
    Ok(parse(&request.body)?)
}

/// Refuses a body that is compressed (RFC 9110, section 8.4).
///
/// # Errors
/// 415.
pub fn check_encoding(request: &Request) -> Result<(), Error> {
    let coded = request
        .headers
        .raw("Content-Encoding")
        .any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
    if coded && !request.body.is_empty() {
        return Err(Error::UnsupportedMediaType(
            "the body must be sent as it is, without a Content-Encoding",
        ));
    }
    Ok(())
}

/// Whether the body says it is a form.
pub fn is_form(request: &Request) -> bool {
    request
        .headers
        .get("Content-Type")
        .and_then(|content_type| content_type.split(';').next())
        .is_some_and(|media_type| {
            media_type
                .trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

/// Reads the body as a form: names and values.
///
/// # Errors
/// 415 for a compressed body, 400 if it is not percent-encoded UTF-8.
pub fn form(request: &Request) -> Result<Vec<(String, String)>, Error> {
    check_encoding(request)?;
    std::str::from_utf8(&request.body)
        .ok()
        .and_then(|body| target::parameters(body).ok())
        .ok_or(Error::BadRequest(
            "the body is not a form in percent-encoded UTF-8".into(),
        ))
}

/// `application/json`, or a type built on it (RFC 6839, section 3.1), in UTF-8.
pub fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    let other_charset = parts.any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let utf8 = ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|known| value.trim_matches('"').eq_ignore_ascii_case(known));
        name.eq_ignore_ascii_case("charset") && !utf8
    });
    json && !other_charset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_several_media_types() {
        for name in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/merge-patch+json",
        ] {
            assert!(is_json(name), "{name}");
        }
        for name in [
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "application/jsonx",
        ] {
            assert!(!is_json(name), "{name}");
        }
    }
}
