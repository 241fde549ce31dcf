//! Reads a JSON object field by field and collects all errors, so that one answer names every wrong field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::timestamp::Timestamp;

/// One thing that is wrong with what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name as the client writes it.
    pub field: Cow<'static, str>,
    /// What it must be: the end of a sentence that starts with the field's name.
    pub message: Cow<'static, str>,
}

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not JSON. The text says where reading stopped.
    Malformed(String),
    /// It is JSON, but these fields are wrong.
    Invalid(Vec<FieldError>),
}

impl BodyError {
    /// An error of this field. `message` ends a sentence that starts with its name.
    pub fn in_field(field: &'static str, message: &'static str) -> BodyError {
        BodyError::Invalid(vec![FieldError {
            field: Cow::Borrowed(field),
            message: Cow::Borrowed(message),
        }])
    }
}

/// A value for a field that may be cleared. Absent, `null` and a value have different meanings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The field was absent: it stays.
    #[default]
    Keep,
    /// The field was `null`: it is cleared.
    Clear,
    /// The field had a value.
    Set(T),
}

impl<T> Patch<T> {
    /// Whether the field was sent at all.
    pub fn is_sent(&self) -> bool {
        !matches!(self, Patch::Keep)
    }

    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Patch::Set(value) => Some(value),
            Patch::Keep | Patch::Clear => None,
        }
    }
}

/// The fields of a JSON object, unparsed, and the errors so far.
///
/// Fields that are not read are ignored, with any value.
pub struct Fields<'a> {
    // Each value is parsed when it is read, so that a bad one (a lone surrogate, for example) is an error of that field only.
    sent: BTreeMap<String, &'a RawValue>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads the outermost object of a body.
    ///
    /// # Errors
    /// [`BodyError::Malformed`] if it is not JSON in UTF-8, [`BodyError::Invalid`] if it is JSON but not an object.
    pub fn of(body: &'a [u8]) -> Result<Fields<'a>, BodyError> {
        if body.is_empty() {
            return Err(BodyError::Malformed(
                "the body is empty; send a JSON object".to_owned(),
            ));
        }
        let malformed = |error: &dyn std::fmt::Display| {
            BodyError::Malformed(format!("the body is not valid JSON: {error}"))
        };
        let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
        let value: &RawValue = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        if !value.get().starts_with('{') {
            return Err(BodyError::Invalid(vec![FieldError {
                field: Cow::Borrowed("body"),
                message: Cow::Borrowed("must be a JSON object"),
            }]));
        }
        // It is JSON, but a name is not Unicode (RFC 8259, section 8.2).
        let sent = serde_json::from_str(value.get()).map_err(|_| {
            BodyError::Malformed(
                "the name of a field must be valid Unicode; one holds a lone surrogate".to_owned(),
            )
        })?;
        Ok(Fields {
            sent,
            errors: Vec::new(),
        })
    }

    /// A required field.
    pub fn required<T: Field>(&mut self, name: &'static str) -> Option<T> {
        if !self.sent.contains_key(name) {
            self.complain(name, "is required");
            return None;
        }
        self.optional(name)
    }

    /// An optional field that may not be `null`.
    pub fn optional<T: Field>(&mut self, name: &'static str) -> Option<T> {
        match self.patch(name) {
            Patch::Set(value) => Some(value),
            Patch::Keep => None,
            Patch::Clear => {
                self.complain(name, "must not be null");
                None
            }
        }
    }

    /// An optional field that may be `null`.
    pub fn patch<T: Field>(&mut self, name: &'static str) -> Patch<T> {
        let Some(raw) = self.sent.get(name) else {
            return Patch::Keep;
        };
        if raw.get() == "null" {
            return Patch::Clear;
        }
        match T::from_json(raw.get()) {
            Ok(value) => Patch::Set(value),
            Err(message) => {
                self.complain(name, message);
                Patch::Keep
            }
        }
    }

    /// Whether the object has no field at all.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Reads a field, sent with its name or an alias, with a function. Returns whether it was present and valid. `null` is given
    /// to the function only if that clears the field.
    pub fn read(
        &mut self,
        (name, aliases): (&'static str, &'static [&'static str]),
        required: bool,
        clearable: bool,
        read: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> bool {
        let names = std::iter::once(name).chain(aliases.iter().copied());
        let mut found = names.filter_map(|name| Some((name, self.sent.get(name)?.get())));
        let first = found.next();
        let contradicts = |(_, json): &(_, &str)| first.is_some_and(|(_, first)| first != *json);
        let (name, result) = match (first, found.find(contradicts)) {
            (None, _) if required => (name, Err("is required")),
            (None, _) => return false,
            (_, Some((name, _))) => (name, Err("contradicts another name of the same field")),
            (Some((name, "null")), _) if !clearable => (name, Err("must not be null")),
            (Some((name, json)), _) => (name, read(json)),
        };
        result
            .map_err(|message| self.complain(name, message))
            .is_ok()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All errors, in the order in which the fields were read.
    pub fn finish(self) -> Result<(), BodyError> {
        self.finish_with(Some(()))
    }

    /// Ends the reading and returns the value of [`Fields::required`].
    ///
    /// # Errors
    /// As [`Fields::finish`].
    pub fn finish_with<T>(self, required: Option<T>) -> Result<T, BodyError> {
        required
            .filter(|_| self.errors.is_empty())
            .ok_or(BodyError::Invalid(self.errors))
    }

    fn complain(&mut self, field: &'static str, message: &'static str) {
        self.errors.push(FieldError {
            field: Cow::Borrowed(field),
            message: Cow::Borrowed(message),
        });
    }
}

/// A type that a field can be read into.
pub trait Field: Sized {
    /// Reads the field's JSON.
    ///
    /// # Errors
    /// Says what the field must be, as the end of a sentence that starts with its name.
    fn from_json(json: &str) -> Result<Self, &'static str>;
}

impl Field for bool {
    fn from_json(json: &str) -> Result<bool, &'static str> {
        serde_json::from_str(json).map_err(|_| "must be true or false")
    }
}

impl Field for String {
    fn from_json(json: &str) -> Result<String, &'static str> {
        string(json)
    }
}

impl Field for Uuid {
    fn from_json(json: &str) -> Result<Uuid, &'static str> {
        Uuid::try_parse(&string(json)?).map_err(|_| "must be a UUID")
    }
}

impl Field for Timestamp {
    fn from_json(json: &str) -> Result<Timestamp, &'static str> {
        Timestamp::parse(&string(json)?)
            .ok_or("must be a timestamp with offset (2026-01-31T09:30:00Z)")
    }
}

