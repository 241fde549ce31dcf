//! The types of bodies as JSON Schema. They are read from the source, so that a field's name, type and documentation are written
//! once. What a type cannot say (examples, limits) is in `details.json`, for a type or for one of its fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use syn::ext::IdentExt;
use syn::{
    Attribute, Expr, Fields, GenericArgument, Item, ItemEnum, ItemStruct, Lit, Meta, PathArguments,
    Type,
};
use todo_api::domain::list::rows::PARAMETERS;
use todo_api::domain::shape::Shape;
use todo_api::domain::task::{Sent, TASK_FIELDS};

use super::source_files;

/// The files with the types.
const SOURCES: [&str; 4] = [
    "src/domain",
    "src/api",
    "src/auth/issuer.rs",
    "src/http/error.rs",
];

/// Fields of requests that are optional or required, contrary to their type.
const REQUIRED: &[(&str, bool)] = &[
    ("Login.email", true),
    ("LogoutAll.api_tokens", false),
    ("NewApiToken.scopes", false),
    ("PasswordChange.api_tokens", false),
];

/// A meaning, with the aliases of the field.
pub fn also(meaning: &str, aliases: &[&str]) -> String {
    match aliases {
        [] => meaning.to_owned(),
        aliases => format!("{meaning} Also `{}`.", aliases.join("`, `")),
    }
}

/// Every type of the program, by its name.
pub struct Types {
    items: BTreeMap<String, Vec<Item>>,
    details: Value,
}

impl Types {
    /// Reads the source.
    pub fn read() -> Types {
        let mut items: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for (_, text) in source_files(&SOURCES) {
            for item in syn::parse_file(&text).unwrap().items {
                if let Item::Struct(ItemStruct { ident, .. }) | Item::Enum(ItemEnum { ident, .. }) =
                    &item
                {
                    items.entry(ident.to_string()).or_default().push(item);
                }
            }
        }
        let details = serde_json::from_str(include_str!("details.json")).unwrap();
        Types { items, details }
    }

    /// The schema of a named type.
    pub fn named(&self, name: &str) -> Value {
        if let Some(schema) = task(name).or_else(|| shape_named(name)) {
            return schema;
        }
        let Some([item]) = self.items.get(name).map(Vec::as_slice) else {
            panic!("{name} is not the name of one type");
        };
        let (schema, attributes) = match item {
            Item::Enum(item) => {
                let names = item.variants.iter().map(|variant| {
                    let renamed = serde(&variant.attrs, "rename");
                    renamed.unwrap_or_else(|| variant.ident.to_string().to_lowercase())
                });
                let names: Vec<String> = names.collect();
                (json!({"type": "string", "enum": names}), &item.attrs)
            }
            Item::Struct(item) => match &item.fields {
                Fields::Named(_) => (self.object(name, item), &item.attrs),
                _ => (json!({"type": "string"}), &item.attrs),
            },
            _ => unreachable!(),
        };
        self.with(schema, &documentation(attributes), name)
    }

    fn object(&self, name: &str, item: &ItemStruct) -> Value {
        let mut attributes = item.attrs.iter();
        let is_answer = attributes.any(|attribute| words(attribute).contains("Serialize"));
        let (mut required, mut properties, mut parts) = (Vec::new(), Map::new(), Vec::new());
        for field in &item.fields {
            let ident = field.ident.as_ref().unwrap().unraw().to_string();
            let place = format!("{name}.{ident}");
            let (kind, _) = generic(&field.ty);
            if has_serde(&field.attrs, "flatten") {
                parts.push(reference(&kind));
                continue;
            }
            let usual = match is_answer {
                true => !has_serde(&field.attrs, "skip_serializing_if"),
                false => !["Option", "Patch"].contains(&kind.as_str()),
            };
            let exception = REQUIRED.iter().find(|(named, _)| *named == place);
            if exception.map_or(usual, |(_, required)| *required) {
                required.push(ident.clone());
            }
            // In an answer an `Option` is left out or null. In a request only a `Patch` may be null.
            let schema = self.of(&field.ty, is_answer && usual);
            let schema = self.with(schema, &documentation(&field.attrs), &place);
            properties.insert(ident, schema);
        }
        let mut object = json!({"type": "object"});
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        object["properties"] = properties.into();
        if parts.is_empty() {
            return object;
        }
        parts.push(object);
        json!({"allOf": parts})
    }

    fn of(&self, kind: &Type, may_be_null: bool) -> Value {
        let (name, argument) = generic(kind);
        let inner = || self.of(argument.unwrap(), may_be_null);
        match name.as_str() {
            "Option" if !may_be_null => inner(),
            "Option" | "Patch" => nullable(inner()),
            "Vec" => json!({"type": "array", "items": inner()}),
            "TaskArray" => json!({"type": "array", "items": reference("Task")}),
            "Scopes" => json!({"type": "array", "items": reference("Scope")}),
            name if self.details[name]["type"].is_string() => self.details[name].clone(),
            name => reference(name),
        }
    }

    /// Adds the description and the details of a type or field.
    fn with(&self, mut schema: Value, description: &str, place: &str) -> Value {
        if !description.is_empty() {
            schema["description"] = description.into();
        }
        fn remove(schema: &mut Value, word: &str) {
            schema.as_object_mut().unwrap().remove(word);
        }
        for (word, value) in self.details[place].as_object().into_iter().flatten() {
            if word == "$ref" {
                remove(&mut schema, "type");
            }
            if word == "nullable" {
                schema = nullable(schema);
            } else if value.is_null() && word != "example" {
                remove(&mut schema, word);
            } else {
                schema[word] = value.clone();
            }
        }
        schema
    }
}

