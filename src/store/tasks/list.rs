//! Pages of tasks.
//!
//! A statement is put together from the parts that a query asks for; values are always parameters. Two kinds of it go to
//! PostgreSQL in different ways:
//!
//! - Where nothing is filtered but state and priority, and the order is that of making, the best plan is the same for all
//!   values: one stretch of an index, or several that are merged. Such statements are few, and are prepared once.
//! - All others are planned with their values each time (see [`Client::query_planned`]): whether it is better to walk the
//!   newest tasks or to look up the few that match depends on how many match.
//!
//! [`Client::query_planned`]: crate::store::pool::Client::query_planned

use postgres::Error as PgError;
use postgres::error::SqlState;
use postgres::types::Type;

use super::columns::{all, read_task};
use super::filters::{TAGS_JOINED, state};
use super::statement::Statement;
use crate::domain::list::cursor::Cursor;
use crate::domain::list::{Filters, ListQuery, Order, SortKey, Start};
use crate::domain::task::{Priority, TITLE_MAX, Task};
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::{Effect, Error, Store};

/// How many of the newest tasks a search reads before it asks the index on words.
const NEAR: usize = 2_000;

/// Some of a user's tasks.
#[derive(Debug)]
pub struct TaskPage {
    /// The tasks, in the order asked for.
    pub tasks: Vec<Task>,
    /// Whether more come behind these.
    pub has_more: bool,
    /// How many there are in all, where that was asked for or cost nothing.
    pub total: Option<i64>,
}

/// The outcome of a query for a list.
#[derive(Debug)]
pub enum ListedTasks {
    /// A page of it.
    Page(TaskPage),
    /// PostgreSQL does not know the time zone.
    UnknownZone,
}

impl Store {
    /// A page of a user's tasks.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_tasks(&self, user: &UserId, query: &ListQuery) -> Result<ListedTasks, Error> {
        let limit = usize::from(query.limit.get());
        let page = Statement::page(user, query);
        self.run(Effect::Read, |client| {
            let rows = match page.run(client) {
                Err(error) if is_unknown_zone(&error) => return Ok(ListedTasks::UnknownZone),
                rows => rows?,
            };
            let mut tasks = rows
                .iter()
                .map(|row| read_task(user, row))
                .collect::<Result<Vec<Task>, PgError>>()?;
            let has_more = tasks.len() > limit;
            tasks.truncate(limit);
            let total = match total(query, &tasks, has_more) {
                None if query.wants_total() => {
                    let rows = Statement::count(user, &query.filters).run(client)?;
                    rows.first().map(|row| row.try_get(0)).transpose()?
                }
                known => known,
            };
            Ok(ListedTasks::Page(TaskPage {
                tasks,
                has_more,
                total,
            }))
        })
    }
}

/// How many tasks there are in all, where a page tells it: the last one does, if it is known how many came before it.
fn total(query: &ListQuery, tasks: &[Task], has_more: bool) -> Option<i64> {
    let before = query.offset();
    let behind_cursor = matches!(query.start, Start::Behind(_));
    // A page behind the end tells nothing.
    let counted = !has_more && !behind_cursor && (before == 0 || !tasks.is_empty());
    let here = i64::try_from(tasks.len()).ok()?;
    counted.then_some(before + here)
}

/// Whether PostgreSQL refused a statement because it does not know a time zone. Nothing else that a list or numbers are asked
/// with can be out of its range.
pub(super) fn is_unknown_zone(error: &PgError) -> bool {
    error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)
}

