//! Types, fields and examples.

use serde_json::{Map, Value};

use super::html::{anchor, code, escape, text};
use super::markdown;

/// So deep an example goes. No type of ours holds itself; a description that is wrong should not hang the page.
const DEPTH: usize = 8;

/// The schemas of a description.
pub struct Schemas<'d> {
    /// The description.
    pub document: &'d Value,
}

impl<'d> Schemas<'d> {
    /// What a reference refers to; anything else is itself.
    pub fn resolve(&self, value: &'d Value) -> &'d Value {
        value["$ref"]
            .as_str()
            .and_then(|reference| self.document.pointer(reference.strip_prefix('#')?))
            .unwrap_or(value)
    }

    /// All of them, each with its fields.
    pub fn all(&self) -> String {
        let schemas = self.document["components"]["schemas"].as_object();
        schemas
            .into_iter()
            .flatten()
            .map(|(name, schema)| {
                format!(
                    "<article>\n<h3 id=\"{}\">{}</h3>\n{}{}</article>\n",
                    anchor("schema-", name),
                    escape(name),
                    markdown::html(text(&schema["description"])),
                    self.fields(schema)
                )
            })
            .collect()
    }

    /// The type in a few words, with its limits.
    pub fn kind(&self, schema: &'d Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return format!(
                "<a href=\"#{}\">{}</a>{}",
                anchor("schema-", name),
                escape(name),
                limits(self.resolve(schema))
            );
        }
        if let Some(variants) = ["oneOf", "anyOf"]
            .iter()
            .find_map(|word| schema[word].as_array())
        {
            return self.any_of(variants.iter());
        }
        let kinds: Vec<String> = match &schema["type"] {
            Value::Array(kinds) => kinds
                .iter()
                .map(|kind| self.simple(text(kind), schema))
                .collect(),
            kind => vec![self.simple(text(kind), schema)],
        };
        kinds.join(" or ") + &limits(schema)
    }

    fn any_of(&self, variants: impl Iterator<Item = &'d Value>) -> String {
        // Null comes last, as one says it.
        let (null, other): (Vec<_>, Vec<_>) =
            variants.partition(|variant| variant["type"] == "null");
        let kinds: Vec<String> = other
            .into_iter()
            .chain(null)
            .map(|variant| self.kind(variant))
            .collect();
        kinds.join(" or ")
    }

    fn simple(&self, kind: &str, schema: &'d Value) -> String {
        match (kind, schema["format"].as_str()) {
            ("array", _) => format!("list of {}", self.kind(&schema["items"])),
            ("string", Some("uuid")) => "UUID".to_owned(),
            ("string", Some("date-time")) => "timestamp".to_owned(),
            ("string", Some(format)) => escape(format),
            (kind, _) => escape(kind),
        }
    }

    /// The fields of an object as a table; for anything else its type.
    pub fn fields(&self, schema: &'d Value) -> String {
        let fields = self.all_fields(schema);
        if fields.is_empty() {
            return format!("<p>{}</p>\n", self.kind(schema));
        }
        let rows: String = fields
            .iter()
            .map(|(name, field, required)| {
                format!(
                    "<tr><th scope=\"row\">{}{}</th><td>{}</td><td>{}</td></tr>\n",
                    code(name),
                    if *required {
                        ""
                    } else {
                        " <small>optional</small>"
                    },
                    self.kind(field),
                    markdown::line(self.description(field))
                )
            })
            .collect();
        format!("<div class=\"wide\"><table class=\"fields\">\n{rows}</table></div>\n")
    }

    /// What is said of a field: by itself, by one of its variants, or by what it refers to.
    fn description(&self, field: &'d Value) -> &'d str {
        let variants = field["oneOf"].as_array().into_iter().flatten();
        std::iter::once(field)
            .chain(variants)
            .chain([self.resolve(field)])
            .find_map(|place| place["description"].as_str())
            .unwrap_or_default()
    }

    /// Name, schema, and whether it must be there; those of its parts, too.
    fn all_fields(&self, schema: &'d Value) -> Vec<(&'d str, &'d Value, bool)> {
        let schema = self.not_null(schema);
        let mut fields: Vec<_> = schema["allOf"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|part| self.all_fields(part))
            .collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let required = schema["required"]
                .as_array()
                .is_some_and(|names| names.iter().any(|required| required == name));
            fields.push((name.as_str(), field, required));
        }
        fields
    }

    /// What a schema refers to, without the null that may stand in its place.
    fn not_null(&self, schema: &'d Value) -> &'d Value {
        let only = schema["oneOf"]
            .as_array()
            .and_then(|variants| variants.iter().find(|variant| variant["type"] != "null"));
        self.resolve(only.unwrap_or(schema))
    }

    /// An example as JSON.
    pub fn example(&self, schema: &'d Value) -> String {
        // What was read from JSON can be shown as JSON.
        let json = serde_json::to_string_pretty(&self.sample(schema, 0)).unwrap_or_default();
        format!("<pre><code>{}</code></pre>\n", escape(&json))
    }

    fn sample(&self, schema: &'d Value, depth: usize) -> Value {
        if let Some(example) = schema.get("example").or_else(|| schema["examples"].get(0)) {
            return example.clone();
        }
        let fields = self.all_fields(schema);
        if !fields.is_empty() && depth < DEPTH {
            let fields = fields
                .into_iter()
                .map(|(name, field, _)| (name.to_owned(), self.sample(field, depth + 1)));
            return Value::Object(Map::from_iter(fields));
        }
        let schema = self.not_null(schema);
        if let Some(example) = schema
            .get("example")
            .or_else(|| schema["examples"].get(0))
            .or_else(|| schema.get("default"))
            .or_else(|| schema["enum"].get(0))
        {
            return example.clone();
        }
        let kind = schema["type"]
            .as_str()
            .or_else(|| schema["type"][0].as_str());
        match (kind, schema["format"].as_str()) {
            (Some("array"), _) if depth < DEPTH => {
                vec![self.sample(&schema["items"], depth + 1)].into()
            }
            (Some("boolean"), _) => false.into(),
            (Some("integer"), _) => 0.into(),
            (Some("string"), Some("date-time")) => "2026-01-31T09:30:00.000000Z".into(),
            (Some("string"), Some("uuid")) => "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55".into(),
            (Some("string"), _) => "…".into(),
            _ => Value::Null,
        }
    }
}

/// The limits of a value, as one says them.
fn limits(schema: &Value) -> String {
    let mut limits = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| code(text(value))).collect();
        limits.push(values.join(", "));
    }
    for (least, most, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " of them"),
    ] {
        match (schema[least].as_i64(), schema[most].as_i64()) {
            (Some(least), Some(most)) => limits.push(format!("{least} to {most}{unit}")),
            (None, Some(most)) => limits.push(format!("at most {most}{unit}")),
            (Some(least), None) if least > 0 => limits.push(format!("at least {least}{unit}")),
            _ => {}
        }
    }
    if let Some(default) = schema.get("default") {
        limits.push(format!(
            "{} unless sent",
            code(default.to_string().trim_matches('"'))
        ));
    }
    if limits.is_empty() {
        String::new()
    } else {
        format!(" <small>{}</small>", limits.join("; "))
    }
}
