//! What a list's filters say, as conditions on the table called task.

use postgres::types::Type;

use super::statement::Statement;
use crate::domain::list::{Bound, Condition, Filters};
use crate::domain::zone::Zone;

/// Tags that a list looks up in their own table; any more it looks for on the tasks.
pub(super) const TAGS_JOINED: usize = 4;

impl Statement {
    /// What the filters say, but for the tags that are joined. `created_at` is the column that the list is in the order of.
    pub(super) fn conditions(&mut self, filters: &Filters, created_at: &str) -> Vec<String> {
        let mut all = Vec::new();
        let zone = filters.zone.clone().unwrap_or_default();
        if let Some(zone) = &filters.zone {
            // Finds an unknown zone even where no other condition depends on it.
            let zone = self.zone(zone);
            all.push(format!("now() AT TIME ZONE {zone} IS NOT NULL"));
        }
        if let Some(completed) = filters.completed {
            all.push(state(completed));
        }
        if !filters.priorities.is_empty() {
            let ranks: Vec<i16> = filters.priorities.iter().map(|p| p.rank()).collect();
            let ranks = self.bind(ranks, Type::INT2_ARRAY);
            all.push(format!("task.priority = ANY ({ranks})"));
        }
        for condition in &filters.conditions {
            let condition = self.condition(condition, &zone, created_at);
            all.push(condition);
        }
        if filters.tags.len() > TAGS_JOINED {
            let tags: Vec<String> = filters
                .tags
                .iter()
                .map(|tag| tag.as_str().to_owned())
                .collect();
            let tags = self.bind(tags, Type::TEXT_ARRAY);
            all.push(format!("task.tags @> {tags}"));
        }
        for word in &filters.words {
            let pattern = self.bind(pattern(word), Type::TEXT);
            all.push(format!("task.search LIKE {pattern}"));
        }
        all
    }

    fn condition(&mut self, condition: &Condition, zone: &Zone, created_at: &str) -> String {
        let place = |column: &str| match column {
            "created_at" => created_at.to_owned(),
            column => format!("task.{column}"),
        };
        match condition {
            Condition::Present(column, true) => format!("{} IS NOT NULL", place(column)),
            Condition::Present(column, false) => format!("{} IS NULL", place(column)),
            Condition::Compare(column, operator, bound) => {
                format!("{} {operator} {}", place(column), self.bound(bound, zone))
            }
            Condition::DueBefore(bound) => due_before(&self.bound(bound, zone), &self.zone(zone)),
            Condition::DueAfter(bound) => due_after(&self.bound(bound, zone), &self.zone(zone)),
            Condition::Overdue(overdue) => {
                let past = due_before("now()", &self.zone(zone));
                if *overdue {
                    format!("NOT task.completed AND {past}")
                } else {
                    format!("(task.completed OR ({past}) IS NOT TRUE)")
                }
            }
        }
    }

    fn bound(&mut self, bound: &Bound, zone: &Zone) -> String {
        match bound {
            Bound::Value(value) => self.bind_value(value.clone()),
            Bound::StartOf(date) => {
                let (date, zone) = (self.bind(*date, Type::DATE), self.zone(zone));
                format!("({date}::timestamp AT TIME ZONE {zone})")
            }
            Bound::EndOf(date) => {
                let (date, zone) = (self.bind(*date, Type::DATE), self.zone(zone));
                format!(
                    "((({date} + 1)::timestamp AT TIME ZONE {zone}) - interval '1 microsecond')"
                )
            }
        }
    }

    fn zone(&mut self, zone: &Zone) -> String {
        self.bind(zone.as_str().to_owned(), Type::TEXT)
    }
}

/// That a task is done, or not.
pub(super) fn state(completed: bool) -> String {
    if completed {
        "task.completed"
    } else {
        "NOT task.completed"
    }
    .to_owned()
}

/// That a task is due before a moment. A plain date is, when its day is over by then in the zone. The first condition follows
/// from the second, but an index can serve it: a plain date is kept as the end of its day in UTC.
pub(super) fn due_before(moment: &str, zone: &str) -> String {
    format!(
        "(task.due_at < greatest({moment}, ({moment} AT TIME ZONE {zone})::date::timestamp AT TIME ZONE 'UTC')
          AND CASE WHEN task.due_on IS NULL THEN task.due_at < {moment}
                   ELSE task.due_on < ({moment} AT TIME ZONE {zone})::date END)"
    )
}

/// That a task is due after a moment. See [`due_before`]; a day that ends with the moment itself is not after it.
fn due_after(moment: &str, zone: &str) -> String {
    let day = format!("(({moment} + interval '1 microsecond') AT TIME ZONE {zone})::date");
    format!(
        "(task.due_at > least({moment}, {day}::timestamp AT TIME ZONE 'UTC')
          AND CASE WHEN task.due_on IS NULL THEN task.due_at > {moment} ELSE task.due_on >= {day} END)"
    )
}

/// A pattern for LIKE that finds a word as it stands, wherever it stands.
fn pattern(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() + 2);
    pattern.push('%');
    for c in word.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_finds_what_is_written() {
        assert_eq!(pattern("100%_\\"), "%100\\%\\_\\\\%");
    }
}
