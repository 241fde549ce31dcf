//! The API's description matches the server exactly.
//!
//! The tests call every operation so that each described status occurs, and compare every answer with the description: its
//! status, its media type, each field.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::{Value, json};
use todo_api::api::pages;
use todo_api::api::routes::ROUTES;
use todo_api::http::router::spellings;

use todo_api::domain::list::PARAMETERS;
use todo_api::domain::shape::Shape;

use crate::support::login::{Login, PASSWORD};
use crate::support::schema::{complaints, fields, resolve};
use crate::support::{Actor, Answer, TestApp};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Statuses that any request may have and that no operation lists.
const ANY: [u16; 6] = [405, 408, 417, 431, 501, 505];
/// Statuses of limits, defects and outages; other tests check them.
const TESTED_ELSEWHERE: [u16; 3] = [429, 500, 503];

fn document() -> Value {
    serde_json::from_str(&pages::description().unwrap()).unwrap()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let served: BTreeSet<(String, String)> = ROUTES
        .iter()
        .flat_map(|row| {
            let paths = spellings(row.pattern).into_iter();
            paths.map(|path| (row.method.as_str().to_lowercase(), path))
        })
        .collect();
    let document = document();
    let described: BTreeSet<(String, String)> = operations(&document)
        .map(|operation| (operation.method.to_owned(), operation.path.to_owned()))
        .collect();
    assert_eq!(served, described);
    let ids: Vec<&str> = operations(&document)
        .map(|operation| operation.id())
        .collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "{ids:?}"
    );
}

