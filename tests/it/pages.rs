//! The pages of the API without a browser; tests/browser has tests with one.

use todo_api::api::pages;

use crate::support::TestApp;
use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::wire::Endpoint;

const HTML: &str = "text/html; charset=utf-8";

#[test]
fn the_description_is_served_as_the_program_prints_it() {
    let app = TestApp::start();
    let answer = app.anonymous().get("/openapi.json").expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.body, pages::description().unwrap());
}

#[test]
fn pages_load_files_of_this_server_only() {
    let app = TestApp::start();
    let anonymous = app.anonymous();
    for path in ["/docs", "/docs/", "/redoc", "/redoc/"] {
        let page = anonymous.get(path).expect(200);
        assert_eq!(page.header("Content-Type"), Some(HTML), "{path}");
        let policy = page.header("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        for careless in ["unsafe", "http", "*"] {
            assert!(!policy.contains(careless), "{path}: {policy}");
        }
        for attribute in ["src=\"", "href=\""] {
            for rest in page.body.split(attribute).skip(1) {
                let target = rest.split('"').next().unwrap();
                let here = target.starts_with('/') || target.starts_with('#');
                assert!(here || target == "data:,", "{path}: {target}");
                if target.starts_with("/docs/") {
                    anonymous.send("HEAD", target, &[], None).expect(200);
                }
            }
        }
        let head = anonymous.send("HEAD", path, &[], None).expect(200);
        let length = page.body.len().to_string();
        assert_eq!(head.header("Content-Length"), Some(length.as_str()));
    }
    anonymous
        .get("/docs/swagger-ui.css.map")
        .expect_error(404, "NOT_FOUND");
    anonymous
        .get("/docs/..%2fopenapi.json")
        .expect_error(404, "NOT_FOUND");
}

/// The Accept field of browsers that load a page.
const BROWSER: (&str, &str) = (
    "Accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
);

#[test]
fn the_root_is_a_page_for_browsers_and_json_for_others() {
    let app = TestApp::start();
    let anonymous = app.anonymous();
    let page = anonymous.send("GET", "/", &[BROWSER], None).expect(200);
    assert_eq!(page.header("Content-Type"), Some(HTML));
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    let reference = anonymous.get("/redoc").expect(200);
    let policy = "Content-Security-Policy";
    assert_eq!(page.header(policy), reference.header(policy));
    let base = "http://localhost";
    for wanted in [
        concat!("Version ", env!("CARGO_PKG_VERSION")),
        "<strong>Ready.</strong>",
        "href=\"/docs\"",
        "href=\"/redoc\"",
        "<code>todo-api user add me@example.org\nexport TOKEN=$(todo-api token --user me@example.org)<",
        "Registration is open",
        &format!("curl {base}/api/tasks -H \"Authorization: Bearer $TOKEN\""),
        &format!("curl --json '{{\"title\": \"Buy milk\"}}' {base}/api/tasks"),
        &format!("{base}/api/auth/login"),
    ] {
        assert!(page.body.contains(wanted), "{wanted}: {}", page.body);
    }
    for accept in [
        "*/*",
        "application/json",
        "application/json, text/plain, */*",
    ] {
        let answer = anonymous.send("GET", "/", &[("Accept", accept)], None);
        assert_eq!(answer.expect(200).json()["name"], "todo-api", "{accept}");
    }
    let https = [BROWSER, ("X-Forwarded-Proto", "https")];
    let page = anonymous.send("GET", "/", &https, None).expect(200).body;
    assert!(page.contains("curl https://localhost/api/tasks"), "{page}");
}

