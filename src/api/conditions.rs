//! Reads `If-Match`, `If-None-Match` and `Idempotency-Key`.

use crate::domain::etag::EntityTags;
use crate::domain::idempotency::Repeatable;
use crate::http::error::Error;
use crate::http::request::Request;

/// The precondition of a write (RFC 9110, section 13.1.1).
///
/// # Errors
/// 400 if the field cannot be read.
pub fn if_match(request: &Request) -> Result<Option<EntityTags>, Error> {
    entity_tags(request, "If-Match")
}

/// The states that a client has already (RFC 9110, section 13.1.2).
///
/// # Errors
/// 400 if the field cannot be read.
pub fn if_none_match(request: &Request) -> Result<Option<EntityTags>, Error> {
    entity_tags(request, "If-None-Match")
}

fn entity_tags(request: &Request, name: &str) -> Result<Option<EntityTags>, Error> {
    // Another server's tag may have bytes that are not UTF-8.
    let fields = request.headers.raw(name).map(String::from_utf8_lossy);
    EntityTags::from_fields(fields)
        .map_err(|error| Error::BadRequest(format!("header {name} {error}").into()))
}

/// The key that names a request, so that it can be sent again.
///
/// # Errors
/// 400 if the field cannot be read or is there twice: a request without its key might be carried out twice.
pub fn idempotency_key(request: &Request) -> Result<Option<Repeatable>, Error> {
    let bad = |error| Error::BadRequest(format!("header Idempotency-Key {error}").into());
    let mut fields = request.headers.raw("Idempotency-Key");
    let Some(key) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(bad("must be there once"));
    }
    let key = std::str::from_utf8(key).unwrap_or_default().trim();
    Repeatable::parse(key, &request.body).map(Some).map_err(bad)
}