#[test]
fn every_reference_resolves_and_everything_has_a_description() {
    fn walk(document: &Value, value: &Value) {
        resolve(document, value);
        let inner: Vec<&Value> = match value {
            Value::Object(object) => object.values().collect(),
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        inner.into_iter().for_each(|value| walk(document, value));
    }
    let document = document();
    walk(&document, &document);
    let groups: Vec<&Value> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    for operation in operations(&document) {
        let value = operation.value;
        assert!(value["summary"].is_string(), "{}", operation.id());
        assert!(groups.contains(&&value["tags"][0]), "{}", operation.id());
        for (status, response) in value["responses"].as_object().unwrap() {
            let response = resolve(&document, response);
            let described = response["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(described, "{} {status}", operation.id());
            for header in response["headers"].as_object().unwrap().values() {
                assert!(
                    resolve(&document, header)["description"].is_string(),
                    "{header}"
                );
            }
        }
        for parameter in value["parameters"].as_array().unwrap() {
            assert!(
                resolve(&document, parameter)["description"].is_string(),
                "{parameter}"
            );
        }
    }
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_answer_is_as_described() {
    let app = TestApp::start();
    let document = document();
    for operation in operations(&document) {
        let asker = Caller::new(&app, &document, operation);
        asker.succeed();
        asker.be_refused();
        asker.send_wrong_bodies();
        asker.use_existing_resources();
        asker.assert_all_seen();
    }
}

#[test]
fn operations_with_a_rate_limit_describe_429() {
    let document = document();
    for operation in operations(&document) {
        let unlimited = operation.value["tags"][0] == "Service";
        let described = !operation.value["responses"]["429"].is_null();
        assert_eq!(described, !unlimited, "{}", operation.id());
    }
}

#[test]
fn query_parameters_are_accepted_if_and_only_if_they_match_their_patterns() {
    let app = TestApp::start();
    let user = app.user("u1");
    let document = app.anonymous().get("/openapi.json").expect(200).json();
    let long = "x".repeat(51);
    let many: Vec<String> = (0..21).map(|number| number.to_string()).collect();
    let many = many.join(",");
    // PostgreSQL accepts every zone of this form.
    let tags = [
        "",
        " ",
        ",",
        "a,",
        "a,,b",
        " , a",
        "a",
        " a , b c",
        "x\u{7f}",
        "\ta",
        "a\n",
        "a\u{0}b",
        "\u{85}a",
        "a\u{2028}",
        "\u{3000}",
        "ä\u{a0}",
        &long,
        &many,
    ];
    let zones = [
        "",
        " ",
        "UTC",
        "Z",
        "z",
        "Europe/Berlin",
        "Etc/GMT+3",
        "+02:00",
        " 0530",
        "-03",
        "+2",
        "+15:00",
        "+14:59",
        "-12:60",
        "UTC+2",
        "EST5EDT",
        "Europe/Berlin ",
        "Europe\u{0}/Berlin",
        "/etc",
        "\tUTC",
        &"x".repeat(65),
    ];
    let cases = [
        ("/api/tasks", "tags", &tags[..]),
        ("/api/tasks", "tag", &tags[..]),
        ("/api/tasks", "tz", &zones[..]),
        ("/api/tasks/stats", "tz", &zones[..]),
    ];
    let mut wrong = Vec::new();
    for (path, name, values) in cases {
        let operation = &document["paths"][path]["get"];
        let parameter = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|parameter| resolve(&document, parameter))
            .find(|parameter| parameter["name"] == name)
            .unwrap();
        let mut schema = resolve(&document, &parameter["schema"]);
        if schema["type"] == "array" {
            schema = resolve(&document, &schema["items"]);
        }
        let pattern = Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
        let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        for value in values {
            let described = pattern.is_match(value) && value.chars().count() as u64 <= most;
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let status = user.get(&format!("{path}?{name}={encoded}")).status;
            if status != if described { 200 } else { 400 } {
                wrong.push(format!(
                    "{path}?{name}={value:?}: {status}, described: {described}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn entity_tags_are_accepted_if_and_only_if_they_match_their_pattern() {
    let app = TestApp::start();
    let user = app.user("u1");
    let document = app.anonymous().get("/openapi.json").expect(200).json();
    let pattern = &document["components"]["schemas"]["EntityTags"]["pattern"];
    let pattern = Regex::new(pattern.as_str().unwrap()).unwrap();
    let id = user.task("t")["id"].clone();
    let unknown = "/api/tasks/00000000-0000-0000-0000-000000000000";
    for value in [
        "",
        "*",
        " *\t",
        "\u{2005}",
        "\u{2005}*",
        "* , \"a\"",
        "**",
        ",",
        "\"\"",
        "\"a\"",
        "\"\u{2005}ä,W/\"",
        "W/\"a\"",
        "w/\"a\"",
        "W/ \"a\"",
        "\t, \"a\" ,, W/\"b\",\"c\" ,",
        "\"a\" \"b\"",
        "\"a\"W/\"b\"",
        "\"a\"\u{a0}",
        "\"a",
        "a\"",
        "a",
    ] {
        let described = pattern.is_match(value);
        let sent = user.send("DELETE", unknown, &[("If-Match", value)], None);
        assert_eq!(sent.status != 400, described, "{value:?}: {}", sent.status);
        let operation = json!({ "op": "update", "id": id, "changes": {}, "if_match": value });
        let sent = user.post("/api/tasks/bulk", json!({ "operations": [operation] }));
        assert_eq!(sent.status != 422, described, "{value:?}: {}", sent.status);
    }
}

/// An operation of the description.
#[derive(Clone, Copy)]
struct Operation<'d> {
    method: &'d str,
    path: &'d str,
    value: &'d Value,
}

impl<'d> Operation<'d> {
    fn id(&self) -> &'d str {
        self.value["operationId"].as_str().unwrap()
    }

    fn needs_token(&self) -> bool {
        !self.value["security"][0].is_null()
    }

    fn body(&self) -> Option<&'d Value> {
        self.value["requestBody"]["content"]
            .get("application/json")
            .map(|content| &content["schema"])
    }
}

fn operations(document: &Value) -> impl Iterator<Item = Operation<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| {
            let value = item.get(method)?;
            Some(Operation {
                method,
                path,
                value,
            })
        })
    })
}

/// Calls one operation, and compares every answer with the description.
struct Caller<'d> {
    app: &'d TestApp,
    document: &'d Value,
    operation: Operation<'d>,
    seen: std::cell::RefCell<BTreeMap<u16, usize>>,
}

