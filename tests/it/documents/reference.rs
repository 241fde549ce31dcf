//! Makes the page /redoc from the API's description. It needs no JavaScript.

use serde_json::{Map, Value};

/// Examples end at this depth; no type contains itself.
const DEPTH: usize = 8;

/// An operation and its place in the description.
struct Operation<'d> {
    method: &'d str,
    path: &'d str,
    value: &'d Value,
}

impl<'d> Operation<'d> {
    fn id(&self) -> &'d str {
        text(&self.value["operationId"])
    }

    fn route(&self) -> String {
        format!(
            "<span class=\"method {0}\">{0}</span> <code class=\"path\">{1}</code>",
            self.method,
            escape(self.path).replace('/', "/<wbr>")
        )
    }
}

/// The page.
pub fn page(document: &Value) -> String {
    let page = Page { document };
    let info = &document["info"];
    let (title, version) = (escape(text(&info["title"])), escape(text(&info["version"])));
    let (mut links, mut sections) = (String::new(), String::new());
    for group in list(&document["tags"]) {
        let name = text(&group["name"]);
        let (again, own): (Vec<_>, Vec<_>) = page
            .operations()
            .filter(|operation| operation.value["tags"][0] == name)
            .partition(|operation| operation.id().ends_with("OfUser"));
        let entries = own.iter().map(|operation| {
            format!(
                "<li><a href=\"#{}\">{}</a></li>\n",
                operation.id(),
                escape(text(&operation.value["summary"]))
            )
        });
        links += &format!(
            "<li><a href=\"#{}\">{}</a>\n<ul>\n{}</ul></li>\n",
            anchor(name),
            escape(name),
            entries.collect::<String>()
        );
        sections += &format!(
            "<section>\n<h2 id=\"{}\">{}</h2>\n{}",
            anchor(name),
            escape(name),
            markdown(text(&group["description"]))
        );
        sections.extend(own.iter().map(|operation| page.operation(operation)));
        sections += &second_forms(&again);
        sections += "</section>\n";
    }
    let schemas = document["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let description = markdown(text(&schema["description"]));
            format!(
                "<article>\n<h3 id=\"schema-{name}\">{name}</h3>\n{description}{}</article>\n",
                page.fields(schema)
            )
        });
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: reference</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"/docs/reference.css\">\n</head>\n<body>\n\
         <nav aria-label=\"Contents\">\n<p class=\"title\"><a href=\"#top\">{title}</a></p>\n<ul>\n{links}\
         <li><a href=\"#schemas\">Schemas</a></li>\n</ul>\n</nav>\n\
         <main>\n<header>\n<h1 id=\"top\">{title} <small>{version}</small></h1>\n\
         <p class=\"elsewhere\"><a href=\"/docs\">Try it in the browser</a> <a href=\"/openapi.json\">OpenAPI description</a></p>\n</header>\n\
         <section class=\"about\">\n{}</section>\n{sections}\
         <section>\n<h2 id=\"schemas\">Schemas</h2>\n{}</section>\n</main>\n</body>\n</html>\n",
        markdown(text(&info["description"])),
        schemas.collect::<String>(),
    )
}

fn second_forms(operations: &[Operation]) -> String {
    let items = operations.iter().map(|operation| {
        let first = operation.id().trim_end_matches("OfUser");
        let summary = escape(text(&operation.value["summary"]));
        format!(
            "<li>{} <a href=\"#{first}\">{summary}</a></li>\n",
            operation.route()
        )
    });
    match items.collect::<String>() {
        items if items.is_empty() => items,
        items => format!("<ul class=\"again\">\n{items}</ul>\n"),
    }
}

struct Page<'d> {
    document: &'d Value,
}

