//! How much of the feed of changes a client knows, as an opaque text.
//!
//! Like the cursor of a list, the text holds a digest of the rest, so that a damaged text is refused. It is not a secret and gives no permission.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes of the digest. It finds accidents, not forgery.
const DIGEST: usize = 8;
/// Bytes of a cursor before compression that are read. A snapshot names every transaction that is running.
const BYTES_MAX: u64 = 65_536;

/// The part of the feed that a client knows. Snapshots are in PostgreSQL's form. PostgreSQL may refuse one that a
/// client made up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeedCursor {
    /// The feed, and the account.
    pub feed: String,
    /// The client knows all tasks as this snapshot shows them. `None` during the first copy.
    pub known: Option<String>,
    /// The round whose pages are being read.
    pub round: Option<Round>,
}

/// A round of pages: it brings the client from one snapshot to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The snapshot that the client knows after the last page.
    pub snapshot: String,
    /// The last row of the page before: its transaction and its id.
    pub after: (i64, Uuid),
}

impl FeedCursor {
    /// Encodes it. The text is compressed, because a URL has a limit and many transactions may be running.
    pub fn encode(&self) -> String {
        let mut content = DeflateEncoder::new(Vec::new(), Compression::best());
        // Writing to a Vec cannot fail.
        let _ = content.write_all(&serde_json::to_vec(self).unwrap_or_default());
        let content = content.finish().unwrap_or_default();
        URL_SAFE_NO_PAD.encode([&digest(&content)[..], &content].concat())
    }

    /// Reads what [`FeedCursor::encode`] made; `None` for anything else.
    pub fn decode(text: &str) -> Option<FeedCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (given, content) = bytes.split_at_checked(DIGEST)?;
        if given != digest(content) {
            return None;
        }
        let mut json = Vec::new();
        let decoder = DeflateDecoder::new(content);
        decoder.take(BYTES_MAX).read_to_end(&mut json).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

fn digest(content: &[u8]) -> [u8; DIGEST] {
    let digest = Sha256::new()
        .chain_update("todo-api feed cursor\0")
        .chain_update(content)
        .finalize();
    // The digest has 32 bytes.
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn cursor(running: usize) -> FeedCursor {
        let ids: Vec<String> = (0..running)
            .map(|number| (98_765_432_100 + 3 * number).to_string())
            .collect();
        let snapshot = format!("98765432100:98765499999:{}", ids.join(","));
        FeedCursor {
            feed: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            known: Some(snapshot.clone()),
            round: Some(Round {
                snapshot,
                after: (98_765_432_100, Uuid::max()),
            }),
        }
    }

    #[test]
    fn a_cursor_is_read_back_and_a_damaged_one_is_refused() {
        let cursor = cursor(3);
        let text = cursor.encode();
        assert_eq!(FeedCursor::decode(&text), Some(cursor));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(FeedCursor::decode(&damaged), None, "{damaged}");
            assert_eq!(FeedCursor::decode(&text[..at]), None);
        }
    }

    /// The limit of a URL is 4,096 bytes.
    #[test]
    fn a_cursor_stays_short_while_many_transactions_are_running() {
        let length = cursor(500).encode().len();
        assert!(length < 3_000, "{length}");
    }

    proptest! {
        /// The digest has no key, so any content may come.
        #[test]
        fn no_content_makes_the_reader_panic(content in vec(any::<u8>(), 0..80)) {
            let text = URL_SAFE_NO_PAD.encode([&digest(&content)[..], &content].concat());
            prop_assert_eq!(FeedCursor::decode(&text), None);
        }
    }
}
