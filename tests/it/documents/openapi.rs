//! Makes the API's description (OpenAPI 3.1) from the routing table, the table of errors and the types of bodies.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use todo_api::api::Handler;
use todo_api::api::routes::{GROUPS, ROUTES, RouteAnswer, RouteRow, WITH_USER};
use todo_api::domain::list::rows::{PARAMETERS, SORT_KEYS};
use todo_api::domain::zone::{ZONE, ZONE_MEANING};
use todo_api::http::error::{ERRORS, ErrorRow};
use todo_api::http::response::reason;
use todo_api::http::router::spellings;

use super::schemas::{Types, also, reference, shape};

const LIMITED: [&str; 3] = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
];

/// Every header field of answers: its type and meaning.
fn fields() -> Value {
    json!({
        "X-Request-ID": ["string", "Names the request in the server's log: the name that was sent, if it is valid, else a new one"],
        "X-RateLimit-Limit": ["integer", "Requests allowed in an hour. Absent if there is no limit, like its two companions"],
        "X-RateLimit-Remaining": ["integer", "Requests left now"],
        "X-RateLimit-Reset": ["integer", "Seconds until more are left than now"],
        "Retry-After": ["integer", "Seconds to wait"],
        "WWW-Authenticate": ["string", "What is wrong with the token, or the scope that it lacks (RFC 6750, section 3)"],
        "ETag": ["string", "Names the present state (RFC 9110, section 8.8.3)"],
        "Location": ["string", "The path of the new task"],
        "Idempotency-Replayed": ["string", "`true`: an earlier request with this key created the task"],
        "Link": ["string", "The next page, where there is one (RFC 8288)"]
    })
}

/// Every parameter that is not a list's: its place, meaning and schema.
fn parameters() -> Value {
    json!({
        "X-Request-ID": ["header", "Names the request in the log and in its answer: 1 to 64 letters, digits, `-`, `_` and `.`. Any other value is replaced", {"type": "string"}],
        "If-Match": ["header", "The `ETag` that the client has seen: if the task has changed since, nothing is done and the answer is 412", {"type": "string"}],
        "If-None-Match": ["header", "The `ETag` that the client has: if nothing has changed since, a read is answered 304 and a write 412", {"type": "string"}],
        "Idempotency-Key": ["header", "Names the request, so that sending it again creates no second task: 1 to 255 visible ASCII characters",
            {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}],
        "tz": ["query", ZONE_MEANING.trim_end_matches('.'), shape(&ZONE)],
        "user_id": ["path", "The token's own user", {"type": "string", "minLength": 1, "maxLength": 255}],
        "id": ["path", "The id", {"type": "string", "format": "uuid"}],
        "name": ["path", "The tag", {"$ref": "#/components/schemas/Tag"}],
        "file": ["path", "The file's name", {"type": "string", "example": "docs.js"}]
    })
}

/// The parameters of a list, from their rows.
fn list_parameters() -> impl Iterator<Item = Value> {
    PARAMETERS.iter().map(|row| {
        let mut schema = shape(&row.shape);
        let meaning = also(row.meaning, row.aliases);
        if row.name == "sort" {
            let keys = SORT_KEYS.iter().map(|key| key.name);
            let keys: Vec<String> = keys.flat_map(|key| [key.to_owned(), format!("-{key}")]).collect();
            schema = json!({"type": "string", "enum": keys});
        }
        if row.repeatable {
            schema = json!({"type": "array", "items": schema});
        }
        json!({"name": row.name, "in": "query", "description": meaning, "required": false, "schema": schema})
    })
}

/// The description.
pub fn document() -> Value {
    let mut tags: Vec<Value> = GROUPS
        .iter()
        .map(|(name, what)| json!({"name": name, "description": what}))
        .collect();
    // A group without operations, for readers.
    tags.push(json!({"name": "Errors", "description": error_table()}));
    let mut paths = Map::new();
    // The shorter path of every row comes first.
    for with_user in [false, true] {
        for row in ROUTES {
            if let Some(path) = spellings(row.pattern).get(usize::from(with_user)) {
                let item = paths.entry(path.clone()).or_insert_with(|| json!({}));
                item[row.method.as_str().to_lowercase()] = operation(row, path, with_user);
            }
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "todo-api",
            "description": include_str!("description.md"),
            "license": {"name": "MIT", "identifier": "MIT"},
            "version": env!("CARGO_PKG_VERSION")
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {}, "responses": {}, "parameters": {}, "headers": {}, "securitySchemes": security_schemes()},
        "tags": tags
    });
    add_components(&mut document);
    document
}

