//! Every column of `tasks` that the program writes, and every field of a task that it shows, each described once. The statements are
//! put together from these rows.

use super::json::{Show, due, flag, moment, number, priority, text, texts, uuid};
use crate::domain::fold::folded;
use crate::domain::task::draft::Draft;
use crate::domain::task::{Description, Due, Task};
use crate::domain::value::Value;

/// How a column is written when a field of the task is sent.
struct Written {
    column: &'static str,
    /// The type of its parameter. PostgreSQL deduces two types for one parameter if a later migration changes the column's.
    kind: &'static str,
    field: &'static str,
    value: fn(&Task) -> Value,
}

static WRITTEN: &[Written] = &[
    written("title", "text", "title", |task| {
        Value::Text(task.title.as_str().to_owned())
    }),
    written("title_folded", "text", "title", |task| {
        Value::of(folded(task.title.as_str()), Value::Text)
    }),
    written("description", "text", "description", |task| {
        let text = task.description.as_ref().map(Description::as_str);
        Value::of(text.map(str::to_owned), Value::Text)
    }),
    written("description_folded", "text", "description", |task| {
        let text = task.description.as_ref().map(Description::as_str);
        Value::of(text.and_then(folded), Value::Text)
    }),
    written("priority", "smallint", "priority", |task| {
        Value::Number(task.priority.rank().into())
    }),
    written("due_at", "timestamptz", "due_date", |task| {
        Value::of(task.due_date.map(Due::moment), Value::Moment)
    }),
    written("due_on", "date", "due_date", |task| match task.due_date {
        Some(Due::On(date)) => Value::Date(date),
        _ => Value::Null,
    }),
    written("tags", "text[]", "tags", |task| {
        Value::Texts(task.tags.texts().into_iter().map(str::to_owned).collect())
    }),
];

/// How a field of a task is read and shown.
pub(super) struct Shown {
    pub(super) field: &'static str,
    /// The columns that the field is shown from, or expressions of such.
    pub(super) columns: &'static [&'static str],
    pub(super) show: Show,
}

/// The fields in the order of JSON.
pub(super) static SHOWN: &[Shown] = &[
    shown("id", &["id"], uuid),
    shown("user_id", &["user_id"], text),
    shown("title", &["title"], text),
    shown("description", &["description"], text),
    shown("completed", &["completed_at IS NOT NULL"], flag),
    shown("completed_at", &["completed_at"], moment),
    shown("priority", &["priority"], priority),
    shown("due_date", &["due_at", "due_on"], due),
    shown("created_at", &["created_at"], moment),
    shown("updated_at", &["updated_at"], moment),
    shown("version", &["version"], number),
    shown("tags", &["tags"], texts),
];

const fn written(
    column: &'static str,
    kind: &'static str,
    field: &'static str,
    value: fn(&Task) -> Value,
) -> Written {
    Written {
        column,
        kind,
        field,
        value,
    }
}

const fn shown(field: &'static str, columns: &'static [&'static str], show: Show) -> Shown {
    Shown {
        field,
        columns,
        show,
    }
}

/// The columns that [`SHOWN`] reads, in its order, of a table of this name.
pub(super) fn all(table: &str) -> String {
    let columns = SHOWN.iter().flat_map(|shown| shown.columns);
    let columns: Vec<String> = columns.map(|name| format!("{table}.{name}")).collect();
    columns.join(", ")
}

/// Null for each column of [`all`] but the id, for a UNION with these.
pub(super) fn id_alone(table: &str) -> String {
    let columns = SHOWN.iter().flat_map(|shown| shown.columns);
    let columns: Vec<String> = columns
        .map(|name| match *name {
            "id" => format!("{table}.id"),
            _ => "NULL".to_owned(),
        })
        .collect();
    columns.join(", ")
}

/// The names of the written columns.
fn names() -> String {
    let names: Vec<&str> = WRITTEN.iter().map(|written| written.column).collect();
    names.join(", ")
}

/// The columns that a task has besides its key and [`WRITTEN`], with their values when it comes back from the trash.
const KEPT: [(&str, &str); 4] = [
    ("completed_at", "completed_at"),
    ("created_at", "created_at"),
    (
        "updated_at",
        "greatest(now(), updated_at + interval '1 microsecond')",
    ),
    ("version", "version + 1"),
];

/// The columns that hold a task, without its key; `written_by` is not one of them.
pub(super) fn contents() -> impl Iterator<Item = &'static str> {
    let kept = KEPT.iter().map(|(column, _)| *column);
    kept.chain(WRITTEN.iter().map(|written| written.column))
}

