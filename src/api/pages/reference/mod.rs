//! The page to read: the whole description as one document, which needs no JavaScript.
//!
//! - `html`: text that is safe in HTML
//! - `markdown`: as much of Markdown as descriptions use
//! - `schemas`: types, fields and examples

mod html;
mod markdown;
mod schemas;

use serde_json::Value;

use html::{anchor, code, escape, text};
use schemas::Schemas;

/// The page's only style sheet.
pub const STYLE_SHEET: &str = include_str!("reference.css");

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Where an operation of the same meaning is known by this ending, it is only mentioned.
const SECOND_FORM: &str = "OfUser";

/// An operation, where it stands in the description.
struct Operation<'d> {
    method: &'d str,
    path: &'d str,
    value: &'d Value,
}

impl<'d> Operation<'d> {
    fn id(&self) -> &'d str {
        text(&self.value["operationId"])
    }

    fn is_in(&self, group: &str) -> bool {
        self.value["tags"][0] == group
    }

    fn route(&self) -> String {
        format!(
            "<span class=\"method {0}\">{0}</span> <code class=\"path\">{1}</code>",
            self.method,
            escape(self.path).replace('/', "/<wbr>")
        )
    }
}

/// Makes the page of a description.
pub fn page(document: &Value) -> String {
    let operations = operations(document);
    let schemas = Schemas { document };
    let info = &document["info"];
    let (title, version) = (escape(text(&info["title"])), escape(text(&info["version"])));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: reference</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n"
    );
    navigation(&mut out, document, &operations, &title);
    out.push_str(&format!(
        "<main>\n<header>\n<h1 id=\"top\">{title} <small>{version}</small></h1>\n\
         <p class=\"elsewhere\"><a href=\"/docs\">Try it in the browser</a> <a href=\"/openapi.json\">OpenAPI description</a></p>\n</header>\n"
    ));
    out.push_str("<section class=\"about\">\n");
    out.push_str(&markdown::html(text(&info["description"])));
    out.push_str("</section>\n");
    for group in groups(document) {
        let name = text(&group["name"]);
        out.push_str(&format!(
            "<section>\n<h2 id=\"{}\">{}</h2>\n{}",
            anchor("", name),
            escape(name),
            markdown::html(text(&group["description"]))
        ));
        let (again, own): (Vec<_>, Vec<_>) = operations
            .iter()
            .filter(|operation| operation.is_in(name))
            .partition(|operation| operation.id().ends_with(SECOND_FORM));
        for operation in own {
            show(&mut out, &schemas, operation);
        }
        second_forms(&mut out, &again);
        out.push_str("</section>\n");
    }
    out.push_str("<section>\n<h2 id=\"schemas\">Schemas</h2>\n");
    out.push_str(&schemas.all());
    out.push_str("</section>\n</main>\n</body>\n</html>\n");
    out
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| {
                let value = item.get(method)?;
                Some(Operation {
                    method,
                    path,
                    value,
                })
            })
        })
        .collect()
}

fn groups(document: &Value) -> impl Iterator<Item = &Value> {
    document["tags"].as_array().into_iter().flatten()
}

fn navigation(out: &mut String, document: &Value, operations: &[Operation], title: &str) {
    out.push_str(&format!(
        "<nav aria-label=\"Contents\">\n<p class=\"title\"><a href=\"#top\">{title}</a></p>\n<ul>\n"
    ));
    for group in groups(document) {
        let name = text(&group["name"]);
        out.push_str(&format!(
            "<li><a href=\"#{}\">{}</a>\n<ul>\n",
            anchor("", name),
            escape(name)
        ));
        for operation in operations {
            if operation.is_in(name) && !operation.id().ends_with(SECOND_FORM) {
                out.push_str(&format!(
                    "<li><a href=\"#{}\">{}</a></li>\n",
                    anchor("", operation.id()),
                    escape(text(&operation.value["summary"]))
                ));
            }
        }
        out.push_str("</ul></li>\n");
    }
    out.push_str("<li><a href=\"#schemas\">Schemas</a></li>\n</ul>\n</nav>\n");
}