impl Statement {
    /// A page, and one task more, which tells whether there are more.
    fn page(user: &UserId, query: &ListQuery) -> Statement {
        let mut statement = Statement::new();
        let user = statement.bind(user.as_str().to_owned(), Type::TEXT);
        let (filters, order) = (&query.filters, query.order);
        let from = statement.from(&user, filters, order);
        let cursor = match &query.start {
            Start::Behind(cursor) => Some(cursor),
            _ => None,
        };
        let stretches = stretches(filters, order);
        statement.prepare = stretches.is_some();
        let conditions = match stretches {
            Some(_) => Vec::new(),
            None => statement.conditions(filters, from.created_at),
        };
        let parts = if order.key.nullable {
            statement.nullable_parts(cursor, order, &from)
        } else {
            let behind = cursor.map(|cursor| statement.behind(cursor, order, &from));
            let parts = stretches.filter(|parts| !parts.is_empty());
            let parts = parts.unwrap_or_else(|| vec![Vec::new()]);
            parts
                .into_iter()
                .map(|part| [part, behind.iter().cloned().collect()].concat())
                .collect()
        };
        let columns = all("task");
        let selects = parts.iter().map(|part| {
            let all: String = conditions
                .iter()
                .chain(part)
                .map(|condition| format!(" AND {condition}"))
                .collect();
            let by = from.order_by(order);
            format!("SELECT {columns} FROM {}{all} ORDER BY {by}", from.tables)
        });
        let rows = i64::from(query.limit.get()) + 1;
        let page = |statement: &mut Statement| {
            let rows = statement.bind(rows, Type::INT8);
            let offset = statement.bind(query.offset(), Type::INT8);
            format!("LIMIT {rows}::int8 OFFSET {offset}::int8")
        };
        statement.text = if reads_the_newest_first(query) {
            statement.near_first(&from, order, &conditions, &parts, rows + query.offset())
                + &page(&mut statement)
        } else if let [_] = parts.as_slice() {
            let page = page(&mut statement);
            selects.map(|select| format!("{select} {page}")).collect()
        } else {
            // Each part in its order and no longer than needed, so that none can cost more than what it gives.
            let reach = statement.bind(rows + query.offset(), Type::INT8);
            let selects: Vec<String> = selects
                .map(|select| format!("({select} LIMIT {reach}::int8)"))
                .collect();
            let page = page(&mut statement);
            let mut by = From::ALONE.order_by(order);
            if order.key.nullable {
                // The parts are without: where nothing is null, an index serves either direction.
                by = by.replacen(',', " NULLS LAST,", 1);
            }
            let all = selects.join(" UNION ALL ");
            format!("SELECT * FROM ({all}) AS task ORDER BY {by} {page}")
        };
        statement
    }

    /// A search in the order of making. Whether it is better to walk the newest tasks or to ask the index for all that match
    /// depends on how many match, and PostgreSQL can only guess how many have a word. So the newest are read, which is cheap,
    /// and only when they are not enough for the page is PostgreSQL's guess followed.
    fn near_first(
        &mut self,
        from: &From,
        order: Order,
        conditions: &[String],
        parts: &[Vec<String>],
        reach: i64,
    ) -> String {
        let reach = self.bind(reach, Type::INT8);
        let columns = all("task");
        let by = from.order_by(order);
        let and = |conditions: &[String]| -> String {
            conditions.iter().map(|c| format!(" AND {c}")).collect()
        };
        let behind = and(&parts.concat());
        let conditions = and(conditions);
        format!(
            "WITH newest AS MATERIALIZED (
                 SELECT task.* FROM {tables}{behind} ORDER BY {by} LIMIT {NEAR}
             ), near AS MATERIALIZED (
                 SELECT {columns} FROM newest AS task WHERE true{conditions} LIMIT {reach}::int8
             ), enough AS MATERIALIZED (
                 SELECT CASE WHEN (SELECT count(*) FROM near) >= {reach}::int8 THEN true
                             ELSE (SELECT count(*) FROM newest) < {NEAR} END AS enough
             )
             SELECT * FROM (
                 (SELECT {columns} FROM near AS task WHERE (SELECT enough FROM enough))
                 UNION ALL
                 (SELECT {columns} FROM {tables}{behind}{conditions} AND NOT (SELECT enough FROM enough)
                  ORDER BY {by} LIMIT {reach}::int8)
             ) AS task ORDER BY {by} ",
            tables = from.tables,
        )
    }

    /// How many there are.
    fn count(user: &UserId, filters: &Filters) -> Statement {
        let mut statement = Statement::new();
        let user = statement.bind(user.as_str().to_owned(), Type::TEXT);
        let from = statement.from(&user, filters, Order::default());
        let conditions: String = statement
            .conditions(filters, from.created_at)
            .iter()
            .map(|condition| format!(" AND {condition}"))
            .collect();
        statement.text = format!("SELECT count(*) FROM {}{conditions}", from.tables);
        statement
    }

    /// The tables, joined, up to the first condition. A list by tag walks the tag's own table, which is in the order of making.
    fn from(&mut self, user: &str, filters: &Filters, order: Order) -> From {
        match filters.tags.first() {
            None => From {
                tables: format!("{{schema}}.tasks AS task WHERE task.user_id = {user}"),
                ..From::ALONE
            },
            Some(tag) => {
                let tag = self.bind(tag.as_str().to_owned(), Type::TEXT);
                let by_tag = is_by_creation(order);
                // PostgreSQL starts with whichever tag is on the fewest tasks: all come in the same order.
                let others: String = filters
                    .tags
                    .iter()
                    .take(TAGS_JOINED)
                    .enumerate()
                    .skip(1)
                    .map(|(number, tag)| {
                        let tag = self.bind(tag.as_str().to_owned(), Type::TEXT);
                        format!(
                            " JOIN {{schema}}.task_tags AS tag{number}
                              ON tag{number}.user_id = {user} AND tag{number}.tag = {tag}
                                 AND tag{number}.created_at = tagged.created_at AND tag{number}.task_id = tagged.task_id"
                        )
                    })
                    .collect();
                From {
                    tables: format!(
                        "{{schema}}.task_tags AS tagged{others}
                         JOIN {{schema}}.tasks AS task ON task.user_id = {user} AND task.id = tagged.task_id
                         WHERE tagged.user_id = {user} AND tagged.tag = {tag}"
                    ),
                    created_at: "tagged.created_at",
                    id: if by_tag { "tagged.task_id" } else { "task.id" },
                }
            }
        }
    }

    /// That a task lies behind a cursor.
    fn behind(&mut self, cursor: &Cursor, order: Order, from: &From) -> String {
        if cursor.value == Value::Null {
            // Among tasks without a value, the id alone decides.
            let id = self.bind(cursor.id, Type::UUID);
            return format!("{} {} {id}", from.id, comparison(order));
        }
        let value = self.bind_value(cursor.value.clone());
        let id = self.bind(cursor.id, Type::UUID);
        format!(
            "({}, {}) {} ({value}, {id})",
            from.sort_key(order.key),
            from.id,
            comparison(order)
        )
    }

    /// The parts of a list by a column that may be null that lie behind the cursor. Tasks with a value come first and those
    /// without last, whatever the direction: no index has that order in both, but it has each part.
    fn nullable_parts(
        &mut self,
        cursor: Option<&Cursor>,
        order: Order,
        from: &From,
    ) -> Vec<Vec<String>> {
        let key = from.sort_key(order.key);
        let mut valued = vec![format!("{key} IS NOT NULL")];
        let mut empty = vec![format!("{key} IS NULL")];
        let behind = cursor.map(|cursor| self.behind(cursor, order, from));
        if cursor.is_some_and(|cursor| cursor.value == Value::Null) {
            empty.extend(behind);
            vec![empty]
        } else {
            valued.extend(behind);
            vec![valued, empty]
        }
    }
}

