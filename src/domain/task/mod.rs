//! A task: its fields, each described once.
//!
//! A new field is a line of [`Task`] and a row of [`TASK_FIELDS`] here, and rows of its columns in `store/tasks/columns.rs`: how they
//! are written, and how JSON shows them. Reading bodies, writing, change detection, answers and the API's description follow from
//! these. `domain/list/rows.rs` has the rows of filters and sort keys.
//!
//! - `values`: the types of the fields, which cannot hold a wrong value
//! - [`draft`]: what a client sends: a new task, changes to one, a completion

pub mod draft;
mod values;

use uuid::Uuid;

use super::fields::Field;
use super::shape::Shape;
use super::tag::{TAGS, Tags};
use super::timestamp::Timestamp;
pub use values::{DESCRIPTION_MAX, DUE, Description, Due, PRIORITY, Priority, TITLE_MAX, Title};

/// The fields of a task that a client may send.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Unique among its owner's tasks.
    pub id: Uuid,
    /// 1 to 200 characters, one line.
    pub title: Title,
    /// Up to 2,000 characters.
    pub description: Option<Description>,
    /// Whether it is done.
    pub completed: bool,
    /// How much it matters.
    pub priority: Priority,
    /// When it is due.
    pub due_date: Option<Due>,
    /// At most 20, each 1 to 50 characters.
    pub tags: Tags,
}

/// The fields of a task that the server sets. An import keeps those that the file has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// When it was done.
    pub completed_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it last really changed.
    pub updated_at: Option<Timestamp>,
    /// From 1 to [`VERSION_MAX`].
    pub version: Option<i64>,
}

/// The greatest version that an import takes. It leaves room for later changes, and JavaScript reads it exactly.
pub const VERSION_MAX: i64 = (1 << 53) - 1;

/// A field of a task.
pub struct TaskField {
    /// Its name in JSON.
    pub name: &'static str,
    /// Other names that are understood in requests.
    pub aliases: &'static [&'static str],
    /// What it is, in one sentence.
    pub meaning: &'static str,
    /// Its JSON type and limits.
    pub shape: Shape,
    /// Whether it may be `null` in an answer. (In a request, `null` clears it.)
    pub nullable: bool,
    /// An example, as JSON.
    pub example: &'static str,
    /// In which requests it may be sent, and how it is read.
    pub sent: Sent,
}

/// In which requests a client may send a field.
pub enum Sent {
    /// In none: the server sets it, and ignores what is sent.
    Never,
    /// In an import only: otherwise the server sets it, and ignores what is sent.
    Imported(ReadKept),
    /// In a POST only.
    Created(ReadField),
    /// In a POST, where it must be sent, and in an update.
    Required(ReadField),
    /// In a POST and in an update.
    Optional(ReadField),
    /// As [`Sent::Optional`]; `null` clears it.
    Clearable(ReadField),
}

/// Reads a field's JSON into a task. The error ends a sentence that starts with the field's name.
pub type ReadField = fn(&mut Task, &str) -> Result<(), &'static str>;

/// As [`ReadField`], for a field that an import keeps.
pub type ReadKept = fn(&mut Kept, &str) -> Result<(), &'static str>;

/// Names that front ends of this family send for `completed`.
pub const COMPLETED_ALIASES: &[&str] = &["is_completed", "is_complete"];

/// Every field of a task, in the order of JSON.
pub static TASK_FIELDS: &[TaskField] = &[
    TaskField {
        name: "id",
        aliases: &[],
        meaning: "Unique among its owner's tasks; the client's own, or else a UUID of version 7.",
        shape: Shape::Uuid,
        nullable: false,
        example: "\"0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55\"",
        sent: Sent::Created(|task, json| set(&mut task.id, json)),
    },
    TaskField {
        name: "user_id",
        aliases: &[],
        meaning: "The owner.",
        shape: Shape::Text {
            min: 1,
            max: 255,
            pattern: "",
        },
        nullable: false,
        example: "\"u1\"",
        sent: Sent::Never,
    },
    TaskField {
        name: "title",
        aliases: &[],
        meaning: "1 to 200 characters after trimming, one line.",
        shape: values::TITLE,
        nullable: false,
        example: "\"Buy milk\"",
        sent: Sent::Required(|task, json| set(&mut task.title, json)),
    },
    TaskField {
        name: "description",
        aliases: &[],
        meaning: "Up to 2,000 characters, newlines and tabs among them.",
        shape: values::DESCRIPTION,
        nullable: true,
        example: "\"2 litres\"",
        sent: Sent::Clearable(|task, json| set(&mut task.description, json)),
    },
    TaskField {
        name: "completed",
        aliases: COMPLETED_ALIASES,
        meaning: "Whether it is done.",
        shape: Shape::Boolean,
        nullable: false,
        example: "false",
        sent: Sent::Optional(|task, json| set(&mut task.completed, json)),
    },
    TaskField {
        name: "completed_at",
        aliases: &[],
        meaning: "When it was done; set and cleared with `completed`.",
        shape: Shape::Moment,
        nullable: true,
        example: "null",
        sent: Sent::Imported(|kept, json| set(&mut kept.completed_at, json)),
    },
    TaskField {
        name: "priority",
        aliases: &[],
        meaning: "How much it matters; `medium` unless sent.",
        shape: values::PRIORITY,
        nullable: false,
        example: "\"medium\"",
        sent: Sent::Optional(|task, json| set(&mut task.priority, json)),
    },
    TaskField {
        name: "due_date",
        aliases: &[],
        meaning: "When it is due: a plain date (`2030-01-31`) or a timestamp (`2030-01-31T09:00:00Z`).",
        shape: values::DUE,
        nullable: true,
        example: "\"2030-01-31\"",
        sent: Sent::Clearable(|task, json| set(&mut task.due_date, json)),
    },
    TaskField {
        name: "created_at",
        aliases: &[],
        meaning: "When it was created.",
        shape: Shape::Moment,
        nullable: false,
        example: "\"2026-01-31T09:30:00.000000Z\"",
        sent: Sent::Imported(|kept, json| set(&mut kept.created_at, json)),
    },
    TaskField {
        name: "updated_at",
        aliases: &[],
        meaning: "When it last really changed.",
        shape: Shape::Moment,
        nullable: false,
        example: "\"2026-01-31T09:30:00.000000Z\"",
        sent: Sent::Imported(|kept, json| set(&mut kept.updated_at, json)),
    },
    TaskField {
        name: "version",
        aliases: &[],
        meaning: "1 when it is created; goes up with every real change.",
        shape: Shape::Integer {
            min: 1,
            max: i64::MAX,
        },
        nullable: false,
        example: "1",
        sent: Sent::Imported(|kept, json| {
            let version = json.parse().ok();
            let version = version.filter(|version| (1..=VERSION_MAX).contains(version));
            kept.version =
                Some(version.ok_or("must be a whole number from 1 to 9007199254740991")?);
            Ok(())
        }),
    },
    TaskField {
        name: "tags",
        aliases: &[],
        meaning: "At most 20, each 1 to 50 characters on one line.",
        shape: TAGS,
        nullable: false,
        example: "[\"errands\"]",
        sent: Sent::Clearable(|task, json| set(&mut task.tags, json)),
    },
];

fn set<T: Field>(slot: &mut T, json: &str) -> Result<(), &'static str> {
    *slot = T::from_json(json)?;
    Ok(())
}
