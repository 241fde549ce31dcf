//! Header fields that protect answers in browsers.

use serde_json::Value;

use crate::support::postgres::fresh_database;
use crate::support::process::{self, Process};
use crate::support::tls::Certificate;
use crate::support::wire::Endpoint;
use crate::support::{Answer, TestApp};

const YEAR: &str = "max-age=31536000";

/// The fields that protect answers in browsers, by the kind of answer; SECURITY.md gives the reasons.
const JSON: &[(&str, &str)] = &[
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
];
const PAGE: &[(&str, &str)] = &[
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
];

/// Asserts that the answer has each of these fields once, and no other security field.
#[track_caller]
fn expect_fields(answer: &Answer, wanted: &[(&str, &str)]) {
    for name in [
        "X-Content-Type-Options",
        "Cache-Control",
        "Content-Security-Policy",
        "X-Frame-Options",
        "Referrer-Policy",
    ] {
        let value = |(field, value)| (field == name).then_some(value);
        let mut values: Vec<&str> = answer
            .headers
            .iter()
            .filter_map(|(field, shown)| value((field.as_str(), shown.as_str())))
            .collect();
        // The sources that a page may load differ between pages.
        if wanted == PAGE && name == "Content-Security-Policy" {
            let policy = values.pop().unwrap_or_default();
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(policy.ends_with("; frame-ancestors 'none'"), "{policy}");
        }
        let wanted: Vec<&str> = wanted.iter().copied().filter_map(value).collect();
        assert_eq!(values, wanted, "{name}: {answer:?}");
    }
}

#[test]
fn every_answer_has_the_fields_of_its_kind() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("Buy milk");
    let path = |task: &Value| format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let one = path(&task);
    let endpoint = Endpoint::from(app.address);
    for answer in [
        user.get("/").expect(200),
        user.get("/health").expect(200),
        user.get("/health/ready").expect(200),
        user.get("/api/tasks").expect(200),
        user.get(&one).expect(200),
        user.send("HEAD", &one, &[], None).expect(200),
        user.get("/api/tasks/none").expect(404),
        user.get("/api/u2/tasks").expect(403),
        user.send("PUT", "/api/tasks", &[], None).expect(405),
        user.send("POST", "/api/tasks", &[], Some(b"{}"))
            .expect(422),
        user.get("/nowhere").expect(404),
        app.anonymous().get("/api/tasks").expect(401),
        endpoint.ask(b"GET / HTTP/1.1\r\n\r\n").expect(400),
        endpoint
            .ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            .expect(413),
    ] {
        expect_fields(&answer, JSON);
        assert_eq!(
            answer.header("Strict-Transport-Security"),
            None,
            "{answer:?}"
        );
    }
    for answer in [
        user.send("OPTIONS", "/api/tasks", &[], None).expect(204),
        user.delete(&path(&user.task("other"))).expect(204),
    ] {
        expect_fields(&answer, &[]);
    }
    let anonymous = app.anonymous();
    for path in ["/docs", "/redoc"] {
        expect_fields(&anonymous.get(path).expect(200), PAGE);
    }
    for path in ["/openapi.json", "/docs/docs.js", "/docs/favicon-32x32.png"] {
        let answer = anonymous.send("HEAD", path, &[], None).expect(200);
        let mut file = JSON.to_vec();
        file[1] = ("Cache-Control", "no-cache");
        expect_fields(&answer, &file);
    }
}

#[test]
fn header_fields_of_a_list_take_at_most_400_bytes() {
    let app = TestApp::start();
    let answer = app.user("u1").get("/api/tasks").expect(200);
    let bytes: usize = answer
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + ": \r\n".len())
        .sum();
    assert!(bytes <= 400, "{bytes}: {answer:?}");
}

#[test]
fn strict_transport_security_is_sent_over_tls() {
    let certificate = Certificate::make();
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("todo.sock");
    let (address, direct) = (process::free_address(), process::free_address());
    let listen = format!("{address},unix:{},direct:{direct}", path.display());
    let tls = certificate.settings();
    let mut settings = vec![("LISTEN", listen.as_str())];
    settings.extend(tls.iter().map(|(name, value)| (*name, value.as_str())));
    let _server = Process::serve(&fresh_database(), &settings);
    let strict = |endpoint: &Endpoint, fields: &str| {
        let request = format!("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let answer = endpoint.ask(request.as_bytes()).expect(401);
        answer
            .header("Strict-Transport-Security")
            .map(str::to_owned)
    };
    let year = Some(YEAR.to_owned());
    let encrypted = Endpoint::Tls(address, certificate.client());
    assert_eq!(strict(&encrypted, ""), year);
    // Also in the answer to an unreadable head.
    let refused = encrypted.ask(b"GET / HTTP/1.1\r\n\r\n").expect(400);
    assert_eq!(refused.header("Strict-Transport-Security"), Some(YEAR));
    // Behind a proxy, the proxy says whether TLS was used.
    for endpoint in [Endpoint::Unix(path.clone()), Endpoint::Tcp(direct)] {
        assert_eq!(strict(&endpoint, ""), None);
        assert_eq!(strict(&endpoint, "X-Forwarded-Proto: http\r\n"), None);
        assert_eq!(strict(&endpoint, "X-Forwarded-Proto: https\r\n"), year);
        assert_eq!(
            strict(&endpoint, "Forwarded: for=192.0.2.1;proto=https\r\n"),
            None,
            "not the configured header"
        );
    }
    // Also in an answer of the edge to a refused head.
    for (proto, expected) in [("https", Some(YEAR)), ("http", None)] {
        let head = format!("GET / HTTP/1.1\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let refused = Endpoint::Unix(path.clone())
            .ask(head.as_bytes())
            .expect(400);
        assert_eq!(refused.header("Strict-Transport-Security"), expected);
    }
}

#[test]
fn tls_is_believed_only_from_trusted_proxies_and_in_the_configured_header() {
    let strict = |settings: &[(&str, &str)]| {
        let server = Process::serve(&fresh_database(), settings);
        let says = [
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "host=\"x, for=192.0.2.1;proto=http"),
        ];
        let answer = server.anonymous().send("GET", "/", &says, None).expect(200);
        answer
            .header("Strict-Transport-Security")
            .map(str::to_owned)
    };
    assert_eq!(strict(&[("TRUSTED_PROXIES", "none")]), None);
    assert_eq!(strict(&[("PROXY_HEADER", "forwarded")]), None);
    assert_eq!(strict(&[]), Some(YEAR.to_owned()));
    // With zero, browsers drop the rule.
    assert_eq!(
        strict(&[("HSTS_SECONDS", "0")]),
        Some("max-age=0".to_owned())
    );
}