/// The key and [`contents`].
pub(super) fn stored() -> String {
    let columns: Vec<&str> = ["user_id", "id"].into_iter().chain(contents()).collect();
    columns.join(", ")
}

/// The values of [`stored`] for a task that comes back from the trash.
pub(super) fn restored() -> String {
    let kept = KEPT.map(|(_, value)| value).join(", ");
    format!("user_id, id, {kept}, {}", names())
}

/// What an UPDATE of a task sets besides its columns. They move where `changed` says that something really changes: `updated_at` always
/// forward, whatever the clock does.
pub(super) fn touch(changed: &str) -> String {
    format!(
        "updated_at = CASE WHEN {changed} THEN greatest(now(), updated_at + interval '1 microsecond') ELSE updated_at END,
         version = CASE WHEN {changed} THEN version + 1 ELSE version END,
         written_by = CASE WHEN {changed} THEN pg_current_xact_id() ELSE written_by END"
    )
}

/// An INSERT of a task, with the text behind its list of values. Its parameters are the user, the id, whether the task is
/// completed, and [`new_values`].
pub(super) fn insert(from: &str) -> String {
    let values: Vec<String> = (0..WRITTEN.len())
        .map(|at| format!("${}", at + 4))
        .collect();
    format!(
        "INSERT INTO {{schema}}.tasks AS task (user_id, id, completed_at, {names})
         SELECT $1, $2, CASE WHEN $3::bool THEN now() END, {values}{from}",
        names = names(),
        values = values.join(", "),
    )
}

/// The task that [`insert`] makes with these expressions for its id and its moment, without making it: a row named task.
pub(super) fn made(id: &str, at: &str) -> String {
    let values: Vec<String> = (WRITTEN.iter().zip(4..))
        .map(|(written, parameter)| format!("${parameter} AS {}", written.column))
        .collect();
    format!(
        "(SELECT $1 AS user_id, {id} AS id, CASE WHEN $3 THEN {at} END AS completed_at, {at} AS created_at, {at} AS updated_at,
                 1::bigint AS version, {values}) AS task",
        values = values.join(", "),
    )
}

/// The number of parameters of [`insert`].
pub(super) fn insert_parameters() -> usize {
    3 + WRITTEN.len()
}

/// The values of a new task, in the order of [`insert`].
pub(super) fn new_values(draft: &Draft) -> Vec<Value> {
    let values = WRITTEN.iter().map(|written| (written.value)(draft.task()));
    values.collect()
}

/// An UPDATE of one task, up to its condition, and the values of its parameters from `$3` on; `$1` and `$2` are the task's key. It names
/// the sent columns alone: one statement for all of them, with a JSON parameter, took PostgreSQL 40 µs more.
pub(super) fn update(draft: &Draft) -> (String, Vec<Value>) {
    let task = draft.task();
    let (mut sets, mut old, mut new, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let written = WRITTEN.iter().filter(|written| draft.sends(written.field));
    for written in written {
        values.push((written.value)(task));
        let column = written.column;
        let parameter = format!("${}::{}", values.len() + 2, written.kind);
        sets.push(format!("{column} = {parameter}"));
        old.push(format!("task.{column}"));
        new.push(parameter);
    }
    if draft.sends("completed") {
        values.push(Value::Bool(task.completed));
        let parameter = format!("${}::bool", values.len() + 2);
        sets.push(format!(
            "completed_at = CASE WHEN {parameter} THEN coalesce(completed_at, now()) END"
        ));
        old.push("task.completed_at IS NOT NULL".to_owned());
        new.push(parameter);
    }
    let changed = format!("({}) IS DISTINCT FROM ({})", old.join(", "), new.join(", "));
    let text = format!(
        "UPDATE {{schema}}.tasks AS task
         SET {sets}, {touch}",
        sets = sets.join(", "),
        touch = touch(&changed),
    );
    (text, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::TASK_FIELDS;

    #[test]
    fn every_field_is_shown_in_the_order_of_the_documentation() {
        let shown: Vec<&str> = SHOWN.iter().map(|shown| shown.field).collect();
        let documented: Vec<&str> = TASK_FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(shown, documented);
    }
}
