//! A value as the database writes, compares and sorts it.

use serde::{Serialize, Serializer};
use time::Date;

use super::timestamp::{Timestamp, format_date};

/// A value of a column. As JSON it is text that PostgreSQL reads as the same value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
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
    /// A moment by which tasks are sorted, in microseconds since the beginning of 2000, as PostgreSQL keeps it. It knows years
    /// that [`Timestamp`] does not, and infinity.
    Micros(i64),
    /// A calendar date.
    Date(#[serde(serialize_with = "as_text")] Date),
}

fn as_text<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_date(*date))
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
    /// [`Value::Micros`]
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
            Value::Micros(micros) => format!("={micros}"),
            Value::Null | Value::Texts(_) | Value::Moment(_) | Value::Date(_) => String::new(),
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
            Kind::Moment => Value::Micros(text.parse().ok().filter(is_moment)?),
        })
    }
}

/// Whether PostgreSQL has such a moment (`MIN_TIMESTAMP` and `END_TIMESTAMP` in its source; the two ends are infinity).
fn is_moment(micros: &i64) -> bool {
    matches!(
        *micros,
        -211_813_488_000_000_000..9_223_371_331_200_000_000 | i64::MIN | i64::MAX
    )
}
