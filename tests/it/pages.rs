//! The pages of the API, as far as they can be judged without a browser; tests/browser has one.

use todo_api::api::pages;

use crate::support::TestApp;

const HTML: &str = "text/html; charset=utf-8";

#[test]
fn the_description_is_served_as_the_program_prints_it() {
    let app = TestApp::start();
    let answer = app.anonymous().get("/openapi.json").expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.body, pages::description().unwrap());
}

#[test]
fn pages_and_what_they_load_come_from_here_alone() {
    let app = TestApp::start();
    let nobody = app.anonymous();
    for path in ["/docs", "/docs/", "/redoc", "/redoc/"] {
        let page = nobody.get(path).expect(200);
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
                    nobody.send("HEAD", target, &[], None).expect(200);
                }
            }
        }
        let head = nobody.send("HEAD", path, &[], None).expect(200);
        let length = page.body.len().to_string();
        assert_eq!(head.header("Content-Length"), Some(length.as_str()));
    }
    nobody
        .get("/docs/swagger-ui.css.map")
        .expect_error(404, "NOT_FOUND");
    nobody
        .get("/docs/..%2fopenapi.json")
        .expect_error(404, "NOT_FOUND");
}

#[test]
fn files_are_compressed_for_those_who_take_it_and_sent_once() {
    let app = TestApp::start();
    let nobody = app.anonymous();
    for path in ["/openapi.json", "/redoc", "/docs/swagger-ui-bundle.js"] {
        let plain = nobody.send("HEAD", path, &[], None).expect(200);
        assert_eq!(plain.header("Content-Encoding"), None);
        for (accepted, encoding) in [
            ("gzip, deflate, br", Some("gzip")),
            ("br;q=1.0, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0", None),
            ("identity", None),
        ] {
            let answer = nobody.send("HEAD", path, &[("Accept-Encoding", accepted)], None);
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
        // Compared weakly, it is the same without its mark.
        for tags in [tags.clone(), tags.replace("W/", "")] {
            let again = nobody.send("GET", path, &[("If-None-Match", &tags)], None);
            assert_eq!(again.expect(304).body, "");
        }
    }
}

#[test]
fn the_reference_needs_no_script_and_leaves_nothing_out() {
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
