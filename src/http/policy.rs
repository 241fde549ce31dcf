//! Header fields for browsers: which pages may read an answer (CORS), and whether to use TLS only.
//!
//! CORS follows the Fetch standard (<https://fetch.spec.whatwg.org/#http-cors-protocol>), `Strict-Transport-Security` follows RFC 6797.
//! The fields depend on the request's `Origin` and on whether it came over TLS, and on nothing else. So they are written once, at the
//! start, and errors carry them too, even those about requests that cannot be parsed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::domain::origins::Origins;
use crate::sync::lock;

use super::request::{Headers, Method, Request};
use super::response::Response;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// Header fields that pages may send besides those that the standard always allows.
const SENT: &str =
    "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID";
/// Header fields that pages may read besides those that the standard always allows.
const READ: &str = "ETag, Link, Location, X-Request-ID, Retry-After, Idempotency-Replayed, \
    X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";
/// For how many seconds a browser may keep the answer to a preflight: the longest time that Chromium uses.
const PREFLIGHT_AGE: &str = "7200";
/// How many refused origins are logged, and how much of each.
const LOGGED_ORIGINS: usize = 20;
const LOGGED_CHARACTERS: usize = 200;

/// The header fields for browsers, ready to be sent.
#[derive(Debug)]
pub struct Policy {
    any: bool,
    /// For requests from pages of a listed origin.
    listed: Vec<(String, PolicyFields)>,
    /// For all others.
    others: PolicyFields,
    /// The refused origins that were logged; `None` if none are to be logged.
    refused: Option<Mutex<HashSet<String>>>,
}

#[derive(Debug)]
struct PolicyFields {
    plain: Arc<str>,
    https: Arc<str>,
}

impl Policy {
    /// Pages of these origins may read answers. Browsers that came over TLS use TLS only for the time given; zero ends that.
    /// `log_refused` logs each refused origin once; for development.
    pub fn new(origins: &Origins, tls_only: Option<Duration>, log_refused: bool) -> Policy {
        let strict = tls_only.map_or_else(String::new, |time| {
            format!("Strict-Transport-Security: max-age={}\r\n", time.as_secs())
        });
        let fields = |cors: String| PolicyFields {
            https: Arc::from(format!("{cors}{strict}")),
            plain: Arc::from(cors),
        };
        let expose = format!("Access-Control-Expose-Headers: {READ}\r\n");
        let (listed, others) = match origins {
            Origins::Any => {
                let others = format!("Access-Control-Allow-Origin: *\r\n{expose}");
                (Vec::new(), others)
            }
            Origins::Listed(origins) if origins.is_empty() => Default::default(),
            Origins::Listed(origins) => {
                let of_origin = |origin: &String| {
                    let cors = format!(
                        "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n{expose}Vary: Origin\r\n"
                    );
                    (origin.clone(), fields(cors))
                };
                // A cache must not use an answer for another origin, or for a request without one.
                let vary = "Vary: Origin\r\n".to_owned();
                (origins.iter().map(of_origin).collect(), vary)
            }
        };
        Policy {
            any: matches!(origins, Origins::Any),
            listed,
            others: fields(others),
            refused: log_refused.then(Mutex::default),
        }
    }

    /// The fields, as whole lines, for an answer to a request with this `Origin`, or without one, that came over TLS or not.
    pub fn fields(&self, origin: Option<&[u8]>, https: bool) -> Arc<str> {
        let fields = self.of(origin).unwrap_or(&self.others);
        Arc::clone(if https { &fields.https } else { &fields.plain })
    }

