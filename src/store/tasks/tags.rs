//! The tags of all of a user's tasks.

use postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::tag::{Tag, TagCount};
use crate::domain::user::UserId;
use crate::store::{Effect, Error, Store};

/// Most tasks that one statement changes, so that it ends in time and locks no row for long.
const BATCH: i64 = 1_000;

/// Most passes over all tasks. Another pass finds tasks that got the tag during the last one.
const PASSES: u32 = 10;

// A stored null in a list of tags is not a tag.
const COUNT: &str = "SELECT tag, count(*) FROM {schema}.tasks, unnest(tags) AS tag
     WHERE user_id = $1 AND tag IS NOT NULL GROUP BY tag ORDER BY tag";

// Changes the next tasks from the id `$5` on that have the tag `$2`, which becomes `$3`, or is removed if that is null. Rows are
// locked in one order, so that two of these statements do not deadlock, and each row is read after it is locked.
const REPLACE: &str = "WITH locked AS MATERIALIZED (
         SELECT id FROM {schema}.tasks WHERE user_id = $1 AND id >= $5 AND tags @> ARRAY[$2]
         ORDER BY id LIMIT $4 FOR NO KEY UPDATE
     ), changed AS (
         UPDATE {schema}.tasks AS task
         SET tags = CASE WHEN $3::text IS NULL OR tags @> ARRAY[$3] THEN array_remove(tags, $2)
                         ELSE array_replace(tags, $2, $3) END,
             version = version + 1,
             written_by = pg_current_xact_id(),
             updated_at = greatest(now(), updated_at + interval '1 microsecond')
         WHERE user_id = $1 AND id = ANY (ARRAY(SELECT id FROM locked)) AND tags @> ARRAY[$2]
         RETURNING 1
     )
     SELECT (SELECT id FROM locked ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM changed)";

const HAS: &str =
    "SELECT count(*) FROM {schema}.tasks WHERE user_id = $1 AND tags @> ARRAY[$2::text]";

impl Store {
    /// A user's tags, by name, with the number of tasks that have each.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list_tags(&self, user: &UserId) -> Result<Vec<TagCount>, Error> {
        self.rows(COUNT, &[&user.as_str()], |row| {
            Ok(TagCount {
                name: row.try_get(0)?,
                count: row.try_get(1)?,
            })
        })
    }

    /// Renames a tag on every task that has it. If a task has the new one too, they become one. Returns how many tasks have the
    /// new one; `None` if no task had the old one.
    ///
    /// # Errors
    /// See [`Error`]. Tasks are changed in batches. After an error, another call changes the rest.
    pub fn rename_tag(
        &self,
        user: &UserId,
        from: &Tag,
        to: &Tag,
    ) -> Result<Option<TagCount>, Error> {
        let found = if from == to {
            self.count_tag(user, from)?
        } else {
            self.replace_tag(user, from, Some(to))?
        };
        if found == 0 {
            return Ok(None);
        }
        Ok(Some(TagCount {
            name: to.as_str().to_owned(),
            count: self.count_tag(user, to)?,
        }))
    }

    /// Removes a tag from every task that has it; false if no task had it.
    ///
    /// # Errors
    /// As [`Store::rename_tag`].
    pub fn delete_tag(&self, user: &UserId, tag: &Tag) -> Result<bool, Error> {
        Ok(self.replace_tag(user, tag, None)? > 0)
    }

    /// Repeats until no task has the tag; returns how many were changed.
    fn replace_tag(&self, user: &UserId, from: &Tag, to: Option<&Tag>) -> Result<i64, Error> {
        let mut all = 0;
        for _ in 0..PASSES {
            let mut from_id = Some(Uuid::nil());
            let before = all;
            while let Some(id) = from_id {
                let (next, changed): (Option<Uuid>, i64) = self.run(Effect::Write, |client| {
                    let statement = client.prepared(REPLACE)?;
                    let (from, to) = (from.as_str(), to.map(Tag::as_str));
                    let row =
                        client.query_one(&statement, &[&user.as_str(), &from, &to, &BATCH, &id])?;
                    Ok((row.try_get(0)?, row.try_get(1)?))
                })?;
                all += changed;
                from_id = next.filter(|_| changed > 0);
            }
            if all == before {
                break;
            }
        }
        Ok(all)
    }

    /// The number of tasks with a tag.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn count_tag(&self, user: &UserId, tag: &Tag) -> Result<i64, Error> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&user.as_str(), &tag.as_str()];
        let count = self.row(Effect::Read, HAS, &parameters, |row| row.try_get(0))?;
        Ok(count.unwrap_or_default())
    }
}
