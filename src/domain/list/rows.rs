//! Every parameter and every sort key of a list, each described once. Names that other servers of this family use are aliases.

use super::cursor::Cursor;
use super::parameters::PartialQuery;
use super::values::{
    ParameterError, STATUS, after, before, boolean, compare, direction, keep, priorities, sort,
    start, status, tag, words,
};
use super::{Condition, LIMIT_MAX, Limit, OFFSET_MAX, Order, SortKey, Start};
use crate::domain::feed::FeedCursor;
use crate::domain::shape::{Shape, TEXT};
use crate::domain::tag::{TAG, TAGS_WITH_COMMAS};
use crate::domain::task::{DUE, PRIORITY};
use crate::domain::transfer::{Format, OnConflict};
use crate::domain::value::Kind;
use crate::domain::zone::{ZONE, ZONE_MEANING, Zone};

/// A parameter of a list.
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Aliases.
    pub aliases: &'static [&'static str],
    /// What it does, in one sentence.
    pub meaning: &'static str,
    /// The type and limits of its value, or of one entry if it may be sent several times.
    pub shape: Shape,
    /// Whether it may be sent several times.
    pub repeatable: bool,
    /// Whether it selects tasks. The others say how the list is shown.
    pub is_filter: bool,
    /// Reads a value into the query. The error ends a sentence that starts with the parameter's name.
    pub read: ReadParameter,
}

/// Reads a value of a parameter into the query.
pub type ReadParameter = fn(&Parameter, &mut PartialQuery, &str) -> Result<(), ParameterError>;

const BOOLEAN: Shape = Shape::Boolean;

/// The parameters in the order of the documentation, which is also the order in which they are read.
pub static PARAMETERS: &[Parameter] = &[
    parameter("completed", "Done or not.", BOOLEAN, |_, partial, text| {
        partial.query.filters.completed = Some(boolean(text)?);
        Ok(())
    }),
    parameter(
        "status",
        "Done or not, in words.",
        STATUS,
        |_, partial, text| {
            let filters = &mut partial.query.filters;
            let Some(status) = status(text)? else {
                return Ok(());
            };
            match filters.completed.replace(status) {
                Some(completed) if completed != status => Err("contradicts completed".into()),
                _ => Ok(()),
            }
        },
    ),
    parameter(
        "priority",
        "With one of these; may be given several times, or several separated by commas.",
        PRIORITY,
        priorities,
    )
    .repeatable(),
    parameter(
        "tag",
        "With this tag; may be given up to 20 times, and a task must have all of them.",
        TAG,
        tag,
    )
    .repeatable(),
    parameter(
        "tags",
        "With all of these tags, separated by commas.",
        TAGS_WITH_COMMAS,
        |row, partial, text| text.split(',').try_for_each(|text| tag(row, partial, text)),
    )
    .repeatable(),
    parameter(
        "due_before",
        "Due before this; a plain date stands for the whole day.",
        DUE,
        |_, partial, text| keep(partial, Condition::DueBefore(before(text)?)),
    ),
    parameter("due_after", "Due after this.", DUE, |_, partial, text| {
        keep(partial, Condition::DueAfter(after(text)?))
    }),
    parameter(
        "overdue",
        "Open and past its due date, or not.",
        BOOLEAN,
        |_, partial, text| keep(partial, Condition::Overdue(boolean(text)?)),
    ),
    parameter(
        "has_due_date",
        "With a due date, or without.",
        BOOLEAN,
        |_, partial, text| keep(partial, Condition::Present("due_at", boolean(text)?)),
    ),
    parameter(
        "created_before",
        "Created before this.",
        DUE,
        |_, partial, text| compare(partial, "created_at", "<", before(text)?),
    ),
    parameter(
        "created_after",
        "Created after this.",
        DUE,
        |_, partial, text| compare(partial, "created_at", ">", after(text)?),
    ),
    parameter(
        "updated_before",
        "Last changed before this.",
        DUE,
        |_, partial, text| compare(partial, "updated_at", "<", before(text)?),
    ),
    parameter(
        "updated_after",
        "Last changed after this.",
        DUE,
        |_, partial, text| compare(partial, "updated_at", ">", after(text)?),
    ),
    parameter(
        "search",
        "Up to 16 words that all occur in title or description, regardless of case and accents.",
        TEXT,
        |_, partial, text| {
            partial.query.filters.words = words(text)?;
            Ok(())
        },
    )
    .also(&["q"]),
    parameter("tz", ZONE_MEANING, ZONE, |_, partial, text| {
        partial.query.filters.zone = Some(Zone::parse(text)?);
        Ok(())
    }),
    parameter(
        "order",
        "The direction of `sort`.",
        Shape::OneOf(&["asc", "desc"]),
        |_, partial, text| {
            let descending = direction(text).ok_or("must be asc or desc")?;
            partial.descending = Some(descending);
            partial.query.order.descending = descending;
            Ok(())
        },
    )
    .of_pages()
    .also(&["sort_order", "sort_direction"]),
    parameter(
        "sort",
        "The sort key; with `-` descending, as also in `title:desc`.",
        TEXT,
        |_, partial, text| {
            let (key, own) = sort(text)?;
            partial.query.order = Order {
                key,
                descending: own.or(partial.descending).unwrap_or(false),
            };
            match (own, partial.descending) {
                (Some(own), Some(order)) if own != order => Err("contradicts order".into()),
                _ => Ok(()),
            }
        },
    )
    .of_pages()
    .also(&["sort_by"]),
    LIMIT,
    CURSOR,
    parameter(
        "offset",
        "How many tasks to skip.",
        whole_numbers(0, OFFSET_MAX),
        |row, partial, text| start(partial, Start::Offset(row.whole(text)?)),
    )
    .of_pages()
    .also(&["skip"]),
    parameter(
        "page",
        "Which page of `limit` tasks, from 1.",
        whole_numbers(1, OFFSET_MAX),
        |row, partial, text| start(partial, Start::Page(row.whole(text)?)),
    )
    .of_pages(),
    parameter(
        "include_total",
        "Whether to count `total`.",
        BOOLEAN,
        |_, partial, text| {
            partial.query.include_total = boolean(text)?;
            Ok(())
        },
    )
    .of_pages(),
];