fn show(out: &mut String, schemas: &Schemas, operation: &Operation) {
    let value = operation.value;
    out.push_str(&format!(
        "<article>\n<h3 id=\"{0}\">{1} <a class=\"here\" href=\"#{0}\" aria-label=\"Link to this\">#</a></h3>\n<p class=\"route\">{2}{3}</p>\n{4}",
        anchor("", operation.id()),
        escape(text(&value["summary"])),
        operation.route(),
        if value["security"][0].is_null() { "" } else { " <span class=\"token\">needs a token</span>" },
        markdown::html(text(&value["description"]))
    ));
    parameters(out, schemas, value);
    body(out, schemas, value);
    responses(out, schemas, value);
    out.push_str("</article>\n");
}

fn parameters(out: &mut String, schemas: &Schemas, operation: &Value) {
    let rows: String = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| schemas.resolve(parameter))
        // All operations have it; it is described once, above.
        .filter(|parameter| parameter["name"] != "X-Request-ID")
        .map(|parameter| {
            format!(
                "<tr><th scope=\"row\">{} <small>{}</small></th><td>{}</td><td>{}</td></tr>\n",
                code(text(&parameter["name"])),
                escape(text(&parameter["in"])),
                schemas.kind(&parameter["schema"]),
                markdown::line(text(&parameter["description"]))
            )
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&format!(
            "<h4>Parameters</h4>\n<div class=\"wide\"><table class=\"fields\">\n{rows}</table></div>\n"
        ));
    }
}

fn body(out: &mut String, schemas: &Schemas, operation: &Value) {
    let body = &operation["requestBody"];
    let Some(content) = body["content"].as_object() else {
        return;
    };
    let optional = if body["required"] == true {
        ""
    } else {
        " <small>may be absent</small>"
    };
    out.push_str(&format!("<h4>Body{optional}</h4>\n"));
    for (media_type, content) in content {
        out.push_str(&format!("<p class=\"media\">{}</p>\n", code(media_type)));
        out.push_str(&schemas.fields(&content["schema"]));
        if media_type.ends_with("json") {
            out.push_str(&schemas.example(&content["schema"]));
        }
    }
}

fn responses(out: &mut String, schemas: &Schemas, operation: &Value) {
    out.push_str("<h4>Answers</h4>\n<dl class=\"answers\">\n");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let shared = !response["$ref"].is_null();
        let response = schemas.resolve(response);
        let content = response["content"].as_object().into_iter().flatten().next();
        let kind = content
            .filter(|(media_type, _)| media_type.as_str() == "application/json")
            .map(|(_, content)| format!(": {}", schemas.kind(&content["schema"])))
            .unwrap_or_default();
        let class = if status.starts_with(['4', '5']) {
            "error"
        } else {
            "success"
        };
        out.push_str(&format!(
            "<dt class=\"{class}\">{}</dt><dd>{}{kind}",
            escape(status),
            markdown::line(text(&response["description"]))
        ));
        if let Some((_, content)) =
            content.filter(|_| !shared && class == "success" && !kind.is_empty())
        {
            out.push_str(&schemas.example(&content["schema"]));
        }
        out.push_str("</dd>\n");
    }
    out.push_str("</dl>\n");
}

fn second_forms(out: &mut String, operations: &[&Operation]) {
    if operations.is_empty() {
        return;
    }
    out.push_str("<ul class=\"again\">\n");
    for operation in operations {
        let id = operation.id().trim_end_matches(SECOND_FORM);
        out.push_str(&format!(
            "<li>{} <a href=\"#{}\">{}</a></li>\n",
            operation.route(),
            anchor("", id),
            escape(text(&operation.value["summary"]))
        ));
    }
    out.push_str("</ul>\n");
}
