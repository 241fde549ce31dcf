//! Reads a list's query string.
//!
//! Other servers of this family call the same things by other names; those are understood, too.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::{Filters, Limit, ListQuery, OFFSET_MAX, Order, Range, SortKey, Start, WORDS_MAX};
use crate::domain::fold::fold;
use crate::domain::tag::{TAGS_MAX, Tag};
use crate::domain::task::{Due, Priority};
use crate::domain::timestamp::Timestamp;
use crate::domain::zone::Zone;

/// Every parameter that is given once, with its other names.
const SINGLE: &[(&str, &[&str])] = &[
    ("completed", &[]),
    ("status", &[]),
    ("due_before", &[]),
    ("due_after", &[]),
    ("overdue", &[]),
    ("has_due_date", &[]),
    ("created_before", &[]),
    ("created_after", &[]),
    ("updated_before", &[]),
    ("updated_after", &[]),
    ("search", &["q"]),
    ("tz", &[]),
    ("sort", &["sort_by"]),
    ("order", &["sort_order", "sort_direction"]),
    ("limit", &["page_size"]),
    ("cursor", &[]),
    ("offset", &["skip"]),
    ("page", &[]),
    ("include_total", &[]),
];

/// Those that may be given several times.
const REPEATABLE: &[&str] = &["priority", "tag", "tags"];

impl ListQuery {
    /// Reads the decoded names and values of a query string.
    ///
    /// # Errors
    /// One sentence that names the parameter that is unknown, given twice or wrong.
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<ListQuery, String> {
        let mut given = Given::sort_out(parameters)?;
        let filters = given.filters()?;
        let order = given.order()?;
        let limit = given.read("limit", Limit::parse)?.unwrap_or_default();
        let include_total = given.read("include_total", boolean)?.unwrap_or(false);
        let start = given.start(&filters, order)?;
        Ok(ListQuery {
            filters,
            order,
            limit,
            start,
            include_total,
        })
    }
}

/// What was given: for each parameter the name that was used and the value.
struct Given<'p> {
    single: BTreeMap<&'static str, (&'p str, &'p str)>,
    repeated: Vec<(&'p str, &'p str)>,
}

impl<'p> Given<'p> {
    fn sort_out(parameters: &'p [(String, String)]) -> Result<Given<'p>, String> {
        let mut given = Given {
            single: BTreeMap::new(),
            repeated: Vec::new(),
        };
        for (name, value) in parameters {
            if REPEATABLE.contains(&name.as_str()) {
                given.repeated.push((name, value));
                continue;
            }
            let known = SINGLE
                .iter()
                .find(|(canonical, others)| canonical == name || others.contains(&name.as_str()));
            let Some((canonical, _)) = known else {
                let names: Vec<&str> = REPEATABLE
                    .iter()
                    .chain(SINGLE.iter().map(|(canonical, _)| canonical))
                    .copied()
                    .collect();
                return Err(format!(
                    "query parameter {name:?} is unknown; a list takes {}",
                    names.join(", ")
                ));
            };
            if let Some((before, _)) = given.single.insert(canonical, (name, value)) {
                return Err(if before == name {
                    format!("query parameter {name} is given twice")
                } else {
                    format!("query parameters {before} and {name} are the same; give one of them")
                });
            }
        }
        Ok(given)
    }

    /// Takes a parameter out and reads it.
    fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, String> {
        self.single
            .remove(name)
            .map(|(used, value)| {
                parse(value).map_err(|error| format!("query parameter {used} {error}"))
            })
            .transpose()
    }

    /// The values of a parameter that may be given several times.
    fn repeated(&self, name: &str) -> impl Iterator<Item = &'p str> {
        self.repeated
            .iter()
            .filter(move |(used, _)| *used == name)
            .map(|(_, value)| *value)
    }