/// Enters every component that is referred to, and what it refers to in turn.
fn add_components(document: &mut Value) {
    let types = Types::read();
    loop {
        let text = document.to_string();
        let wanted: BTreeSet<(&str, &str)> = text
            .split("\"#/components/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.split_once('/'))
            .filter(|(kind, name)| document["components"][kind][name].is_null())
            .collect();
        if wanted.is_empty() {
            break;
        }
        for (kind, name) in wanted {
            document["components"][kind][name] = match kind {
                "schemas" => types.named(name),
                "responses" => error_answer(name),
                "parameters" => parameter(name),
                _ => {
                    let [kind, meaning] = &entry(&fields(), name)[..] else {
                        panic!("{name}")
                    };
                    let schema = if kind == "integer" {
                        json!({"type": kind, "minimum": 0})
                    } else {
                        json!({"type": kind})
                    };
                    json!({"description": meaning, "schema": schema})
                }
            };
            if name == "ProblemError" {
                let codes: BTreeSet<&str> = ERRORS.iter().map(|error| error.code).collect();
                document["components"]["schemas"][name]["properties"]["code"]["enum"] =
                    json!(codes);
            }
        }
    }
    for components in document["components"].as_object_mut().unwrap().values_mut() {
        components.as_object_mut().unwrap().sort_keys();
    }
}

fn operation(row: &RouteRow, path: &str, with_user: bool) -> Value {
    let (known, limited, scoped) = match row.handler {
        Handler::AtOnce(_) | Handler::Unlimited(_) => (false, false, false),
        Handler::Public(_) => (false, true, false),
        Handler::User(..) => (true, true, true),
        Handler::Account(_) => (true, true, false),
    };
    let answers = |status: u16| row.answers.iter().any(|answer| answer.status == status);
    let in_path: Vec<&str> = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .collect();

    let mut parameters: Vec<Value> = in_path
        .iter()
        .map(|name| component("parameters", name))
        .collect();
    for name in row.takes {
        match *name {
            "list" => parameters.extend(list_parameters()),
            name => parameters.push(component("parameters", name)),
        }
    }
    for (name, taken) in [
        ("If-Match", answers(412)),
        ("If-None-Match", answers(412) || answers(304)),
        ("X-Request-ID", true),
    ] {
        if taken {
            parameters.push(component("parameters", name));
        }
    }

    let mut responses: Vec<(u16, Value)> = row
        .answers
        .iter()
        .map(|answer| (answer.status, own_answer(answer, limited, answers(304))))
        .collect();
    for (status, applies) in [
        (400, true),
        (401, known),
        (403, scoped),
        (404, in_path.iter().any(|name| *name != "user_id")),
        (413, !row.body.is_empty()),
        (414, true),
        (415, !row.body.is_empty()),
        (422, !row.body.is_empty()),
        (429, limited),
        (500, true),
        (503, true),
    ] {
        if applies && !answers(status) {
            responses.push((status, component("responses", &name_of(status))));
        }
    }
    responses.sort_by_key(|(status, _)| *status);

    let mut operation = json!({
        "tags": [if with_user { WITH_USER } else { row.group }],
        "summary": row.summary,
        "description": also(row.description, row.aliases),
        "operationId": if with_user { format!("{}OfUser", row.id) } else { row.id.to_owned() },
        "parameters": parameters,
    });
    if !row.body.is_empty() {
        operation["requestBody"] =
            json!({"required": !row.body_is_optional, "content": content(row.body)});
    }
    operation["responses"] = responses
        .into_iter()
        .map(|(status, answer)| (status.to_string(), answer))
        .collect();
    operation["security"] = if known {
        json!([{"account": []}, {"token": []}])
    } else {
        json!([])
    };
    operation
}

fn own_answer(answer: &RouteAnswer, limited: bool, tagged: bool) -> Value {
    let mut fields: Vec<&str> = answer.fields.to_vec();
    fields.push("X-Request-ID");
    if limited {
        fields.extend(LIMITED);
    }
    if tagged && matches!(answer.status, 200 | 304) && !fields.contains(&"ETag") {
        fields.push("ETag");
    }
    let mut content = content(answer.body);
    if answer.status >= 400 && answer.body.is_empty() {
        let usual = error_answer(&name_of(answer.status));
        content = usual["content"].clone();
        if answer.status == 401 || answer.status == 403 {
            fields.push("WWW-Authenticate");
        }
    }
    let mut own = json!({"description": answer.meaning, "headers": headers(&fields)});
    if content != json!({}) {
        own["content"] = content;
    }
    own
}

/// The bodies of these types, by media type.
fn content(types: &[&str]) -> Value {
    let mut content = json!({});
    for name in types {
        let text = json!({"schema": {"type": "string"}});
        match *name {
            "Html" => content["text/html; charset=utf-8"] = text,
            "Metrics" => content["text/plain; version=0.0.4"] = text,
            "Json" => content["application/json"] = json!({"schema": {"type": "object"}}),
            "Asset" => {
                for media_type in [
                    "text/javascript; charset=utf-8",
                    "text/css; charset=utf-8",
                    "image/png",
                ] {
                    content[media_type] = text.clone();
                }
            }
            "LoginForm" => {
                content["application/x-www-form-urlencoded"] = json!({"schema": reference(name)})
            }
            name => content["application/json"] = json!({"schema": reference(name)}),
        }
    }
    content
}

fn headers(fields: &[&str]) -> Value {
    let fields: BTreeSet<&str> = fields.iter().copied().collect();
    fields
        .into_iter()
        .map(|name| (name.to_owned(), component("headers", name)))
        .collect()
}

fn component(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn parameter(name: &str) -> Value {
    let [place, meaning, schema] = &entry(&parameters(), name)[..] else {
        panic!("{name}")
    };
    json!({"name": name, "in": place, "description": meaning, "required": place == "path", "schema": schema})
}

fn entry(table: &Value, name: &str) -> Vec<Value> {
    table[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} is not described"))
        .clone()
}

/// The status's phrase in one word: `NotFound`.
fn name_of(status: u16) -> String {
    reason(status).split([' ', '-']).collect()
}

/// The answer that all errors of a status share.
fn error_answer(name: &str) -> Value {
    let errors: Vec<&ErrorRow> = ERRORS
        .iter()
        .filter(|error| name_of(error.status) == name)
        .collect();
    let meanings: Vec<&str> = errors.iter().map(|error| error.when).collect();
    let mut body = json!({"schema": reference("Problem")});
    match errors.as_slice() {
        [error] => body["example"] = example(error),
        several => {
            for (number, error) in several.iter().enumerate() {
                let name = format!("{}-{}", error.code, number + 1);
                body["examples"][name] = json!({"summary": error.when, "value": example(error)});
            }
        }
    }
    let status = errors[0].status;
    let mut fields = vec!["X-Request-ID"];
    fields.extend(LIMITED);
    match status {
        401 | 403 => fields.push("WWW-Authenticate"),
        429 | 503 => fields.push("Retry-After"),
        _ => {}
    }
    json!({"description": meanings.join(". "), "headers": headers(&fields), "content": {"application/json": body}})
}

/// The body of an error as it is sent.
fn example(error: &ErrorRow) -> Value {
    let sentence = error.sentence.replace(['{', '}'], "");
    let details = match (error.status, sentence.split_once(' ')) {
        (422, Some((field, message))) => json!([{"field": field, "message": message}]),
        _ => json!([]),
    };
    json!({
        "type": "about:blank", "title": reason(error.status), "status": error.status, "detail": sentence,
        "error": {"code": error.code, "message": sentence, "details": details},
        "request_id": "8a3c5e1f0b7d4c62a1e9f3d5b7c80214"
    })
}

/// All errors, as a table in Markdown.
fn error_table() -> String {
    let rows = ERRORS
        .iter()
        .map(|error| format!("| {} | `{}` | {} |\n", error.status, error.code, error.when));
    format!(
        "Any request may be answered so.\n\n| status | `error.code` | when |\n|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

fn security_schemes() -> Value {
    // Swagger UI shows them in alphabetical order, and most people have an account.
    json!({
        "account": {
            "type": "oauth2", "flows": {"password": {"tokenUrl": "/api/auth/login", "scopes": {}}},
            "description": "Log in with address (as username) and password; the page keeps the access token until it is closed."
        },
        "token": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token: from a login, from `todo-api token`, from a front end that shares the secret, or an API token (`todo_…`)."
        }
    })
}
