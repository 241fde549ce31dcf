//! The header fields of answers and requests, described once and referred to.

use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Components, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Required, Response};

/// By it a client and the log know a request.
pub const REQUEST_ID: &str = "X-Request-ID";
/// By it a client says which state it expects.
pub const IF_MATCH: &str = "If-Match";
/// By it a client says what it has already.
pub const IF_NONE_MATCH: &str = "If-None-Match";
const LIMITED: [&str; 3] = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];

/// Every field that more than one answer has: name, type, what it says.
const FIELDS: &[(&str, Type, &str)] = &[
    (
        REQUEST_ID,
        Type::String,
        "Finds the request in the server's log: the one sent, where it is fit, else a new one",
    ),
    (
        LIMITED[0],
        Type::Integer,
        "How many requests there may be in an hour; like its two companions absent where there is no limit, and repeated as `X-RateLimit-…`",
    ),
    (LIMITED[1], Type::Integer, "How many more there may be now"),
    (
        LIMITED[2],
        Type::Integer,
        "Seconds until there is more room than now",
    ),
    ("Retry-After", Type::Integer, "Seconds to wait"),
    (
        "WWW-Authenticate",
        Type::String,
        "What is wrong with the token, or the scope that it lacks (RFC 6750, section 3)",
    ),
    ("Allow", Type::String, "The methods that this path takes"),
    (
        "ETag",
        Type::String,
        "Names what is sent as it is now (RFC 9110, section 8.8.3)",
    ),
];

/// Every field that a request to more than one operation may have.
const PARAMETERS: &[(&str, &str)] = &[
    (
        REQUEST_ID,
        "Names the request in the log and in its answer: 1 to 64 letters, digits, `-`, `_` and `.`. Anything else is replaced",
    ),
    (
        IF_MATCH,
        "The `ETag` of what the client has seen: if it has changed since, nothing is done and the answer is 412",
    ),
    (
        IF_NONE_MATCH,
        "The `ETag` of what the client has already: if it is still the same, a read is answered 304, a write 412",
    ),
];

/// Enters the fields among the components.
pub fn describe(components: &mut Components) {
    for (name, kind, what) in FIELDS {
        components
            .headers
            .insert((*name).to_owned(), RefOr::T(header(kind.clone(), what)));
    }
    for (name, what) in PARAMETERS {
        components
            .parameters
            .insert((*name).to_owned(), RefOr::T(described(name, what)));
    }
}

/// Adds what every answer has and, where requests are counted, what tells how many more there may be.
pub fn add_common(response: &mut Response, limited: bool) {
    add(response, REQUEST_ID);
    if limited {
        LIMITED.iter().for_each(|name| add(response, name));
    }
}

/// Adds one of the fields described here.
pub fn add(response: &mut Response, name: &str) {
    response.headers.insert(
        name.to_owned(),
        RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))),
    );
}

/// Refers to one of the parameters described here.
pub fn parameter(name: &str) -> RefOr<Parameter> {
    RefOr::Ref(Ref::new(format!("#/components/parameters/{name}")))
}

fn described(name: &str, what: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn header(kind: Type, what: &str) -> Header {
    let minimum = (kind == Type::Integer).then_some(0);
    let schema = ObjectBuilder::new().schema_type(kind).minimum(minimum);
    HeaderBuilder::new()
        .schema(Some(Schema::Object(schema.build())))
        .description(Some(what))
        .build()
}