    fn filters(&mut self) -> Result<Filters, String> {
        let completed = self.read("completed", boolean)?;
        let status = self.read("status", status)?.flatten();
        if let (Some(completed), Some(status)) = (completed, status)
            && completed != status
        {
            return Err("query parameters completed and status contradict each other".to_owned());
        }
        Ok(Filters {
            completed: completed.or(status),
            priorities: self.priorities()?,
            due: self.range("due_after", "due_before")?,
            overdue: self.read("overdue", boolean)?,
            has_due_date: self.read("has_due_date", boolean)?,
            created: self.range("created_after", "created_before")?,
            updated: self.range("updated_after", "updated_before")?,
            tags: self.tags()?,
            words: self.read("search", words)?.unwrap_or_default(),
            zone: self.read("tz", Zone::parse)?,
        })
    }

    fn priorities(&self) -> Result<Vec<Priority>, String> {
        let mut priorities = self
            .repeated("priority")
            .flat_map(|value| value.split(','))
            .map(|name| Priority::parse(name.trim()))
            .collect::<Result<Vec<Priority>, _>>()
            .map_err(|error| format!("query parameter priority {error}"))?;
        priorities.sort();
        priorities.dedup();
        Ok(priorities)
    }

    fn tags(&self) -> Result<Vec<Tag>, String> {
        let one = self.repeated("tag").map(|value| ("tag", value));
        let several = self
            .repeated("tags")
            .flat_map(|value| value.split(','))
            .map(|value| ("tags", value));
        let mut tags: Vec<Tag> = Vec::new();
        for (name, value) in one.chain(several) {
            let tag =
                Tag::parse(value).map_err(|error| format!("query parameter {name} {error}"))?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if tags.len() > TAGS_MAX {
            return Err("query parameter tag may be given 20 times at most".to_owned());
        }
        Ok(tags)
    }

    fn range(&mut self, after: &'static str, before: &'static str) -> Result<Range, String> {
        Ok(Range {
            after: self.read(after, moment)?,
            before: self.read(before, moment)?,
        })
    }

    /// `sort` names a field, maybe with its direction; `order` gives the direction, maybe alone.
    fn order(&mut self) -> Result<Order, String> {
        let direction = self.read("order", direction)?;
        let Some((key, own)) = self.read("sort", sort)? else {
            return Ok(Order {
                descending: direction.unwrap_or(true),
                ..Order::default()
            });
        };
        if let (Some(own), Some(direction)) = (own, direction)
            && own != direction
        {
            return Err("query parameters sort and order contradict each other".to_owned());
        }
        Ok(Order {
            key,
            descending: own.or(direction).unwrap_or(false),
        })
    }

    fn start(&mut self, filters: &Filters, order: Order) -> Result<Start, String> {
        let number_to = |least: u32, must: &'static str| {
            move |text: &str| {
                number(text)
                    .filter(|number| (least..=OFFSET_MAX).contains(number))
                    .ok_or(must)
            }
        };
        let cursor = self.read("cursor", |text| {
            Cursor::decode(text, filters, order).ok_or(
                "must be the next_cursor of an answer to the same filters and order; start again without it",
            )
        })?;
        let offset = self.read(
            "offset",
            number_to(0, "must be a whole number from 0 to 1000000000"),
        )?;
        let page = self.read(
            "page",
            number_to(1, "must be a whole number from 1 to 1000000000"),
        )?;
        match (cursor, offset, page) {
            (None, None, None) => Ok(Start::Beginning),
            (Some(cursor), None, None) => Ok(Start::Behind(cursor)),
            (None, Some(offset), None) => Ok(Start::Offset(offset)),
            (None, None, Some(page)) => Ok(Start::Page(page)),
            _ => Err(
                "of the query parameters cursor, offset and page only one can be used".to_owned(),
            ),
        }
    }
}

/// Reads decimal digits.
pub fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

fn status(text: &str) -> Result<Option<bool>, &'static str> {
    match text {
        "all" => Ok(None),
        "pending" | "active" | "incomplete" => Ok(Some(false)),
        "completed" | "complete" => Ok(Some(true)),
        _ => Err("must be all, pending, active, incomplete, completed or complete"),
    }
}