    /// Answers a preflight from a page that may read answers; `None` for all other requests. The path does not matter: the request
    /// that follows is answered for itself. A refused origin may be logged.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        if let Some(refused) = &self.refused {
            self.log_refused(request, refused);
        }
        let asked = |name| request.headers.get(name).is_some();
        if request.method != Method::Options || !asked("Access-Control-Request-Method") {
            return None;
        }
        let origin = origin(&request.headers)?;
        (self.any || self.of(Some(origin)).is_some()).then(|| {
            Response::empty(204)
                .header("Access-Control-Allow-Methods", METHODS)
                .header("Access-Control-Allow-Headers", SENT)
                .header("Access-Control-Max-Age", PREFLIGHT_AGE)
        })
    }

    fn of(&self, origin: Option<&[u8]>) -> Option<&PolicyFields> {
        let origin = origin?;
        // Byte for byte: browsers write an origin in one way only. Lists are short.
        let mut listed = self.listed.iter();
        listed.find_map(|(listed, fields)| (listed.as_bytes() == origin).then_some(fields))
    }

    fn log_refused(&self, request: &Request, refused: &Mutex<HashSet<String>>) {
        let Some(origin) = origin(&request.headers) else {
            return;
        };
        let origin = String::from_utf8_lossy(origin);
        let host = origin.split_once("://").map(|(_, host)| host);
        let is_own = host.is_some() && host == request.headers.get("Host");
        if self.any || is_own || self.of(Some(origin.as_bytes())).is_some() {
            return;
        }
        let origin: String = origin.chars().take(LOGGED_CHARACTERS).collect();
        let mut refused = lock(refused);
        if refused.len() < LOGGED_ORIGINS && refused.insert(origin.clone()) {
            log::warn!(origin; "pages of this origin may not read answers: it is not in ALLOWED_ORIGINS");
        }
    }
}

/// The `Origin` of a request. Browsers send one field; a request with two counts as one without.
pub fn origin(headers: &Headers) -> Option<&[u8]> {
    let mut origins = headers.raw("Origin");
    match (origins.next(), origins.next()) {
        (Some(origin), None) => Some(origin.trim_ascii()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "https://app.example.com";

    fn allowed(list: &str, origin: Option<&str>) -> String {
        let policy = Policy::new(&Origins::parse(list).unwrap(), None, false);
        let fields = policy.fields(origin.map(str::as_bytes), false);
        let value = |name: &str| {
            fields.split("\r\n").find_map(|line| {
                line.split_once(": ")
                    .filter(|(field, _)| *field == name)
                    .map(|(_, value)| value)
            })
        };
        format!(
            "{} {} {}",
            value("Access-Control-Allow-Origin").unwrap_or("-"),
            value("Access-Control-Allow-Credentials").unwrap_or("-"),
            value("Vary").unwrap_or("-")
        )
    }

    #[test]
    fn only_listed_origins_are_echoed() {
        let list = "https://app.example.com, http://localhost:3000,http://[::1]:3000";
        for origin in [APP, "http://localhost:3000", "http://[::1]:3000"] {
            assert_eq!(
                allowed(list, Some(origin)),
                format!("{origin} true Origin"),
                "{origin}"
            );
        }
        for origin in [
            "null",
            "",
            "http://app.example.com",
            "https://app.example.com:443",
            "https://app.example.com/",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com.evil.example",
            "https://evil-app.example.com",
            "https://app.example.co",
            "https://app.example.com https://evil.example",
            "https://app.example.com, https://evil.example",
            "http://localhost",
            "http://localhost:30000",
            "*",
        ] {
            assert_eq!(allowed(list, Some(origin)), "- - Origin", "{origin}");
        }
        assert_eq!(allowed(list, None), "- - Origin");
    }

    #[test]
    fn all_origins_are_allowed_only_without_credentials() {
        assert_eq!(allowed("*", Some(APP)), "* - -");
        assert_eq!(allowed("*", None), "* - -");
        assert_eq!(allowed("none", Some(APP)), "- - -");
    }

    #[test]
    fn a_request_with_two_origins_has_none() {
        let mut headers = Headers::default();
        headers.push("Origin", APP);
        assert_eq!(origin(&headers), Some(APP.as_bytes()));
        headers.push("origin", APP);
        assert_eq!(origin(&headers), None);
    }

    #[test]
    fn strict_transport_security_is_sent_over_tls_only() {
        let policy = Policy::new(&Origins::Any, Some(Duration::from_secs(60)), false);
        let strict = "Strict-Transport-Security: max-age=60\r\n";
        assert!(policy.fields(None, true).ends_with(strict));
        assert!(!policy.fields(None, false).contains("Strict"));
    }
}
