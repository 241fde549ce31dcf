//! The error body, request ids, and causes that only the log shows.

use todo_api::api::Handler;
use todo_api::http::request::Method;
use todo_api::http::router::Route;

use crate::support::postgres::{fresh_database, sql};
use crate::support::process::Process;
use crate::support::wire::Endpoint;
use crate::support::{TestApp, http};

#[test]
fn every_answer_has_the_clients_request_id_or_a_new_one() {
    let app = TestApp::start();
    let user = app.user("u1");
    for (sent, kept) in [
        ("abc-DEF_1.2", true),
        (&*"x".repeat(64), true),
        ("", false),
        ("has space", false),
        (&*"x".repeat(65), false),
        ("<script>", false),
    ] {
        for target in ["/health", "/api/tasks", "/api/u2/tasks", "/nowhere"] {
            let answer = user.send("GET", target, &[("X-Request-ID", sent)], None);
            let id = answer.header("X-Request-ID").unwrap();
            assert_eq!(id == sent, kept, "{sent:?} {target}");
            assert!(!id.is_empty() && id.len() <= 64);
            if answer.status >= 400 {
                assert_eq!(answer.json()["request_id"], id);
            }
        }
    }
}

#[test]
fn errors_are_json_unless_accept_names_problem_json() {
    let server = Process::serve(&fresh_database(), &[]);
    let user = server.user("u1");
    let endpoint = Endpoint::from(server.address);
    for (accept, content_type) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("application/problem+json;q=0, */*", "application/json"),
        ("application/problem+json", "application/problem+json"),
        (
            "application/json, Application/Problem+JSON;q=0.5",
            "application/problem+json",
        ),
    ] {
        let accepting = [("Accept", accept)];
        // An error of the edge: a length over the limit.
        let too_large = format!(
            "POST /api/tasks HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nContent-Length: 99999999\r\n\r\n"
        );
        for answer in [
            user.send("GET", "/api/u2/tasks", &accepting, None)
                .expect(403),
            user.send("POST", "/api/tasks", &accepting, Some(b"{}"))
                .expect(422),
            endpoint.ask(too_large.as_bytes()).expect(413),
        ] {
            assert_eq!(
                answer.header("Content-Type"),
                Some(content_type),
                "{accept}"
            );
            assert_eq!(answer.json()["type"], "about:blank");
        }
    }
}

#[test]
fn a_panic_is_a_500_for_that_request_only() {
    let panics: Route<Handler> = Route::new(
        Method::Get,
        "/panic",
        Handler::Public(|_, _| panic!("secret inside")),
    );
    let app = TestApp::on(&fresh_database(), |_| {}, vec![panics]);
    let mut connection = http::Connection::open(app.address).unwrap();
    // More panics than workers, on one connection, which stays open.
    for _ in 0..20 {
        connection.send("GET", "/panic", &[], None).unwrap();
        let answer = connection.receive(false).unwrap();
        let sentence = answer.expect_error(500, "INTERNAL_SERVER_ERROR");
        assert!(
            !answer.body.contains("secret") && sentence.contains("request id"),
            "{answer:?}"
        );
    }
    connection.send("GET", "/health", &[], None).unwrap();
    connection.receive(false).unwrap().expect(200);
}

#[test]
fn outside_development_an_internal_error_reveals_nothing() {
    let database = fresh_database();
    let production = Process::serve(
        &database,
        &[("ENVIRONMENT", "production"), ("WORKERS", "2")],
    );
    let development = Process::serve(&database, &[("WORKERS", "2")]);
    sql(
        &database,
        "ALTER TABLE todo.tasks RENAME COLUMN title TO name",
    );
    let answer = production.user("u1").get("/api/tasks");
    answer.expect_error(500, "INTERNAL_SERVER_ERROR");
    for word in ["column", "SELECT", "todo.", "SQL"] {
        assert!(!answer.body.contains(word), "{}", answer.body);
    }
    assert_eq!(answer.json()["error"]["details"], serde_json::json!([]));
    let id = answer.header("X-Request-ID").unwrap().to_owned();
    let log = production.wait_for(&id);
    assert!(log.contains("column task.title does not exist"), "{log}");
    let answer = development.user("u1").get("/api/tasks");
    assert!(
        answer.body.contains("column"),
        "in development the answer has the cause: {}",
        answer.body
    );
}

#[test]
fn no_encoding_of_a_path_is_a_server_error() {
    let app = TestApp::start();
    let user = app.user("u1");
    for target in [
        "/%",
        "/api/tasks/%zz",
        "/api/%ff/tasks",
        "/api/%c3%28/tasks",
    ] {
        user.get(target).expect_error(400, "BAD_REQUEST");
    }
    for target in [
        "/api/tasks/%00",
        "/api/tasks/..%2f..%2fetc",
        "/api/tasks/%27%20OR%201=1",
        "/api/tasks//",
        "/API/TASKS",
        "//api/tasks",
        "/api/tasks/../tasks",
    ] {
        user.get(target).expect_error(404, "NOT_FOUND");
    }
}
