//! Pages of tasks.
//!
//! A statement is put together from the parts that a query asks for. Values are parameters; the limit and the offset are literals,
//! because PostgreSQL does not know how many rows a parameter asks for, and would plan the statement anew each time. Two kinds of
//! statements go to PostgreSQL in different ways:
//!
//! - A list in the order of creation that is filtered by nothing but completion walks an index, whatever the values are. Such
//!   statements with a common limit are few. They are prepared once, and soon planned once (list of 20: 40 µs in place of 71).
//! - All others are planned for their values each time (see [`PooledClient::query_planned`]): whether it is better to walk the newest
//!   tasks or to sort all that match depends on how many match.
//!
//! [`PooledClient::query_planned`]: crate::store::pool::PooledClient::query_planned

use std::borrow::Cow;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Error as PgError, Row};

use super::TASKS;
use super::columns::all;
use super::json::{read_value, show_deleted_task, show_task};
use super::statement::Statement;
use super::trash::trash_table;
use crate::domain::list::cursor::Cursor;
use crate::domain::list::{Filters, ListQuery, Order, SortKey, Start};
use crate::domain::task::TITLE_MAX;
use crate::domain::user::UserId;
use crate::domain::value::Value;
use crate::store::{Effect, Error, Store};

/// Limits of which statements are prepared: those that clients commonly use, and the default.
pub(super) const COMMON_LIMITS: [u16; 6] = [10, 20, 25, 50, 100, 1_000];

/// Pages of more tasks are read row by row, so that not all rows are in memory at once.
pub(super) const LARGE: u16 = 100;

/// The column of a value by which a page is sorted, if no column of a task has it.
const SORT_KEY: &str = "sort_key";

/// Bytes of the statement of a usual list.
const USUAL_TEXT: usize = 512;

/// Bytes of a page of 20 usual tasks.
const USUAL_BYTES: usize = 10_240;

/// Some of a user's tasks.
#[derive(Debug)]
pub struct TaskPage {
    /// The tasks in the order asked for, as a JSON array behind the text that was asked for.
    pub json: Vec<u8>,
    /// How many there are.
    pub count: usize,
    /// Whether more come behind these.
    pub has_more: bool,
    /// The place behind the last one of a full page.
    last: Option<Cursor>,
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
    /// A page of a user's tasks, as JSON behind a text.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_tasks(
        &self,
        user: &UserId,
        query: &ListQuery,
        before: &str,
    ) -> Result<ListedTasks, Error> {
        let statement = Statement::page(user, query, self.settings.database.trash);
        self.run(Effect::Read, |client| {
            let mut page = TaskPage::new(before);
            match statement.each_row(client, |row| page.add(row, query)) {
                Err(error) if is_unknown_zone(&error) => return Ok(ListedTasks::UnknownZone),
                read => read?,
            }
            page.finish(query);
            if page.total.is_none() && query.wants_total() {
                Statement::count(user, &query.filters).each_row(client, |row| {
                    page.total = Some(row.try_get(0)?);
                    Ok(())
                })?;
            }
            Ok(ListedTasks::Page(page))
        })
    }
}

impl TaskPage {
    fn new(before: &str) -> TaskPage {
        TaskPage {
            json: task_array(before),
            count: 0,
            has_more: false,
            last: None,
            total: None,
        }
    }

    /// Adds a task. One more than the limit is read; it is not part of the page, and tells that there are more.
    fn add(&mut self, row: &Row, query: &ListQuery) -> Result<(), PgError> {
        let limit = usize::from(query.limit.get());
        if self.count == limit {
            self.has_more = true;
            return Ok(());
        }
        if self.count > 0 {
            self.json.push(b',');
        }
        match query.trash {
            true => show_deleted_task(&mut self.json, row)?,
            false => show_task(&mut self.json, row)?,
        }
        self.count += 1;
        if self.count == limit {
            self.last = Some(cursor_behind(row, query)?);
        }
        Ok(())
    }

    /// How many tasks there are in all, where a page tells it: the last one does, if it is known how many came before it.
    fn finish(&mut self, query: &ListQuery) {
        self.json.push(b']');
        let before = query.offset();
        let behind_cursor = matches!(query.start, Start::Behind(_));
        // A page behind the end tells nothing.
        if !self.has_more && !behind_cursor && (before == 0 || self.count > 0) {
            self.total = i64::try_from(self.count).ok().map(|here| before + here);
        }
    }

    /// The place behind the last task, where more come.
    pub fn next(&self) -> Option<&Cursor> {
        self.last.as_ref().filter(|_| self.has_more)
    }
}

