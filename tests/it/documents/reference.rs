//! Makes the page /redoc from the API's description. It needs no JavaScript.

use serde_json::{Map, Value};

/// Examples end at this depth; no type contains itself.
const DEPTH: usize = 8;

struct Page<'d> {
    document: &'d Value,
}

/// An operation and its place in the description.
struct Operation<'d> {
    id: &'d str,
    route: String,
    value: &'d Value,
}

impl<'d> Operation<'d> {
    fn new(method: &'d str, path: &'d str, value: &'d Value) -> Operation<'d> {
        let path = escape(path).replace('/', "/<wbr>");
        Operation {
            id: text(&value["operationId"]),
            route: format!(
                "<span class=\"method {method}\">{method}</span> <code class=\"path\">{path}</code>"
            ),
            value,
        }
    }

    /// A link to the operation. Both forms of a route share one entry.
    fn link(&self) -> String {
        let (id, summary) = (self.id.trim_end_matches("OfUser"), &self.value["summary"]);
        format!("<a href=\"#{id}\">{}</a>", escape(text(summary)))
    }
}

/// The page.
pub fn page(document: &Value) -> String {
    let page = Page { document };
    let (mut links, mut sections) = (String::new(), String::new());
    for group in list(&document["tags"]) {
        let (name, id) = (escape(text(&group["name"])), anchor(text(&group["name"])));
        let (again, own): (Vec<_>, Vec<_>) = page
            .operations()
            .filter(|operation| operation.value["tags"][0] == group["name"])
            .partition(|operation| operation.id.ends_with("OfUser"));
        let entries = own.iter().map(|it| format!("<li>{}</li>\n", it.link()));
        let entries: String = entries.collect();
        links += &format!("<li><a href=\"#{id}\">{name}</a>\n<ul>\n{entries}</ul></li>\n");
        let again = again
            .iter()
            .map(|it| format!("<li>{} {}</li>\n", it.route, it.link()));
        let again = around("<ul class=\"again\">\n", again, "</ul>\n");
        let own: String = own
            .iter()
            .map(|operation| page.operation(operation))
            .collect();
        let about = markdown(text(&group["description"]));
        sections +=
            &format!("<section>\n<h2 id=\"{id}\">{name}</h2>\n{about}{own}{again}</section>\n");
    }
    let schemas = members(&document["components"]["schemas"]).map(|(name, schema)| {
        let (about, fields) = (markdown(text(&schema["description"])), page.fields(schema));
        format!("<article>\n<h3 id=\"schema-{name}\">{name}</h3>\n{about}{fields}</article>\n")
    });
    let info = &document["info"];
    let values = [
        ("{title}", escape(text(&info["title"]))),
        ("{version}", escape(text(&info["version"]))),
        ("{links}", links),
        ("{about}", markdown(text(&info["description"]))),
        ("{schemas}", schemas.collect()),
        // This is the last replacement, because its text may contain braces.
        ("{sections}", sections),
    ];
    let template = include_str!("page.html").to_owned();
    values
        .iter()
        .fold(template, |page, (name, value)| page.replace(name, value))
}

impl<'d> Page<'d> {
    fn operations(&self) -> impl Iterator<Item = Operation<'d>> {
        members(&self.document["paths"]).flat_map(|(path, methods)| {
            members(methods).map(move |(method, value)| Operation::new(method, path, value))
        })
    }

    fn operation(&self, operation: &Operation<'d>) -> String {
        let Operation { id, route, value } = operation;
        let token = match value["security"][0].is_null() {
            true => "",
            false => " <span class=\"token\">needs a token</span>",
        };
        let (summary, about) = (
            escape(text(&value["summary"])),
            markdown(text(&value["description"])),
        );
        let (parameters, body) = (self.parameters(value), self.body(&value["requestBody"]));
        let answers =
            members(&value["responses"]).map(|(status, answer)| self.answer(status, answer));
        let answers = around(
            "<h4>Answers</h4>\n<dl class=\"answers\">\n",
            answers,
            "</dl>\n",
        );
        format!(
            "<article>\n<h3 id=\"{id}\">{summary} <a class=\"here\" href=\"#{id}\" aria-label=\"Link to this\">#</a></h3>\n\
             <p class=\"route\">{route}{token}</p>\n{about}{parameters}{body}{answers}</article>\n"
        )
    }

