//! The place where a page ended, as opaque text.
//!
//! It holds the sort value and the id of the last task, and a digest of these, the filters and the order, so that a damaged
//! cursor and one of another list are refused. A cursor is not a secret and gives no permission: a forged one lists the client's
//! own tasks. So the digest has no key, and every instance reads the cursors of all others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Filters, Order};
use crate::domain::value::Value;

/// Bytes of the digest in a cursor. It detects damage, not forgery.
const DIGEST: usize = 12;
const ID: usize = 16;

/// The place after a task in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The task's value of the sort key.
    pub value: Value,
    /// The task's id.
    pub id: Uuid,
}

impl Cursor {
    /// Encodes it for this list.
    pub fn encode(&self, filters: &Filters, order: Order) -> String {
        let content = [self.id.as_bytes(), self.value.encode().as_bytes()].concat();
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
        let (id, value) = content.split_at_checked(ID)?;
        let value = Value::decode(std::str::from_utf8(value).ok()?, order.key.kind)?;
        (order.key.nullable || value != Value::Null).then_some(())?;
        let id = Uuid::from_slice(id).ok()?;
        Some(Cursor { value, id })
    }
}

fn digest(content: &[u8], filters: &Filters, order: Order) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(format!(
        "todo-api cursor {} {}",
        order.key.name, order.descending
    ));
    // The derived form names every field and value. If a new version of the program changes it, older cursors are refused, and a
    // client starts again. Most lists have no filters, and it would take more time than all the rest.
    if *filters != Filters::default() {
        hash.update(format!(" {filters:?}"));
    }
    hash.update([0]);
    hash.update(content);
    let digest = hash.finalize();
    // The digest has 32 bytes.
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::list::SORT_KEYS;
    use crate::domain::value::Kind;
    use proptest::prelude::*;

    fn cursors() -> Vec<(Cursor, Order)> {
        let cursors = SORT_KEYS.iter().map(|key| {
            let value = match key.kind {
                _ if key.nullable => Value::Null,
                Kind::Bool => Value::Bool(true),
                Kind::Number => Value::Number(1),
                Kind::Text => Value::Text("buy milk".to_owned()),
                Kind::Moment => Value::Micros(i64::MAX),
            };
            let id = Uuid::now_v7();
            let order = Order {
                key,
                descending: false,
            };
            (Cursor { value, id }, order)
        });
        cursors.collect()
    }

    #[test]
    fn a_cursor_is_valid_for_the_list_it_was_made_for() {
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
    fn a_damaged_cursor_is_refused() {
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
