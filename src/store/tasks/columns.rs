//! Every column of `tasks` that the program writes, and every field of a task that it shows, each described once. The statements are
//! put together from these rows.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::json::{Show, due, is_there, moment, number, priority, text, texts, uuid};
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

/// Kept as a moment, `completed_at`.
static COMPLETED: Written = written("completed", "bool", "completed", |task| {
    Value::Bool(task.completed)
});

/// How a field of a task is read and shown.
pub(super) struct Shown {
    /// The name of the field in JSON, behind the comma that divides it from the one before.
    pub(super) key: &'static str,
    /// The columns that the field is shown from. None: it is shown from those of the next field.
    pub(super) columns: &'static [&'static str],
    pub(super) show: Show,
}

macro_rules! shown {
    ($field:literal, $columns:expr, $show:expr) => {
        Shown {
            key: concat!(",\"", $field, "\":"),
            columns: $columns,
            show: $show,
        }
    };
}

/// The fields in the order of JSON.
pub(super) static SHOWN: &[Shown] = &[
    shown!("id", &["id"], uuid),
    shown!("user_id", &["user_id"], text),
    shown!("title", &["title"], text),
    shown!("description", &["description"], text),
    shown!("completed", &[], is_there),
    shown!("completed_at", &["completed_at"], moment),
    shown!("priority", &["priority"], priority),
    shown!("due_date", &["due_at", "due_on"], due),
    shown!("created_at", &["created_at"], moment),
    shown!("updated_at", &["updated_at"], moment),
    shown!("version", &["version"], number),
    shown!("tags", &["tags"], texts),
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

/// The columns that [`SHOWN`] reads, in its order, of a table named `task`.
pub(super) fn all() -> &'static str {
    static ALL: LazyLock<String> = LazyLock::new(|| {
        let columns = SHOWN.iter().flat_map(|shown| shown.columns);
        let columns: Vec<String> = columns.map(|name| format!("task.{name}")).collect();
        columns.join(", ")
    });
    &ALL
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
        "updated_at = CASE WHEN {changed} THEN greatest(now(), task.updated_at + interval '1 microsecond') ELSE task.updated_at END,
         version = CASE WHEN {changed} THEN task.version + 1 ELSE task.version END,
         written_by = CASE WHEN {changed} THEN pg_current_xact_id() ELSE task.written_by END"
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
    let mut values = Vec::new();
    let changes = ColumnChanges::of(draft, |value| {
        values.push(value);
        format!("${}", values.len() + 2)
    });
    (changes.update(), values)
}

/// What an UPDATE of tasks sets, and the condition that it changes something.
pub(super) struct ColumnChanges {
    sets: String,
    pub(super) condition: String,
}

impl ColumnChanges {
    /// Those of a draft, with the parameters that stand for its values.
    pub(super) fn of(draft: &Draft, mut bind: impl FnMut(Value) -> String) -> ColumnChanges {
        ColumnChanges::new("now()", |written, _| {
            let value = (written.value)(draft.task());
            let is_sent = draft.sends(written.field);
            is_sent.then(|| format!("{}::{}", bind(value), written.kind))
        })
    }

    /// Those of the rows of [`many`], each of which changes the fields that its `sent` names.
    pub(super) fn of_many() -> ColumnChanges {
        ColumnChanges::new("coalesce(new.completed_at, now())", |written, old| {
            let Written { column, field, .. } = written;
            let new =
                format!("CASE WHEN '{field}' = ANY (new.sent) THEN new.{column} ELSE {old} END");
            Some(new)
        })
    }

