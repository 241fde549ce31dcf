//! The API's description (OpenAPI 3.1): what handlers say of themselves, and what follows from the routing table.
//!
//! A handler describes what is its own: parameters, bodies, and statuses that no other would tell. Whatever follows from where it
//! stands in the table is added here: the second form of its path, who may call it, and the errors that all such requests share.
//!
//! - `errors`: every error, as the description shows it
//! - `headers`: the header fields of answers and requests

mod errors;
mod headers;

use std::io::Read;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    Flow, HttpAuthScheme, HttpBuilder, OAuth2, Password, Scopes, SecurityRequirement,
    SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, RefOr, Required, Server};

use super::groups::{GROUPS, WITH_USER};
use super::{
    Handler, account, api_tokens, auth, health, lists, metrics, pages, root, routes, sessions,
    stats, tags, tasks,
};
use crate::domain::zone::Zone;
use crate::http::error::Problem;
use crate::http::request::Method;

/// The list of all errors.
const ERRORS: &str = "Errors";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "todo-api",
        contact(),
        license(name = "MIT", identifier = "MIT")
    ),
    components(schemas(Problem, Zone)),
    paths(
        root::show,
        health::alive,
        health::ready,
        metrics::show,
        pages::openapi,
        pages::docs,
        pages::asset,
        pages::reference,
        lists::list,
        tasks::create,
        stats::show,
        tasks::show,
        tasks::update,
        tasks::complete,
        tasks::delete,
        tags::list,
        tags::rename,
        tags::delete,
        auth::register,
        auth::login,
        auth::refresh,
        auth::logout,
        auth::logout_all,
        account::show,
        account::update,
        account::delete,
        account::change_password,
        sessions::list,
        sessions::end,
        api_tokens::create,
        api_tokens::list,
        api_tokens::delete,
    )
)]
struct Handlers;

fn document() -> OpenApi {
    let mut document = Handlers::openapi();
    document.info.contact = None;
    document.info.description = Some(include_str!("description.md").to_owned());
    document.servers = Some(vec![Server::new("/")]);
    let group =
        |name: &str, what: &str| TagBuilder::new().name(name).description(Some(what)).build();
    let mut groups: Vec<_> = GROUPS
        .iter()
        .map(|(name, what)| group(name, what))
        .collect();
    // It holds no operation: for readers alone.
    groups.push(group(ERRORS, &errors::table()));
    document.tags = Some(groups);
    let components = document.components.get_or_insert_default();
    security_schemes()
        .into_iter()
        .for_each(|(name, scheme)| components.add_security_scheme(name, scheme));
    headers::describe(components);
    errors::describe(components);
    for route in routes::routes() {
        describe(
            &mut document,
            route.method(),
            &route.paths(),
            route.handler(),
        );
    }
    document
}

/// The description as JSON, laid out for people.
///
/// It is what [`derived`] has made, written down: the program carries the text and not what makes it, which is ten times as large.
/// A test holds the two together.
pub fn json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = String::new();
        // It was compressed when the program was built, from valid UTF-8.
        let _ = GzDecoder::new(compressed()).read_to_string(&mut text);
        text
    })
}

/// The same, compressed with gzip.
pub fn compressed() -> &'static [u8] {
    // src/api/build.rs puts it there.
    include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"))
}

/// The description, made anew of the code. For the test that writes it down.
pub fn derived() -> String {
    // It is made of texts and numbers, which JSON can always show.
    document().to_pretty_json().unwrap_or_default() + "\n"
}

/// Adds to a handler's own description what follows from its line in the routing table.
fn describe(document: &mut OpenApi, method: Method, paths: &[String], handler: &Handler) {
    let Some((first, others)) = paths.split_first() else {
        return;
    };
    let Some(operation) = operation(document, first, method) else {
        return;
    };
    // A handler that serves two methods is described once, and what it is known by must be known once.
    if method == Method::Patch {
        operation.operation_id = operation
            .operation_id
            .take()
            .map(|id| id.replacen("updateTask", "patchTask", 1));
        if operation.operation_id.as_deref() == Some("patchTask") {
            operation.summary = operation.summary.take().map(|text| text + ", with PATCH");
        }
    }
    complete(operation, handler);
    let operation = operation.clone();
    for path in others {
        let item = document.paths.paths.entry(path.clone()).or_default();
        if let Some(slot) = slot(item, method) {
            *slot = Some(with_user(operation.clone()));
        }
    }
}

