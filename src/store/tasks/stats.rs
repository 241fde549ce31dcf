//! A user's tasks in numbers.

use std::collections::BTreeMap;

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
         SELECT 'day', NULL, today - day, count(task.completed_at)
         FROM today, generate_series(0, {last}) AS day
              LEFT JOIN {{schema}}.tasks AS task
              ON task.user_id = $1 AND task.completed
                 AND (task.completed_at AT TIME ZONE $2)::date = (now() AT TIME ZONE $2)::date - day
         GROUP BY 3 ORDER BY 3",
        last = STATS_DAYS - 1
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
    let mut days = BTreeMap::new();
    for row in rows {
        let kind: &str = row.try_get(0)?;
        let count: i64 = row.try_get(3)?;
        match kind {
            "overdue" => stats.overdue = count,
            "due today" => stats.due_today = count,
            "day" => {
                days.insert(row.try_get::<_, Date>(2)?, count);
            }
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
    stats.completed_per_day = days
        .into_iter()
        .map(|(date, count)| Day::new(date, count))
        .collect();
    Ok(stats)
}
