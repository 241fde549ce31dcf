//! The types of bodies as JSON Schema. They are read from the source: a field's name, type and documentation stand there and nowhere else.
//! What a type cannot say (examples, limits) is in `details.json`, for a type or for one of its fields.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use syn::{Attribute, Fields, GenericArgument, Item, PathArguments, Type, ext::IdentExt};
use todo_api::domain::list::rows::PARAMETERS;
use todo_api::domain::shape::Shape;
use todo_api::domain::task::{COMPLETED_ALIASES, Sent, TASK_FIELDS};

/// Where the types lie.
const SOURCES: [&str; 4] = [
    "src/domain",
    "src/api",
    "src/auth/issuer.rs",
    "src/http/error.rs",
];

/// Schemas of types that are read or written by hand.
fn special() -> Value {
    json!({
        "Completion": {
            "type": "object", "description": "The state to set. An empty object toggles it; one with other fields only is refused.",
            "properties": {"completed": {
                "type": "boolean", "description": also("Whether the task is done.", COMPLETED_ALIASES)
            }},
            "examples": [{"completed": true}]
        },
        "LoginForm": {
            "type": "object", "description": "The form of a login; other fields are ignored.", "required": ["username", "password"],
            "properties": {
                "username": {"type": "string", "description": "The account's address.", "example": "me@example.org"},
                "password": {"type": "string", "format": "password", "description": "The password.", "example": "correct horse battery"}
            }
        }
    })
}

/// Fields of requests that may be absent or must be there, where the type says otherwise.
const REQUIRED: &[(&str, bool)] = &[
    ("Login.email", true),
    ("LogoutAll.api_tokens", false),
    ("NewApiToken.scopes", false),
    ("PasswordChange.api_tokens", false),
];

/// A meaning with the other names that mean the same.
pub fn also(meaning: &str, aliases: &[&str]) -> String {
    match aliases {
        [] => meaning.to_owned(),
        aliases => format!("{meaning} Also `{}`.", aliases.join("`, `")),
    }
}

/// Every type of the program, by its name.
pub struct Types {
    items: BTreeMap<String, Vec<Item>>,
    special: Value,
    details: Value,
}

