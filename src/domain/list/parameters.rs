//! Reads a list's query string.

use super::rows::{
    CHANGES_PARAMETERS, DELETED_AT, IMPORT_PARAMETERS, Parameter, TRASH_PARAMETERS,
    export_parameters, matching_parameters,
};
use super::{Filters, Limit, ListQuery, Order, PARAMETERS};
use crate::domain::feed::FeedCursor;
use crate::domain::transfer::{Format, OnConflict};

/// A query of which some parameters were read. Parameters are read in the order of their rows.
#[derive(Default)]
pub struct PartialQuery {
    /// The query so far.
    pub query: ListQuery,
    /// What `order` says: whether the list is descending.
    pub descending: Option<bool>,
    /// Where changes begin.
    pub since: Option<FeedCursor>,
    /// Whether tasks are only counted.
    pub dry_run: bool,
    /// The format of a file.
    pub format: Option<Format>,
    /// What an import does with tasks that exist already.
    pub on_conflict: OnConflict,
    /// Whether an import leaves out tasks with errors.
    pub skip_errors: bool,
}

impl PartialQuery {
    /// Reads the decoded names and values of a query string.
    fn of(
        parameters: &[(String, String)],
        rows: impl Iterator<Item = &'static Parameter> + Clone,
        query: ListQuery,
    ) -> Result<PartialQuery, String> {
        let unknown = |(name, _): &&(String, String)| !rows.clone().any(|row| row.is_called(name));
        if let Some((name, _)) = parameters.iter().find(unknown) {
            let names: Vec<&str> = rows.map(|row| row.name).collect();
            return Err(format!(
                "query parameter {name:?} is unknown; this request takes {}",
                names.join(", ")
            ));
        }
        let mut partial = PartialQuery {
            query,
            ..PartialQuery::default()
        };
        for row in rows {
            let mut before: Option<&str> = None;
            for (name, value) in parameters.iter().filter(|(name, _)| row.is_called(name)) {
                match before.replace(name) {
                    Some(before) if !row.repeatable => return Err(twice(before, name)),
                    _ => {}
                }
                (row.read)(row, &mut partial, value)
                    .map_err(|error| format!("query parameter {name} {error}"))?;
            }
        }
        Ok(partial)
    }
}

/// Reads the query string of an export.
///
/// # Errors
/// As [`ListQuery::from_parameters`].
pub fn export(parameters: &[(String, String)]) -> Result<PartialQuery, String> {
    PartialQuery::of(parameters, export_parameters(), ListQuery::default())
}

/// Reads the query string of an import.
///
/// # Errors
/// As [`ListQuery::from_parameters`].
pub fn import(parameters: &[(String, String)]) -> Result<PartialQuery, String> {
    PartialQuery::of(parameters, IMPORT_PARAMETERS.iter(), ListQuery::default())
}

impl ListQuery {
    /// Reads the decoded names and values of a query string.
    ///
    /// # Errors
    /// One sentence that names the parameter that is unknown, given twice or wrong.
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<ListQuery, String> {
        PartialQuery::of(parameters, PARAMETERS.iter(), ListQuery::default())
            .map(|partial| partial.query)
    }

    /// As [`ListQuery::from_parameters`], for the list of deleted tasks.
    ///
    /// # Errors
    /// As there.
    pub fn of_trash(parameters: &[(String, String)]) -> Result<ListQuery, String> {
        let query = ListQuery {
            trash: true,
            order: Order {
                key: &DELETED_AT,
                descending: true,
            },
            ..ListQuery::default()
        };
        PartialQuery::of(parameters, TRASH_PARAMETERS.iter(), query).map(|partial| partial.query)
    }
}

/// Reads the query string of the feed of changes: where they begin, and how many are wanted.
///
/// # Errors
/// As [`ListQuery::from_parameters`].
pub fn changes(parameters: &[(String, String)]) -> Result<(Option<FeedCursor>, Limit), String> {
    let partial = PartialQuery::of(parameters, CHANGES_PARAMETERS.iter(), ListQuery::default())?;
    Ok((partial.since, partial.query.limit))
}

/// Reads the query string of a change to all tasks that match: the filters, and whether these tasks are only counted.
///
/// # Errors
/// As [`ListQuery::from_parameters`]; also if there is no filter.
pub fn matching(parameters: &[(String, String)]) -> Result<(Filters, bool), String> {
    let PartialQuery { query, dry_run, .. } =
        PartialQuery::of(parameters, matching_parameters(), ListQuery::default())?;
    // A time zone is no filter.
    let none = Filters {
        zone: query.filters.zone.clone(),
        ..Filters::default()
    };
    if query.filters == none {
        return Err(
            "the query must have a filter, status=completed for example: without one, all tasks match"
                .to_owned(),
        );
    }
    Ok((query.filters, dry_run))
}