    /// Gives each column, as an expression with its old value, to a function that gives its new value. A task that is completed was done
    /// at `done_at`.
    fn new(
        done_at: &str,
        mut value: impl FnMut(&Written, &str) -> Option<String>,
    ) -> ColumnChanges {
        let (mut sets, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for written in WRITTEN {
            let column = format!("task.{}", written.column);
            if let Some(value) = value(written, &column) {
                sets.push(format!("{} = {value}", written.column));
                old.push(column);
                new.push(value);
            }
        }
        let completed = "task.completed_at IS NOT NULL";
        if let Some(value) = value(&COMPLETED, completed) {
            sets.push(format!(
                "completed_at = CASE WHEN {value} THEN coalesce(task.completed_at, {done_at}) END"
            ));
            old.push(completed.to_owned());
            new.push(value);
        }
        let condition = format!("({}) IS DISTINCT FROM ({})", old.join(", "), new.join(", "));
        sets.push(touch(&condition));
        ColumnChanges {
            sets: sets.join(", "),
            condition,
        }
    }

    /// The UPDATE, up to its condition.
    pub(super) fn update(&self) -> String {
        format!("UPDATE {{schema}}.tasks AS task SET {}", self.sets)
    }
}

/// A task among many in one JSON parameter: values by the names that [`many`] lists. An absent one is null.
pub(super) type TaskRow = BTreeMap<&'static str, Value>;

/// The id, the completion and the written columns of a task. More names of [`many`] can be added.
pub(super) fn row(task: &Task) -> TaskRow {
    let columns = WRITTEN.iter().chain([&COMPLETED]);
    let columns = columns.map(|written| (written.column, (written.value)(task)));
    let id = [("id", Value::Text(task.id.to_string()))];
    id.into_iter().chain(columns).collect()
}

/// The value of the parameter that [`many`] reads.
pub(super) fn rows_as_json(rows: &[TaskRow]) -> String {
    // Writing JSON to a String does not fail.
    serde_json::to_string(rows).unwrap_or_default()
}

/// The rows of a JSON parameter as a table called new: an item for FROM. `position` and `sent` are for the caller's use.
pub(super) fn many(parameter: usize) -> String {
    let columns = WRITTEN.iter().chain([&COMPLETED]);
    let columns: Vec<String> = columns
        .map(|written| format!("{} {}", written.column, written.kind))
        .collect();
    format!(
        "jsonb_to_recordset(${parameter}::text::jsonb) AS new (
             position int, sent text[], id uuid, completed_at timestamptz, created_at timestamptz, updated_at timestamptz,
             version bigint, {})",
        columns.join(", ")
    )
}

/// An INSERT of rows of [`many`] for the user `$1`, from an item for FROM called new. `created_at` and `updated_at` are now and `version`
/// is 1 where a row has none; a task that is completed without a `completed_at` is so from now on.
pub(super) fn insert_many(from: &str) -> String {
    let values: Vec<String> = (WRITTEN.iter())
        .map(|written| format!("new.{}", written.column))
        .collect();
    format!(
        "INSERT INTO {{schema}}.tasks AS task (user_id, id, completed_at, created_at, updated_at, version, {names})
         SELECT $1, new.id, coalesce(new.completed_at, CASE WHEN new.completed THEN now() END),
                coalesce(new.created_at, now()), coalesce(new.updated_at, now()), coalesce(new.version, 1), {values}
         FROM {from}",
        names = names(),
        values = values.join(", "),
    )
}

/// An UPDATE of the tasks of the user `$1` by rows of [`many`], from an item for FROM called new. Each row changes the fields that its
/// `sent` names. A task that it completes has the row's `completed_at`, or was done now.
pub(super) fn update_many(from: &str) -> String {
    let update = ColumnChanges::of_many().update();
    format!("{update} FROM {from} WHERE task.user_id = $1 AND task.id = new.id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::TASK_FIELDS;

    #[test]
    fn a_row_as_json_keeps_microseconds_dates_and_nulls() {
        let task = |due: &str| Task {
            due_date: Some(Due::parse(due).unwrap()),
            ..Task::default()
        };
        let rows = [
            row(&task("2030-01-31")),
            row(&task("0001-01-01T09:00:00.000001Z")),
        ];
        let json: serde_json::Value = serde_json::from_str(&rows_as_json(&rows)).unwrap();
        assert_eq!(json[0]["due_at"], "2030-01-31T23:59:59.999999Z");
        assert_eq!(json[0]["due_on"], "2030-01-31");
        assert_eq!(json[1]["due_at"], "0001-01-01T09:00:00.000001Z");
        assert!(json[1]["due_on"].is_null() && json[1]["description"].is_null());
        assert_eq!(
            (&json[0]["completed"], &json[0]["priority"]),
            (&false.into(), &1.into())
        );
        assert_eq!(json[0]["tags"], serde_json::json!([]));
    }

    #[test]
    fn every_field_is_shown_in_the_order_of_the_documentation() {
        let shown: Vec<&str> = SHOWN.iter().map(|shown| shown.key).collect();
        let documented = TASK_FIELDS.iter();
        let documented: Vec<String> = documented
            .map(|field| format!(",\"{}\":", field.name))
            .collect();
        assert_eq!(shown, documented);
    }
}
