//! How many tasks there are of which kind.

use serde::Serialize;
use time::Date;

use super::timestamp::format_date;

/// Days that [`Stats::completed_per_day`] covers, today among them.
pub const STATS_DAYS: usize = 30;

/// A user's tasks in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// All tasks.
    pub total: i64,
    /// Not done.
    pub open: i64,
    /// Done.
    pub completed: i64,
    /// Not done, and the due date has passed.
    pub overdue: i64,
    /// Not done, and due today.
    pub due_today: i64,
    /// All tasks, done or not, by priority.
    pub by_priority: ByPriority,
    /// For each of the last 30 days, the oldest first, how many tasks were done on it.
    pub completed_per_day: Vec<Day>,
    /// The zone in which days begin and end, as requested.
    pub tz: String,
}

/// A number for each priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByPriority {
    /// Of priority low.
    pub low: i64,
    /// Of priority medium.
    pub medium: i64,
    /// Of priority high.
    pub high: i64,
}

/// A number for a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// The day, `YYYY-MM-DD`.
    pub date: String,
    /// The number.
    pub count: i64,
}

impl Day {
    /// A number for a day.
    pub fn new(date: Date, count: i64) -> Day {
        Day {
            date: format_date(date),
            count,
        }
    }
}
