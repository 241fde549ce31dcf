//! Makes the API's description (OpenAPI 3.1) from the table of routes, the table of errors and the types of bodies. Components that
//! follow from no table are in `components.json`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use todo_api::api::Handler;
use todo_api::api::routes::{GROUPS, ROUTES, RouteAnswer, RouteRow, WITH_USER};
use todo_api::domain::list::rows::{
    CHANGES_PARAMETERS, IMPORT_PARAMETERS, PARAMETERS, Parameter, SORT_KEYS, TRASH_PARAMETERS,
    export_parameters, matching_parameters,
};
use todo_api::domain::task::COMPLETED_ALIASES;
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

/// Parameters of a list, from their rows.
fn list_parameters<'r>(
    rows: impl IntoIterator<Item = &'r Parameter>,
) -> impl Iterator<Item = Value> {
    rows.into_iter().map(|row| {
        let mut schema = shape(&row.shape);
        let meaning = also(row.meaning, row.aliases);
        if row.name == "sort" {
            let keys = SORT_KEYS.iter().map(|key| key.name);
            let keys = keys.flat_map(|key| [key.to_owned(), format!("-{key}")]);
            schema = json!({"type": "string", "enum": keys.collect::<Vec<_>>()});
        }
        if row.repeatable {
            schema = json!({"type": "array", "items": schema});
        }
        json!({"name": row.name, "in": "query", "description": meaning, "required": false, "schema": schema})
    })
}

/// The description.
pub fn document() -> Value {
    let groups = GROUPS.iter();
    let mut tags: Vec<Value> = groups
        .map(|(name, what)| json!({"name": name, "description": what}))
        .collect();
    // A group without operations, as a section of the reference.
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
        "components": {"schemas": {}, "responses": {}, "parameters": {}, "headers": {}, "securitySchemes": {}},
        "tags": tags
    });
    add_components(&mut document);
    document
}

