//! What is asked of a list of tasks: filters, order, page.
//!
//! - `parameters`: reads it from a query string
//! - [`cursor`]: where the last page ended

pub mod cursor;
mod parameters;

use super::tag::Tag;
use super::task::{Due, Priority};
use super::zone::Zone;
use cursor::Cursor;

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
    /// Reads a decimal number.
    ///
    /// # Errors
    /// Says what a limit must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Limit, &'static str> {
        parameters::number(text)
            .and_then(|limit| u16::try_from(limit).ok())
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .map(Limit)
            .ok_or("must be a whole number from 1 to 1000")
    }

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
}

/// What a task must be to be listed: all of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Done, or not.
    pub completed: Option<bool>,
    /// One of these, each once, in rising order; none: any.
    pub priorities: Vec<Priority>,
    /// When it is due; a task that is due at no time is in no such range.
    pub due: Range,
    /// Not done and past, or the contrary.
    pub overdue: Option<bool>,
    /// Whether it is due at some time.
    pub has_due_date: Option<bool>,
    /// When it was made.
    pub created: Range,
    /// When it last changed.
    pub updated: Range,
    /// All of these, each once.
    pub tags: Vec<Tag>,
    /// Each of these, folded, occurs in title or description.
    pub words: Vec<String>,
    /// Tells when a day begins and ends; `None` where none was named: UTC.
    pub zone: Option<Zone>,
}

/// A stretch of time without its ends. A plain date stands for the whole day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Later than this.
    pub after: Option<Due>,
    /// Earlier than this.
    pub before: Option<Due>,
}

/// The order of a list. Tasks that are equal in it are told apart by their id, in the same direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is compared.
    pub key: SortKey,
    /// The greatest first. Tasks that are due at no time come last in either direction.
    pub descending: bool,
}

impl Default for Order {
    /// The newest first.
    fn default() -> Order {
        Order {
            key: SortKey::CreatedAt,
            descending: true,
        }
    }
}

/// What tasks are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// When they were made.
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
    /// When they are due (see [`Due::moment`]).
    DueDate,
    /// By rank.
    Priority,
    /// Without case and accents (see [`super::fold::title_key`]).
    Title,
    /// Those that are not done are less.
    Completed,
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

    /// Whether all that match are to be counted: asked for, or implied by asking for a page by its number.
    pub fn wants_total(&self) -> bool {
        self.include_total || matches!(self.start, Start::Page(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_numbers_from_1_to_1000() {
        for (text, limit) in [("1", 1), ("1000", 1000), ("050", 50)] {
            assert_eq!(Limit::parse(text).unwrap().get(), limit);
        }
        for text in [
            "",
            "0",
            "1001",
            "-1",
            "+1",
            "1.5",
            "ten",
            "99999999999999999999",
            " 1",
        ] {
            assert!(Limit::parse(text).is_err(), "{text:?}");
        }
    }
}