impl<'d> Page<'d> {
    fn operations(&self) -> impl Iterator<Item = Operation<'d>> {
        let paths = self.document["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, value)| Operation {
                method,
                path,
                value,
            })
        })
    }

    fn operation(&self, operation: &Operation<'d>) -> String {
        let value = operation.value;
        let token = if value["security"][0].is_null() {
            ""
        } else {
            " <span class=\"token\">needs a token</span>"
        };
        format!(
            "<article>\n<h3 id=\"{0}\">{1} <a class=\"here\" href=\"#{0}\" aria-label=\"Link to this\">#</a></h3>\n\
             <p class=\"route\">{2}{token}</p>\n{3}{4}{5}<h4>Answers</h4>\n<dl class=\"answers\">\n{6}</dl>\n</article>\n",
            operation.id(),
            escape(text(&value["summary"])),
            operation.route(),
            markdown(text(&value["description"])),
            self.parameters(value),
            self.body(&value["requestBody"]),
            value["responses"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(status, response)| self.response(status, response))
                .collect::<String>(),
        )
    }

    fn parameters(&self, operation: &'d Value) -> String {
        let rows = list(&operation["parameters"])
            .map(|parameter| self.resolve(parameter))
            // Every operation has it; the section about errors describes it.
            .filter(|parameter| parameter["name"] != "X-Request-ID")
            .map(|parameter| {
                let name = format!(
                    "{} <small>{}</small>",
                    code(text(&parameter["name"])),
                    text(&parameter["in"])
                );
                row(
                    &name,
                    &self.kind(&parameter["schema"]),
                    text(&parameter["description"]),
                )
            });
        match rows.collect::<String>() {
            rows if rows.is_empty() => rows,
            rows => format!("<h4>Parameters</h4>\n{}", table(&rows)),
        }
    }

    fn body(&self, body: &'d Value) -> String {
        let Some(content) = body["content"].as_object() else {
            return String::new();
        };
        let optional = if body["required"] == true {
            ""
        } else {
            " <small>may be absent</small>"
        };
        let mut out = format!("<h4>Body{optional}</h4>\n");
        for (media_type, content) in content {
            out += &format!(
                "<p class=\"media\">{}</p>\n{}",
                code(media_type),
                self.fields(&content["schema"])
            );
            if media_type.ends_with("json") {
                out += &self.example(&content["schema"]);
            }
        }
        out
    }

    fn response(&self, status: &str, response: &'d Value) -> String {
        let content = &self.resolve(response)["content"]["application/json"]["schema"];
        let class = if status < "400" { "success" } else { "error" };
        // The section about errors shows the body of errors, once.
        let is_error = content["$ref"] == "#/components/schemas/Problem";
        let (kind, example) = match content.is_null() || is_error {
            true => (String::new(), String::new()),
            false => (format!(": {}", self.kind(content)), self.example(content)),
        };
        let meaning = line(text(&self.resolve(response)["description"]));
        format!("<dt class=\"{class}\">{status}</dt><dd>{meaning}{kind}{example}</dd>\n")
    }

    fn resolve(&self, value: &'d Value) -> &'d Value {
        let reference = value["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'));
        reference.map_or(value, |pointer| {
            self.document.pointer(pointer).expect(pointer)
        })
    }

    /// A type in a few words, with its limits.
    fn kind(&self, schema: &'d Value) -> String {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.rsplit('/').next())
        {
            return format!(
                "<a href=\"#schema-{name}\">{name}</a>{}",
                limits(self.resolve(schema))
            );
        }
        let variants: Vec<String> = list(&schema["oneOf"])
            .chain(list(&schema["anyOf"]))
            .map(|variant| self.kind(variant))
            .collect();
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
                let description = [field, self.resolve(field)]
                    .into_iter()
                    .find_map(|place| place["description"].as_str());
                row(
                    &(code(name) + optional),
                    &self.kind(field),
                    description.unwrap_or_default(),
                )
            });
        match rows.collect::<String>() {
            rows if rows.is_empty() => format!("<p>{}</p>\n", self.kind(schema)),
            rows => table(&rows),
        }
    }

    /// Name, schema, and whether it must be there.
    fn all_fields(&self, schema: &'d Value) -> Vec<(&'d str, &'d Value, bool)> {
        let schema = self.not_null(schema);
        let mut fields: Vec<_> = list(&schema["allOf"])
            .flat_map(|part| self.all_fields(part))
            .collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            fields.push((
                name,
                field,
                list(&schema["required"]).any(|required| required == name),
            ));
        }
        fields
    }

    fn not_null(&self, schema: &'d Value) -> &'d Value {
        self.resolve(
            list(&schema["oneOf"])
                .find(|variant| variant["type"] != "null")
                .unwrap_or(schema),
        )
    }

    fn example(&self, schema: &'d Value) -> String {
        let json = serde_json::to_string_pretty(&self.sample(schema, 0)).unwrap();
        format!("<pre><code>{}</code></pre>\n", escape(&json))
    }

    fn sample(&self, schema: &'d Value, depth: usize) -> Value {
        let inner = self.not_null(schema);
        for place in [schema, inner] {
            let shown = place
                .get("example")
                .or(place["examples"].get(0))
                .or(place["enum"].get(0));
            if let Some(example) = shown {
                return example.clone();
            }
        }
        let fields = self.all_fields(schema);
        if !fields.is_empty() && depth < DEPTH {
            let fields = fields
                .into_iter()
                .map(|(name, field, _)| (name.to_owned(), self.sample(field, depth + 1)));
            return Value::Object(Map::from_iter(fields));
        }
        match (
            text(&inner["type"]).to_owned() + text(&inner["type"][0]),
            text(&inner["format"]),
        ) {
            (kind, _) if kind == "array" && depth < DEPTH => {
                vec![self.sample(&inner["items"], depth + 1)].into()
            }
            (kind, _) if kind == "boolean" => false.into(),
            (kind, _) if kind == "integer" => 0.into(),
            (kind, "uuid") if kind == "string" => "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55".into(),
            (kind, _) if kind == "string" => "…".into(),
            _ => Value::Null,
        }
    }
}