const LIMIT: Parameter = parameter(
    "limit",
    "Most tasks in the answer, 1,000 by default.",
    whole_numbers(1, LIMIT_MAX as u32),
    |row, partial, text| {
        // The limits of the row fit into the type.
        partial.query.limit = Limit(row.whole(text)?.try_into().unwrap_or(LIMIT_MAX));
        Ok(())
    },
)
.of_pages()
.also(&["page_size"]);

const CURSOR: Parameter = parameter(
    "cursor",
    "The `next_cursor` of the answer before; the other parameters must be the same.",
    TEXT,
    |_, partial, text| {
        let query = &partial.query;
        let cursor = Cursor::decode(text, &query.filters, query.order).ok_or(
            "must be the next_cursor of an answer to the same filters and order; start again without it",
        )?;
        start(partial, Start::Behind(cursor))
    },
)
.of_pages();

/// The parameters of a change to all tasks that match.
pub fn matching_parameters() -> impl Iterator<Item = &'static Parameter> + Clone {
    let filters = PARAMETERS.iter().filter(|row| row.is_filter);
    filters.chain([&DRY_RUN])
}

const DRY_RUN: Parameter = parameter(
    "dry_run",
    "Whether the tasks are only counted.",
    BOOLEAN,
    |_, partial, text| {
        partial.dry_run = boolean(text)?;
        Ok(())
    },
)
.of_pages();

/// The parameters of an export: those of a list, but for pages, and the format.
pub fn export_parameters() -> impl Iterator<Item = &'static Parameter> + Clone {
    let shown = ["order", "sort", "cursor"];
    let rows = PARAMETERS.iter();
    let rows = rows.filter(move |row| row.is_filter || shown.contains(&row.name));
    rows.chain([&FORMAT])
}