    fn parameters(&self, operation: &'d Value) -> String {
        let parameters = list(&operation["parameters"]).map(|parameter| self.resolve(parameter));
        // The section about errors describes X-Request-ID, which every operation has.
        let shown = parameters.filter(|parameter| parameter["name"] != "X-Request-ID");
        let rows = shown.map(|parameter| {
            let (name, place) = (code(text(&parameter["name"])), text(&parameter["in"]));
            let kind = self.kind(&parameter["schema"]);
            row(
                &format!("{name} <small>{place}</small>"),
                &kind,
                text(&parameter["description"]),
            )
        });
        around(
            "<h4>Parameters</h4>\n<div class=\"wide\"><table class=\"fields\">\n",
            rows,
            "</table></div>\n",
        )
    }

    fn body(&self, body: &'d Value) -> String {
        let optional = match body["required"] == true {
            true => "",
            false => " <small>may be absent</small>",
        };
        let contents = members(&body["content"]).map(|(media_type, content)| {
            let (name, fields) = (code(media_type), self.fields(&content["schema"]));
            let example = match media_type.ends_with("json") {
                true => self.example(&content["schema"]),
                false => String::new(),
            };
            format!("<p class=\"media\">{name}</p>\n{fields}{example}")
        });
        around(&format!("<h4>Body{optional}</h4>\n"), contents, "")
    }

    fn answer(&self, status: &str, answer: &'d Value) -> String {
        let answer = self.resolve(answer);
        let content = &answer["content"]["application/json"]["schema"];
        let class = if status < "400" { "success" } else { "error" };
        // The section about errors shows the body of errors.
        let is_error = content["$ref"] == "#/components/schemas/Problem";
        let example = match content.is_null() || is_error {
            true => String::new(),
            false => format!(": {}{}", self.kind(content), self.example(content)),
        };
        let meaning = line(text(&answer["description"]));
        format!("<dt class=\"{class}\">{status}</dt><dd>{meaning}{example}</dd>\n")
    }

