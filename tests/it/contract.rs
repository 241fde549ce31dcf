//! The contract's seven routes in both forms, with and without a trailing slash and under both versions.

use serde_json::json;

use crate::support::{Actor, TestApp};

/// Every path of a user's task collection.
fn collections(user: &Actor) -> Vec<String> {
    let own = user.own("/tasks");
    vec![
        "/api/tasks".to_owned(),
        "/api/tasks/".to_owned(),
        "/api/v1/tasks".to_owned(),
        own.clone(),
        format!("{own}/"),
        own.replacen("/api/", "/api/v1/", 1),
    ]
}

#[test]
fn every_route_answers_in_every_form() {
    let app = TestApp::start();
    for id in [
        "0190b7c6-1111-7000-8000-000000000000",
        "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4",
        "auth0|7/ü?&#",
        "v1",
    ] {
        let user = app.user(id);
        for collection in collections(&user) {
            let slash = if collection.ends_with('/') { "/" } else { "" };
            let task = user
                .post(&collection, json!({ "title": "one" }))
                .expect(201)
                .json();
            assert_eq!(task["user_id"], id);
            let one = format!(
                "{}/{}{slash}",
                collection.trim_end_matches('/'),
                task["id"].as_str().unwrap()
            );
            assert_eq!(user.get(&one).expect(200).json(), task, "{one}");
            assert_eq!(
                user.get(&collection).expect(200).json()["tasks"],
                json!([task])
            );
            assert_eq!(
                user.put(&one, json!({ "title": "two" })).expect(200).json()["title"],
                "two"
            );
            assert_eq!(
                user.patch(&one, json!({ "title": "three" }))
                    .expect(200)
                    .json()["title"],
                "three"
            );
            let complete = format!("{}/complete{slash}", one.trim_end_matches('/'));
            assert_eq!(
                user.patch(&complete, json!({ "completed": true }))
                    .expect(200)
                    .json()["completed"],
                true
            );
            assert_eq!(user.delete(&one).expect(204).body, "");
            user.get(&one).expect_error(404, "NOT_FOUND");
        }
    }
}

#[test]
fn checks_come_in_the_documented_order() {
    let app = TestApp::start();
    let (anonymous, user) = (app.anonymous(), app.user("u1"));
    let task = user.task("mine");
    let mine = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let bad = json!({ "title": "" });
    let text: &[(&str, &str)] = &[("Content-Type", "text/plain")];

    // An unknown route and an unknown method are checked before the token.
    anonymous.get("/api/nothing").expect_error(404, "NOT_FOUND");
    anonymous
        .send("PUT", "/api/tasks", &[], None)
        .expect_error(405, "METHOD_NOT_ALLOWED");
    // The token is checked before the user in the path.
    anonymous
        .get("/api/u2/tasks")
        .expect_error(401, "UNAUTHORIZED");
    // The user in the path is checked before the task, the media type and the body.
    user.put("/api/u2/tasks/no-uuid", bad.clone())
        .expect_error(403, "FORBIDDEN");
    user.send("POST", "/api/u2/tasks", text, Some(b"{"))
        .expect_error(403, "FORBIDDEN");
    // The task is checked before the media type and the body.
    for body in [&b"{"[..], b"{\"title\":\"\"}", b"[]"] {
        let missing = "/api/tasks/0190b7c6-0000-7000-8000-000000000000";
        for (method, path) in [
            ("PUT", missing.to_owned()),
            ("PATCH", missing.to_owned()),
            ("PATCH", format!("{missing}/complete")),
        ] {
            user.send(method, &path, &[], Some(body))
                .expect_error(404, "NOT_FOUND");
            user.send(method, &path, text, Some(body))
                .expect_error(404, "NOT_FOUND");
        }
    }
    // The media type is checked before the body.
    user.send("PUT", &mine, text, Some(b"{"))
        .expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    user.send("PUT", &mine, &[], Some(b"{"))
        .expect_error(400, "BAD_REQUEST");
    user.put(&mine, bad).expect_error(422, "VALIDATION_ERROR");
    assert_eq!(
        user.get(&mine).expect(200).json(),
        task,
        "nothing was changed"
    );
}

#[test]
fn a_405_lists_the_allowed_methods() {
    let app = TestApp::start();
    let user = app.user("u1");
    for (path, allow) in [
        ("/api/tasks", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("/api/u1/tasks/7", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("/api/tasks/7/complete", "PATCH, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
    ] {
        let answer = user.send("BREW", path, &[], None);
        let sentence = answer.expect_error(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("Allow"), Some(allow));
        assert!(sentence.ends_with(allow), "{sentence}");
        let answer = app.anonymous().send("OPTIONS", path, &[], None).expect(204);
        assert_eq!(answer.header("Allow"), Some(allow));
    }
}

#[test]
fn head_is_get_without_the_body() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("one");
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let (get, head) = (
        user.get(&path),
        user.send("HEAD", &path, &[], None).expect(200),
    );
    assert_eq!(head.body, "");
    assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
    assert_eq!(head.header("Content-Type"), Some("application/json"));
    user.send("HEAD", "/api/tasks/none", &[], None).expect(404);
}

#[test]
fn the_root_names_program_version_and_pages() {
    let app = TestApp::start();
    let about = app.anonymous().get("/").expect(200).json();
    assert_eq!(about["name"], "todo-api");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    for (_, link) in about["links"].as_object().unwrap() {
        let status = app.user("u1").get(link.as_str().unwrap()).status;
        assert_eq!(status, 200, "{link}");
    }
}

#[test]
fn answers_have_the_fields_that_a_fastapi_client_reads() {
    let app = TestApp::start();
    let user = app.user("u1");
    let created = user
        .post(
            "/api/u1/tasks",
            json!({ "title": "Buy milk", "description": "2 l" }),
        )
        .expect(201);
    assert_eq!(created.header("Content-Type"), Some("application/json"));
    let task = created.json();
    for (field, value) in [
        ("title", json!("Buy milk")),
        ("description", json!("2 l")),
        ("completed", json!(false)),
        ("user_id", json!("u1")),
    ] {
        assert_eq!(task[field], value);
    }
    let list = user.get("/api/u1/tasks").expect(200).json();
    assert_eq!(
        (list["count"].as_u64(), list["tasks"][0]["id"].clone()),
        (Some(1), task["id"].clone())
    );
    for answer in [
        user.get("/api/u2/tasks"),
        user.get("/api/u1/tasks/x"),
        app.anonymous().get("/api/u1/tasks"),
    ] {
        assert!(answer.json()["detail"].is_string(), "{answer:?}");
    }
    assert!(user.post("/api/u1/tasks", json!({})).json()["detail"].is_string());
}
