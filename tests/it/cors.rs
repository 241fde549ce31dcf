//! CORS: which pages may call the API from a browser.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use todo_api::api::Handler;
use todo_api::http::request::Method;
use todo_api::http::router::Route;

use crate::support::app::ORIGIN;
use crate::support::postgres::fresh_database;
use crate::support::process::{self, Process};
use crate::support::tls::Certificate;
use crate::support::wire::Endpoint;
use crate::support::{Answer, TestApp};

const APP: &str = "https://app.example.com";
const OTHER: &str = "http://localhost:3000";
const LISTED: (&str, &str) = (
    "ALLOWED_ORIGINS",
    "https://app.example.com,http://localhost:3000",
);

const PREFLIGHT: [(&str, &str); 2] = [
    ("Access-Control-Request-Method", "PATCH"),
    (
        "Access-Control-Request-Headers",
        "authorization,content-type",
    ),
];

/// The names in a list-valued header field, in lower case.
fn names(answer: &Answer, field: &str) -> Vec<String> {
    let list = answer.header(field).unwrap_or_default();
    list.split(", ").map(str::to_lowercase).collect()
}

/// Asserts that only a page of this origin may read the answer.
#[track_caller]
fn expect_readable(answer: &Answer, origin: &str) {
    assert_eq!(
        answer.header("Access-Control-Allow-Origin"),
        Some(origin),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("Access-Control-Allow-Credentials"),
        Some("true"),
        "{answer:?}"
    );
    assert_eq!(answer.header("Vary"), Some("Origin"), "{answer:?}");
    let exposed = names(answer, "Access-Control-Expose-Headers");
    for name in [
        "etag",
        "link",
        "location",
        "x-request-id",
        "retry-after",
        "idempotency-replayed",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ] {
        assert!(
            exposed.iter().any(|exposed| exposed == name),
            "{name}: {answer:?}"
        );
    }
}

#[track_caller]
fn expect_unreadable(answer: &Answer) {
    let cors =
        |(name, _): &&(String, String)| name.to_ascii_lowercase().starts_with("access-control-");
    assert_eq!(answer.headers.iter().find(cors), None, "{answer:?}");
}

#[test]
fn a_page_of_a_listed_origin_may_read_answers_and_errors() {
    let server = Process::serve(&fresh_database(), &[LISTED, ("RATE_LIMIT_PER_HOUR", "7")]);
    let (user, anonymous) = (server.user("u"), server.anonymous());
    for origin in [APP, OTHER] {
        let from = [("Origin", origin)];
        expect_readable(
            &anonymous.send("GET", "/health", &from, None).expect(200),
            origin,
        );
        expect_readable(
            &anonymous
                .send("GET", "/health/ready", &from, None)
                .expect(200),
            origin,
        );
        expect_readable(
            &anonymous.send("GET", "/api/tasks", &from, None).expect(401),
            origin,
        );
        expect_readable(
            &anonymous.send("GET", "/nowhere", &from, None).expect(404),
            origin,
        );
        expect_readable(
            &anonymous.send("PUT", "/api/tasks", &from, None).expect(405),
            origin,
        );
    }
    let from = [("Origin", APP)];
    let body = json!({"title": "x"}).to_string();
    for (method, target, body, status) in [
        ("GET", "/api/tasks", None, 200),
        ("HEAD", "/api/tasks", None, 200),
        ("POST", "/api/tasks", Some(body.as_bytes()), 201),
        ("POST", "/api/tasks", Some(b"{}".as_slice()), 422),
        ("POST", "/api/tasks", Some(b"{".as_slice()), 400),
        ("GET", "/api/other/tasks", None, 403),
        ("GET", "/api/tasks/none", None, 404),
        ("GET", "/api/tasks", None, 429),
    ] {
        let answer = user.send(method, target, &from, body).expect(status);
        expect_readable(&answer, APP);
    }
}

#[test]
fn a_page_of_another_origin_may_read_nothing() {
    let server = Process::serve(&fresh_database(), &[LISTED]);
    let user = server.user("u");
    for origin in [
        "https://evil.example",
        "null",
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://APP.example.com",
        "https://app.example.com.evil.example",
        "https://app.example.com http://localhost:3000",
        "https://app.example.com, http://localhost:3000",
        "*",
        "",
    ] {
        let mut headers = vec![("Origin", origin)];
        let answer = user.send("GET", "/api/tasks", &headers, None).expect(200);
        expect_unreadable(&answer);
        assert_eq!(answer.header("Vary"), Some("Origin"), "{origin}");
        headers.extend(PREFLIGHT);
        expect_unreadable(&user.send("OPTIONS", "/api/tasks", &headers, None));
    }
    let twice = [("Origin", APP), ("Origin", APP)];
    expect_unreadable(&user.send("GET", "/api/tasks", &twice, None).expect(200));
    // Without an Origin too, because a cache must distinguish the two answers.
    let answer = user.get("/api/tasks");
    expect_unreadable(&answer);
    assert_eq!(answer.header("Vary"), Some("Origin"));
}

