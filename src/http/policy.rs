//! What browsers are told with every answer: whose pages may read it (CORS), and to come over TLS alone.
//!
//! CORS is what the Fetch standard says of it (<https://fetch.spec.whatwg.org/#http-cors-protocol>). Which fields an answer
//! carries depends on the request's `Origin` and on whether it came over TLS, and on nothing else: so errors carry them as
//! well, those among them that are made before a request is understood, and all are written out once, at the start.
//!
//! `Strict-Transport-Security` is RFC 6797.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::origins::Origins;

use super::request::{Headers, Method, Request};
use super::response::Response;

/// What pages may do.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// What pages may send, beside what they may always.
const SENT: &str =
    "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID";
/// What pages may read, beside what they may always.
const READ: &str = "ETag, Link, Location, X-Request-ID, Retry-After, Idempotency-Replayed, \
    RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, \
    X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";
/// How many seconds a browser need not ask again. None keeps to more than a day, and the strictest to no more than this.
const PREFLIGHT_AGE: &str = "7200";

/// The header fields that every answer carries, ready to be written.
#[derive(Debug)]
pub struct Policy {
    any: bool,
    /// For requests from a page of a listed origin.
    listed: Vec<(String, Fields)>,
    /// For all others.
    others: Fields,
}

#[derive(Debug)]
struct Fields {
    plain: Arc<str>,
    https: Arc<str>,
}

impl Default for Policy {
    /// Nobody's pages may read answers, and nothing is said of TLS.
    fn default() -> Policy {
        Policy::new(&Origins::default(), None)
    }
}

impl Policy {
    /// Lets pages of these origins read answers, and has browsers that came over TLS come over TLS alone for so long; 0 takes
    /// that back.
    pub fn new(origins: &Origins, tls_alone: Option<Duration>) -> Policy {
        let strict = tls_alone.map_or_else(String::new, |time| {
            format!("Strict-Transport-Security: max-age={}\r\n", time.as_secs())
        });
        let fields = |cors: String| Fields {
            https: Arc::from(format!("{cors}{strict}")),
            plain: Arc::from(cors),
        };
        let expose = format!("Access-Control-Expose-Headers: {READ}\r\n");
        let (listed, others) = match origins {
            Origins::Any => (
                Vec::new(),
                format!("Access-Control-Allow-Origin: *\r\n{expose}"),
            ),
            Origins::Listed(origins) if origins.is_empty() => (Vec::new(), String::new()),
            Origins::Listed(origins) => {
                let of_origin = |origin: &String| {
                    let cors = format!(
                        "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n{expose}Vary: Origin\r\n"
                    );
                    (origin.clone(), fields(cors))
                };
                // A cache must not give to one origin what was made for another, or for none.
                let vary = "Vary: Origin\r\n".to_owned();
                (origins.iter().map(of_origin).collect(), vary)
            }
        };
        Policy {
            any: matches!(origins, Origins::Any),
            listed,
            others: fields(others),
        }
    }

    /// The fields for an answer to a request with this `Origin`, or none, that came over TLS or not: whole lines.
    pub fn fields(&self, origin: Option<&[u8]>, https: bool) -> Arc<str> {
        let fields = self.of(origin).unwrap_or(&self.others);
        Arc::clone(if https { &fields.https } else { &fields.plain })
    }

    /// The answer to a preflight from a page that may read answers, whatever the path: it has no token yet, and what there is
    /// it will learn from the request itself. `None` for all else, an OPTIONS of another kind among it.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        if request.method != Method::Options
            || request
                .headers
                .get("Access-Control-Request-Method")
                .is_none()
        {
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

    fn of(&self, origin: Option<&[u8]>) -> Option<&Fields> {
        let origin = origin?;
        // Byte for byte: browsers write an origin in one way only. Lists are short.
        self.listed
            .iter()
            .find(|(listed, _)| listed.as_bytes() == origin)
            .map(|(_, fields)| fields)
    }
}

/// The `Origin` of a request. Whoever sends two is no browser, and has none.
pub fn origin(headers: &Headers) -> Option<&[u8]> {
    let mut origins = headers.raw("Origin");
    origins
        .next()
        .filter(|_| origins.next().is_none())
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "https://app.example.com";

    fn allowed(list: &str, origin: Option<&str>) -> String {
        let policy = Policy::new(&Origins::parse(list).unwrap(), None);
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
    fn all_are_allowed_without_credentials_only() {
        assert_eq!(allowed("*", Some(APP)), "* - -");
        assert_eq!(allowed("*", None), "* - -");
        assert_eq!(allowed("none", Some(APP)), "- - -");
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = Headers::default();
        headers.push("Origin", APP);
        assert_eq!(origin(&headers), Some(APP.as_bytes()));
        headers.push("origin", APP);
        assert_eq!(origin(&headers), None);
    }

    #[test]
    fn tls_is_asked_for_over_tls_alone() {
        let policy = Policy::new(&Origins::Any, Some(Duration::from_secs(60)));
        let strict = "Strict-Transport-Security: max-age=60\r\n";
        assert!(policy.fields(None, true).ends_with(strict));
        assert!(!policy.fields(None, false).contains("Strict"));
    }
}