/// Adds every component that is referenced, directly or indirectly.
fn add_components(document: &mut Value) {
    let types = Types::read();
    let by_hand: Value = serde_json::from_str(include_str!("components.json")).unwrap();
    document["components"]["securitySchemes"] = by_hand["securitySchemes"].clone();
    loop {
        let text = document.to_string();
        let references = text.split("\"#/components/").skip(1);
        let wanted: BTreeSet<(&str, &str)> = references
            .filter_map(|rest| rest.split('"').next()?.split_once('/'))
            .filter(|(kind, name)| document["components"][kind][name].is_null())
            .collect();
        if wanted.is_empty() {
            break;
        }
        for (kind, name) in wanted {
            let mut component = match kind {
                "responses" => error_answer(name),
                "schemas" if by_hand[kind][name].is_null() => types.named(name),
                _ => by_hand[kind][name].clone(),
            };
            assert!(component.is_object(), "{name} is not described");
            if name == "ProblemError" {
                let codes: BTreeSet<&str> = ERRORS.iter().map(|error| error.code).collect();
                component["properties"]["code"]["enum"] = json!(codes);
            } else if name == "Completion" {
                let completed = &mut component["properties"]["completed"];
                completed["description"] =
                    also("Whether the task is done.", COMPLETED_ALIASES).into();
            } else if name == "tz" {
                component["description"] = ZONE_MEANING.trim_end_matches('.').into();
                component["schema"] = shape(&ZONE);
            }
            document["components"][kind][name] = component;
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
        Handler::User(..) | Handler::Grouped(..) => (true, true, true),
        Handler::Account(_) => (true, true, false),
    };
    let answers = |status: u16| row.answers.iter().any(|answer| answer.status == status);
    let has_body = !row.body.is_empty();
    let in_path = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    let in_path: Vec<&str> = in_path.collect();

    let mut parameters: Vec<Value> = Vec::new();
    for name in in_path.iter().chain(row.takes) {
        match *name {
            "list" => parameters.extend(list_parameters(PARAMETERS)),
            "matching" => parameters.extend(list_parameters(matching_parameters())),
            "export" => parameters.extend(list_parameters(export_parameters())),
            "import" => parameters.extend(list_parameters(IMPORT_PARAMETERS)),
            "trash" => parameters.extend(list_parameters(TRASH_PARAMETERS)),
            "changes" => parameters.extend(list_parameters(CHANGES_PARAMETERS)),
            name => parameters.push(component("parameters", name)),
        }
    }
    // A request for many tasks has preconditions in its body.
    let is_one = in_path.contains(&"id");
    let headers = [
        ("If-Match", is_one && answers(412)),
        ("If-None-Match", (is_one && answers(412)) || answers(304)),
        ("X-Request-ID", true),
    ];
    let headers = headers.iter().filter(|(_, taken)| *taken);
    parameters.extend(headers.map(|(name, _)| component("parameters", name)));

    let errors = [
        (400, true),
        (401, known),
        (403, scoped),
        (404, in_path.iter().any(|name| *name != "user_id")),
        (413, has_body),
        (414, true),
        (415, has_body),
        (422, has_body),
        (429, limited),
        (500, true),
        (503, true),
    ];
    let errors = errors
        .iter()
        .filter(|(status, applies)| *applies && !answers(*status));
    let errors = errors.map(|(status, _)| (*status, component("responses", &name_of(*status))));
    let own = row.answers.iter();
    let own = own.map(|answer| (answer.status, own_answer(answer, limited, answers(304))));
    let mut responses: Vec<(u16, Value)> = own.chain(errors).collect();
    responses.sort_by_key(|(status, _)| *status);
    let responses = responses
        .into_iter()
        .map(|(status, answer)| (status.to_string(), answer));

    let suffix = if with_user { "OfUser" } else { "" };
    let mut operation = json!({
        "tags": [if with_user { WITH_USER } else { row.group }],
        "summary": row.summary,
        "description": also(row.description, row.aliases),
        "operationId": format!("{}{suffix}", row.id),
        "parameters": parameters,
    });
    if has_body {
        operation["requestBody"] =
            json!({"required": !row.body_is_optional, "content": content(row.body)});
    }
    operation["responses"] = responses.collect();
    operation["security"] = match known {
        true => json!([{"account": []}, {"token": []}]),
        false => json!([]),
    };
    operation
}

fn own_answer(answer: &RouteAnswer, limited: bool, tagged: bool) -> Value {
    let mut fields: Vec<&str> = answer.fields.to_vec();
    fields.push("X-Request-ID");
    if limited {
        fields.extend(LIMITED);
    }
    if tagged && matches!(answer.status, 200 | 304) {
        fields.push("ETag");
    }
    let mut content = content(answer.body);
    if answer.status >= 400 && answer.body.is_empty() {
        content = error_answer(&name_of(answer.status))["content"].take();
        if matches!(answer.status, 401 | 403) {
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
        let (media_types, schema) = match *name {
            "Html" => (&["text/html; charset=utf-8"][..], json!({"type": "string"})),
            "Metrics" => (
                &["text/plain; version=0.0.4"][..],
                json!({"type": "string"}),
            ),
            "Asset" => (
                &[
                    "text/javascript; charset=utf-8",
                    "text/css; charset=utf-8",
                    "image/png",
                ][..],
                json!({"type": "string"}),
            ),
            "TaskFile" => (
                &["application/jsonl", "text/csv; charset=utf-8"][..],
                json!({"type": "string"}),
            ),
            "Json" => (&["application/json"][..], json!({"type": "object"})),
            "LoginForm" => (&["application/x-www-form-urlencoded"][..], reference(name)),
            name => (&["application/json"][..], reference(name)),
        };
        for media_type in media_types {
            content[*media_type] = json!({"schema": schema});
        }
    }
    content
}

fn headers(fields: &[&str]) -> Value {
    let fields: BTreeSet<&str> = fields.iter().copied().collect();
    let fields = fields.into_iter();
    fields
        .map(|name| (name.to_owned(), component("headers", name)))
        .collect()
}

fn component(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// The status's phrase in one word: `NotFound`.
fn name_of(status: u16) -> String {
    reason(status).split([' ', '-']).collect()
}

/// The answer that all errors of a status share.
fn error_answer(name: &str) -> Value {
    let errors = ERRORS.iter().filter(|error| name_of(error.status) == name);
    let errors: Vec<&ErrorRow> = errors.collect();
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
    let mut fields = vec!["X-Request-ID"];
    fields.extend(LIMITED);
    match errors[0].status {
        401 | 403 => fields.push("WWW-Authenticate"),
        429 | 503 => fields.push("Retry-After"),
        _ => {}
    }
    let content = json!({"application/json": body});
    json!({"description": meanings.join(". "), "headers": headers(&fields), "content": content})
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

/// A Markdown table of all errors.
fn error_table() -> String {
    let head =
        "Any request may be answered so.\n\n| status | `error.code` | when |\n|---|---|---|\n";
    let rows = ERRORS
        .iter()
        .map(|error| format!("| {} | `{}` | {} |\n", error.status, error.code, error.when));
    head.to_owned() + &rows.collect::<String>()
}
