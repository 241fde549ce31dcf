//! Compares JSON with a schema of the API's description. Fields that the schema does not name are errors, like missing fields.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use time::format_description::well_known::Rfc3339;

/// The errors of a value; empty if there are none.
pub fn complaints(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    check(document, schema, value, "", &mut complaints);
    complaints
}

/// The target of a reference; any other value is returned unchanged.
pub fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect(reference),
        None => value,
    }
}

/// The fields of an object's schema, including those of its parts, and the names of the required ones.
pub fn fields<'d>(
    document: &'d Value,
    schema: &'d Value,
) -> (BTreeMap<&'d str, &'d Value>, BTreeSet<&'d str>) {
    let schema = resolve(document, schema);
    let (mut all, mut required) = (BTreeMap::new(), BTreeSet::new());
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (fields, names) = fields(document, part);
        all.extend(fields);
        required.extend(names);
    }
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        if variant["type"] != "null" {
            return fields(document, variant);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        all.insert(name.as_str(), field);
    }
    let names = schema["required"].as_array().into_iter().flatten();
    required.extend(names.map(|name| name.as_str().unwrap()));
    (all, required)
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    let schema = resolve(document, schema);
    for word in ["oneOf", "anyOf"] {
        if let Some(variants) = schema[word].as_array() {
            let fits = |variant: &&Value| complaints(document, variant, value).is_empty();
            if !variants.iter().any(|variant| fits(&variant)) {
                out.push(format!("{at}: {value} fits none of {variants:?}"));
            }
            return;
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        out.push(format!("{at}: {value} is none of {values:?}"));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        Value::String(kind) => vec![kind],
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.contains(&kind(value)) {
        out.push(format!("{at}: {value} is not {kinds:?}"));
        return;
    }
    match value {
        Value::Object(object) => {
            let (fields, required) = fields(document, schema);
            if fields.is_empty() {
                return;
            }
            for name in required.iter().filter(|name| !object.contains_key(**name)) {
                out.push(format!("{at}: {name} is missing"));
            }
            for (name, value) in object {
                match fields.get(name.as_str()) {
                    Some(field) => check(document, field, value, &format!("{at}/{name}"), out),
                    None => out.push(format!("{at}: {name} is not described")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                check(document, &schema["items"], item, &format!("{at}/*"), out);
            }
        }
        Value::String(text) => {
            let (length, limit) = (text.chars().count() as u64, |word: &str| {
                schema[word].as_u64()
            });
            let long = limit("maxLength").is_some_and(|most| length > most);
            if long || limit("minLength").is_some_and(|least| length < least) {
                out.push(format!("{at}: {text:?} has {length} characters"));
            }
            let formed = match schema["format"].as_str() {
                Some("date-time") => time::OffsetDateTime::parse(text, &Rfc3339).is_ok(),
                Some("date") => text.len() == 10 && text.matches('-').count() == 2,
                Some("uuid") => uuid::Uuid::try_parse(text).is_ok(),
                _ => true,
            };
            if !formed {
                out.push(format!("{at}: {text:?} is no {}", schema["format"]));
            }
        }
        Value::Number(number) => {
            let (number, limit) = (number.as_f64().unwrap(), |word: &str| schema[word].as_f64());
            let large = limit("maximum").is_some_and(|most| number > most);
            if large || limit("minimum").is_some_and(|least| number < least) {
                out.push(format!("{at}: {number} is out of bounds"));
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
