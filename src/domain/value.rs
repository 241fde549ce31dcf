//! A value as the database writes, compares and sorts it.

use serde::{Serialize, Serializer};
use time::Date;

use super::timestamp::{Timestamp, format_date};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number, of any width.
    Number(i64),
    /// Text, without NUL, which PostgreSQL does not take.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A moment.
    Moment(Timestamp),
    /// A calendar date.
    Date(Date),
}

/// The kind of a [`Value`] by which tasks are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Value::Bool`]
    Bool,
    /// [`Value::Number`]
    Number,
    /// [`Value::Text`]
    Text,
    /// [`Value::Moment`]
    Moment,
}

impl Value {
    /// The value of something, or none.
    pub fn of<T>(value: Option<T>, kind: fn(T) -> Value) -> Value {
        value.map_or(Value::Null, kind)
    }

    /// Shows a value by which tasks are sorted as text for a cursor; empty for [`Value::Null`] and nothing else.
    pub fn encode(&self) -> String {
        match self {
            Value::Bool(value) => format!("={value}"),
            Value::Number(number) => format!("={number}"),
            Value::Text(text) => format!("={text}"),
            Value::Moment(moment) => format!("={}", moment.micros()),
            Value::Null | Value::Texts(_) | Value::Date(_) => String::new(),
        }
    }

    /// Reads what [`Value::encode`] shows.
    pub fn decode(text: &str, kind: Kind) -> Option<Value> {
        if text.is_empty() {
            return Some(Value::Null);
        }
        let text = text.strip_prefix('=')?;
        Some(match kind {
            Kind::Bool => Value::Bool(text.parse().ok()?),
            Kind::Number => Value::Number(text.parse().ok()?),
            Kind::Text => Value::Text(Some(text).filter(|t| !t.contains('\0'))?.to_owned()),
            Kind::Moment => Value::Moment(Timestamp::from_micros(text.parse().ok()?)?),
        })
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_none(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => serializer.serialize_i64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Texts(texts) => texts.serialize(serializer),
            Value::Moment(moment) => moment.serialize(serializer),
            Value::Date(date) => serializer.serialize_str(&format_date(*date)),
        }
    }
}