#[test]
fn a_preflight_on_any_path_needs_no_token_and_does_not_count() {
    let server = Process::serve(
        &fresh_database(),
        &[LISTED, ("RATE_LIMIT_ANON_PER_HOUR", "1")],
    );
    let anonymous = server.anonymous();
    let mut headers = vec![("Origin", APP)];
    headers.extend(PREFLIGHT);
    for target in [
        "/api/tasks",
        "/api/u1/tasks/x/complete",
        "/api/v1/tasks/",
        "/api/auth/login",
        "/health",
        "/",
        "/nowhere",
        "/api/%ff",
    ] {
        let answer = anonymous
            .send("OPTIONS", target, &headers, None)
            .expect(204);
        expect_readable(&answer, APP);
        for method in ["get", "head", "post", "put", "patch", "delete"] {
            let allowed = names(&answer, "Access-Control-Allow-Methods");
            assert!(
                allowed.iter().any(|allowed| allowed == method),
                "{method}: {answer:?}"
            );
        }
        assert_eq!(
            names(&answer, "Access-Control-Allow-Headers"),
            [
                "authorization",
                "content-type",
                "if-match",
                "if-none-match",
                "idempotency-key",
                "x-request-id"
            ]
        );
        let age: u64 = answer
            .header("Access-Control-Max-Age")
            .unwrap()
            .parse()
            .unwrap();
        assert!((600..=86_400).contains(&age), "{age}");
        assert!(
            !answer
                .headers
                .iter()
                .any(|(name, _)| name.contains("RateLimit"))
        );
    }
    // An OPTIONS request without these fields is not a preflight.
    let plain = anonymous
        .send("OPTIONS", "/api/tasks", &[("Origin", APP)], None)
        .expect(204);
    assert_eq!(
        plain.header("Allow"),
        Some("GET, HEAD, POST, PATCH, DELETE, OPTIONS")
    );
    assert_eq!(plain.header("Access-Control-Allow-Methods"), None);
    expect_readable(&plain, APP);
    anonymous
        .send("OPTIONS", "/nowhere", &[("Origin", APP)], None)
        .expect(404);
}

#[test]
fn errors_of_the_edge_are_readable_too() {
    let server = Process::serve(
        &fresh_database(),
        &[LISTED, ("BODY_TIMEOUT", "0.3"), ("HEAD_TIMEOUT", "0.3")],
    );
    let endpoint = Endpoint::from(server.address);
    let head = format!("Host: localhost\r\nOrigin: {APP}\r\n");
    let filler = "x".repeat(17_000);
    for (status, request) in [
        (
            413,
            format!("POST /api/tasks HTTP/1.1\r\n{head}Content-Length: 99999999\r\n\r\n"),
        ),
        (
            408,
            format!("POST /api/tasks HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\n{{"),
        ),
        (408, format!("GET /api/tasks HTTP/1.1\r\n{head}Accept: ")),
        (
            431,
            format!("GET /api/tasks HTTP/1.1\r\n{head}X-Filler: {filler}\r\n\r\n"),
        ),
        (
            431,
            format!(
                "GET /api/tasks HTTP/1.1\r\n{head}{}\r\n",
                "A: b\r\n".repeat(70)
            ),
        ),
        (
            414,
            format!("GET /{} HTTP/1.1\r\n{head}\r\n", "x".repeat(5_000)),
        ),
        (
            400,
            format!("POST /api/tasks HTTP/1.1\r\n{head}Content-Length: 5x\r\n\r\n"),
        ),
        (
            501,
            format!("POST /api/tasks HTTP/1.1\r\n{head}Transfer-Encoding: gzip\r\n\r\n"),
        ),
        (
            417,
            format!("POST /api/tasks HTTP/1.1\r\n{head}Expect: more\r\nContent-Length: 1\r\n\r\n"),
        ),
    ] {
        let answer = endpoint.ask(request.as_bytes()).expect(status);
        expect_readable(&answer, APP);
        let request = request.replace(APP, "https://evil.example");
        let answer = endpoint.ask(request.as_bytes()).expect(status);
        expect_unreadable(&answer);
    }
    // An Origin in a body does not count.
    let smuggled =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\nOrigin: {APP}\r\n");
    expect_unreadable(&endpoint.ask(smuggled.as_bytes()).expect(400));
}

#[test]
fn a_500_is_readable_too() {
    let panics: Route<Handler> = Route::new(
        Method::Get,
        "/panic",
        Handler::Public(|_, _| panic!("inside")),
    );
    let app = TestApp::on(&fresh_database(), |_| {}, vec![panics]);
    let answer = app
        .anonymous()
        .send("GET", "/panic", &[("Origin", ORIGIN)], None);
    answer.expect_error(500, "INTERNAL_SERVER_ERROR");
    expect_readable(&answer, ORIGIN);
}