impl<'d> Caller<'d> {
    fn new(app: &'d TestApp, document: &'d Value, operation: Operation<'d>) -> Caller<'d> {
        Caller {
            app,
            document,
            operation,
            seen: Default::default(),
        }
    }

    fn new_login(&self) -> Login {
        let email = format!("{}@example.org", uuid::Uuid::new_v4());
        Login::register(self.app.address, &email)
    }

    /// Sends a request, checks the answer against the description, and returns it.
    #[track_caller]
    fn ask(
        &self,
        who: &Actor,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let method = self.operation.method.to_uppercase();
        let answer = who.send(&method, target, headers, body);
        let told = format!(
            "{method} {target} {}: {answer:?}",
            String::from_utf8_lossy(body.unwrap_or_default())
                .chars()
                .take(300)
                .collect::<String>()
        );
        *self.seen.borrow_mut().entry(answer.status).or_default() += 1;
        if ANY.contains(&answer.status) {
            return answer;
        }
        let response = &self.operation.value["responses"][answer.status.to_string()];
        assert!(!response.is_null(), "the status is not described: {told}");
        let response = resolve(self.document, response);
        let described = response["content"].as_object();
        match (described, answer.header("Content-Type")) {
            (None, None) => assert_eq!(answer.body, "", "{told}"),
            (Some(content), Some(content_type)) => {
                let content = content.get(content_type);
                let schema = &content
                    .unwrap_or_else(|| panic!("the media type is not described: {told}"))["schema"];
                if content_type.ends_with("json") {
                    let wrong = complaints(self.document, schema, &answer.json());
                    assert!(wrong.is_empty(), "{wrong:?}: {told}");
                }
            }
            _ => panic!("the body is described and missing, or sent and not described: {told}"),
        }
        for name in [
            "Location",
            "Retry-After",
            "WWW-Authenticate",
            "Allow",
            "ETag",
            "Link",
        ] {
            let is_described = !response["headers"][name].is_null();
            assert!(
                answer.header(name).is_none() || is_described,
                "{name} is not described: {told}"
            );
        }
        let must = [
            (201, "Location"),
            (401, "WWW-Authenticate"),
            (429, "Retry-After"),
            (503, "Retry-After"),
        ];
        for (status, name) in must {
            let is_described = !response["headers"][name].is_null();
            let missing = answer.status == status && is_described && answer.header(name).is_none();
            assert!(!missing, "{name} is missing: {told}");
        }
        answer
    }

    /// Sends JSON.
    #[track_caller]
    fn ask_json(&self, who: &Actor, target: &str, body: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.ask(who, target, &json, Some(body.to_string().as_bytes()))
    }

    /// The path of an existing resource of this user.
    fn target(&self, user: &Login) -> String {
        let path = self.operation.path.replace("{user_id}", user.id());
        let actor = user.actor();
        if self.operation.id().contains("MatchingTasks") {
            return format!("{path}?priority=low");
        }
        let id = if path.contains("/trash") || path.ends_with("/restore") {
            deleted_task(&actor)
        } else if path.contains("/tasks/{id}") {
            actor.task("one")["id"].as_str().unwrap().to_owned()
        } else if path.contains("/sessions/{id}") {
            let email = user.answer["user"]["email"].as_str().unwrap();
            Login::again(self.app.address, email);
            let sessions = actor.get("/api/auth/sessions").expect(200).json();
            let sessions = sessions["sessions"].as_array().unwrap().clone();
            let other = sessions
                .iter()
                .find(|session| session["current"] == false)
                .unwrap();
            other["id"].as_str().unwrap().to_owned()
        } else if path.contains("/tokens/{id}") {
            let made = actor.post("/api/auth/tokens", named_one());
            made.expect(201).json()["id"].as_str().unwrap().to_owned()
        } else {
            String::new()
        };
        if path.contains("{name}") {
            actor
                .post("/api/tasks", json!({"title": "one", "tags": ["errands"]}))
                .expect(201);
        }
        path.replace("{id}", &id)
            .replace("{file}", "docs.css")
            .replace("{name}", "errands")
    }

    /// A valid body: the examples of the description, with the values that depend on this user.
    fn good_body(&self, user: &Login) -> Option<Value> {
        let schema = self.operation.body()?;
        let mut body = json!({});
        for (name, field) in fields(self.document, schema).0 {
            body[name] = match name {
                "email" => match self.operation.id() {
                    "login" => user.answer["user"]["email"].clone(),
                    _ => format!("{}@example.org", uuid::Uuid::new_v4()).into(),
                },
                "id" => uuid::Uuid::new_v4().to_string().into(),
                "password" | "current_password" => PASSWORD.into(),
                "refresh_token" => user.refresh_token().into(),
                _ => example(self.document, field),
            };
        }
        Some(body)
    }

    fn who(&self, user: &Login) -> Actor {
        if self.operation.needs_token() {
            user.actor()
        } else {
            self.app.anonymous()
        }
    }

    #[track_caller]
    fn ask_well(&self, user: &Login) -> Answer {
        self.ask_well_at(user, &self.target(user))
    }

    #[track_caller]
    fn ask_well_at(&self, user: &Login, target: &str) -> Answer {
        let who = self.who(user);
        match self.good_body(user) {
            Some(body) => self.ask_json(&who, target, &body),
            None => self.ask(&who, target, &[], None),
        }
    }

    fn succeed(&self) {
        let user = self.new_login();
        let answer = self.ask_well(&user);
        if self.operation.id() == "metrics" {
            // They may be forbidden here; tests/it/metrics.rs checks them.
            answer.expect_error(403, "FORBIDDEN");
            return;
        }
        assert!(
            (200..300).contains(&answer.status),
            "{} {answer:?}",
            self.operation.id()
        );
        if self.operation.value["requestBody"]["required"] == false {
            let another = self.new_login();
            let (who, target) = (self.who(&another), self.target(&another));
            assert_eq!(self.ask(&who, &target, &[], None).status, answer.status);
        }
        if self.operation.value["responses"].get("304").is_some() {
            let (who, target) = (self.who(&user), self.target(&user));
            let first = self.ask(&who, &target, &[], None);
            let tag = first.header("ETag").unwrap().to_owned();
            let again = self.ask(&who, &target, &[("If-None-Match", &tag)], None);
            assert_eq!(
                (again.status, again.header("ETag")),
                (304, Some(tag.as_str()))
            );
        }
        // Every described parameter is known, and every known parameter is described.
        let described: BTreeSet<&str> = self.parameters("query").collect();
        for name in &described {
            let (who, target) = (self.who(&user), self.target(&user));
            let value = match *name {
                "since" => {
                    let page = self.ask(&who, &target, &[], None);
                    page.json()["next_cursor"].as_str().unwrap().to_owned()
                }
                "cursor" => {
                    who.task("another");
                    who.task("a third");
                    deleted_task(&who);
                    // An export goes on behind the cursor of a list, too.
                    let list = target.replace("/export", "");
                    let page = who.get(&format!("{list}?limit=1"));
                    assert!(page.header("Link").is_some(), "{page:?}");
                    page.json()["next_cursor"].as_str().unwrap().to_owned()
                }
                name => parameter(name).to_owned(),
            };
            let sign = if target.contains('?') { '&' } else { '?' };
            let answer = self.ask_well_at(&user, &format!("{target}{sign}{name}={value}"));
            assert!(answer.status < 300, "{name} {answer:?}");
        }
        if !described.is_empty() {
            let path = self.target(&user).split('?').next().unwrap().to_owned();
            let target = format!("{path}?colour=red");
            let refused = self.ask(&self.who(&user), &target, &[], None);
            let known = refused.expect_error(400, "BAD_REQUEST");
            let known: BTreeSet<&str> = known
                .split_once(" take")
                .unwrap()
                .1
                .trim_start_matches("s ")
                .trim()
                .split(", ")
                .collect();
            assert_eq!(described, known);
        }
        if self
            .parameters("header")
            .any(|name| name == "Idempotency-Key")
        {
            let (target, body) = (
                self.target(&user),
                self.good_body(&user).unwrap().to_string(),
            );
            let headers = [
                ("Idempotency-Key", "k1"),
                ("Content-Type", "application/json"),
            ];
            for replayed in [None, Some("true")] {
                let answer = self.ask(&self.who(&user), &target, &headers, Some(body.as_bytes()));
                assert!(answer.status < 300, "{answer:?}");
                assert_eq!(answer.header("Idempotency-Replayed"), replayed);
            }
        }
        if self.parameters("header").any(|name| name == "If-Match") {
            let (who, target) = (self.who(&user), self.target(&user));
            let body = self
                .good_body(&user)
                .map(|body| body.to_string().into_bytes());
            self.ask(&who, &target, &[("If-Match", "\"0-0\"")], body.as_deref())
                .expect_error(412, "PRECONDITION_FAILED");
        }
    }

    /// The names of its parameters in this place.
    fn parameters(&self, place: &str) -> impl Iterator<Item = &'d str> {
        let all = self.operation.value["parameters"]
            .as_array()
            .unwrap()
            .iter();
        let document = self.document;
        all.map(|parameter| resolve(document, parameter))
            .filter(move |parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap())
    }

