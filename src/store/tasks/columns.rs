//! Every column of `tasks` that the program reads or writes, each described once. The statements are put together from these rows.

use std::collections::BTreeMap;

use postgres::types::FromSql;
use postgres::{Error as PgError, Row};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::domain::fold::fold;
use crate::domain::tag::Tags;
use crate::domain::task::draft::Draft;
use crate::domain::task::{Description, Due, Priority, Task, Title};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::domain::value::Value;

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// How it is written; `None`: the statements do it themselves.
    written: Option<Written>,
    /// Reads it, from this place in a row, into a task.
    read: fn(&mut Task, &Row, usize) -> Result<(), PgError>,
}

/// How a column is written when a field of the task is sent.
struct Written {
    field: &'static str,
    value: fn(&Task) -> Value,
}

/// The columns, in the order in which [`read_task`] reads them. `completed` follows from `completed_at`, and `search` is only
/// written.
static COLUMNS: &[Column] = &[
    own("id", |task, row, at| set(&mut task.id, row, at)),
    written(
        "title",
        "title",
        |task| Value::Text(task.title.as_str().to_owned()),
        |task, row, at| put(row, at, |text| task.title = Title::from_store(text)),
    ),
    written(
        "description",
        "description",
        |task| {
            let text = task.description.as_ref().map(Description::as_str);
            Value::of(text.map(str::to_owned), Value::Text)
        },
        |task, row, at| {
            put(row, at, |text: Option<String>| {
                task.description = text.map(Description::from_store);
            })
        },
    ),
    own("completed_at", |task, row, at| {
        task.completed_at = moment(row, at)?;
        task.completed = task.completed_at.is_some();
        Ok(())
    }),
    written(
        "priority",
        "priority",
        |task| Value::Number(task.priority.rank().into()),
        |task, row, at| {
            // Any other rank than those written here counts as the default.
            put(row, at, |rank| {
                task.priority = Priority::from_rank(rank).unwrap_or_default();
            })
        },
    ),
    written(
        "due_at",
        "due_date",
        |task| Value::of(task.due_date.map(Due::moment), Value::Moment),
        |task, row, at| {
            task.due_date = moment(row, at)?.map(Due::At);
            Ok(())
        },
    ),
    // Behind `due_at`, which it overrides.
    written(
        "due_on",
        "due_date",
        |task| match task.due_date {
            Some(Due::On(date)) => Value::Date(date),
            _ => Value::Null,
        },
        |task, row, at| {
            put(row, at, |date: Option<Date>| {
                task.due_date = date.map(Due::On).or(task.due_date);
            })
        },
    ),
    own("created_at", |task, row, at| {
        put(row, at, |at| task.created_at = utc(at))
    }),
    own("updated_at", |task, row, at| {
        put(row, at, |at| task.updated_at = utc(at))
    }),
    own("version", |task, row, at| set(&mut task.version, row, at)),
    written(
        "tags",
        "tags",
        |task| Value::Texts(task.tags.texts().into_iter().map(str::to_owned).collect()),
        |task, row, at| put(row, at, |tags| task.tags = Tags::from_store(tags)),
    ),
];

const fn own(
    name: &'static str,
    read: fn(&mut Task, &Row, usize) -> Result<(), PgError>,
) -> Column {
    Column {
        name,
        written: None,
        read,
    }
}

const fn written(
    name: &'static str,
    field: &'static str,
    value: fn(&Task) -> Value,
    read: fn(&mut Task, &Row, usize) -> Result<(), PgError>,
) -> Column {
    Column {
        name,
        written: Some(Written { field, value }),
        read,
    }
}

fn set<'r, T: FromSql<'r>>(slot: &mut T, row: &'r Row, at: usize) -> Result<(), PgError> {
    put(row, at, |value| *slot = value)
}

fn put<'r, T: FromSql<'r>>(row: &'r Row, at: usize, put: impl FnOnce(T)) -> Result<(), PgError> {
    row.try_get(at).map(put)
}

fn utc(at: OffsetDateTime) -> Timestamp {
    Timestamp::from(at)
}

fn moment(row: &Row, at: usize) -> Result<Option<Timestamp>, PgError> {
    let at: Option<OffsetDateTime> = row.try_get(at)?;
    Ok(at.map(Timestamp::from))
}

/// The names of the columns that [`read_task`] reads, of a table of this name.
pub(super) fn all(table: &str) -> String {
    list(COLUMNS.iter().map(|column| column.name), table)
}

