//! How much of the feed of changes a client knows, as an opaque text.
//!
//! As that of a list, the text holds a digest over the rest, by which a damaged one is refused. It is not a secret and gives no permission.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes of the digest. It finds accidents, not forgery.
const DIGEST: usize = 8;
const ID: usize = 16;

/// The part of the feed that a client knows.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedCursor {
    /// The feed.
    pub feed: u64,
    /// When the user's row was made, in microseconds since 1970; 0 where there was none.
    pub owner: u64,
    /// The client knows all tasks as this snapshot shows them. `None` during the first copy.
    pub known: Option<Snapshot>,
    /// The round whose pages are being read.
    pub round: Option<Round>,
}

/// A round of pages: it brings the client from one snapshot to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// The snapshot that the client knows after the last page.
    pub snapshot: Snapshot,
    /// The last row of the page before: its transaction and its id.
    pub after: (u64, Uuid),
}

/// A snapshot of PostgreSQL: transactions before `xmin` are visible, those from `xmax` on are not, and of the others those that were not
/// running.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The oldest transaction that was running.
    pub xmin: u64,
    /// The next transaction.
    pub xmax: u64,
    /// In rising order.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads the text of a `pg_snapshot`.
    pub fn parse(text: &str) -> Option<Snapshot> {
        let (xmin, rest) = text.split_once(':')?;
        let (xmax, running) = rest.split_once(':')?;
        let running = running.split(',').filter(|text| !text.is_empty());
        Some(Snapshot {
            xmin: xmin.parse().ok()?,
            xmax: xmax.parse().ok()?,
            running: running
                .map(|text| text.parse().ok())
                .collect::<Option<_>>()?,
        })
    }

    /// As differences, which are small: the text would be too long for a URL where many transactions are running.
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.xmin);
        put(out, self.xmax - self.xmin);
        put(out, self.running.len() as u64);
        let mut before = self.xmin;
        for id in &self.running {
            put(out, id - before);
            before = *id;
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Snapshot> {
        let xmin = take(rest).filter(|xmin| *xmin > 0)?;
        let xmax = xmin.checked_add(take(rest)?)?;
        let (count, mut before) = (take(rest)?, xmin);
        let mut running = Vec::new();
        for _ in 0..count {
            before = before.checked_add(take(rest)?).filter(|id| *id < xmax)?;
            running.push(before);
        }
        Some(Snapshot {
            xmin,
            xmax,
            running,
        })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.xmin, self.xmax, running.join(","))
    }
}

impl FeedCursor {
    /// The snapshots that it names.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let round = self.round.as_ref().map(|round| &round.snapshot);
        self.known.iter().chain(round)
    }

    /// Shows it.
    pub fn encode(&self) -> String {
        let mut content = self.feed.to_be_bytes().to_vec();
        put(&mut content, self.owner);
        content.push(u8::from(self.known.is_some()) + 2 * u8::from(self.round.is_some()));
        self.snapshots()
            .for_each(|snapshot| snapshot.encode(&mut content));
        if let Some(Round {
            after: (id, task), ..
        }) = &self.round
        {
            put(&mut content, *id);
            content.extend_from_slice(task.as_bytes());
        }
        URL_SAFE_NO_PAD.encode([&digest(&content)[..], &content].concat())
    }

    /// Reads what [`FeedCursor::encode`] made; `None` for anything else.
    pub fn decode(text: &str) -> Option<FeedCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (given, content) = bytes.split_at_checked(DIGEST)?;
        if given != digest(content) {
            return None;
        }
        let (feed, mut rest) = content.split_first_chunk()?;
        let feed = u64::from_be_bytes(*feed);
        let owner = take(&mut rest)?;
        let (parts, mut rest) = rest.split_first()?;
        let rest = &mut rest;
        let known = match parts & 1 {
            0 => None,
            _ => Some(Snapshot::decode(rest)?),
        };
        let round = match parts & 2 {
            0 => None,
            _ => Some(Round {
                snapshot: Snapshot::decode(rest)?,
                after: (take(rest)?, Uuid::from_slice(rest.split_off(..ID)?).ok()?),
            }),
        };
        let whole = rest.is_empty() && (known.is_some() || round.is_some());
        whole.then_some(FeedCursor {
            feed,
            owner,
            known,
            round,
        })
    }
}

fn digest(content: &[u8]) -> [u8; DIGEST] {
    let digest = Sha256::new()
        .chain_update("todo-api feed cursor\0")
        .chain_update(content)
        .finalize();
    // There are 32 bytes to take these from.
    digest.first_chunk().copied().unwrap_or_default()
}

/// Writes a number in groups of seven bits, the lowest first; the highest bit of a byte says that more follow.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads what [`put`] wrote. Numbers of transactions have 63 bits here.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        (1..1u64 << 40, vec(1..1000u64, 0..200)).prop_map(|(xmin, steps)| {
            let mut next = xmin;
            let running = steps.iter().map(|step| {
                next += step;
                next - 1
            });
            let running: Vec<u64> = running.collect();
            Snapshot {
                xmin,
                xmax: next,
                running,
            }
        })
    }

    fn cursors() -> impl Strategy<Value = FeedCursor> {
        let round = (snapshots(), 0..1u64 << 40, any::<u128>());
        let round = round.prop_map(|(snapshot, by, id)| Round {
            snapshot,
            after: (by, Uuid::from_u128(id)),
        });
        let parts = (
            any::<u64>(),
            0..1u64 << 60,
            option::of(snapshots()),
            option::of(round),
        );
        parts.prop_filter_map("one of them", |(feed, owner, known, round)| {
            (known.is_some() || round.is_some()).then_some(FeedCursor {
                feed,
                owner,
                known,
                round,
            })
        })
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back(cursor in cursors()) {
            prop_assert_eq!(FeedCursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn a_snapshot_is_read_back(snapshot in snapshots()) {
            prop_assert_eq!(Snapshot::parse(&snapshot.to_string()), Some(snapshot));
        }

        #[test]
        fn a_damaged_cursor_is_refused(cursor in cursors(), at in any::<prop::sample::Index>()) {
            let text = cursor.encode();
            let at = at.index(text.len());
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(FeedCursor::decode(std::str::from_utf8(&damaged).unwrap()), None);
            prop_assert_eq!(FeedCursor::decode(&text[..at]), None);
        }

        /// The digest has no key, so any content may come.
        #[test]
        fn no_content_makes_the_reader_panic_or_gives_a_bad_snapshot(content in vec(any::<u8>(), 0..80)) {
            let text = URL_SAFE_NO_PAD.encode([&digest(&content)[..], &content].concat());
            for snapshot in FeedCursor::decode(&text).iter().flat_map(FeedCursor::snapshots) {
                prop_assert!(0 < snapshot.xmin && snapshot.xmin <= snapshot.xmax);
                prop_assert!(snapshot.running.is_sorted() && snapshot.running.iter().all(|id| *id < snapshot.xmax));
            }
        }
    }

    /// The limit of a URL is 4,096 bytes.
    #[test]
    fn a_cursor_stays_short_while_a_thousand_transactions_are_running() {
        let snapshot = Snapshot {
            xmin: 1 << 40,
            xmax: (1 << 40) + 1_000,
            running: ((1 << 40)..(1 << 40) + 1_000).collect(),
        };
        let cursor = FeedCursor {
            feed: 1,
            owner: 1_800_000_000_000_000,
            known: Some(snapshot.clone()),
            round: Some(Round {
                snapshot,
                after: (1 << 40, Uuid::max()),
            }),
        };
        assert!(cursor.encode().len() < 3_000);
    }
}