    /// Sends no token, the wrong token, the wrong path.
    fn be_refused(&self) {
        let user = self.new_login();
        let target = self.target(&user);
        let path = target.split('?').next().unwrap();
        self.ask(&self.app.anonymous(), &format!("{path}%zz"), &[], None)
            .expect_error(400, "BAD_REQUEST");
        let long = format!("{target}?{}", "x".repeat(4096));
        self.ask(&self.app.anonymous(), &long, &[], None)
            .expect_error(414, "URI_TOO_LONG");
        if !self.operation.needs_token() {
            return;
        }
        self.ask(&self.app.anonymous(), &target, &[], None)
            .expect_error(401, "UNAUTHORIZED");
        if self.operation.path.contains("{user_id}") {
            let other = self.operation.path.replace("{user_id}", "somebody-else");
            self.ask(&user.actor(), &other, &[], None)
                .expect_error(403, "FORBIDDEN");
        }
        // A token with the opposite scope.
        let scope = if self.operation.method == "get" {
            "tasks:write"
        } else {
            "tasks:read"
        };
        let made = user.actor().post(
            "/api/auth/tokens",
            json!({"name": "one", "scopes": [scope], "current_password": PASSWORD}),
        );
        let token = made.expect(201).json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let script = Actor::with_token(self.app.address, token);
        let status = self.ask(&script, &target, &[], None).status;
        let account = self.operation.path.starts_with("/api/auth");
        assert_eq!(
            status,
            if account { 401 } else { 403 },
            "{}",
            self.operation.id()
        );
    }

