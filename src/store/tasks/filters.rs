//! A list's filters as conditions on the table called task.

use postgres::types::Type;

use super::statement::Statement;
use crate::domain::list::{Bound, Condition, Filters};
use crate::domain::zone::Zone;

impl Statement {
    /// Adds the filters, each after AND.
    pub(super) fn add_filters(&mut self, filters: &Filters) {
        for condition in self.conditions(filters) {
            self.text.push_str(" AND ");
            self.text.push_str(&condition);
        }
    }

    fn conditions(&mut self, filters: &Filters) -> Vec<String> {
        let mut all = Vec::new();
        let zone = filters.zone.clone().unwrap_or_default();
        if let Some(zone) = &filters.zone {
            // Makes an unknown zone an error even if no other condition uses it.
            let zone = self.zone(zone);
            all.push(format!("now() AT TIME ZONE {zone} IS NOT NULL"));
        }
        if let Some(completed) = filters.completed {
            let is = if completed { "IS NOT NULL" } else { "IS NULL" };
            all.push(format!("task.completed_at {is}"));
        }
        if !filters.priorities.is_empty() {
            let ranks: Vec<i16> = filters.priorities.iter().map(|p| p.rank()).collect();
            let ranks = self.bind(ranks, Type::INT2_ARRAY);
            all.push(format!("task.priority = ANY ({ranks})"));
        }
        for condition in &filters.conditions {
            all.push(self.condition(condition, &zone));
        }
        if !filters.tags.is_empty() {
            let tags = filters.tags.iter().map(|tag| tag.as_str().to_owned());
            let tags = self.bind(tags.collect::<Vec<String>>(), Type::TEXT_ARRAY);
            all.push(format!("task.tags @> {tags}"));
        }
        for word in &filters.words {
            let pattern = self.bind(pattern(word), Type::TEXT);
            all.push(format!(
                "(coalesce(task.title_folded, lower(task.title)) LIKE {pattern}
                  OR coalesce(task.description_folded, lower(task.description)) LIKE {pattern})"
            ));
        }
        all
    }

    fn condition(&mut self, condition: &Condition, zone: &Zone) -> String {
        match condition {
            Condition::Present(column, true) => format!("task.{column} IS NOT NULL"),
            Condition::Present(column, false) => format!("task.{column} IS NULL"),
            Condition::Compare(column, operator, bound) => {
                format!("task.{column} {operator} {}", self.bound(bound, zone))
            }
            Condition::DueBefore(bound) => due_before(&self.bound(bound, zone), &self.zone(zone)),
            Condition::DueAfter(bound) => due_after(&self.bound(bound, zone), &self.zone(zone)),
            Condition::Overdue(overdue) => {
                let past = due_before("now()", &self.zone(zone));
                if *overdue {
                    format!("task.completed_at IS NULL AND {past}")
                } else {
                    format!("(task.completed_at IS NOT NULL OR ({past}) IS NOT TRUE)")
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

/// The condition that a task is due before a moment. A plain date is due before it if its day has ended in the zone.
pub(super) fn due_before(moment: &str, zone: &str) -> String {
    format!(
        "CASE WHEN task.due_on IS NULL THEN task.due_at < {moment}
              ELSE task.due_on < ({moment} AT TIME ZONE {zone})::date END"
    )
}

/// The condition that a task is due after a moment. See [`due_before`]. A day that ends at the moment is not after it.
fn due_after(moment: &str, zone: &str) -> String {
    format!(
        "CASE WHEN task.due_on IS NULL THEN task.due_at > {moment}
              ELSE task.due_on >= (({moment} + interval '1 microsecond') AT TIME ZONE {zone})::date END"
    )
}

/// A pattern for LIKE that finds a word literally, anywhere in the text.
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
    fn a_pattern_finds_the_word_literally() {
        assert_eq!(pattern("100%_\\"), "%100\\%\\_\\\\%");
    }
}