/// Where a list is read from, and what its order is called there.
struct From {
    tables: String,
    created_at: &'static str,
    id: &'static str,
}

impl From {
    /// A table called task.
    const ALONE: From = From {
        tables: String::new(),
        created_at: "task.created_at",
        id: "task.id",
    };

    fn sort_key(&self, key: &SortKey) -> String {
        match key.column {
            "created_at" => self.created_at.to_owned(),
            // As `fold::title_key` has it.
            "title" => {
                format!("coalesce(left(split_part(task.search, E'\\n', 1), {TITLE_MAX}), '')")
            }
            column => format!("task.{column}"),
        }
    }

    fn order_by(&self, order: Order) -> String {
        let (key, direction) = (self.sort_key(order.key), direction(order));
        format!("{key} {direction}, {} {direction}", self.id)
    }
}

/// Whether a list is in the order in which tasks were created.
fn is_by_creation(order: Order) -> bool {
    order.key.column == "created_at"
}

fn direction(order: Order) -> &'static str {
    if order.descending { "DESC" } else { "ASC" }
}

fn comparison(order: Order) -> &'static str {
    if order.descending { "<" } else { ">" }
}

/// Whether a list is a search that may find what it needs among the newest tasks, or the oldest.
fn reads_the_newest_first(query: &ListQuery) -> bool {
    let Filters { words, tags, .. } = &query.filters;
    !words.is_empty() && tags.is_empty() && is_by_creation(query.order)
}

/// The stretches of the index on states that together are the list, each by its conditions, where there is nothing else to the
/// filters and the order is that of making; no stretch where all is wanted. At most six.
fn stretches(filters: &Filters, order: Order) -> Option<Vec<Vec<String>>> {
    let others = Filters {
        completed: None,
        priorities: Vec::new(),
        ..filters.clone()
    };
    if others != Filters::default() || !is_by_creation(order) {
        return None;
    }
    if filters.completed.is_none() && filters.priorities.is_empty() {
        return Some(Vec::new());
    }
    let states = match filters.completed {
        Some(completed) => vec![completed],
        None => vec![false, true],
    };
    let priorities = match filters.priorities.as_slice() {
        [] => &[Priority::Low, Priority::Medium, Priority::High],
        some => some,
    };
    let mut stretches = Vec::new();
    for completed in states {
        for priority in priorities {
            let priority = format!("task.priority = {}", priority.rank());
            stretches.push(vec![state(completed), priority]);
        }
    }
    Some(stretches)
}