/// A moment or a day. The `+` of an offset that nobody encoded arrives as a space.
fn moment(text: &str) -> Result<Due, &'static str> {
    Due::parse(text).or_else(|error| {
        let (moment, offset) = text.rsplit_once(' ').ok_or(error)?;
        Timestamp::parse(&format!("{moment}+{offset}"))
            .map(Due::At)
            .ok_or(error)
    })
}

fn words(text: &str) -> Result<Vec<String>, &'static str> {
    if text.contains('\0') {
        return Err("must not contain the character NUL");
    }
    let mut words: Vec<String> = Vec::new();
    for word in fold(text).split_whitespace() {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    if words.len() > WORDS_MAX {
        return Err("must have at most 16 words");
    }
    Ok(words)
}

fn direction(text: &str) -> Result<bool, &'static str> {
    match text {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err("must be asc or desc"),
    }
}

/// A field and, where it says so, whether it is descending.
fn sort(text: &str) -> Result<(SortKey, Option<bool>), &'static str> {
    const MUST: &str = "must be created_at, updated_at, due_date, priority, title or completed, descending as -title or title:desc";
    let (name, direction) = match (text.strip_prefix('-'), text.split_once(':')) {
        (Some(name), _) => (name, Some(true)),
        (None, Some((name, "asc"))) => (name, Some(false)),
        (None, Some((name, "desc"))) => (name, Some(true)),
        (None, Some(_)) => return Err(MUST),
        (None, None) => (text, None),
    };
    let key = match name {
        "created_at" | "created" => SortKey::CreatedAt,
        "updated_at" | "updated" => SortKey::UpdatedAt,
        "due_date" => SortKey::DueDate,
        "priority" => SortKey::Priority,
        "title" => SortKey::Title,
        "completed" => SortKey::Completed,
        _ => return Err(MUST),
    };
    Ok((key, direction))
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn nothing_asked_for_is_the_newest_thousand() {
        assert_eq!(query("").unwrap(), ListQuery::default());
        assert_eq!(query("limit=7").unwrap().limit.get(), 7);
        assert_eq!(query("page_size=7").unwrap().limit.get(), 7);
    }

    #[test]
    fn unknown_doubled_and_wrong_parameters_are_named() {
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
    fn orders_go_by_many_names() {
        let order = |key, descending| Order { key, descending };
        for (text, wanted) in [
            ("", order(SortKey::CreatedAt, true)),
            ("order=asc", order(SortKey::CreatedAt, false)),
            ("sort=created", order(SortKey::CreatedAt, false)),
            ("sort=-updated_at", order(SortKey::UpdatedAt, true)),
            ("sort=due_date:desc", order(SortKey::DueDate, true)),
            ("sort_by=title&sort_order=desc", order(SortKey::Title, true)),
            (
                "sort=priority&sort_direction=asc",
                order(SortKey::Priority, false),
            ),
            (
                "sort=-completed&order=desc",
                order(SortKey::Completed, true),
            ),
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
    fn moments_survive_a_plus_that_nobody_encoded() {
        let before = |text: &str| query(text).unwrap().filters.due.before;
        let moment = Timestamp::parse("2026-01-31T07:30:00Z").map(Due::At);
        assert_eq!(before("due_before=2026-01-31T09:30:00 02:00"), moment);
        assert_eq!(before("due_before=2026-01-31 09:30:00 0200"), moment);
        assert_eq!(
            before("due_before=2026-01-31"),
            Due::parse("2026-01-31").ok()
        );
    }

    proptest! {
        #[test]
        fn no_parameters_make_the_reader_panic(name in "[a-z_]{0,14}", value in any::<String>()) {
            let _ = ListQuery::from_parameters(&[(name, value.clone())]);
            for (name, _) in SINGLE {
                let _ = ListQuery::from_parameters(&[(name.to_string(), value.clone())]);
            }
        }
    }
}