impl<T: Field> Field for Option<T> {
    fn from_json(json: &str) -> Result<Option<T>, &'static str> {
        (json != "null").then(|| T::from_json(json)).transpose()
    }
}

/// Reads a JSON string.
///
/// # Errors
/// Says that it must be a string, or that it is not Unicode (RFC 8259, section 8.2).
pub fn string(json: &str) -> Result<String, &'static str> {
    serde_json::from_str(json).map_err(|_| {
        if json.starts_with('"') {
            "must be valid Unicode; it holds a lone surrogate"
        } else {
            "must be a string"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invalid(body: &str, read: impl FnOnce(&mut Fields)) -> Vec<(String, String)> {
        let mut fields = Fields::of(body.as_bytes()).unwrap();
        read(&mut fields);
        match fields.finish() {
            Err(BodyError::Invalid(errors)) => errors
                .into_iter()
                .map(|e| (e.field.into_owned(), e.message.into_owned()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_wrong_field_is_reported() {
        let errors = invalid(r#"{"done":"yes","name":"\ud800","gone":null}"#, |fields| {
            fields.required::<String>("title");
            fields.optional::<bool>("done");
            fields.patch::<String>("name");
            fields.optional::<bool>("gone");
        });
        let names: Vec<&str> = errors.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(names, ["title", "done", "name", "gone"]);
        assert!(errors[2].1.contains("surrogate"));
    }

    #[test]
    fn absent_is_not_null() {
        let mut fields = Fields::of(br#"{"a":null,"b":"x"}"#).unwrap();
        assert_eq!(fields.patch::<String>("a"), Patch::Clear);
        assert_eq!(fields.patch::<String>("b"), Patch::Set("x".to_owned()));
        assert_eq!(fields.patch::<String>("c"), Patch::Keep);
        assert!(fields.finish().is_ok());
    }

    #[test]
    fn unknown_fields_are_ignored_whatever_they_hold() {
        let deep = format!(
            r#"{{"x":{}{},"y":1e999,"z":"\ud800"}}"#,
            "[".repeat(50_000),
            "]".repeat(50_000)
        );
        assert!(Fields::of(deep.as_bytes()).unwrap().finish().is_ok());
    }

    #[test]
    fn a_field_name_that_is_not_unicode_is_reported() {
        match Fields::of(br#"{"title":"t","\ud800":1}"#).err() {
            Some(BodyError::Malformed(text)) => assert!(text.contains("name of a field"), "{text}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_that_is_not_an_object_is_reported() {
        for body in ["[]", "1", "null", "\"text\"", " true "] {
            assert!(
                matches!(Fields::of(body.as_bytes()), Err(BodyError::Invalid(_))),
                "{body}"
            );
        }
        for body in [
            &b""[..],
            b"{",
            b"{\"a\":}",
            b"\xff",
            b"{}x",
            b"{\"a\":1,}",
            b"\xef\xbb\xbf{}",
        ] {
            assert!(
                matches!(Fields::of(body), Err(BodyError::Malformed(_))),
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fields::of(&body);
        }

        #[test]
        fn any_string_comes_back_byte_for_byte(text in any::<String>()) {
            let body = serde_json::json!({ "text": text }).to_string();
            let mut fields = Fields::of(body.as_bytes()).unwrap();
            prop_assert_eq!(fields.required::<String>("text"), Some(text));
        }
    }
}
