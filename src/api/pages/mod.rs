//! The API's description, and pages for browsers. `tests/it/documents` generates the description and the reference from the tables.
//! All files are beside this one and are compressed when the program is built.

use std::io::{self, Read};

use flate2::read::GzDecoder;

use super::conditions::if_none_match;
use super::{App, Call};
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::{Response, constant_fields};

/// A file as build.rs has compressed it. Clients ask again each time, because a new version of the program has new files.
macro_rules! file {
    (asset $name:literal, $content_type:literal) => {
        file!($name, $content_type, "no-cache", "")
    };
    ($name:literal, $($kind:tt)+) => {
        File {
            name: $name,
            constant_fields: constant_fields!($($kind)+),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

static DESCRIPTION: File = file!("openapi.json", "application/json", "no-cache", "");

// Swagger UI asks this server only. Its style sheet contains pictures.
static DOCS: File = file!(
    "docs.html",
    page "no-cache",
    "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
);

static REFERENCE: File =
    file!("reference.html", page "no-cache", "style-src 'self'; img-src data:");

/// The files that pages load, by the last segment of the path.
static ASSETS: [File; 6] = [
    file!(asset "docs.js", "text/javascript; charset=utf-8"),
    file!(asset "docs.css", "text/css; charset=utf-8"),
    file!(asset "reference.css", "text/css; charset=utf-8"),
    file!(asset "swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    file!(asset "swagger-ui.css", "text/css; charset=utf-8"),
    file!(asset "favicon-32x32.png", "image/png"),
];

/// The fields of a page that loads a style sheet only.
const PAGE: &str = constant_fields!(page "no-store", "style-src 'self'; img-src data:");

/// The page at `/`. `values` take the place of names in braces; they must be safe in HTML.
pub fn root(values: &[(&str, &str)]) -> Response {
    let page = include_str!("root.html").to_owned();
    let fill = |page: String, (name, value): &(&str, &str)| page.replace(name, value);
    Response::new(200, PAGE, values.iter().fold(page, fill).into_bytes())
}

/// The page for a path that does not exist.
pub fn not_found() -> Response {
    Response::new(404, PAGE, include_bytes!("not_found.html").to_vec())
}

/// `GET /openapi.json`
pub fn openapi(_: &App, call: &Call) -> Result<Response, Error> {
    DESCRIPTION.answer(call.request)
}

/// `GET /docs`: Swagger UI.
pub fn docs(_: &App, call: &Call) -> Result<Response, Error> {
    DOCS.answer(call.request)
}

/// `GET /redoc`: the reference.
pub fn reference(_: &App, call: &Call) -> Result<Response, Error> {
    REFERENCE.answer(call.request)
}

/// `GET /docs/{file}`
pub fn asset(_: &App, call: &Call) -> Result<Response, Error> {
    let wanted = call.path.parameter("file").unwrap_or_default();
    ASSETS
        .iter()
        .find(|file| file.name == wanted)
        .ok_or(Error::NotFound(
            "there is no such file; GET /docs is the page",
        ))?
        .answer(call.request)
}

/// The API's description: OpenAPI 3.1, in JSON.
///
/// # Errors
/// The program's own copy is damaged.
pub fn description() -> io::Result<String> {
    DESCRIPTION
        .plain()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A file that stays the same as long as the program runs.
struct File {
    name: &'static str,
    constant_fields: &'static str,
    gzip: &'static [u8],
}

impl File {
    fn plain(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        GzDecoder::new(self.gzip).read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// The opaque part of the entity tag: the checksum and length at the end of a gzip file (RFC 1952, section 2.3.1).
    fn tag(&self) -> String {
        let end = self.gzip.iter().rev().take(8);
        end.map(|byte| format!("{byte:02x}")).collect()
    }

    fn answer(&self, request: &Request) -> Result<Response, Error> {
        let tag = format!("\"{}\"", self.tag());
        // Refuses a field that cannot be read. The tags in it are compared weakly (RFC 9110, section 8.8.3.2).
        if_none_match(request)?;
        let known = request
            .headers
            .all("If-None-Match")
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|known| known == "*" || known.trim_start_matches("W/") == tag);
        let response = if known {
            Response::empty(304).header("Cache-Control", "no-cache")
        } else if request.headers.names("Accept-Encoding", "gzip") {
            Response::new(200, self.constant_fields, self.gzip.to_vec())
                .header("Content-Encoding", "gzip")
        } else {
            let plain = self
                .plain()
                .map_err(|error| Error::Internal(format!("a page cannot be unpacked: {error}")))?;
            Response::new(200, self.constant_fields, plain)
        };
        // Weak, because the same tag names the compressed and the plain form (RFC 9110, section 8.8.3.3).
        Ok(response
            .header("ETag", format!("W/{tag}"))
            .header("Vary", "Accept-Encoding"))
    }
}