    /// Sends every kind of wrong body, field by field.
    fn send_wrong_bodies(&self) {
        if self.operation.value["requestBody"].is_null() {
            return;
        }
        let user = self.new_login();
        let (who, target) = (self.who(&user), self.target(&user));
        let text = [("Content-Type", "text/plain")];
        self.ask(&who, &target, &text, Some(b"{}"))
            .expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
        let large = vec![b' '; 1024 * 1024 + 1];
        self.ask(&who, &target, &[], Some(&large))
            .expect_error(413, "PAYLOAD_TOO_LARGE");
        let Some(schema) = self.operation.body() else {
            // A file of tasks.
            self.ask(&who, &target, &[], Some(b"{"))
                .expect_error(422, "VALIDATION_ERROR");
            return;
        };
        self.ask(&who, &target, &[], Some(b"{"))
            .expect_error(400, "BAD_REQUEST");
        self.ask(&who, &target, &[], Some(b"[]"))
            .expect_error(422, "VALIDATION_ERROR");

        let (fields, required) = fields(self.document, schema);
        let good = self.good_body(&user).unwrap();
        for (name, field) in fields {
            let with = |value: Value| {
                let mut body = good.clone();
                body[name] = value;
                body
            };
            let mut wrong = vec![with(json!({ "no": "such thing" }))];
            let variants = field["oneOf"].as_array();
            let nullable = variants.is_some() || field["type"].to_string().contains("null");
            let field = variants.map_or(field, |variants| &variants[0]);
            let field = resolve(self.document, field);
            let kinds = field["type"].to_string();
            if let Some(most) = field["maxLength"].as_u64() {
                let longest = usize::try_from(most).unwrap();
                wrong.push(with("x".repeat(longest + 1).into()));
            }
            if field["minLength"].as_u64().is_some_and(|least| least > 0) {
                wrong.push(with("".into()));
            }
            if kinds.contains("boolean") {
                wrong.push(with("true".into()));
            }
            if !nullable {
                wrong.push(with(Value::Null));
            }
            if required.contains(name) {
                let mut body = good.clone();
                body.as_object_mut().unwrap().remove(name);
                wrong.push(body);
            }
            for body in wrong {
                let answer = self.ask_json(&who, &target, &body);
                answer.expect_error(422, "VALIDATION_ERROR");
                let named = &answer.json()["error"]["details"][0]["field"];
                assert_eq!(named, name, "{} {body}", self.operation.id());
            }
            // The longest valid value.
            let longest = field["maxLength"]
                .as_u64()
                .map(|most| "ä".repeat(usize::try_from(most).unwrap()));
            if let Some(longest) = longest.filter(|_| field["format"].is_null()) {
                let user = self.new_login();
                let (who, target) = (self.who(&user), self.target(&user));
                let mut body = self.good_body(&user).unwrap();
                body[name] = longest.into();
                assert!(
                    self.ask_json(&who, &target, &body).status < 300,
                    "{} {name}",
                    self.operation.id()
                );
            }
        }
    }

