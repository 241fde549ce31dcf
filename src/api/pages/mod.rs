//! The API's description and its pages. They are made from the tables by `tests/it/documents`, lie beside this file, and are compressed
//! when the program is built.

use std::io::{self, Read};

use flate2::read::GzDecoder;

use super::conditions::if_none_match;
use super::{App, Call};
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::Response;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// A file as src/api/build.rs has compressed it.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        file!($name, $content_type, "")
    };
    ($name:literal, $content_type:expr, $policy:literal) => {
        File {
            name: $name,
            content_type: $content_type,
            policy: $policy,
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

static DESCRIPTION: File = file!("openapi.json", "application/json");

// Swagger UI asks this server only. Its style sheet contains pictures.
static DOCS: File = file!(
    "docs.html",
    HTML,
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

static REFERENCE: File = file!(
    "reference.html",
    HTML,
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// What the two pages load, by the last segment of the path.
static ASSETS: [File; 6] = [
    file!("docs.js", SCRIPT),
    file!("docs.css", STYLE),
    file!("reference.css", STYLE),
    file!("swagger-ui-bundle.js", SCRIPT),
    file!("swagger-ui.css", STYLE),
    file!("favicon-32x32.png", "image/png"),
];

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
        .ok_or(Error::NotFound("nothing is here; GET /docs is the page"))?
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
    content_type: &'static str,
    // What a page may load; empty for a file that is no page.
    policy: &'static str,
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
            Response::empty(304)
        } else if takes_gzip(request) {
            Response::bytes(200, self.content_type, self.gzip.to_vec())
                .header("Content-Encoding", "gzip")
        } else {
            let plain = self
                .plain()
                .map_err(|error| Error::Internal(format!("a page cannot be unpacked: {error}")))?;
            Response::bytes(200, self.content_type, plain)
        };
        // Weak, because the same tag names the compressed and the plain form (RFC 9110, section 8.8.3.3). Clients ask again each time,
        // because a new version of the program has new pages.
        let response = response
            .header("ETag", format!("W/{tag}"))
            .header("Cache-Control", "no-cache")
            .header("Vary", "Accept-Encoding");
        Ok(if self.policy.is_empty() {
            response
        } else {
            response.header("Content-Security-Policy", self.policy)
        })
    }
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3).
fn takes_gzip(request: &Request) -> bool {
    request
        .headers
        .all("Accept-Encoding")
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let refused = weight
                .trim()
                .strip_prefix("q=")
                .is_some_and(|weight| weight.parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}
