//! What a list's filters say, as conditions on the table called task.

use postgres::types::Type;

use super::statement::Statement;
use crate::domain::list::{Filters, Range};
use crate::domain::task::Due;
use crate::domain::zone::Zone;

/// Tags that a list looks up in their own table; any more it looks for on the tasks.
pub(super) const TAGS_JOINED: usize = 4;

impl Statement {
    /// What the filters say, but for the tags that are joined. `created_at` is the column that the list is in the order of.
    pub(super) fn conditions(&mut self, filters: &Filters, created_at: &str) -> Vec<String> {
        let mut all = Vec::new();
        let zone = filters.zone.clone().unwrap_or_default();
        if let Some(zone) = &filters.zone {
            // So that an unknown one is found out even where nothing depends on it.
            let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
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
        if let Some(before) = filters.due.before {
            let moment = self.start_of(before, &zone);
            let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
            all.push(due_before(&moment, &zone));
        }
        if let Some(after) = filters.due.after {
            let moment = self.end_of(after, &zone);
            let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
            all.push(due_after(&moment, &zone));
        }
        if let Some(overdue) = filters.overdue {
            let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
            let past = due_before("now()", &zone);
            all.push(if overdue {
                format!("NOT task.completed AND {past}")
            } else {
                format!("(task.completed OR ({past}) IS NOT TRUE)")
            });
        }
        match filters.has_due_date {
            Some(true) => all.push("task.due_at IS NOT NULL".to_owned()),
            Some(false) => all.push("task.due_at IS NULL".to_owned()),
            None => {}
        }
        for (column, range) in [
            (created_at, filters.created),
            ("task.updated_at", filters.updated),
        ] {
            self.range(column, range, &zone, &mut all);
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

    fn range(&mut self, column: &str, range: Range, zone: &Zone, all: &mut Vec<String>) {
        if let Some(before) = range.before {
            let moment = self.start_of(before, zone);
            all.push(format!("{column} < {moment}"));
        }
        if let Some(after) = range.after {
            let moment = self.end_of(after, zone);
            all.push(format!("{column} > {moment}"));
        }
    }

    /// A moment, or when a day begins.
    fn start_of(&mut self, due: Due, zone: &Zone) -> String {
        match due {
            Due::At(moment) => self.bind(moment.as_utc(), Type::TIMESTAMPTZ),
            Due::On(date) => {
                let date = self.bind(date, Type::DATE);
                let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
                format!("({date}::timestamp AT TIME ZONE {zone})")
            }
        }
    }

    /// A moment, or the last one of a day.
    fn end_of(&mut self, due: Due, zone: &Zone) -> String {
        match due {
            Due::At(moment) => self.bind(moment.as_utc(), Type::TIMESTAMPTZ),
            Due::On(date) => {
                let date = self.bind(date, Type::DATE);
                let zone = self.bind(zone.as_str().to_owned(), Type::TEXT);
                format!(
                    "((({date} + 1)::timestamp AT TIME ZONE {zone}) - interval '1 microsecond')"
                )
            }
        }
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