fn twice(before: &str, name: &str) -> String {
    if before == name {
        format!("query parameter {name} is given twice")
    } else {
        format!("query parameters {before} and {name} are the same; give one of them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::list::{Bound, Condition, Filters, Order, SORT_KEYS};
    use crate::domain::tag::Tag;
    use crate::domain::task::Priority;
    use crate::domain::timestamp::{Timestamp, parse_date};
    use crate::domain::value::Value;
    use proptest::prelude::*;

    fn query(text: &str) -> Result<ListQuery, String> {
        let pairs: Vec<(String, String)> = text
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        ListQuery::from_parameters(&pairs)
    }

    #[test]
    fn without_parameters_the_list_is_the_newest_thousand() {
        assert_eq!(query("").unwrap(), ListQuery::default());
        assert_eq!(query("limit=7").unwrap().limit.get(), 7);
        assert_eq!(query("page_size=7").unwrap().limit.get(), 7);
    }

    #[test]
    fn unknown_repeated_and_wrong_parameters_are_named() {
        for (text, named) in [
            ("colour=red", "\"colour\""),
            ("Limit=1", "\"Limit\""),
            ("limit=1&limit=2", "limit is given twice"),
            ("limit=1&page_size=1", "limit and page_size"),
            ("q=a&search=b", "q and search"),
            ("limit=x", "limit must"),
            ("page_size=0", "page_size must"),
            ("completed=1", "completed must"),
            ("status=done", "status must"),
            ("status=pending&completed=true", "contradict"),
            ("priority=low,urgent", "priority must"),
            ("priority=", "priority must"),
            ("due_before=soon", "due_before must"),
            ("created_after=2026-02-30", "created_after must"),
            ("overdue=yes", "overdue must"),
            ("tag=", "tag must"),
            ("tags=a,,b", "tags must"),
            ("tz=UTC%2B2", "tz must"),
            ("sort=colour", "sort must"),
            ("sort=title:up", "sort must"),
            ("sort=--title", "sort must"),
            ("sort_by=title&order=down", "order must"),
            ("sort=-title&order=asc", "contradict"),
            ("offset=-1", "offset must"),
            ("skip=x", "skip must"),
            ("page=0", "page must"),
            ("page=1&offset=1", "only one"),
            ("cursor=AAAA", "cursor must"),
            ("include_total=1", "include_total must"),
        ] {
            let error = query(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let many: Vec<String> = (0..21).map(|n| format!("tag=t{n}")).collect();
        assert!(query(&many.join("&")).unwrap_err().contains("tag"));
        let words = format!("q={}", "a b c d e f g h i j k l m n o p q");
        assert!(query(&words).unwrap_err().contains("q must"));
        assert!(query("q=a\0b").unwrap_err().contains("q must"));
    }

    #[test]
    fn a_change_to_all_that_match_takes_filters_alone_and_at_least_one() {
        let filters = |name: &str| matching(&[(name.to_owned(), "1".to_owned())]);
        for name in [
            "order",
            "sort",
            "limit",
            "cursor",
            "offset",
            "page",
            "include_total",
        ] {
            assert!(filters(name).unwrap_err().contains("unknown"), "{name}");
        }
        assert_eq!(filters("q").unwrap().0.words, ["1"]);
        for (name, value) in [
            ("tz", "UTC"),
            ("status", "all"),
            ("dry_run", "true"),
            ("search", ""),
        ] {
            let error = matching(&[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert!(error.contains("must have a filter"), "{name}: {error}");
        }
    }

    #[test]
    fn sort_orders_have_several_names() {
        let order = |name, descending| Order {
            key: SORT_KEYS.iter().find(|key| key.name == name).unwrap(),
            descending,
        };
        for (text, wanted) in [
            ("", order("created_at", true)),
            ("order=asc", order("created_at", false)),
            ("sort=created", order("created_at", false)),
            ("sort=-updated_at", order("updated_at", true)),
            ("sort=due_date:desc", order("due_date", true)),
            ("sort_by=title&sort_order=desc", order("title", true)),
            ("sort=priority&sort_direction=asc", order("priority", false)),
            ("sort=-completed&order=desc", order("completed", true)),
        ] {
            assert_eq!(query(text).unwrap().order, wanted, "{text}");
        }
    }

    #[test]
    fn filters_are_read() {
        let filters = query("status=active&priority=high&priority=low,high&tags=b, a&tag=a&q=Crème  BRÛLÉE creme&tz=+02:00")
            .unwrap()
            .filters;
        assert_eq!(filters.completed, Some(false));
        assert_eq!(filters.priorities, [Priority::Low, Priority::High]);
        let tags: Vec<&str> = filters.tags.iter().map(Tag::as_str).collect();
        assert_eq!(tags, ["a", "b"]);
        assert_eq!(filters.words, ["creme", "brulee"]);
        assert_eq!(filters.zone.unwrap().to_string(), "+02:00");
        assert_eq!(query("status=all").unwrap().filters, Filters::default());
        assert_eq!(query("search=").unwrap().filters, Filters::default());
    }

    #[test]
    fn a_timestamp_may_have_an_unencoded_plus() {
        let conditions = |text: &str| query(text).unwrap().filters.conditions;
        let moment = Timestamp::parse("2026-01-31T07:30:00Z").unwrap();
        let due = [Condition::DueBefore(Bound::Value(Value::Moment(moment)))];
        assert_eq!(conditions("due_before=2026-01-31T09:30:00 02:00"), due);
        assert_eq!(conditions("due_before=2026-01-31 09:30:00 0200"), due);
        assert_eq!(
            conditions("updated_after=2026-01-31T07:30Z&due_before=2026-01-31"),
            [
                Condition::DueBefore(Bound::StartOf(parse_date("2026-01-31").unwrap())),
                Condition::Compare("updated_at", ">", Bound::Value(Value::Moment(moment))),
            ]
        );
    }

    #[test]
    fn limits_are_whole_numbers_from_1_to_1000() {
        for (text, limit) in [("1", 1), ("1000", 1000), ("050", 50)] {
            assert_eq!(query(&format!("limit={text}")).unwrap().limit.get(), limit);
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
            let error = query(&format!("limit={text}")).unwrap_err();
            assert!(
                error.ends_with("limit must be a whole number from 1 to 1000"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_parameters_make_the_reader_panic(name in "[a-z_]{0,14}", value in any::<String>()) {
            let _ = ListQuery::from_parameters(&[(name, value.clone())]);
            for row in PARAMETERS {
                let _ = ListQuery::from_parameters(&[(row.name.to_owned(), value.clone())]);
            }
        }
    }
}
