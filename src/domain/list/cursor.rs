//! Where the last page ended, as an opaque text.
//!
//! It holds the sort key and the id of the last task, and a digest over these, the filters and the order. So one that is
//! damaged, or that was made for another list, is found out. It is no secret and no permission: whoever makes one of their own
//! sees their own tasks from another place on. Hence no key, and every instance reads those of every other.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Filters, Order, SortKey};
use crate::domain::fold::title_key;
use crate::domain::task::{Due, Priority, Task};
use crate::domain::timestamp::Timestamp;

/// Bytes of the digest that a cursor carries; against accidents, not against forgers.
const DIGEST: usize = 12;
const ID: usize = 16;

/// The place behind a task in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The task's sort key.
    pub key: Key,
    /// The task's id.
    pub id: Uuid,
}

/// What a task is sorted by, by its value.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// `created_at` or `updated_at`.
    Moment(Timestamp),
    /// `due_date`; none comes last.
    Due(Option<Timestamp>),
    /// `priority`.
    Priority(Priority),
    /// `completed`.
    Completed(bool),
    /// `title`, folded.
    Title(String),
}

impl Cursor {
    /// The place behind a task.
    pub fn behind(task: &Task, order: Order) -> Cursor {
        let key = match order.key {
            SortKey::CreatedAt => Key::Moment(task.created_at),
            SortKey::UpdatedAt => Key::Moment(task.updated_at),
            SortKey::DueDate => Key::Due(task.due_date.map(Due::moment)),
            SortKey::Priority => Key::Priority(task.priority),
            SortKey::Completed => Key::Completed(task.completed),
            SortKey::Title => Key::Title(title_key(&task.title)),
        };
        Cursor { key, id: task.id }
    }

    /// Shows it, bound to a list.
    pub fn encode(&self, filters: &Filters, order: Order) -> String {
        let content = [self.id.as_bytes(), self.key.text().as_bytes()].concat();
        let digest = digest(&content, filters, order);
        URL_SAFE_NO_PAD.encode([&digest[..], &content].concat())
    }

    /// Reads what [`Cursor::encode`] made for the same list; `None` for anything else.
    pub fn decode(text: &str, filters: &Filters, order: Order) -> Option<Cursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (given, content) = bytes.split_at_checked(DIGEST)?;
        if given != digest(content, filters, order) {
            return None;
        }
        let (id, key) = content.split_at_checked(ID)?;
        Some(Cursor {
            key: Key::parse(std::str::from_utf8(key).ok()?, order.key)?,
            id: Uuid::from_slice(id).ok()?,
        })
    }
}

impl Key {
    fn text(&self) -> String {
        match self {
            Key::Moment(moment) | Key::Due(Some(moment)) => moment.micros().to_string(),
            Key::Due(None) => String::new(),
            Key::Priority(priority) => priority.rank().to_string(),
            Key::Completed(completed) => completed.to_string(),
            Key::Title(title) => title.clone(),
        }
    }

    fn parse(text: &str, key: SortKey) -> Option<Key> {
        let moment = |text: &str| Timestamp::from_micros(text.parse().ok()?);
        Some(match key {
            SortKey::CreatedAt | SortKey::UpdatedAt => Key::Moment(moment(text)?),
            SortKey::DueDate if text.is_empty() => Key::Due(None),
            SortKey::DueDate => Key::Due(Some(moment(text)?)),
            SortKey::Priority => Key::Priority(Priority::from_rank(text.parse().ok()?)?),
            SortKey::Completed => Key::Completed(text.parse().ok()?),
            // NUL is the one character that PostgreSQL does not take.
            SortKey::Title => Key::Title(Some(text).filter(|t| !t.contains('\0'))?.to_owned()),
        })
    }
}

fn digest(content: &[u8], filters: &Filters, order: Order) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    // The derived form names every field and value. Should it change with a new version of the program, cursors made before
    // are refused, and a client starts again.
    hash.update(format!("todo-api cursor {filters:?} {order:?}"));
    hash.update([0]);
    hash.update(content);
    let digest = hash.finalize();
    // There are 32 bytes to take these from.
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(key: SortKey) -> Order {
        Order {
            key,
            descending: false,
        }
    }

    fn cursors() -> Vec<(Cursor, Order)> {
        let moment = Timestamp::parse("2026-01-31T09:30:00.000001Z").unwrap();
        [
            (Key::Moment(moment), SortKey::CreatedAt),
            (Key::Moment(moment), SortKey::UpdatedAt),
            (Key::Due(Some(moment)), SortKey::DueDate),
            (Key::Due(None), SortKey::DueDate),
            (Key::Priority(Priority::High), SortKey::Priority),
            (Key::Completed(true), SortKey::Completed),
            (Key::Title("creme \u{1f44d}".to_owned()), SortKey::Title),
        ]
        .map(|(key, by)| {
            (
                Cursor {
                    key,
                    id: Uuid::now_v7(),
                },
                order(by),
            )
        })
        .to_vec()
    }

    #[test]
    fn a_cursor_is_read_back_for_the_list_it_was_made_for() {
        let filters = Filters::default();
        for (cursor, order) in cursors() {
            let text = cursor.encode(&filters, order);
            assert_eq!(Cursor::decode(&text, &filters, order), Some(cursor));
            let other = Filters {
                completed: Some(true),
                ..Filters::default()
            };
            assert_eq!(Cursor::decode(&text, &other, order), None);
            let turned = Order {
                descending: true,
                ..order
            };
            assert_eq!(Cursor::decode(&text, &filters, turned), None);
        }
    }

    #[test]
    fn a_damaged_cursor_is_found_out() {
        let filters = Filters::default();
        for (cursor, order) in cursors() {
            let text = cursor.encode(&filters, order);
            for at in 0..text.len() {
                let mut damaged = text.clone().into_bytes();
                damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
                let damaged = String::from_utf8(damaged).unwrap();
                assert_eq!(Cursor::decode(&damaged, &filters, order), None, "{damaged}");
                assert_eq!(Cursor::decode(&text[..at], &filters, order), None);
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Za-z0-9_-]{0,80}") {
            prop_assert_eq!(Cursor::decode(&text, &Filters::default(), Order::default()), None);
        }
    }
}