/// The place behind a task.
pub(super) fn cursor_behind(row: &Row, query: &ListQuery) -> Result<Cursor, PgError> {
    Ok(Cursor {
        value: read_value(row, key_column(query.order.key), query.order.key.kind)?,
        id: row.try_get("id")?,
    })
}

/// The start of a JSON array of tasks behind a text.
pub(super) fn task_array(before: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(USUAL_BYTES);
    json.extend_from_slice(before.as_bytes());
    json.push(b'[');
    json
}

/// Whether PostgreSQL refused a statement because it does not know a time zone. Nothing else that a list or numbers are asked
/// with can be out of its range.
pub(super) fn is_unknown_zone(error: &PgError) -> bool {
    error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)
}

impl Statement {
    /// A page, and one task more.
    fn page(user: &UserId, query: &ListQuery, trash: Duration) -> Statement {
        let mut statement = Statement::in_order(user, query, trash);
        let text = &mut statement.text;
        text.push_str(&format!(" LIMIT {}", query.limit.get() + 1));
        if query.offset() > 0 {
            text.push_str(&format!(" OFFSET {}", query.offset()));
        }
        statement.large = query.limit.get() > LARGE;
        statement.prepare = walks_an_index(query);
        statement
    }

    /// All tasks that match, from the cursor on, with [`key_column`]. Deleted tasks are in the trash for the time
    /// given.
    pub(super) fn in_order(user: &UserId, query: &ListQuery, trash: Duration) -> Statement {
        let mut columns = Cow::Borrowed(all());
        if key_column(query.order.key) == SORT_KEY {
            let key = sort_key(query.order.key);
            columns.to_mut().push_str(&format!(", {key} AS {SORT_KEY}"));
        }
        let mut statement = match query.trash {
            true => Statement::of_tasks(
                &format!("{columns}, task.deleted_at, task.purge_at"),
                user,
                &trash_table(trash),
            ),
            false => Statement::of_tasks(&columns, user, TASKS),
        };
        statement.add_filters(&query.filters);
        if let Start::Behind(cursor) = &query.start {
            statement.add_cursor(cursor, query.order);
        }
        let direction = if query.order.descending {
            "DESC"
        } else {
            "ASC"
        };
        let nulls = if query.order.key.nullable {
            " NULLS LAST"
        } else {
            ""
        };
        let key = sort_key(query.order.key);
        statement.text.push_str(&format!(
            " ORDER BY {key} {direction}{nulls}, task.id {direction}"
        ));
        statement
    }

    /// How many there are.
    fn count(user: &UserId, filters: &Filters) -> Statement {
        let mut statement = Statement::of_tasks("count(*)", user, TASKS);
        statement.add_filters(filters);
        statement
    }

    pub(super) fn of_tasks(columns: &str, user: &UserId, table: &str) -> Statement {
        let mut statement = Statement::default();
        let user = statement.bind(user.as_str().to_owned(), Type::TEXT);
        statement.text.reserve(USUAL_TEXT);
        for part in [
            "SELECT ",
            columns,
            " FROM ",
            table,
            " AS task WHERE task.user_id = ",
            &user,
        ] {
            statement.text.push_str(part);
        }
        statement
    }

    /// That a task lies behind a cursor. Tasks without a value come last, in either direction; among them the id alone decides.
    fn add_cursor(&mut self, cursor: &Cursor, order: Order) {
        let key = sort_key(order.key);
        let than = if order.descending { "<" } else { ">" };
        let value = (cursor.value != Value::Null).then(|| self.bind_value(cursor.value.clone()));
        let id = self.bind(cursor.id, Type::UUID);
        self.text.push_str(&match value {
            None => format!(" AND {key} IS NULL AND task.id {than} {id}"),
            Some(value) if order.key.nullable => {
                format!(" AND (({key}, task.id) {than} ({value}, {id}) OR {key} IS NULL)")
            }
            Some(value) => format!(" AND ({key}, task.id) {than} ({value}, {id})"),
        });
    }
}

fn sort_key(key: &SortKey) -> String {
    match key.column {
        "title" => {
            format!("left(coalesce(task.title_folded, lower(task.title)), {TITLE_MAX})")
        }
        "completed" => "(task.completed_at IS NOT NULL)".to_owned(),
        column => format!("task.{column}"),
    }
}

/// The column with the value by which a page is sorted.
fn key_column(key: &SortKey) -> &'static str {
    match key.column {
        "title" | "completed" => SORT_KEY,
        shown => shown,
    }
}

/// Whether the plan of a list is the same for all values, and the statement is one of few.
fn walks_an_index(query: &ListQuery) -> bool {
    let others = Filters {
        completed: None,
        ..query.filters.clone()
    };
    others == Filters::default()
        && query.order.key.column == "created_at"
        && query.offset() == 0
        && COMMON_LIMITS.contains(&query.limit.get())
}