impl Types {
    /// Reads the source.
    pub fn read() -> Types {
        let mut items: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        let mut places = SOURCES
            .map(|place| Path::new(env!("CARGO_MANIFEST_DIR")).join(place))
            .to_vec();
        while let Some(place) = places.pop() {
            if place.is_dir() {
                places.extend(
                    std::fs::read_dir(place)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if place.extension().is_some_and(|extension| extension == "rs") {
                let file = syn::parse_file(&std::fs::read_to_string(place).unwrap()).unwrap();
                for item in file.items {
                    let name = match &item {
                        Item::Struct(item) => item.ident.to_string(),
                        Item::Enum(item) => item.ident.to_string(),
                        _ => continue,
                    };
                    items.entry(name).or_default().push(item);
                }
            }
        }
        Types {
            items,
            special: special(),
            details: serde_json::from_str(include_str!("details.json")).unwrap(),
        }
    }

    /// The schema of a type that has a name of its own.
    pub fn named(&self, name: &str) -> Value {
        if let Some(schema) = self.special.get(name) {
            return schema.clone();
        }
        if let Some(schema) = task(name).or_else(|| shape_named(name)) {
            return schema;
        }
        let item = match self.items.get(name).map(Vec::as_slice) {
            Some([item]) => item,
            other => panic!(
                "{name} is the name of {} types",
                other.map_or(0, <[_]>::len)
            ),
        };
        let (schema, attributes) = match item {
            Item::Enum(item) => {
                let names = item.variants.iter().map(|variant| {
                    serde(&variant.attrs, "rename")
                        .unwrap_or_else(|| variant.ident.to_string().to_lowercase())
                });
                (
                    json!({"type": "string", "enum": names.collect::<Vec<_>>()}),
                    &item.attrs,
                )
            }
            Item::Struct(item) => match &item.fields {
                Fields::Named(_) => (self.object(name, item), &item.attrs),
                _ => (json!({"type": "string"}), &item.attrs),
            },
            _ => unreachable!(),
        };
        self.with(schema, &documentation(attributes), &[name])
    }

    fn object(&self, name: &str, item: &syn::ItemStruct) -> Value {
        let is_answer = item
            .attrs
            .iter()
            .any(|attribute| words(attribute).contains("Serialize"));
        let (mut required, mut properties, mut parts) = (Vec::new(), Map::new(), Vec::new());
        for field in &item.fields {
            let ident = field.ident.as_ref().unwrap().unraw().to_string();
            let place = format!("{name}.{ident}");
            let (kind, _) = generic(&field.ty);
            if has_serde(&field.attrs, "flatten") {
                parts.push(reference(&kind));
                continue;
            }
            let usual = if is_answer {
                !has_serde(&field.attrs, "skip_serializing_if")
            } else {
                !["Option", "Patch"].contains(&kind.as_str())
            };
            let named = REQUIRED.iter().find(|(named, _)| *named == place);
            if named.map_or(usual, |(_, required)| *required) {
                required.push(ident.clone());
            }
            // An answer leaves out a field, or sends null in it; a request may send null in a `Patch` only.
            let schema = self.of(&field.ty, is_answer && usual);
            properties.insert(
                ident,
                self.with(schema, &documentation(&field.attrs), &[&place]),
            );
        }
        let mut object = json!({"type": "object", "required": required, "properties": properties});
        if object["required"] == json!([]) {
            object.as_object_mut().unwrap().remove("required");
        }
        if !parts.is_empty() {
            parts.push(object);
            return json!({"allOf": parts});
        }
        object
    }

    fn of(&self, kind: &Type, may_be_null: bool) -> Value {
        let (name, argument) = generic(kind);
        let inner = || self.of(argument.unwrap(), may_be_null);
        match name.as_str() {
            "Option" if !may_be_null => inner(),
            "Option" | "Patch" => nullable(inner()),
            "Vec" => json!({"type": "array", "items": inner()}),
            "Scopes" => json!({"type": "array", "items": reference("Scope")}),
            "bool" => json!({"type": "boolean"}),
            "usize" => json!({"type": "integer", "minimum": 0}),
            "u16" | "u32" => json!({"type": "integer", "format": "int32", "minimum": 0}),
            "i64" => json!({"type": "integer", "format": "int64", "minimum": 0}),
            "str" | "String" | "Cow" => json!({"type": "string"}),
            "Uuid" => json!({"type": "string", "format": "uuid"}),
            "UserId" => {
                json!({"type": "string", "minLength": 1, "maxLength": 255, "example": "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55"})
            }
            "Timestamp" => {
                json!({"type": "string", "format": "date-time", "example": "2026-01-31T09:30:00.000000Z"})
            }
            "Email" => {
                json!({"type": "string", "format": "email", "maxLength": 254, "example": "me@example.org"})
            }
            "Password" => {
                json!({"type": "string", "format": "password", "example": "correct horse battery"})
            }
            name => reference(name),
        }
    }

    /// Adds the description and the details of these places.
    fn with(&self, mut schema: Value, description: &str, places: &[&str]) -> Value {
        if !description.is_empty() {
            schema["description"] = description.into();
        }
        for details in places
            .iter()
            .filter_map(|place| self.details[place].as_object())
        {
            if details.contains_key("$ref") {
                schema.as_object_mut().unwrap().remove("type");
            }
            for (word, value) in details {
                if word == "nullable" {
                    schema = nullable(schema);
                } else if value.is_null() && word != "example" {
                    schema.as_object_mut().unwrap().remove(word);
                } else {
                    schema[word] = value.clone();
                }
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
        _ => return None,
    };
    let (mut required, mut properties) = (Vec::new(), Map::new());
    for field in TASK_FIELDS {
        let (is_sent, must_be_sent, may_be_null) = match field.sent {
            Sent::Never => (false, false, false),
            Sent::Created(_) => (is_new, false, false),
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
        if if is_answer {
            field.nullable
        } else {
            may_be_null
        } {
            schema = nullable(schema);
        }
        let aliases: &[&str] = if is_answer { &[] } else { field.aliases };
        schema["description"] = also(field.meaning, aliases).into();
        if !field.example.is_empty() {
            schema["example"] = serde_json::from_str(field.example).unwrap();
        }
        properties.insert(field.name.to_owned(), schema);
    }
    let mut schema =
        json!({"type": "object", "description": description, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Some(schema)
}

/// The schema of a shape; of a named one a reference.
pub fn shape(of: &Shape) -> Value {
    match of {
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Integer { min, max } => limited(
            json!({"type": "integer", "minimum": min}),
            "maximum",
            *max,
            i64::MAX,
        ),
        Shape::Text { min, max, pattern } => {
            let mut schema = limited(json!({"type": "string"}), "maxLength", *max, usize::MAX);
            if *min > 0 {
                schema["minLength"] = json!(min);
            }
            if !pattern.is_empty() {
                schema["pattern"] = json!(pattern);
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

fn limited<N: Copy + PartialEq + serde::Serialize>(
    mut schema: Value,
    word: &str,
    limit: N,
    none: N,
) -> Value {
    if limit != none {
        schema[word] = json!(limit);
    }
    schema
}

/// The shape that has this name.
fn shape_named(wanted: &str) -> Option<Value> {
    let fields = TASK_FIELDS.iter().map(|field| &field.shape);
    let mut shapes: Vec<&Shape> = fields
        .chain(PARAMETERS.iter().map(|parameter| &parameter.shape))
        .collect();
    while let Some(next) = shapes.pop() {
        match next {
            Shape::Named {
                name,
                meaning,
                example,
                shape: inner,
            } if *name == wanted => {
                let mut schema = shape(inner);
                schema["description"] = json!(meaning);
                // The page to try the API on fills in the example of a parameter as if the user had typed it.
                if !example.is_empty() {
                    schema["example"] = serde_json::from_str(example).unwrap();
                }
                return Some(schema);
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
    match schema["type"].as_str() {
        Some(kind) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        None => json!({"oneOf": [schema, {"type": "null"}]}),
    }
}

/// The name of a type, and of the type that it is made of.
fn generic(kind: &Type) -> (String, Option<&Type>) {
    match kind {
        Type::Reference(reference) => generic(&reference.elem),
        Type::Path(path) => {
            let last = path.path.segments.last().unwrap();
            let argument = match &last.arguments {
                PathArguments::AngleBracketed(arguments) => {
                    arguments.args.iter().find_map(|argument| match argument {
                        GenericArgument::Type(argument) => Some(argument),
                        _ => None,
                    })
                }
                _ => None,
            };
            (last.ident.to_string(), argument)
        }
        _ => panic!("a type that JSON cannot show"),
    }
}

/// The first paragraph of a doc comment.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(line),
                    ..
                }) => Some(line.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        });
    lines
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What stands between the brackets of an attribute.
fn words(attribute: &Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

fn has_serde(attributes: &[Attribute], word: &str) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("serde") && words(attribute).contains(word))
}

/// The text of `#[serde(word = "text")]`.
fn serde(attributes: &[Attribute], word: &str) -> Option<String> {
    let serde = attributes
        .iter()
        .find(|attribute| attribute.path().is_ident("serde"))?;
    let words = words(serde);
    words
        .strip_prefix(word)?
        .split('"')
        .nth(1)
        .map(str::to_owned)
}