    /// Sends requests whose answer depends on what exists.
    fn use_existing_resources(&self) {
        let user = self.new_login();
        let who = self.who(&user);
        if self.operation.path.contains("{id}") || self.operation.path.contains("{name}") {
            let target = self.operation.path.replace("{user_id}", user.id());
            let target = target
                .replace("{id}", "0190b7c6-0000-7000-8000-000000000000")
                .replace("{name}", "no-such-tag");
            self.ask(&who, &target, &[], None)
                .expect_error(404, "NOT_FOUND");
        }
        let somebody_elses_token = || self.app.user("from-elsewhere");
        match self.operation.id().trim_end_matches("OfUser") {
            "createTask" => {
                let (target, body) = (self.target(&user), self.good_body(&user).unwrap());
                self.ask_json(&who, &target, &body).expect(201);
                self.ask_json(&who, &target, &body)
                    .expect_error(409, "CONFLICT");
            }
            "restoreTask" => {
                let target = self.target(&user);
                let id = target.rsplit('/').nth(1).unwrap();
                who.post("/api/tasks", json!({"id": id, "title": "new"}))
                    .expect(201);
                self.ask(&who, &target, &[], None)
                    .expect_error(409, "CONFLICT");
            }
            "listChanges" => {
                let target = self.target(&user);
                let page = self.ask(&who, &target, &[], None).json();
                let cursor = page["next_cursor"].as_str().unwrap().to_owned();
                self.app
                    .sql()
                    .execute("UPDATE todo.feed SET id = gen_random_uuid()", &[])
                    .unwrap();
                self.ask(&who, &format!("{target}?since={cursor}"), &[], None)
                    .expect_error(410, "GONE");
            }
            "bulkTasks" => {
                let target = self.target(&user);
                let one = who.task("one");
                for (status, code, operation) in [
                    (404, "NOT_FOUND", json!({"op": "restore", "id": one["id"]})),
                    (
                        412,
                        "PRECONDITION_FAILED",
                        json!({"op": "delete", "id": one["id"], "if_match": "\"0-0\""}),
                    ),
                    (
                        409,
                        "CONFLICT",
                        json!({"op": "create", "task": {"title": "t", "id": one["id"]}}),
                    ),
                    (200, "", json!({"op": "delete", "id": one["id"]})),
                ] {
                    let answer = self.ask_json(&who, &target, &json!({"operations": [operation]}));
                    match status {
                        200 => drop(answer.expect(200)),
                        status => drop(answer.expect_error(status, code)),
                    }
                }
            }
            "docsFile" => {
                self.ask(&who, "/docs/swagger-ui.js", &[], None)
                    .expect_error(404, "NOT_FOUND");
            }
            "register" => {
                let body = json!({"email": user.answer["user"]["email"], "password": PASSWORD});
                self.ask_json(&who, "/api/auth/register", &body)
                    .expect_error(409, "CONFLICT");
            }
            "login" => {
                let email = user.answer["user"]["email"].as_str().unwrap();
                let body = json!({"email": email, "password": "not the password"});
                self.ask_json(&who, "/api/auth/login", &body)
                    .expect_error(401, "UNAUTHORIZED");
                let form = [("Content-Type", "application/x-www-form-urlencoded")];
                let body = format!("username={email}&password={}", PASSWORD.replace(' ', "+"));
                self.ask(&who, "/api/auth/login", &form, Some(body.as_bytes()))
                    .expect(200);
                self.app
                    .sql()
                    .execute(
                        "UPDATE todo.users SET active = false WHERE id = $1",
                        &[&user.id()],
                    )
                    .unwrap();
                self.ask(&who, "/api/auth/login", &form, Some(body.as_bytes()))
                    .expect_error(403, "FORBIDDEN");
            }
            "refresh" => {
                let body = json!({"refresh_token": "refresh_of_nobody"});
                self.ask_json(&who, "/api/auth/refresh", &body)
                    .expect_error(401, "UNAUTHORIZED");
            }
            "updateAccount" => {
                let mut body = json!({"email": self.new_login().answer["user"]["email"]});
                self.ask_json(&who, "/api/auth/me", &body)
                    .expect_error(403, "FORBIDDEN");
                body["current_password"] = PASSWORD.into();
                self.ask_json(&who, "/api/auth/me", &body)
                    .expect_error(409, "CONFLICT");
            }
            "deleteAccount" | "changePassword" => {
                let body = self.good_body(&user).unwrap();
                self.ask_json(&somebody_elses_token(), self.operation.path, &body)
                    .expect_error(409, "CONFLICT");
            }
            "createApiToken" => {
                self.ask_json(&who, "/api/auth/tokens", &json!({"name": "one"}))
                    .expect_error(403, "FORBIDDEN");
                let who = somebody_elses_token();
                for _ in 0..100 {
                    who.post("/api/auth/tokens", json!({"name": "one"}))
                        .expect(201);
                }
                self.ask_json(&who, "/api/auth/tokens", &json!({"name": "one"}))
                    .expect_error(409, "CONFLICT");
            }
            _ => {}
        }
    }

