//! Changes and deletes all tasks that match filters, some at a time.

use super::TASKS;
use super::columns::Changes;
use super::list::is_unknown_zone;
use super::statement::Statement;
use super::trash::deletion;
use crate::domain::list::Filters;
use crate::domain::task::draft::Draft;
use crate::domain::user::UserId;
use crate::store::{Effect, Error, Store};

/// Most tasks that one statement changes, so that it ends in time, and no row is locked for long.
const MATCHES_MAX: u16 = 1_000;

/// What is done to the tasks that match.
#[derive(Clone, Copy, Debug)]
pub enum MatchingChange<'d> {
    /// The sent fields change. Tasks that have these values already do not match.
    Update(&'d Draft),
    /// They are deleted.
    Delete,
}

/// The outcome of a change to all tasks that match.
#[derive(Debug)]
pub enum MatchedTasks {
    /// It was made.
    Changed {
        /// How many tasks were changed.
        count: u16,
        /// Whether there are more.
        has_more: bool,
    },
    /// PostgreSQL does not know the time zone.
    UnknownZone,
}

impl Store {
    /// Changes the tasks that match, at most 1,000; or only counts them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn change_matching(
        &self,
        user: &UserId,
        filters: &Filters,
        change: MatchingChange,
        only_count: bool,
    ) -> Result<MatchedTasks, Error> {
        let for_good = self.settings.database.trash.is_zero();
        let statement = Statement::matching(user, filters, change, for_good, only_count);
        self.run(Effect::Write, |client| {
            let mut found: i64 = 0;
            let read = statement.each_row(client, |row| {
                found = row.try_get(0)?;
                Ok(())
            });
            match read {
                Err(error) if is_unknown_zone(&error) => return Ok(MatchedTasks::UnknownZone),
                read => read?,
            }
            // One more than are changed is found.
            let found = u16::try_from(found).unwrap_or(MATCHES_MAX);
            Ok(MatchedTasks::Changed {
                count: found.min(MATCHES_MAX),
                has_more: found > MATCHES_MAX,
            })
        })
    }
}

impl Statement {
    /// Rows are locked in the order of ids, so that two of these do not wait for each other, and what is in a row is read once it is
    /// locked. The statement is planned for its values.
    fn matching(
        user: &UserId,
        filters: &Filters,
        change: MatchingChange,
        for_good: bool,
        only_count: bool,
    ) -> Statement {
        let mut statement = Statement::of_tasks("task.id", user, TASKS);
        statement.add_filters(filters);
        let chosen =
            format!("id = ANY (ARRAY(SELECT id FROM found ORDER BY id LIMIT {MATCHES_MAX}))");
        let (condition, write) = match change {
            MatchingChange::Update(draft) => {
                let changes = Changes::of(draft, |value| statement.bind_value(value));
                let update = changes.update();
                let write = format!("written AS ({update} WHERE user_id = $1 AND {chosen})");
                (format!(" AND {}", changes.condition), write)
            }
            MatchingChange::Delete => {
                let (moved, kept) = deletion(&chosen, for_good);
                (String::new(), format!("{moved}, kept AS ({kept})"))
            }
        };
        let (lock, write) = match only_count {
            true => ("", String::new()),
            false => (" FOR UPDATE", format!(", {write}")),
        };
        statement.text = format!(
            "WITH found AS MATERIALIZED ({all}{condition} ORDER BY task.id LIMIT {most}{lock}){write} SELECT count(*) FROM found",
            all = statement.text,
            most = MATCHES_MAX + 1,
        );
        statement
    }
}
