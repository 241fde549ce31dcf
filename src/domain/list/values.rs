//! Reads the values of parameters, for their rows.

use std::borrow::Cow;

use super::parameters::PartialQuery;
use super::rows::{Parameter, SORT_KEYS};
use super::{Bound, Condition, SortKey, Start, WORDS_MAX};
use crate::domain::fold::fold;
use crate::domain::shape::Shape;
use crate::domain::tag::{TAGS_MAX, Tag};
use crate::domain::task::{Due, Priority};
use crate::domain::timestamp::Timestamp;
use crate::domain::value::Value;

/// The end of a sentence that starts with the parameter's name.
pub type ParameterError = Cow<'static, str>;

pub(super) fn keep(partial: &mut PartialQuery, condition: Condition) -> Result<(), ParameterError> {
    partial.query.filters.conditions.push(condition);
    Ok(())
}

pub(super) fn compare(
    partial: &mut PartialQuery,
    column: &'static str,
    operator: &'static str,
    bound: Bound,
) -> Result<(), ParameterError> {
    keep(partial, Condition::Compare(column, operator, bound))
}

pub(super) fn start(partial: &mut PartialQuery, start: Start) -> Result<(), ParameterError> {
    match std::mem::replace(&mut partial.query.start, start) {
        Start::Beginning => Ok(()),
        _ => {
            Err("is one parameter too many: only one of cursor, offset and page can be used".into())
        }
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, ParameterError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

pub(super) const STATUS: Shape = Shape::OneOf(&[
    "all",
    "pending",
    "active",
    "incomplete",
    "completed",
    "complete",
]);

pub(super) fn status(text: &str) -> Result<Option<bool>, ParameterError> {
    match text {
        "all" => Ok(None),
        "pending" | "active" | "incomplete" => Ok(Some(false)),
        "completed" | "complete" => Ok(Some(true)),
        _ => Err("must be all, pending, active, incomplete, completed or complete".into()),
    }
}

pub(super) fn priorities(
    _: &Parameter,
    partial: &mut PartialQuery,
    text: &str,
) -> Result<(), ParameterError> {
    let priorities = &mut partial.query.filters.priorities;
    for name in text.split(',') {
        priorities.push(Priority::parse(name.trim())?);
    }
    priorities.sort_unstable();
    priorities.dedup();
    Ok(())
}

pub(super) fn tag(
    _: &Parameter,
    partial: &mut PartialQuery,
    text: &str,
) -> Result<(), ParameterError> {
    let tags = &mut partial.query.filters.tags;
    let tag = Tag::parse(text)?;
    if !tags.contains(&tag) {
        tags.push(tag);
    }
    if tags.len() > TAGS_MAX {
        return Err("may be given 20 times at most".into());
    }
    Ok(())
}

/// A moment or a day. The `+` of an offset that was not percent-encoded arrives as a space.
fn moment(text: &str) -> Result<Due, ParameterError> {
    Due::parse(text).or_else(|error| {
        let (moment, offset) = text.rsplit_once(' ').ok_or(error)?;
        Timestamp::parse(&format!("{moment}+{offset}"))
            .map(Due::At)
            .ok_or(error.into())
    })
}

/// The upper bound of times before a moment or a day.
pub(super) fn before(text: &str) -> Result<Bound, ParameterError> {
    Ok(match moment(text)? {
        Due::At(moment) => Bound::Value(Value::Moment(moment)),
        Due::On(date) => Bound::StartOf(date),
    })
}

/// The lower bound of times after a moment or a day.
pub(super) fn after(text: &str) -> Result<Bound, ParameterError> {
    Ok(match moment(text)? {
        Due::At(moment) => Bound::Value(Value::Moment(moment)),
        Due::On(date) => Bound::EndOf(date),
    })
}

pub(super) fn words(text: &str) -> Result<Vec<String>, ParameterError> {
    if text.contains('\0') {
        return Err("must not contain the character NUL".into());
    }
    let mut words: Vec<String> = Vec::new();
    for word in fold(text).split_whitespace() {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    if words.len() > WORDS_MAX {
        return Err("must have at most 16 words".into());
    }
    Ok(words)
}

/// Whether the name of a direction means descending.
pub(super) fn direction(text: &str) -> Option<bool> {
    match text {
        "asc" => Some(false),
        "desc" => Some(true),
        _ => None,
    }
}

/// A sort key and, if the text names a direction, whether it is descending.
pub(super) fn sort(text: &str) -> Result<(&'static SortKey, Option<bool>), ParameterError> {
    let (name, own) = match (text.strip_prefix('-'), text.split_once(':')) {
        (Some(name), _) => (name, Some(Some(true))),
        (None, Some((name, way))) => (name, direction(way).map(Some)),
        (None, None) => (text, Some(None)),
    };
    let called = |key: &&SortKey| key.name == name || key.aliases.contains(&name);
    let key = SORT_KEYS.iter().find(called);
    key.zip(own).ok_or_else(|| {
        let names: Vec<&str> = SORT_KEYS.iter().map(|key| key.name).collect();
        let names = names.join(", ");
        format!("must be one of {names}, descending as -title or title:desc").into()
    })
}
