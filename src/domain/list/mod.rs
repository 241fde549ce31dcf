//! The query for a list of tasks: filters, order, page.
//!
//! - [`rows`]: every parameter and every sort key, each described once
//! - `values`: reads the values of parameters
//! - `parameters`: reads a query string with these rows
//! - [`cursor`]: the place where a page ended

pub mod cursor;
mod parameters;
pub mod rows;
mod values;

use std::fmt;

use time::Date;

use super::tag::Tag;
use super::task::Priority;
use super::value::{Kind, Value};
use super::zone::Zone;
use cursor::Cursor;
pub use parameters::{PartialQuery, changes, export, import, matching};
pub use rows::{PARAMETERS, SORT_KEYS};

/// Most tasks in one answer.
pub const LIMIT_MAX: u16 = 1_000;
/// Most words of a search.
pub const WORDS_MAX: usize = 16;
/// Largest `offset`, also by `page`.
pub const OFFSET_MAX: u32 = 1_000_000_000;

/// The most tasks in an answer: 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    /// The maximum, so that a client without pages sees all tasks of an ordinary user.
    fn default() -> Limit {
        Limit(LIMIT_MAX)
    }
}

/// Filters, order and page of a list of a user's tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListQuery {
    /// The filters.
    pub filters: Filters,
    /// The order.
    pub order: Order,
    /// The most tasks in the answer.
    pub limit: Limit,
    /// Where the page starts.
    pub start: Start,
    /// Whether to count all matching tasks, even at a cost.
    pub include_total: bool,
    /// Whether the list is of deleted tasks.
    pub trash: bool,
}

/// Filters of a list. A task must match all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Done, or not.
    pub completed: Option<bool>,
    /// The task has one of these, which are unique and in rising order; empty: any.
    pub priorities: Vec<Priority>,
    /// The task has all of these, which are unique.
    pub tags: Vec<Tag>,
    /// Each of these folded words occurs in title or description.
    pub words: Vec<String>,
    /// Further conditions, all of which must hold.
    pub conditions: Vec<Condition>,
    /// The zone in which days begin and end; `None`: UTC.
    pub zone: Option<Zone>,
}

/// A condition on one column of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The column has a value, or has none.
    Present(&'static str, bool),
    /// The column compares with a value by this SQL operator, such as `<`. A column without a value does not match.
    Compare(&'static str, &'static str, Bound),
    /// It is due before this.
    DueBefore(Bound),
    /// It is due after this.
    DueAfter(Bound),
    /// The task is open and its due date has passed, or the opposite.
    Overdue(bool),
}

/// A value with which a column is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A value.
    Value(Value),
    /// The first moment of a day.
    StartOf(Date),
    /// The last moment of a day.
    EndOf(Date),
}

/// The order of a list. Equal tasks are ordered by id, in the same direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    /// The sort key.
    pub key: &'static SortKey,
    /// Whether the greatest comes first. Tasks without a value come last in both directions.
    pub descending: bool,
}

impl Default for Order {
    /// Newest first.
    fn default() -> Order {
        Order {
            key: &rows::CREATED_AT,
            descending: true,
        }
    }
}

/// A sort key.
pub struct SortKey {
    /// The field's name.
    pub name: &'static str,
    /// Aliases.
    pub aliases: &'static [&'static str],
    /// The column that is compared.
    pub column: &'static str,
    /// Whether a task may have no value.
    pub nullable: bool,
    /// The kind of the value.
    pub kind: Kind,
}

impl fmt::Debug for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &SortKey) -> bool {
        self.name == other.name
    }
}

/// Where a page starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Start {
    /// At the beginning.
    #[default]
    Beginning,
    /// After a task, which may have been deleted since.
    Behind(Cursor),
    /// After this many tasks.
    Offset(u32),
    /// At a page, counted from 1. A page has as many tasks as the limit.
    Page(u32),
}

impl ListQuery {
    /// The number of skipped tasks.
    pub fn offset(&self) -> i64 {
        match self.start {
            Start::Beginning | Start::Behind(_) => 0,
            Start::Offset(offset) => i64::from(offset),
            Start::Page(page) => (i64::from(page) - 1).max(0) * i64::from(self.limit.get()),
        }
    }

    /// Whether to count all matching tasks: requested, or implied by a page number or an offset.
    pub fn wants_total(&self) -> bool {
        self.include_total || matches!(self.start, Start::Page(_) | Start::Offset(_))
    }
}
