//! The feed of changes: a user's tasks as they are now, of which a client does not know the last change.
//!
//! A client knows all transactions that one snapshot shows. A row is news if its transaction is not among them, however late that
//! transaction committed. If the news fills more than one page, all pages of the round show one snapshot: what a later transaction
//! writes comes in the next round, and nothing comes twice. The first copy is a round of all tasks.

use postgres::types::Type;
use postgres::{Error as PgError, Row};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::columns::{all, id_alone};
use super::json::{read_transaction, show_task};
use super::list::{COMMON_LIMITS, LARGE, task_array};
use super::statement::Statement;
use crate::domain::feed::{FeedCursor, Round, Snapshot};
use crate::domain::list::{LIMIT_MAX, Limit};
use crate::domain::user::UserId;
use crate::store::feed::IDENTITY;
use crate::store::{Effect, Error, Store};

/// Changes of tasks.
#[derive(Debug)]
pub struct TaskChanges {
    /// The changed tasks as they are now, as a JSON array behind the text that was asked for.
    pub json: Vec<u8>,
    /// The ids of deleted tasks. None of them is in use again.
    pub deleted: Vec<Uuid>,
    /// Whether the round has more pages.
    pub has_more: bool,
    /// Where the next page or the next round begins.
    pub next: FeedCursor,
}

/// A page as it is read.
struct Page {
    json: Vec<u8>,
    deleted: Vec<Uuid>,
    limit: usize,
    /// Rows so far.
    count: usize,
    has_more: bool,
    last: Option<(u64, Uuid)>,
    state: Option<State>,
}

/// The state of the feed at the time of a statement.
struct State {
    snapshot: Snapshot,
    /// The newest transaction whose tombstone may have been removed.
    forgotten: u64,
    feed: u64,
    owner: u64,
}

// The state of the feed, as one text.
const STATE: &str = concat!(
    "SELECT concat_ws(' ', pg_current_snapshot(), forgotten, ",
    IDENTITY!(),
    ", (SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM {schema}.users WHERE id = $1)) AS state
      FROM {schema}.feed"
);

impl Store {
    /// What a client that knows `since` does not know of a user's tasks; without it, all. `None` if `since` is of no use any more: the
    /// client copies all tasks afresh.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_changes(
        &self,
        user: &UserId,
        since: Option<&FeedCursor>,
        limit: Limit,
        before: &str,
    ) -> Result<Option<TaskChanges>, Error> {
        let statement = Statement::changes(user, since, limit);
        let page = self.run(Effect::Read, |client| {
            let mut page = Page {
                json: task_array(before),
                deleted: Vec::new(),
                limit: usize::from(limit.get()),
                count: 0,
                has_more: false,
                last: None,
                state: None,
            };
            statement.each_row(client, |row| page.add(row))?;
            Ok(page)
        })?;
        page.finish(since)
    }
}