    fn resolve(&self, value: &'d Value) -> &'d Value {
        let pointer = text(&value["$ref"]).trim_start_matches('#');
        match pointer {
            "" => value,
            pointer => self.document.pointer(pointer).expect(pointer),
        }
    }

    /// A type in a few words, with its limits.
    fn kind(&self, schema: &'d Value) -> String {
        if let Some((_, name)) = text(&schema["$ref"]).rsplit_once('/') {
            let limits = limits(self.resolve(schema));
            return format!("<a href=\"#schema-{name}\">{name}</a>{limits}");
        }
        let variants = list(&schema["oneOf"]).chain(list(&schema["anyOf"]));
        let variants: Vec<String> = variants.map(|variant| self.kind(variant)).collect();
        if !variants.is_empty() {
            return variants.join(" or ");
        }
        let kinds =
            list(&schema["type"]).chain(schema["type"].is_string().then_some(&schema["type"]));
        let kinds = kinds.map(|kind| match (text(kind), text(&schema["format"])) {
            ("array", _) => format!("list of {}", self.kind(&schema["items"])),
            ("string", "uuid") => "UUID".to_owned(),
            ("string", "date-time") => "timestamp".to_owned(),
            ("string", format) if !format.is_empty() => format.to_owned(),
            (kind, _) => kind.to_owned(),
        });
        kinds.collect::<Vec<_>>().join(" or ") + &limits(schema)
    }

    /// The fields of an object as a table; for any other type its name.
    fn fields(&self, schema: &'d Value) -> String {
        let rows = self
            .all_fields(schema)
            .into_iter()
            .map(|(name, field, required)| {
                let optional = if required {
                    ""
                } else {
                    " <small>optional</small>"
                };
                let mut places = [field, self.resolve(field)].into_iter();
                let about = places.find_map(|place| place["description"].as_str());
                row(
                    &(code(name) + optional),
                    &self.kind(field),
                    about.unwrap_or_default(),
                )
            });
        let table = around(
            "<div class=\"wide\"><table class=\"fields\">\n",
            rows,
            "</table></div>\n",
        );
        if table.is_empty() {
            return format!("<p>{}</p>\n", self.kind(schema));
        }
        table
    }

    /// Name, schema, and whether it is required.
    fn all_fields(&self, schema: &'d Value) -> Vec<(&'d str, &'d Value, bool)> {
        let schema = self.not_null(schema);
        let parts = list(&schema["allOf"]).flat_map(|part| self.all_fields(part));
        let own = members(&schema["properties"]).map(|(name, field)| {
            let required = list(&schema["required"]).any(|required| required == name);
            (name, field, required)
        });
        parts.chain(own).collect()
    }

    fn not_null(&self, schema: &'d Value) -> &'d Value {
        let variant = list(&schema["oneOf"]).find(|variant| variant["type"] != "null");
        self.resolve(variant.unwrap_or(schema))
    }

    fn example(&self, schema: &'d Value) -> String {
        let json = serde_json::to_string_pretty(&self.sample(schema, 0)).unwrap();
        format!("<pre><code>{}</code></pre>\n", escape(&json))
    }

    fn sample(&self, schema: &'d Value, depth: usize) -> Value {
        let inner = self.not_null(schema);
        let shown = [schema, inner].into_iter().find_map(|place| {
            let examples = place["examples"].get(0).or(place["enum"].get(0));
            place.get("example").or(examples)
        });
        if let Some(example) = shown {
            return example.clone();
        }
        let fields = self.all_fields(schema);
        if !fields.is_empty() && depth < DEPTH {
            let samples = fields
                .into_iter()
                .map(|(name, field, _)| (name.to_owned(), self.sample(field, depth + 1)));
            return Value::Object(Map::from_iter(samples));
        }
        let kind = text(&inner["type"]).to_owned() + text(&inner["type"][0]);
        match (kind.as_str(), text(&inner["format"])) {
            ("array", _) if depth < DEPTH => vec![self.sample(&inner["items"], depth + 1)].into(),
            ("boolean", _) => false.into(),
            ("integer", _) => inner["minimum"].as_u64().unwrap_or(0).into(),
            ("string", "uuid") => "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55".into(),
            ("string", _) => "…".into(),
            _ => Value::Null,
        }
    }
}

/// The limits of a value.
fn limits(schema: &Value) -> String {
    let values: Vec<String> = list(&schema["enum"])
        .map(|value| code(text(value)))
        .collect();
    let mut limits = match values.is_empty() {
        true => Vec::new(),
        false => vec![values.join(", ")],
    };
    for (least, most, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " entries"),
    ] {
        limits.extend(match (schema[least].as_i64(), schema[most].as_i64()) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
            (None, Some(most)) => Some(format!("at most {most}{unit}")),
            (Some(least), None) if least > 0 => Some(format!("at least {least}{unit}")),
            _ => None,
        });
    }
    match limits.is_empty() {
        true => String::new(),
        false => format!(" <small>{}</small>", limits.join("; ")),
    }
}

/// The elements between `before` and `after`; an empty string if there are none.
fn around(before: &str, elements: impl Iterator<Item = String>, after: &str) -> String {
    match elements.collect::<String>() {
        none if none.is_empty() => none,
        elements => format!("{before}{elements}{after}"),
    }
}

fn row(name: &str, kind: &str, description: &str) -> String {
    let description = line(description);
    format!("<tr><th scope=\"row\">{name}</th><td>{kind}</td><td>{description}</td></tr>\n")
}

/// The Markdown that descriptions use: headings, paragraphs, tables, and code within a line.
fn markdown(source: &str) -> String {
    let blocks = source
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty());
    let blocks = blocks.map(|block| {
        if let Some(heading) = block.strip_prefix("## ") {
            let (id, heading) = (anchor(heading), line(heading));
            return format!("<h2 id=\"about-{id}\">{heading}</h2>\n");
        }
        if !block.starts_with('|') {
            return format!("<p>{}</p>\n", line(block));
        }
        let rows = block.lines().enumerate().filter(|(number, _)| *number != 1);
        let rows = rows.map(|(number, row)| {
            let cell = if number == 0 { "th" } else { "td" };
            let cells = row.trim_matches('|').split('|');
            let cells = cells.map(|text| format!("<{cell}>{}</{cell}>", line(text.trim())));
            around("<tr>", cells, "</tr>\n")
        });
        around("<div class=\"wide\"><table>\n", rows, "</table></div>\n")
    });
    blocks.collect()
}

fn line(source: &str) -> String {
    let parts = source.split('`').enumerate();
    let parts = parts.map(|(number, part)| match number % 2 {
        1 => code(part),
        _ => escape(part),
    });
    parts.collect()
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The id of a heading.
fn anchor(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
