//! Changes and deletes all tasks that match filters, some at a time.

use super::TASKS;
use super::columns::ColumnChanges;
use super::list::is_unknown_zone;
use super::statement::Statement;
use super::trash::deletion;
use crate::domain::bulk::MatchingResult;
use crate::domain::list::Filters;
use crate::domain::task::draft::Draft;
use crate::domain::user::UserId;
use crate::store::{Effect, Error, Store};

/// Most tasks that one statement changes, so that it ends in time, and no row is locked for long.
const MATCHES_MAX: u16 = 1_000;

impl Store {
    /// Changes the tasks that match, at most 1,000, or deletes them where there are no changes; or only counts them. Tasks that have
    /// the new values already do not match. `None` where PostgreSQL does not know the time zone.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn change_matching(
        &self,
        user: &UserId,
        filters: &Filters,
        changes: Option<&Draft>,
        dry_run: bool,
    ) -> Result<Option<MatchingResult>, Error> {
        let for_good = self.settings.database.trash.is_zero();
        let statement = Statement::matching(user, filters, changes, for_good, dry_run);
        self.run(Effect::Write, |client| {
            // One more than are changed is found.
            let mut found: i64 = 0;
            let read = statement.each_row(client, |row| {
                found = row.try_get(0)?;
                Ok(())
            });
            match read {
                Err(error) if is_unknown_zone(&error) => return Ok(None),
                read => read?,
            }
            let count = u16::try_from(found).unwrap_or(MATCHES_MAX).min(MATCHES_MAX);
            Ok(Some(MatchingResult {
                count,
                has_more: found > count.into(),
            }))
        })
    }
}

impl Statement {
    /// Rows are locked in the order of ids, so that two of these do not wait for each other, and what is in a row is read once it is
    /// locked. The statement is planned for its values.
    fn matching(
        user: &UserId,
        filters: &Filters,
        changes: Option<&Draft>,
        for_good: bool,
        dry_run: bool,
    ) -> Statement {
        let mut statement = Statement::of_tasks("task.id", user, TASKS);
        statement.add_filters(filters);
        let chosen =
            format!("id = ANY (ARRAY(SELECT id FROM found ORDER BY id LIMIT {MATCHES_MAX}))");
        let write = if let Some(draft) = changes {
            let changes = ColumnChanges::of(draft, |value| statement.bind_value(value));
            statement.text += &format!(" AND {}", changes.condition);
            format!(
                "written AS ({} WHERE user_id = $1 AND {chosen})",
                changes.update()
            )
        } else {
            let (moved, kept) = deletion(&chosen, for_good);
            format!("{moved}, kept AS ({kept})")
        };
        let (lock, write) = match dry_run {
            true => ("", String::new()),
            false => (" FOR UPDATE", format!(", {write}")),
        };
        statement.text = format!(
            "WITH found AS MATERIALIZED ({all} ORDER BY task.id LIMIT {most}{lock}){write} SELECT count(*) FROM found",
            all = statement.text,
            most = MATCHES_MAX + 1,
        );
        statement
    }
}
