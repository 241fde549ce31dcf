//! `GET /`: what this is and how to start: JSON for programs, a page for browsers.

use serde::Serialize;

use super::{App, Call, pages};
use crate::http::error::Error;
use crate::http::request::Headers;
use crate::http::response::Response;
use crate::store::Readiness;

/// What the page says of this installation.
pub struct Installation {
    /// How a shell on this machine calls the program.
    pub command: String,
    /// Whether the server itself speaks TLS.
    pub tls: bool,
}

/// What this is, and where to go from here.
#[derive(Serialize)]
pub struct About {
    /// `todo-api`
    name: &'static str,
    /// Of the program.
    version: &'static str,
    /// Paths.
    links: Links,
}

#[derive(Serialize)]
struct Links {
    /// The caller's tasks.
    tasks: &'static str,
    /// The caller's tags.
    tags: &'static str,
    /// The caller's tasks in numbers.
    stats: &'static str,
    /// The caller's account.
    account: &'static str,
    /// Where to try the API in a browser.
    docs: &'static str,
    /// The API's reference, for reading.
    reference: &'static str,
    /// The API's description (OpenAPI).
    openapi: &'static str,
    /// Whether the server is alive.
    health: &'static str,
    /// Whether it can serve tasks.
    ready: &'static str,
}

/// `GET /`
pub fn show(app: &App, call: &Call) -> Result<Response, Error> {
    if call.request.headers.prefer_html() {
        return Ok(page(app, &call.request.headers));
    }
    let about = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        links: Links {
            tasks: "/api/tasks",
            tags: "/api/tags",
            stats: "/api/tasks/stats",
            account: "/api/auth/me",
            docs: "/docs",
            reference: "/redoc",
            openapi: "/openapi.json",
            health: "/health",
            ready: "/health/ready",
        },
    };
    Ok(Response::json(200, &about))
}

fn page(app: &App, headers: &Headers) -> Response {
    let state = match app.store.readiness() {
        Readiness::Ready => "Ready.",
        Readiness::DatabaseNotReady => "Not ready: the database does not answer.",
        Readiness::SchemaNotReady => "Not ready: the database does not have the tables yet.",
    };
    let registration = if app.accounts.registration_is_open {
        "Registration is open: a client can also make an account, with POST /api/auth/register."
    } else {
        "Registration is closed: only this command makes an account."
    };
    pages::root(&[
        ("{version}", env!("CARGO_PKG_VERSION")),
        ("{state}", state),
        ("{registration}", registration),
        ("{command}", &for_html(&app.installation.command)),
        ("{base}", &base(headers, app.installation.tls)),
    ])
}

/// The server's URL as the client sees it.
fn base(headers: &Headers, tls: bool) -> String {
    let mut host = headers.get("Host").unwrap_or("localhost").to_owned();
    // What a host and a port consist of, and nothing that means more to HTML or to a shell.
    host.retain(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    let forwarded = headers.get("X-Forwarded-Proto");
    let https = forwarded.map_or(tls, |proto| proto == "https");
    format!("{}://{host}", if https { "https" } else { "http" })
}

fn for_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