/// Reads the columns of [`all`].
pub(super) fn read_task(user: &UserId, row: &Row) -> Result<Task, PgError> {
    let epoch = Timestamp::from(OffsetDateTime::UNIX_EPOCH);
    let mut task = Task::new(user, Uuid::nil(), epoch);
    for (at, column) in COLUMNS.iter().enumerate() {
        (column.read)(&mut task, row, at)?;
    }
    Ok(task)
}

fn written_columns() -> impl Iterator<Item = (&'static str, &'static Written)> {
    let row = |column: &'static Column| Some((column.name, column.written.as_ref()?));
    COLUMNS.iter().filter_map(row)
}

fn list<'n>(names: impl Iterator<Item = &'n str>, table: &str) -> String {
    let names: Vec<String> = names.map(|name| format!("{table}.{name}")).collect();
    names.join(", ")
}

/// An INSERT of a task, with what comes behind its list of values. Its parameters are the user, the id, whether the task is
/// completed, the text for searches, and [`new_values`].
pub(super) fn insert(from: &str) -> String {
    let names: Vec<&str> = written_columns().map(|(name, _)| name).collect();
    let values: Vec<String> = (0..names.len()).map(|at| format!("${}", at + 5)).collect();
    format!(
        "INSERT INTO {{schema}}.tasks (user_id, id, completed_at, search, {names})
         SELECT $1, $2, CASE WHEN $3::bool THEN now() END, $4, {values}{from}",
        names = names.join(", "),
        values = values.join(", "),
    )
}

/// The number of parameters of [`insert`].
pub(super) fn insert_parameters() -> usize {
    4 + written_columns().count()
}

/// The values of a new task, in the order of [`insert`].
pub(super) fn new_values(draft: &Draft) -> Vec<Value> {
    let task = draft.task();
    written_columns()
        .map(|(_, written)| (written.value)(task))
        .collect()
}

/// An UPDATE of one task. `$1` and `$2` are its key, `$3` is [`changes`]: columns that it does not name stay.
///
/// `updated_at` and `version` move when something really changes; `updated_at` always forward, whatever the clock does.
pub(super) fn update() -> String {
    let of = |table: &str| list(written_columns().map(|(name, _)| name), table);
    let names: Vec<&str> = written_columns().map(|(name, _)| name).collect();
    format!(
        "UPDATE {{schema}}.tasks AS task
         SET ({names}, completed_at, search, updated_at, version) = (
             SELECT {new},
                    CASE WHEN new.completed THEN coalesce(task.completed_at, now()) END,
                    CASE WHEN sent ?| ARRAY['title_folded', 'description_folded']
                         THEN coalesce(sent ->> 'title_folded', split_part(task.search, E'\\n', 1)) || E'\\n'
                              || coalesce(sent ->> 'description_folded', substr(task.search, strpos(task.search, E'\\n') + 1))
                         ELSE task.search END,
                    CASE WHEN changed THEN greatest(now(), task.updated_at + interval '1 microsecond') ELSE task.updated_at END,
                    CASE WHEN changed THEN task.version + 1 ELSE task.version END
             FROM (SELECT $3::text::jsonb AS sent) AS parameter,
                  LATERAL jsonb_populate_record(task, sent) AS new,
                  LATERAL (SELECT (new.completed, {new}) IS DISTINCT FROM (task.completed, {old}) AS changed) AS comparison
         )
         WHERE user_id = $1 AND id = $2",
        names = names.join(", "),
        new = of("new"),
        old = of("task"),
    )
}

/// What a draft changes, as JSON for [`update`].
pub(super) fn changes(draft: &Draft) -> String {
    let task = draft.task();
    let mut json: BTreeMap<&str, Value> = written_columns()
        .filter(|(_, written)| draft.sends(written.field))
        .map(|(name, written)| (name, (written.value)(task)))
        .collect();
    if draft.sends("completed") {
        json.insert("completed", Value::Bool(task.completed));
    }
    if draft.sends("title") {
        json.insert("title_folded", Value::Text(fold(task.title.as_str())));
    }
    if draft.sends("description") {
        let text = task.description.as_ref().map(Description::as_str);
        json.insert(
            "description_folded",
            Value::Text(fold(text.unwrap_or_default())),
        );
    }
    // Names and values are plain: this does not fail.
    serde_json::to_string(&json).unwrap_or_default()
}