    /// Asserts that every described status has occurred.
    fn assert_all_seen(&self) {
        let described = self.operation.value["responses"]
            .as_object()
            .unwrap()
            .keys();
        let missing: Vec<u16> = described
            .map(|status| status.parse().unwrap())
            .filter(|status| {
                !TESTED_ELSEWHERE.contains(status) && !self.seen.borrow().contains_key(status)
            })
            // Open registration and access to metrics are settings; other tests change them.
            .filter(|status| {
                ![("register", 403), ("metrics", 200)].contains(&(self.operation.id(), *status))
            })
            .collect();
        assert_eq!(
            missing,
            [0_u16; 0],
            "{}: described, but never seen",
            self.operation.id()
        );
    }
}

/// The id of a task that was just deleted.
fn deleted_task(actor: &Actor) -> String {
    let id = actor.task("gone")["id"].as_str().unwrap().to_owned();
    actor.delete(&format!("/api/tasks/{id}")).expect(204);
    id
}

/// A body that makes an API token.
fn named_one() -> Value {
    json!({"name": "one", "current_password": PASSWORD})
}

/// A valid value of a query parameter.
fn parameter(name: &str) -> &'static str {
    match name {
        "status" => "pending",
        "priority" => "low,high",
        "tag" => "errands",
        "tags" => "errands,home",
        "search" => "milk",
        "tz" => "Europe/Berlin",
        "sort" => "-due_date",
        "order" => "asc",
        "format" => "csv",
        "on_conflict" => "update",
        name if takes_number(name) => "1",
        name if name.ends_with("_before") || name.ends_with("_after") => "2030-01-31",
        _ => "true",
    }
}

fn takes_number(name: &str) -> bool {
    let row = PARAMETERS.iter().find(|row| row.name == name);
    row.is_some_and(|row| matches!(row.shape, Shape::Integer { .. }))
}

/// The example of a schema.
fn example(document: &Value, schema: &Value) -> Value {
    let schema = match schema["oneOf"].as_array() {
        Some(variants) => variants
            .iter()
            .find(|variant| variant["type"] != "null")
            .unwrap(),
        None => schema,
    };
    let schema = resolve(document, schema);
    let shown = schema.get("example").or_else(|| schema["examples"].get(0));
    if let Some(example) = shown
        .or_else(|| schema.get("default"))
        .or_else(|| schema["enum"].get(0))
    {
        return example.clone();
    }
    match schema["type"].as_str().or(schema["type"][0].as_str()) {
        Some("array") => json!([example(document, &schema["items"])]),
        Some("boolean") => true.into(),
        Some("integer") => schema["minimum"].as_u64().unwrap_or(1).into(),
        _ if schema["anyOf"].is_array() => example(document, &schema["anyOf"][0]),
        _ if schema["format"] == "date" => json!("2030-01-31"),
        _ => panic!("no example for {schema}"),
    }
}