impl Statement {
    /// A page, and one row more; each with the state of the feed. Without news it is one row with the state alone.
    fn changes(user: &UserId, since: Option<&FeedCursor>, limit: Limit) -> Statement {
        let mut statement = Statement::default();
        let user = statement.bind(user.as_str().to_owned(), Type::TEXT);
        let known = since.and_then(|since| since.known.as_ref());
        let round = since.and_then(|since| since.round.as_ref());
        // Mostly there is no news, so that a few statements that are prepared are better than a limit that fits. A copy is planned for
        // its user: of a large one, the tasks are not sorted for each page.
        let at_least = |common: &&u16| **common >= limit.get();
        let rows = match known {
            None => limit.get(),
            Some(_) => *COMMON_LIMITS.iter().find(at_least).unwrap_or(&LIMIT_MAX),
        } + 1;
        let columns = all("task");
        let mut news = format!("task.user_id = {user}");
        if let Some(known) = known {
            let known = statement.snapshot(known);
            news.push_str(&format!(
                " AND task.written_by >= pg_snapshot_xmin({known}) AND NOT pg_visible_in_snapshot(task.written_by, {known})"
            ));
        }
        if let Some(Round { snapshot, after }) = round {
            let snapshot = statement.snapshot(snapshot);
            news.push_str(&format!(
                " AND pg_visible_in_snapshot(task.written_by, {snapshot})"
            ));
            let id = statement.bind(after.1, Type::UUID);
            news.push_str(&match known {
                None => format!(" AND task.id > {id}"),
                Some(_) => {
                    let by = statement.bind(after.0.to_string(), Type::TEXT);
                    format!(" AND (task.written_by, task.id) > ({by}::text::xid8, {id})")
                }
            });
        }
        // The first copy walks the key and has no deleted tasks.
        let order = match known {
            None => "id",
            Some(_) => "written_by, id",
        };
        let part = |columns: &str, gone: bool, table: &str, more: &str| {
            format!(
                "(SELECT {columns}, task.written_by, {gone} AS gone FROM {{schema}}.{table} AS task WHERE {news}{more}
                  ORDER BY {order} LIMIT {rows})"
            )
        };
        let mut page = part(&columns, false, "tasks", "");
        if known.is_some() {
            let not_in_use = format!(
                " AND NOT EXISTS (SELECT FROM {{schema}}.tasks AS live WHERE live.user_id = {user} AND live.id = task.id)"
            );
            let deleted = part(&id_alone("task"), true, "deleted_tasks", &not_in_use);
            page = format!(
                "(SELECT * FROM ({page} UNION ALL {deleted}) AS news ORDER BY {order} LIMIT {rows})"
            );
        }
        statement.text = format!(
            "WITH feed AS MATERIALIZED ({STATE})
             SELECT page.*, feed.state FROM feed LEFT JOIN {page} AS page ON true ORDER BY {order}"
        );
        statement.large = limit.get() > LARGE;
        statement.prepare = known.is_some();
        statement
    }

    /// An expression that PostgreSQL evaluates once.
    fn snapshot(&mut self, snapshot: &Snapshot) -> String {
        let text = self.bind(snapshot.to_string(), Type::TEXT);
        format!("(SELECT {text}::text::pg_snapshot)")
    }
}

impl Page {
    fn add(&mut self, row: &Row) -> Result<(), PgError> {
        if self.state.is_none() {
            self.state = State::parse(row.try_get("state")?);
        }
        let Some(gone) = row.try_get::<_, Option<bool>>("gone")? else {
            return Ok(());
        };
        if self.count == self.limit {
            self.has_more = true;
            return Ok(());
        }
        let id = row.try_get("id")?;
        if gone {
            self.deleted.push(id);
        } else {
            if self.count > self.deleted.len() {
                self.json.push(b',');
            }
            show_task(&mut self.json, row)?;
        }
        self.count += 1;
        self.last = Some((read_transaction(row, "written_by")?, id));
        Ok(())
    }

    /// `None` where `since` is of no use.
    fn finish(mut self, since: Option<&FeedCursor>) -> Result<Option<TaskChanges>, Error> {
        let state = self.state.ok_or_else(|| {
            Error::Internal("the table feed does not have its one row".to_owned())
        })?;
        if since.is_some_and(|since| !state.continues(since)) {
            return Ok(None);
        }
        self.json.push(b']');
        let (known, round) = since.map_or((None, None), |since| {
            (since.known.clone(), since.round.clone())
        });
        let snapshot = round.map_or(state.snapshot, |round| round.snapshot);
        let (known, round) = match self.last.filter(|_| self.has_more) {
            Some(after) => (known, Some(Round { snapshot, after })),
            None => (Some(snapshot), None),
        };
        Ok(Some(TaskChanges {
            json: self.json,
            deleted: self.deleted,
            has_more: self.has_more,
            next: FeedCursor {
                feed: state.feed,
                owner: state.owner,
                known,
                round,
            },
        }))
    }
}

impl State {
    fn parse(text: &str) -> Option<State> {
        let mut parts = text.split(' ');
        let snapshot = Snapshot::parse(parts.next()?)?;
        let forgotten = parts.next()?.parse().ok()?;
        let digest = Sha256::digest(parts.next()?);
        Some(State {
            snapshot,
            forgotten,
            feed: u64::from_be_bytes(*digest.first_chunk()?),
            owner: parts.next().map_or(Some(0), |owner| owner.parse().ok())?,
        })
    }

    /// Whether a client that knows `since` can go on from there: the feed is the same, its transactions are known here, no tombstone that
    /// it needs was removed, and the account was not deleted since. A client without an account had no tasks.
    fn continues(&self, since: &FeedCursor) -> bool {
        since.feed == self.feed
            && (since.owner == 0 || since.owner == self.owner)
            && since
                .snapshots()
                .all(|snapshot| snapshot.xmax <= self.snapshot.xmax)
            && since
                .known
                .as_ref()
                .is_none_or(|known| self.forgotten < known.xmin)
    }
}
