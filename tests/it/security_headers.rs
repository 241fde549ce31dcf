//! What every answer says to browsers beside its own matter.

use todo_api::api::Handler;
use todo_api::http::request::Method;
use todo_api::http::response::Response;
use todo_api::http::router::Route;

use crate::support::postgres::fresh_database;
use crate::support::process::{self, Process};
use crate::support::tls::Certificate;
use crate::support::wire::Door;
use crate::support::{Answer, TestApp};

const YEAR: &str = "max-age=31536000";

#[track_caller]
fn expect_guarded(answer: &Answer) {
    for (name, value) in [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
        (
            "Content-Security-Policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        let values: Vec<&str> = answer
            .headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(values, [value], "{name}: {answer:?}");
    }
}

#[test]
fn every_answer_is_guarded() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("Buy milk");
    let one = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let door = Door::from(app.address);
    for answer in [
        user.get("/").expect(200),
        user.get("/health").expect(200),
        user.get("/health/ready").expect(200),
        user.get("/api/tasks").expect(200),
        user.get(&one).expect(200),
        user.send("HEAD", &one, &[], None).expect(200),
        user.delete(&one).expect(204),
        user.get(&one).expect(404),
        user.get("/api/u2/tasks").expect(403),
        user.send("PUT", "/api/tasks", &[], None).expect(405),
        user.send("OPTIONS", "/api/tasks", &[], None).expect(204),
        user.send("POST", "/api/tasks", &[], Some(b"{}"))
            .expect(422),
        user.get("/nowhere").expect(404),
        app.anonymous().get("/api/tasks").expect(401),
        door.ask(b"GET / HTTP/1.1\r\n\r\n").expect(400),
        door.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            .expect(413),
    ] {
        expect_guarded(&answer);
        assert_eq!(
            answer.header("Strict-Transport-Security"),
            None,
            "{answer:?}"
        );
    }
}

#[test]
fn a_page_says_itself_what_it_needs() {
    let page: Route<Handler> = Route::new(
        Method::Get,
        "/page",
        Handler::Unlimited(|_, _| {
            Ok(Response::empty(200)
                .header("Cache-Control", "public, max-age=60")
                .header("Content-Security-Policy", "default-src 'self'"))
        }),
    );
    let app = TestApp::on(&fresh_database(), |_| {}, vec![page]);
    let answer = app.anonymous().get("/page").expect(200);
    for (name, value) in [
        ("Cache-Control", "public, max-age=60"),
        ("Content-Security-Policy", "default-src 'self'"),
    ] {
        let mut values = answer.headers.iter().filter(|(field, _)| field == name);
        assert_eq!(values.next().map(|(_, value)| value.as_str()), Some(value));
        assert_eq!(values.next(), None, "{answer:?}");
    }
    assert_eq!(answer.header("X-Frame-Options"), Some("DENY"));
}

#[test]
fn tls_is_asked_for_where_it_was_spoken() {
    let certificate = Certificate::make();
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("todo.sock");
    let (address, direct) = (process::free_address(), process::free_address());
    let listen = format!("{address},unix:{},direct:{direct}", path.display());
    let tls = certificate.settings();
    let mut settings = vec![("LISTEN", listen.as_str())];
    settings.extend(tls.iter().map(|(name, value)| (*name, value.as_str())));
    let _server = Process::serve(&fresh_database(), &settings);
    let strict = |door: &Door, fields: &str| {
        let request = format!("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let answer = door.ask(request.as_bytes()).expect(401);
        answer
            .header("Strict-Transport-Security")
            .map(str::to_owned)
    };
    let year = Some(YEAR.to_owned());
    let encrypted = Door::Tls(address, certificate.client());
    assert_eq!(strict(&encrypted, ""), year);
    // Also where there was no head to read.
    let refused = encrypted.ask(b"GET / HTTP/1.1\r\n\r\n").expect(400);
    assert_eq!(refused.header("Strict-Transport-Security"), Some(YEAR));
    // Behind a proxy, as the proxy says.
    for door in [Door::Unix(path.clone()), Door::Tcp(direct)] {
        assert_eq!(strict(&door, ""), None);
        assert_eq!(strict(&door, "X-Forwarded-Proto: http\r\n"), None);
        assert_eq!(strict(&door, "X-Forwarded-Proto: https\r\n"), year);
        assert_eq!(
            strict(&door, "Forwarded: for=192.0.2.1;proto=https\r\n"),
            None,
            "not the header that is configured"
        );
    }
    // Also of a head that the edge refuses.
    for (proto, expected) in [("https", Some(YEAR)), ("http", None)] {
        let head = format!("GET / HTTP/1.1\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let refused = Door::Unix(path.clone()).ask(head.as_bytes()).expect(400);
        assert_eq!(refused.header("Strict-Transport-Security"), expected);
    }
}

#[test]
fn tls_is_believed_from_trusted_proxies_and_in_the_configured_header_alone() {
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
    // A way back for who had said so and cannot keep it.
    assert_eq!(
        strict(&[("HSTS_SECONDS", "0")]),
        Some("max-age=0".to_owned())
    );
}