fn complete(operation: &mut Operation, handler: &Handler) {
    let takes_body = operation.request_body.is_some();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        not_null(body);
    }
    let parameters = operation.parameters.get_or_insert_default();
    let names_one = parameters
        .iter()
        .any(|parameter| matches!(parameter, RefOr::T(p) if p.parameter_in == ParameterIn::Path));
    let says = |status: &str| operation.responses.responses.contains_key(status);
    if says("412") {
        parameters.push(headers::parameter(headers::IF_MATCH));
    }
    if says("412") || says("304") {
        parameters.push(headers::parameter(headers::IF_NONE_MATCH));
    }
    parameters.push(headers::parameter(headers::REQUEST_ID));
    let known = matches!(
        handler,
        Handler::User(_) | Handler::Account(_) | Handler::AccountHashing(_)
    );
    let limited = !matches!(handler, Handler::AtOnce(_) | Handler::Unlimited(_));
    operation.security = Some(if known {
        vec![
            SecurityRequirement::new::<_, _, String>(LOGIN, []),
            SecurityRequirement::new::<_, _, String>(BEARER, []),
        ]
    } else {
        Vec::new()
    });

    let mut shared = vec![400, 414, 500, 503];
    if known {
        shared.push(401);
    }
    if matches!(handler, Handler::User(_)) {
        shared.push(403);
    }
    if names_one {
        shared.push(404);
    }
    if takes_body {
        shared.extend([413, 415, 422]);
    }
    if limited {
        shared.push(429);
    }
    for status in shared {
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert_with(|| errors::reference(status));
    }
    let tagged = operation.responses.responses.contains_key("304");
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            if tagged && matches!(status.as_str(), "200" | "304") {
                headers::add(response, "ETag");
            }
            errors::fill(status, response);
            headers::add_common(response, limited);
        }
    }
}

/// A body that may be absent may not be `null` for that.
fn not_null(body: &mut RequestBody) {
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
        {
            content.schema = either.items.first().cloned();
        }
    }
}

/// The same under a path that names the user.
fn with_user(mut operation: Operation) -> Operation {
    let user = ParameterBuilder::new()
        .name("user_id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The token's own user"))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255)),
        ));
    operation
        .parameters
        .get_or_insert_default()
        .insert(0, RefOr::T(user.build()));
    operation.operation_id = operation.operation_id.map(|id| format!("{id}OfUser"));
    operation.tags = Some(vec![WITH_USER.to_owned()]);
    operation
}

fn operation<'d>(
    document: &'d mut OpenApi,
    path: &str,
    method: Method,
) -> Option<&'d mut Operation> {
    slot(document.paths.paths.get_mut(path)?, method)?.as_mut()
}

fn slot(item: &mut utoipa::openapi::PathItem, method: Method) -> Option<&mut Option<Operation>> {
    match method {
        Method::Get => Some(&mut item.get),
        Method::Post => Some(&mut item.post),
        Method::Put => Some(&mut item.put),
        Method::Patch => Some(&mut item.patch),
        Method::Delete => Some(&mut item.delete),
        Method::Head | Method::Options | Method::Other => None,
    }
}

// The page shows them in alphabetical order, and most people have an account.
const LOGIN: &str = "account";
const BEARER: &str = "token";

fn security_schemes() -> [(&'static str, SecurityScheme); 2] {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token: from a login, from `todo-api token`, from a front end that shares the secret, or an API token (`todo_…`).",
        ))
        .build();
    let login = OAuth2::with_description(
        [Flow::Password(Password::new(
            "/api/auth/login",
            Scopes::new(),
        ))],
        "Log in with address and password; the page keeps the access token until it is closed. No client id or secret is needed.",
    );
    [
        (BEARER, SecurityScheme::Http(bearer)),
        (LOGIN, SecurityScheme::OAuth2(login)),
    ]
}
