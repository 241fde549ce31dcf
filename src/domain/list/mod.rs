//! What is asked of a list of tasks: filters, order, page.
//!
//! - [`rows`]: every parameter and every sort key, each described once
//! - `values`: reads the values of parameters
//! - `parameters`: reads a query string with these rows
//! - [`cursor`]: where the last page ended

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
pub use parameters::{Reading, changes, export, import, matching};
pub use rows::{PARAMETERS, SORT_KEYS};

/// Most tasks that one answer holds.
pub const LIMIT_MAX: u16 = 1_000;
/// Most words of a search.
pub const WORDS_MAX: usize = 16;
/// Farthest that `offset` and `page` reach.
pub const OFFSET_MAX: u32 = 1_000_000_000;

/// How many tasks an answer may hold: 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    /// The most there is, so that a client that knows no pages sees all that an ordinary user has.
    fn default() -> Limit {
        Limit(LIMIT_MAX)
    }
}

/// Which of a user's tasks are wanted, in which order, and which part of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListQuery {
    /// What a task must be to be listed.
    pub filters: Filters,
    /// What comes first.
    pub order: Order,
    /// How many at most.
    pub limit: Limit,
    /// Where the page starts.
    pub start: Start,
    /// Whether all that match are counted, even if that costs something.
    pub include_total: bool,
    /// Whether the list is of deleted tasks.
    pub trash: bool,
}

/// What a task must be to be listed: all of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Done, or not.
    pub completed: Option<bool>,
    /// One of these, each once, in rising order; none: any.
    pub priorities: Vec<Priority>,
    /// All of these, each once.
    pub tags: Vec<Tag>,
    /// Each of these, folded, occurs in title or description.
    pub words: Vec<String>,
    /// All of these.
    pub conditions: Vec<Condition>,
    /// Tells when a day begins and ends; `None` where none was named: UTC.
    pub zone: Option<Zone>,
}

/// A condition on one column of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The column has a value, or has none.
    Present(&'static str, bool),
    /// The column compares so (an SQL operator, as `<`) with a value. A column without a value does not.
    Compare(&'static str, &'static str, Bound),
    /// It is due before this.
    DueBefore(Bound),
    /// It is due after this.
    DueAfter(Bound),
    /// It is not done and its due date has passed, or the contrary.
    Overdue(bool),
}

/// What a column is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A value.
    Value(Value),
    /// The first moment of a day.
    StartOf(Date),
    /// The last moment of a day.
    EndOf(Date),
}

/// The order of a list. Tasks that are equal in it are told apart by their id, in the same direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    /// What is compared.
    pub key: &'static SortKey,
    /// The greatest first. Tasks without a value come last in either direction.
    pub descending: bool,
}

impl Default for Order {
    /// The newest first.
    fn default() -> Order {
        Order {
            key: &rows::CREATED_AT,
            descending: true,
        }
    }
}

/// What tasks are sorted by.
pub struct SortKey {
    /// The field's name.
    pub name: &'static str,
    /// Other names that are understood.
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
    /// Behind a task, which may have gone since.
    Behind(Cursor),
    /// After so many tasks.
    Offset(u32),
    /// At a page of as many tasks as the limit says, counted from 1.
    Page(u32),
}

impl ListQuery {
    /// How many tasks are passed over.
    pub fn offset(&self) -> i64 {
        match self.start {
            Start::Beginning | Start::Behind(_) => 0,
            Start::Offset(offset) => i64::from(offset),
            Start::Page(page) => (i64::from(page) - 1).max(0) * i64::from(self.limit.get()),
        }
    }

    /// Whether all that match are to be counted: asked for, or implied by a page number or an offset.
    pub fn wants_total(&self) -> bool {
        self.include_total || matches!(self.start, Start::Page(_) | Start::Offset(_))
    }
}
