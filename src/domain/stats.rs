//! How many tasks there are of which kind.

use serde::Serialize;
use time::Date;
use utoipa::ToSchema;

use super::timestamp::format_date;

/// Days that [`Stats::completed_per_day`] covers, today among them.
pub const STATS_DAYS: usize = 30;

/// A user's tasks in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stats {
    /// All of them.
    #[schema(minimum = 0)]
    pub total: i64,
    /// Not done.
    #[schema(minimum = 0)]
    pub open: i64,
    /// Done.
    #[schema(minimum = 0)]
    pub completed: i64,
    /// Not done and past.
    #[schema(minimum = 0)]
    pub overdue: i64,
    /// Not done, and due on the day that it is now.
    #[schema(minimum = 0)]
    pub due_today: i64,
    /// All of them, done or not.
    pub by_priority: ByPriority,
    /// For each of the last 30 days, the oldest first, how many were done on it.
    pub completed_per_day: Vec<Day>,
    /// The zone that tells days apart, as it was asked for.
    #[schema(example = "Europe/Berlin")]
    pub tz: String,
}

/// A number for each priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ByPriority {
    /// Of priority low.
    #[schema(minimum = 0)]
    pub low: i64,
    /// Of priority medium.
    #[schema(minimum = 0)]
    pub medium: i64,
    /// Of priority high.
    #[schema(minimum = 0)]
    pub high: i64,
}

/// A number for a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Day {
    /// The day, `YYYY-MM-DD`.
    #[schema(format = Date, example = "2026-01-31")]
    pub date: String,
    /// The number.
    #[schema(minimum = 0)]
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
