//! The feed of changes: a user's tasks as they are now, of which a client does not know the last change.
//!
//! A client knows all transactions that one snapshot shows. A row is news if its transaction is not among them, however late that
//! transaction committed. If the news fills more than one page, all pages of the round show one snapshot: what a later transaction
//! writes comes in the next round, and nothing comes twice. The first copy is a round of all tasks.

use postgres::types::Type;
use postgres::{Error as PgError, Row};
use uuid::Uuid;

use super::columns::{all, id_alone};
use super::json::{read_integer, show_task};
use super::list::{COMMON_LIMITS, LARGE, task_array};
use super::statement::Statement;
use crate::domain::feed::{FeedCursor, Round};
use crate::domain::list::{LIMIT_MAX, Limit};
use crate::domain::user::UserId;
use crate::store::feed::IDENTITY;
use crate::store::{Effect, Error, Store};

/// Changes of tasks.
#[derive(Debug, Default)]
pub struct TaskChanges {
    /// The changed tasks as they are now, as a JSON array behind the text that was asked for.
    pub json: Vec<u8>,
    /// The ids of deleted tasks. None of them is in use again.
    pub deleted: Vec<Uuid>,
    /// Whether the round has more pages.
    pub has_more: bool,
    /// Where the next page or the next round begins.
    pub next: FeedCursor,
    /// Rows so far.
    count: usize,
    last: Option<(i64, Uuid)>,
    /// The snapshot of the statement.
    snapshot: Option<String>,
    /// Whether the client can go on from where it is.
    continues: bool,
}

impl Store {
    /// What a client that knows `since` does not know of a user's tasks; without it, all. `None` if `since` is of no use any more: the
    /// client copies all tasks again.
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
        self.run(Effect::Read, |client| {
            let mut changes = TaskChanges {
                json: task_array(before),
                next: since.cloned().unwrap_or_default(),
                ..TaskChanges::default()
            };
            match statement.each_row(client, |row| changes.add(row, limit)) {
                // Class 22, data exception: the client made the cursor itself.
                Err(error)
                    if error
                        .code()
                        .is_some_and(|code| code.code().starts_with("22")) =>
                {
                    Ok(None)
                }
                read => read.map(|()| changes.finish()),
            }
        })
    }
}

impl Statement {
    /// A page, and at least one row more; each with the state of the feed. Without news it is one row with the state alone.
    fn changes(user: &UserId, since: Option<&FeedCursor>, limit: Limit) -> Statement {
        let mut statement = Statement::default();
        let user = statement.bind(user.as_str().to_owned(), Type::TEXT);
        let mut news = format!("task.user_id = {user}");
        // An account that was deleted and made again is another feed.
        let feed = format!(
            "concat({IDENTITY}, (SELECT extract(epoch FROM created_at) FROM {{schema}}.users WHERE id = {user}))"
        );
        let mut continues = "true".to_owned();
        if let Some(since) = since {
            continues = format!(
                "{feed} = {}",
                statement.bind(since.feed.clone(), Type::TEXT)
            );
        }
        // The first copy walks the key and has no deleted tasks. It is planned for its user: the tasks of a large one are not sorted for
        // each page. Otherwise there is mostly no news, and few statements that are prepared are better than a limit that fits.
        let (mut order, mut rows) = ("id", limit.get());
        if let Some(known) = since.and_then(|since| since.known.as_ref()) {
            let known = statement.snapshot(known, &mut continues);
            news += &format!(
                " AND task.written_by >= pg_snapshot_xmin({known}) AND NOT pg_visible_in_snapshot(task.written_by, {known})"
            );
            continues += &format!(" AND forgotten < pg_snapshot_xmin({known})");
            order = "written_by, id";
            let common = COMMON_LIMITS.iter().find(|common| **common >= rows);
            rows = common.copied().unwrap_or(LIMIT_MAX);
            statement.prepare = true;
        }
        if let Some(Round { snapshot, after }) = since.and_then(|since| since.round.as_ref()) {
            let snapshot = statement.snapshot(snapshot, &mut continues);
            let id = statement.bind(after.1, Type::UUID);
            news += &format!(" AND pg_visible_in_snapshot(task.written_by, {snapshot})");
            news += &match order {
                "id" => format!(" AND task.id > {id}"),
                _ => {
                    let by = statement.bind(after.0.to_string(), Type::TEXT);
                    format!(" AND (task.written_by, task.id) > ({by}::text::xid8, {id})")
                }
            };
        }
        let page = news_page(
            &news,
            &format!("ORDER BY {order} LIMIT {}", rows + 1),
            order != "id",
        );
        statement.text = format!(
            "WITH state AS MATERIALIZED (
                 SELECT pg_current_snapshot()::text AS snapshot, {feed} AS feed, {continues} AS continues FROM {{schema}}.feed
             )
             SELECT page.*, state.* FROM state LEFT JOIN {page} AS page ON true ORDER BY {order}",
        );
        statement.large = limit.get() > LARGE;
        statement
    }

    /// An expression for a snapshot, which PostgreSQL evaluates once. It must not
    /// contain transactions that do not exist yet: after a restore, the cursor of a client may.
    fn snapshot(&mut self, snapshot: &str, continues: &mut String) -> String {
        let text = self.bind(snapshot.to_owned(), Type::TEXT);
        let snapshot = format!("(SELECT {text}::text::pg_snapshot)");
        *continues += &format!(
            " AND pg_snapshot_xmax({snapshot}) <= pg_snapshot_xmax(pg_current_snapshot())"
        );
        snapshot
    }
}

/// A subquery with the tasks for which `news` holds, and with deleted ones whose ids are not in use.
fn news_page(news: &str, end: &str, with_deleted: bool) -> String {
    let part = |columns: &str, gone: bool, table: &str, more: &str| {
        format!(
            "(SELECT {columns}, task.written_by, {gone} AS gone FROM {{schema}}.{table} AS task WHERE {news}{more} {end})"
        )
    };
    let tasks = part(all(), false, "tasks", "");
    if !with_deleted {
        return tasks;
    }
    let not_in_use = " AND NOT EXISTS (SELECT FROM {schema}.tasks AS live WHERE live.user_id = task.user_id AND live.id = task.id)";
    let deleted = part(&id_alone("task"), true, "deleted_tasks", not_in_use);
    format!("(SELECT * FROM ({tasks} UNION ALL {deleted}) AS news {end})")
}

impl TaskChanges {
    fn add(&mut self, row: &Row, limit: Limit) -> Result<(), PgError> {
        if self.snapshot.is_none() {
            self.snapshot = row.try_get("snapshot")?;
            self.continues = row.try_get("continues")?;
            self.next.feed = row.try_get("feed")?;
        }
        let Some(gone) = row.try_get::<_, Option<bool>>("gone")? else {
            return Ok(());
        };
        if self.count == usize::from(limit.get()) {
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
        self.last = Some((read_integer(row, "written_by")?, id));
        Ok(())
    }

    fn finish(mut self) -> Option<TaskChanges> {
        self.json.push(b']');
        let round = self.next.round.take().map(|round| round.snapshot);
        let snapshot = round.or(self.snapshot.take())?;
        match self.last.filter(|_| self.has_more) {
            Some(after) => self.next.round = Some(Round { snapshot, after }),
            None => self.next.known = Some(snapshot),
        }
        self.continues.then_some(self)
    }
}