/// The parameters of an import.
pub static IMPORT_PARAMETERS: &[Parameter] = &[
    FORMAT,
    parameter(
        "on_conflict",
        "What happens to a task that exists already: `skip` leaves it, `update` changes the fields that the file has. By default `skip`.",
        Shape::OneOf(OnConflict::NAMES),
        |_, partial, text| {
            partial.on_conflict = OnConflict::parse(text)?;
            Ok(())
        },
    ),
    parameter(
        "skip_errors",
        "Whether tasks with errors are left out. Otherwise one error refuses all tasks.",
        BOOLEAN,
        |_, partial, text| {
            partial.skip_errors = boolean(text)?;
            Ok(())
        },
    ),
    DRY_RUN,
];

const FORMAT: Parameter = parameter(
    "format",
    "The format of the file. By default an export is `jsonl`, and an import follows `Content-Type`.",
    Shape::OneOf(Format::NAMES),
    |_, partial, text| {
        partial.format = Some(Format::parse(text)?);
        Ok(())
    },
);

/// The parameters of the list of deleted tasks.
pub static TRASH_PARAMETERS: &[Parameter] = &[LIMIT, CURSOR];

/// The parameters of the feed of changes.
pub static CHANGES_PARAMETERS: &[Parameter] = &[
    parameter(
        "since",
        "The `next_cursor` of the answer before. Without it, every task is in the answers.",
        TEXT,
        |_, partial, text| {
            partial.since = Some(
                FeedCursor::decode(text)
                    .ok_or("must be the next_cursor of an answer; start again without it")?,
            );
            Ok(())
        },
    ),
    LIMIT,
];

/// The order of the list of deleted tasks.
pub const DELETED_AT: SortKey = sort_key("deleted_at", &[], Kind::Moment);

/// The newest first is the default order.
pub const CREATED_AT: SortKey = sort_key("created_at", &["created"], Kind::Moment);

/// The sort keys. Equal tasks are ordered by id. Tasks without a value come last.
pub static SORT_KEYS: &[SortKey] = &[
    CREATED_AT,
    sort_key("updated_at", &["updated"], Kind::Moment),
    SortKey {
        column: "due_at",
        nullable: true,
        ..sort_key("due_date", &[], Kind::Moment)
    },
    sort_key("priority", &[], Kind::Number),
    sort_key("title", &[], Kind::Text),
    sort_key("completed", &[], Kind::Bool),
];

/// A sort key named as its column, in which every task has a value.
const fn sort_key(name: &'static str, aliases: &'static [&'static str], kind: Kind) -> SortKey {
    SortKey {
        name,
        aliases,
        column: name,
        nullable: false,
        kind,
    }
}

/// A parameter without aliases that may be sent once.
const fn parameter(
    name: &'static str,
    meaning: &'static str,
    shape: Shape,
    read: ReadParameter,
) -> Parameter {
    Parameter {
        name,
        aliases: &[],
        meaning,
        shape,
        repeatable: false,
        is_filter: true,
        read,
    }
}

const fn whole_numbers(min: u32, max: u32) -> Shape {
    Shape::Integer {
        min: min as i64,
        max: max as i64,
    }
}

impl Parameter {
    const fn also(mut self, aliases: &'static [&'static str]) -> Parameter {
        self.aliases = aliases;
        self
    }

    const fn of_pages(mut self) -> Parameter {
        self.is_filter = false;
        self
    }

    const fn repeatable(mut self) -> Parameter {
        self.repeatable = true;
        self
    }

    /// Whether this is its name or one of its aliases.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Reads decimal digits within the limits of the parameter's shape.
    fn whole(&self, text: &str) -> Result<u32, ParameterError> {
        let Shape::Integer { min, max } = self.shape else {
            return Err("takes no number".into());
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| digits && (min..=max).contains(&i64::from(*number)))
            .ok_or_else(|| format!("must be a whole number from {min} to {max}").into())
    }
}
