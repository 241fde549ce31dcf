//! A user's tasks in numbers.

use std::collections::HashMap;

use postgres::types::{ToSql, Type};
use postgres::{Error as PgError, Row};
use time::Date;

use super::filters::due_before;
use super::list::is_unknown_zone;
use crate::domain::stats::{Day, STATS_DAYS, Stats};
use crate::domain::user::UserId;
use crate::domain::zone::Zone;
use crate::store::{Effect, Error, Store};

/// All numbers in one statement: which number, of which priority or day, and the number. The first two are read in indexes.
fn statement() -> String {
    let overdue = due_before("now()", "$2");
    format!(
        "WITH today AS MATERIALIZED (SELECT (now() AT TIME ZONE $2)::date AS today)
         SELECT CASE WHEN completed THEN 'completed' ELSE 'open' END AS kind, priority, NULL::date AS day, count(*)
         FROM {{schema}}.tasks WHERE user_id = $1 GROUP BY completed, priority
         UNION ALL
         SELECT 'overdue', NULL, NULL, count(*)
         FROM {{schema}}.tasks AS task WHERE user_id = $1 AND NOT completed AND {overdue}
         UNION ALL
         SELECT 'due today', NULL, NULL, count(*)
         FROM today, {{schema}}.tasks
         WHERE user_id = $1 AND NOT completed
               AND due_at >= least(today::timestamp AT TIME ZONE $2, today::timestamp AT TIME ZONE 'UTC')
               AND due_at < greatest((today + 1)::timestamp AT TIME ZONE $2, (today + 1)::timestamp AT TIME ZONE 'UTC')
               AND coalesce(due_on, (due_at AT TIME ZONE $2)::date) = today
         UNION ALL
         SELECT 'day', NULL, (completed_at AT TIME ZONE $2)::date, count(*)
         FROM today, {{schema}}.tasks
         WHERE user_id = $1 AND completed AND completed_at >= (today - {back})::timestamp AT TIME ZONE $2
         GROUP BY (completed_at AT TIME ZONE $2)::date
         UNION ALL
         SELECT 'today', NULL, today, 0 FROM today",
        back = STATS_DAYS - 1
    )
}

impl Store {
    /// A user's tasks in numbers, with days as a zone has them; `None` where PostgreSQL does not know the zone.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_stats(&self, user: &UserId, zone: &Zone) -> Result<Option<Stats>, Error> {
        let text = statement();
        self.run(Effect::Read, |client| {
            // Whether an index on due dates helps depends on how many there are, and when.
            let values: [(&(dyn ToSql + Sync), Type); 2] =
                [(&user.as_str(), Type::TEXT), (&zone.as_str(), Type::TEXT)];
            match client.query_planned(&text, &values) {
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
        let kind: &str = row.try_get(0)?;
        let count: i64 = row.try_get(3)?;
        match kind {
            "overdue" => stats.overdue = count,
            "due today" => stats.due_today = count,
            "today" => today = Some(row.try_get::<_, Date>(2)?),
            "day" => drop(days.insert(row.try_get::<_, Date>(2)?, count)),
            _ => {
                let of_state = if kind == "open" {
                    &mut stats.open
                } else {
                    &mut stats.completed
                };
                *of_state += count;
                stats.total += count;
                let by = &mut stats.by_priority;
                *match row.try_get::<_, i16>(1)? {
                    0 => &mut by.low,
                    1 => &mut by.medium,
                    _ => &mut by.high,
                } += count;
            }
        }
    }
    let backwards = std::iter::successors(today, |day| day.previous_day());
    stats.completed_per_day = backwards
        .take(STATS_DAYS)
        .map(|day| Day::new(day, days.get(&day).copied().unwrap_or(0)))
        .collect();
    stats.completed_per_day.reverse();
    Ok(stats)
}
