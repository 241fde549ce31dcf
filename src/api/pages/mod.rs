//! What the service says of its API: the description, a page to try it on, a page to read. Everything comes from this server.
//!
//! - `reference`: the page to read

mod reference;

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::conditions::if_none_match;
use super::groups::SERVICE;
use super::openapi as description;
use super::{App, Call};
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::Response;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Swagger UI asks this server alone. It shows pictures that lie in its style sheet.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = SERVICE, summary = "Describe the API",
    responses(
        (status = 200, description = "This description (OpenAPI 3.1)", body = Object, content_type = "application/json"),
        (status = 304, description = "The client has it already (`If-None-Match`)")))]
pub fn openapi(_: &App, call: &Call) -> Result<Response, Error> {
    static DOCUMENT: OnceLock<File> = OnceLock::new();
    let file = DOCUMENT
        .get_or_init(|| File::compressed("application/json", "", description::compressed()));
    file.answer(call.request)
}

/// `GET /docs`: Swagger UI.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = SERVICE, summary = "Show a page to try the API on",
    responses(
        (status = 200, description = "A page for browsers", body = String, content_type = "text/html; charset=utf-8"),
        (status = 304, description = "The client has it already (`If-None-Match`)")))]
pub fn docs(_: &App, call: &Call) -> Result<Response, Error> {
    static PAGE: OnceLock<File> = OnceLock::new();
    let file = PAGE.get_or_init(|| File::text(HTML, DOCS_POLICY, include_str!("docs.html")));
    file.answer(call.request)
}

/// `GET /docs/{file}`: what that page loads.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "docsFile", tag = SERVICE, summary = "Show what that page loads",
    params(("file" = String, Path, description = "Its name", example = "docs.js")),
    responses(
        (status = 200, description = "A script, style sheet or picture", content(
            (String = "text/javascript; charset=utf-8"), (String = "text/css; charset=utf-8"), (String = "image/png"))),
        (status = 304, description = "The client has it already (`If-None-Match`)")))]
pub fn asset(_: &App, call: &Call) -> Result<Response, Error> {
    static FILES: OnceLock<Vec<(&'static str, File)>> = OnceLock::new();
    let wanted = call.path.parameter("file").unwrap_or_default();
    let files = FILES.get_or_init(|| {
        let own = [
            ("docs.js", File::text(SCRIPT, "", include_str!("docs.js"))),
            ("docs.css", File::text(STYLE, "", include_str!("docs.css"))),
        ];
        // src/api/build.rs puts them there.
        let vendored: [(_, _, &[u8]); 3] = [
            (
                "swagger-ui-bundle.js",
                SCRIPT,
                include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")),
            ),
            (
                "swagger-ui.css",
                STYLE,
                include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz")),
            ),
            (
                "favicon-32x32.png",
                "image/png",
                include_bytes!(concat!(env!("OUT_DIR"), "/favicon-32x32.png.gz")),
            ),
        ];
        let vendored = vendored
            .map(|(name, content_type, gzip)| (name, File::compressed(content_type, "", gzip)));
        own.into_iter().chain(vendored).collect()
    });
    files
        .iter()
        .find(|(name, _)| *name == wanted)
        .ok_or(Error::NotFound("nothing is here; GET /docs is the page"))?
        .1
        .answer(call.request)
}

/// `GET /redoc`: the reference.
#[utoipa::path(get, path = "/redoc", operation_id = "reference", tag = SERVICE, summary = "Show the API's reference, for reading",
    responses(
        (status = 200, description = "A page that needs no JavaScript", body = String, content_type = "text/html; charset=utf-8"),
        (status = 304, description = "The client has it already (`If-None-Match`)")))]
pub fn reference(_: &App, call: &Call) -> Result<Response, Error> {
    static PAGE: OnceLock<File> = OnceLock::new();
    let file = PAGE.get_or_init(|| {
        // Nothing but its own style sheet, known by its hash.
        let hash = BASE64_STANDARD.encode(Sha256::digest(reference::STYLE_SHEET));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // A test reads it as the page does.
        let document = serde_json::from_str(description::json()).unwrap_or_default();
        File::text(HTML, &policy, &reference::page(&document))
    });
    file.answer(call.request)
}

/// Something that stays the same as long as the program runs, compressed.
struct File {
    content_type: &'static str,
    policy: String,
    // Weak, because the same one names it compressed and plain (RFC 9110, section 8.8.3.3).
    tag: String,
    gzip: Arc<[u8]>,
}

impl File {
    /// A text. `policy` is what a page may load; empty for what is no page.
    fn text(content_type: &'static str, policy: &str, text: &str) -> File {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to a Vec cannot fail.
        let _ = gzip.write_all(text.as_bytes());
        File::compressed(content_type, policy, &gzip.finish().unwrap_or_default())
    }

    fn compressed(content_type: &'static str, policy: &str, gzip: &[u8]) -> File {
        let digest = Sha256::digest(gzip);
        let tag: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        File {
            content_type,
            policy: policy.to_owned(),
            tag: format!("W/\"{tag}\""),
            gzip: gzip.into(),
        }
    }

    fn answer(&self, request: &Request) -> Result<Response, Error> {
        // A field that cannot be read is refused as everywhere.
        if_none_match(request)?;
        // Compared weakly (RFC 9110, section 8.8.3.2).
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let known = request
            .headers
            .all("If-None-Match")
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(&self.tag));
        let response = if known {
            Response::empty(304)
        } else if takes_gzip(request) {
            Response::bytes(200, self.content_type, self.gzip.to_vec())
                .header("Content-Encoding", "gzip")
        } else {
            let mut plain = Vec::new();
            GzDecoder::new(&*self.gzip)
                .read_to_end(&mut plain)
                .map_err(|error| Error::Internal(format!("a page cannot be unpacked: {error}")))?;
            Response::bytes(200, self.content_type, plain)
        };
        // Kept by whoever likes, and asked for again each time: a new version of the program has new ones.
        let response = response
            .header("ETag", self.tag.as_str())
            .header("Cache-Control", "no-cache")
            .header("Vary", "Accept-Encoding");
        Ok(if self.policy.is_empty() {
            response
        } else {
            response.header("Content-Security-Policy", self.policy.as_str())
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