#[test]
fn development_logs_each_refused_origin_once() {
    let refused = "not in ALLOWED_ORIGINS";
    for (environment, logged) in [("development", true), ("production", false)] {
        let server = Process::serve(&fresh_database(), &[("ENVIRONMENT", environment)]);
        let user = server.user("u");
        let ask = |origin: &str| {
            let from = [("Origin", origin)];
            user.send("GET", "/api/tasks", &from, None).expect(200);
            let mut preflight = from.to_vec();
            preflight.extend(PREFLIGHT);
            user.send("OPTIONS", "/api/tasks", &preflight, None);
        };
        // Requests from the server's own pages are not cross-origin.
        ask("http://localhost");
        for _ in 0..3 {
            ask("http://localhost:5173");
            ask("https://a.example.com x=1");
        }
        for number in 0..30 {
            ask(&format!("http://localhost:{}", 6000 + number));
        }
        let last = [("X-Request-ID", "the-last-request")];
        user.send("GET", "/api/tasks", &last, None).expect(200);
        let log = server.wait_for("the-last-request");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(refused)).collect();
        assert_eq!(lines.len(), if logged { 20 } else { 0 }, "{log}");
        if logged {
            assert!(lines[0].contains("origin=http://localhost:5173"), "{log}");
            assert!(
                lines[1].contains("origin=\"https://a.example.com x=1\""),
                "{log}"
            );
        }
    }
}

#[test]
fn all_origins_may_be_allowed_without_credentials() {
    let server = Process::serve(&fresh_database(), &[("CORS_ORIGINS", "*")]);
    let user = server.user("u");
    let endpoint = Endpoint::from(server.address);
    let mut preflight = vec![("Origin", "https://any.example")];
    preflight.extend(PREFLIGHT);
    for answer in [
        user.send("GET", "/api/tasks", &[("Origin", "null")], None)
            .expect(200),
        user.get("/api/tasks").expect(200),
        user.send("OPTIONS", "/api/tasks", &preflight, None)
            .expect(204),
        // A refusal before the Origin could be read.
        endpoint.ask(b"\x01\r\n\r\n").expect(400),
    ] {
        assert_eq!(
            answer.header("Access-Control-Allow-Origin"),
            Some("*"),
            "{answer:?}"
        );
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        assert_eq!(answer.header("Vary"), None);
    }
}

#[test]
fn development_allows_its_front_end_and_production_allows_none() {
    let readable = |settings: &[(&str, &str)]| {
        let server = Process::serve(&fresh_database(), settings);
        let answer = server
            .anonymous()
            .send("GET", "/", &[("Origin", OTHER)], None);
        answer.header("Access-Control-Allow-Origin") == Some(OTHER)
    };
    assert!(readable(&[]));
    assert!(!readable(&[("ALLOWED_ORIGINS", "none")]));
    assert!(!readable(&[("ENVIRONMENT", "production")]));
    assert!(readable(&[
        ("ENVIRONMENT", "production"),
        ("CORS_ORIGINS", OTHER)
    ]));
}

#[test]
fn every_kind_of_listener_sends_the_same_fields() {
    let certificate = Certificate::make();
    let direct = process::free_address();
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("todo.sock");
    let address = process::free_address();
    let listen = format!("{address},unix:{},direct:{direct}", path.display());
    let tls = certificate.settings();
    let mut settings = vec![("LISTEN", listen.as_str()), LISTED];
    settings.extend(tls.iter().map(|(name, value)| (*name, value.as_str())));
    let _server = Process::serve(&fresh_database(), &settings);
    let client = Arc::clone(&certificate.client());
    for endpoint in [
        Endpoint::Tls(address, client),
        Endpoint::Unix(path),
        Endpoint::Tcp(direct),
    ] {
        let ask = |request: String| endpoint.ask(request.as_bytes());
        let head = format!("Host: localhost\r\nOrigin: {APP}\r\n");
        expect_readable(
            &ask(format!("GET /api/tasks HTTP/1.1\r\n{head}\r\n")).expect(401),
            APP,
        );
        let preflight = ask(format!(
            "OPTIONS /api/tasks HTTP/1.1\r\n{head}Access-Control-Request-Method: GET\r\n\r\n"
        ));
        assert!(preflight.header("Access-Control-Allow-Methods").is_some());
        expect_readable(&preflight.expect(204), APP);
        let large = format!("POST /api/tasks HTTP/1.1\r\n{head}Content-Length: 2000000\r\n\r\n");
        if !matches!(endpoint, Endpoint::Tcp(_)) {
            expect_readable(&ask(large).expect(413), APP);
        }
    }
}

#[test]
fn no_page_may_read_the_503_of_a_full_server() {
    let server = Process::serve(&fresh_database(), &[LISTED, ("MAX_CONNECTIONS", "1")]);
    let endpoint = Endpoint::from(server.address);
    let mut first = endpoint.open().unwrap();
    first.write(b"GET /health HTTP/1.1\r\nHost: a\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let refused = endpoint
        .ask(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect(503);
    expect_unreadable(&refused);
    assert_eq!(refused.header("Vary"), Some("Origin"));
}

#[test]
fn an_origin_in_a_form_that_no_browser_sends_stops_the_start() {
    let (status, log) = Process::start(
        &fresh_database(),
        &[("CORS_ORIGINS", "https://app.example.com/")],
    )
    .wait();
    assert!(!status.success());
    assert!(
        log.contains("CORS_ORIGINS must be *, none, or a comma-separated list of origins as browsers write them"),
        "{log}"
    );
}