/// The limits of a value.
fn limits(schema: &Value) -> String {
    let mut limits = Vec::new();
    if schema["enum"].is_array() {
        limits.push(
            list(&schema["enum"])
                .map(|value| code(text(value)))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    for (least, most, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " entries"),
    ] {
        match (schema[least].as_i64(), schema[most].as_i64()) {
            (Some(least), Some(most)) => limits.push(format!("{least} to {most}{unit}")),
            (None, Some(most)) => limits.push(format!("at most {most}{unit}")),
            (Some(least), None) if least > 0 => limits.push(format!("at least {least}{unit}")),
            _ => {}
        }
    }
    if limits.is_empty() {
        String::new()
    } else {
        format!(" <small>{}</small>", limits.join("; "))
    }
}

fn row(name: &str, kind: &str, description: &str) -> String {
    format!(
        "<tr><th scope=\"row\">{name}</th><td>{kind}</td><td>{}</td></tr>\n",
        line(description)
    )
}

fn table(rows: &str) -> String {
    format!("<div class=\"wide\"><table class=\"fields\">\n{rows}</table></div>\n")
}

/// The Markdown that descriptions use: headings, paragraphs, tables, and code within a line.
fn markdown(source: &str) -> String {
    let blocks = source
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty());
    blocks
        .map(|block| match block.strip_prefix("## ") {
            Some(heading) => format!(
                "<h2 id=\"about-{}\">{}</h2>\n",
                anchor(heading),
                line(heading)
            ),
            None if block.starts_with('|') => {
                let rows = block
                    .lines()
                    .enumerate()
                    .filter(|(number, _)| *number != 1)
                    .map(|(number, row)| {
                        let cell = if number == 0 { "th" } else { "td" };
                        let cells = row
                            .trim_matches('|')
                            .split('|')
                            .map(|text| format!("<{cell}>{}</{cell}>", line(text.trim())));
                        format!("<tr>{}</tr>\n", cells.collect::<String>())
                    });
                format!(
                    "<div class=\"wide\"><table>\n{}</table></div>\n",
                    rows.collect::<String>()
                )
            }
            None => format!("<p>{}</p>\n", line(block)),
        })
        .collect()
}

fn line(source: &str) -> String {
    let parts = source.split('`').enumerate();
    parts
        .map(|(number, part)| {
            if number % 2 == 1 {
                code(part)
            } else {
                escape(part)
            }
        })
        .collect()
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The id of a heading.
fn anchor(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
