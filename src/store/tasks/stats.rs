//! Statistics of a user's tasks.

use std::collections::HashMap;
use std::sync::LazyLock;

use postgres::{Error as PgError, Row};
use time::Date;

use super::filters::due_before;
use super::list::is_unknown_zone;
use crate::domain::stats::{Day, STATS_DAYS, Stats};
use crate::domain::task::Priority;
use crate::domain::user::UserId;
use crate::domain::zone::Zone;
use crate::store::{Effect, Error, Store};

/// Counts the user's tasks in one pass: a row for each combination of state, priority and day of completion. Without tasks, it is
/// one row of zeros.
static STATS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH day AS MATERIALIZED (
             SELECT today, (today - {back})::timestamp AT TIME ZONE $2 AS first, (today + 1)::timestamp AT TIME ZONE $2 AS next
             FROM (SELECT (now() AT TIME ZONE $2)::date AS today) AS now
         )
         SELECT day.today, task.completed_at IS NOT NULL, coalesce(task.priority, 1::smallint),
                CASE WHEN task.completed_at >= day.first AND task.completed_at < day.next
                     THEN (task.completed_at AT TIME ZONE $2)::date END,
                count(task.id),
                count(*) FILTER (WHERE task.completed_at IS NULL AND {overdue}),
                count(*) FILTER (WHERE task.completed_at IS NULL
                                 AND coalesce(task.due_on, (task.due_at AT TIME ZONE $2)::date) = day.today)
         FROM day LEFT JOIN {{schema}}.tasks AS task ON task.user_id = $1
         GROUP BY 1, 2, 3, 4",
        back = STATS_DAYS - 1,
        overdue = due_before("now()", "$2"),
    )
});

impl Store {
    /// Statistics of a user's tasks, with the days of a zone; `None` if PostgreSQL does not know the zone.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_stats(&self, user: &UserId, zone: &Zone) -> Result<Option<Stats>, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(&STATS)?;
            match client.query(&statement, &[&user.as_str(), &zone.as_str()]) {
                Err(error) if is_unknown_zone(&error) => Ok(None),
                rows => read(&rows?, zone).map(Some),
            }
        })
    }
}

fn read(rows: &[Row], zone: &Zone) -> Result<Stats, PgError> {
    let mut stats = Stats {
        tz: zone.to_string(),
        ..Stats::default()
    };
    let (mut today, mut days) = (None, HashMap::new());
    for row in rows {
        today = Some(row.try_get::<_, Date>(0)?);
        let count: i64 = row.try_get(4)?;
        if row.try_get(1)? {
            stats.completed += count;
        } else {
            stats.open += count;
        }
        let by = &mut stats.by_priority;
        *match Priority::of_rank(row.try_get::<_, i16>(2)?.into()) {
            Priority::Low => &mut by.low,
            Priority::Medium => &mut by.medium,
            Priority::High => &mut by.high,
        } += count;
        if let Some(day) = row.try_get::<_, Option<Date>>(3)? {
            *days.entry(day).or_insert(0) += count;
        }
        stats.overdue += row.try_get::<_, i64>(5)?;
        stats.due_today += row.try_get::<_, i64>(6)?;
    }
    stats.total = stats.open + stats.completed;
    let backwards = std::iter::successors(today, |day| day.previous_day());
    stats.completed_per_day = backwards
        .take(STATS_DAYS)
        .map(|day| Day::new(day, days.get(&day).copied().unwrap_or(0)))
        .collect();
    stats.completed_per_day.reverse();
    Ok(stats)
}