/// A task, or the body that creates or changes one, from the rows of its fields.
fn task(name: &str) -> Option<Value> {
    let (is_answer, is_new, description) = match name {
        "Task" => (true, false, "A task."),
        "NewTask" => (false, true, "A new task."),
        "TaskChanges" => (false, false, "Changes to a task. Absent fields stay."),
        "MatchingChanges" => (
            false,
            false,
            "Changes to all tasks that match, with a field at least. Absent fields stay.",
        ),
        _ => return None,
    };
    let (mut required, mut properties) = (Vec::new(), Map::new());
    for field in TASK_FIELDS {
        let (is_sent, must_be_sent, may_be_null) = match field.sent {
            Sent::Never | Sent::Imported(_) => (false, false, false),
            Sent::Created(_) => (is_new, false, false),
            Sent::Required(_) if name == "MatchingChanges" => (false, false, false),
            Sent::Required(_) => (true, is_new, false),
            Sent::Optional(_) => (true, false, false),
            Sent::Clearable(_) => (true, false, true),
        };
        if !is_answer && !is_sent {
            continue;
        }
        if is_answer || must_be_sent {
            required.push(field.name);
        }
        let mut schema = shape(&field.shape);
        if (is_answer && field.nullable) || (!is_answer && may_be_null) {
            schema = nullable(schema);
        }
        let aliases: &[&str] = if is_answer { &[] } else { field.aliases };
        let schema = described(schema, &also(field.meaning, aliases), field.example);
        properties.insert(field.name.to_owned(), schema);
    }
    let mut schema =
        json!({"type": "object", "description": description, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Some(schema)
}

fn described(mut schema: Value, meaning: &str, example: &str) -> Value {
    schema["description"] = meaning.into();
    if !example.is_empty() {
        schema["example"] = serde_json::from_str(example).unwrap();
    }
    schema
}

/// The schema of a shape; a reference if the shape has a name.
pub fn shape(of: &Shape) -> Value {
    match of {
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Integer { min, max: i64::MAX } => json!({"type": "integer", "minimum": min}),
        Shape::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Text { min, max, pattern } => {
            let limits = [
                ("maxLength", json!(max), *max < usize::MAX),
                ("minLength", json!(min), *min > 0),
                ("pattern", json!(pattern), !pattern.is_empty()),
            ];
            let mut schema = json!({"type": "string"});
            for (word, limit, _) in limits.into_iter().filter(|(.., applies)| *applies) {
                schema[word] = limit;
            }
            schema
        }
        Shape::Uuid => json!({"type": "string", "format": "uuid"}),
        Shape::Moment => json!({"type": "string", "format": "date-time"}),
        Shape::Date => json!({"type": "string", "format": "date"}),
        Shape::OneOf(values) => json!({"type": "string", "enum": values}),
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(shape).collect::<Vec<_>>()}),
        Shape::List { of, max } => json!({"type": "array", "items": shape(of), "maxItems": max}),
        Shape::Named { name, .. } => reference(name),
    }
}

/// The shape with this name.
fn shape_named(wanted: &str) -> Option<Value> {
    let fields = TASK_FIELDS.iter().map(|field| &field.shape);
    let parameters = PARAMETERS.iter().map(|parameter| &parameter.shape);
    let mut shapes: Vec<&Shape> = fields.chain(parameters).collect();
    while let Some(next) = shapes.pop() {
        match next {
            // /docs fills in the example of a parameter as if the user had typed it, so types of parameters have none.
            Shape::Named {
                name,
                meaning,
                example,
                shape: inner,
            } if *name == wanted => {
                return Some(described(shape(inner), meaning, example));
            }
            Shape::Named { shape, .. } => shapes.push(shape),
            Shape::List { of, .. } => shapes.push(of),
            _ => {}
        }
    }
    None
}

/// Refers to a type.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn nullable(mut schema: Value) -> Value {
    let Some(kind) = schema["type"].as_str() else {
        return json!({"oneOf": [schema, {"type": "null"}]});
    };
    schema["type"] = json!([kind, "null"]);
    schema
}

/// The name of a type, and the type of its argument.
fn generic(kind: &Type) -> (String, Option<&Type>) {
    match kind {
        Type::Reference(reference) => generic(&reference.elem),
        Type::Path(path) => {
            let last = path.path.segments.last().unwrap();
            let argument = match &last.arguments {
                PathArguments::AngleBracketed(list) => {
                    list.args.iter().find_map(|argument| match argument {
                        GenericArgument::Type(argument) => Some(argument),
                        _ => None,
                    })
                }
                _ => None,
            };
            (last.ident.to_string(), argument)
        }
        _ => panic!("a type without a JSON form"),
    }
}

/// The first paragraph of a doc comment.
fn documentation(attributes: &[Attribute]) -> String {
    let docs = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"));
    let lines = docs.filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(line) => Some(line.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let paragraph = lines.take_while(|line| !line.is_empty());
    paragraph.collect::<Vec<_>>().join(" ")
}

/// The text between the brackets of an attribute.
fn words(attribute: &Attribute) -> String {
    match &attribute.meta {
        Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

fn serde_words(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    let serde = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"));
    serde.map(words)
}

fn has_serde(attributes: &[Attribute], word: &str) -> bool {
    serde_words(attributes).any(|words| words.contains(word))
}

/// The text of `#[serde(word = "text")]`.
fn serde(attributes: &[Attribute], word: &str) -> Option<String> {
    let words = serde_words(attributes).next()?;
    words
        .strip_prefix(word)?
        .split('"')
        .nth(1)
        .map(str::to_owned)
}