#[test]
fn the_root_page_says_why_the_server_is_not_ready_and_how_accounts_are_made() {
    let (app, _) = TestApp::not_open(&fresh_database(), |_| {}, Vec::new());
    let page = app
        .anonymous()
        .send("GET", "/", &[BROWSER], None)
        .expect(200);
    assert!(
        page.body.contains("Not ready: the database"),
        "{}",
        page.body
    );
    let settings = [("ENVIRONMENT", "production"), ("REGISTRATION", "closed")];
    let server = Process::serve(&fresh_database(), &settings);
    let page = server.anonymous().send("GET", "/", &[BROWSER], None);
    let page = page.expect(200).body;
    assert!(page.contains("Registration is closed"), "{page}");
    assert!(
        page.contains("<code>todo-api user add"),
        "the page shows no path of this machine: {page}"
    );
}

#[test]
fn a_host_header_cannot_inject_html_into_the_page() {
    let app = TestApp::start();
    for host in ["a<b>c", "a\"b'c", "a$(b)c"] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n");
        let answer = Endpoint::from(app.address).ask(head.as_bytes());
        if answer.status == 200 {
            assert!(answer.body.contains("http://abc/api/tasks"), "{host}");
        }
    }
}

#[test]
fn browsers_get_a_short_page_for_an_unknown_path() {
    let app = TestApp::start();
    let anonymous = app.anonymous();
    for path in ["/nowhere", "/index.html", "/api"] {
        let page = anonymous.send("GET", path, &[BROWSER], None).expect(404);
        assert_eq!(page.header("Content-Type"), Some(HTML));
        assert!(page.body.contains("<h1>Not found</h1>"), "{}", page.body);
        assert!(page.body.len() < 1500 && page.body.contains("href=\"/redoc\""));
        anonymous.get(path).expect_error(404, "NOT_FOUND");
    }
    // Errors of an existing route are JSON.
    let task = "/api/tasks/00000000-0000-0000-0000-000000000000";
    let answer = app.user("u1").send("GET", task, &[BROWSER], None);
    answer.expect_error(404, "NOT_FOUND");
}

#[test]
fn files_are_compressed_if_gzip_is_accepted_and_are_304_the_second_time() {
    let app = TestApp::start();
    let anonymous = app.anonymous();
    for path in ["/openapi.json", "/redoc", "/docs/swagger-ui-bundle.js"] {
        let plain = anonymous.send("HEAD", path, &[], None).expect(200);
        assert_eq!(plain.header("Content-Encoding"), None);
        for (accepted, encoding) in [
            ("gzip, deflate, br", Some("gzip")),
            ("br;q=1.0, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0", None),
            ("identity", None),
        ] {
            let answer = anonymous.send("HEAD", path, &[("Accept-Encoding", accepted)], None);
            assert_eq!(answer.header("Content-Encoding"), encoding, "{accepted}");
            assert_eq!(answer.header("ETag"), plain.header("ETag"));
            let length = |answer: &crate::support::Answer| -> u64 {
                answer.header("Content-Length").unwrap().parse().unwrap()
            };
            assert_eq!(length(&answer) < length(&plain) / 2, encoding.is_some());
            assert!(
                answer
                    .headers
                    .contains(&("Vary".to_owned(), "Accept-Encoding".to_owned()))
            );
        }
        let tags = format!("\"other\", {}", plain.header("ETag").unwrap());
        // `If-None-Match` compares weakly, so the tag without `W/` is equal.
        for tags in [tags.clone(), tags.replace("W/", "")] {
            let again = anonymous.send("GET", path, &[("If-None-Match", &tags)], None);
            assert_eq!(again.expect(304).body, "");
        }
    }
}

#[test]
fn the_reference_needs_no_script_and_is_complete() {
    let app = TestApp::start();
    let page = app.anonymous().get("/redoc").expect(200).body;
    assert!(!page.contains("<script"));
    let document: serde_json::Value = serde_json::from_str(&pages::description().unwrap()).unwrap();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            let shown = id.trim_end_matches("OfUser");
            assert!(page.contains(&format!("id=\"{shown}\"")), "{id}");
        }
    }
    for name in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(page.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
    let codes = &document["components"]["schemas"]["ProblemError"]["properties"]["code"]["enum"];
    for code in codes.as_array().unwrap() {
        assert!(page.contains(code.as_str().unwrap()), "{code}");
    }
}
