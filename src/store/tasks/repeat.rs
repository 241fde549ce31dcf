//! Making a task once, however often that is asked for.

use postgres::Error as PgError;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::accounts::OWNER;
use super::super::violates;
use super::{NewColumns, read_task};
use crate::domain::draft::NewTask;
use crate::domain::idempotency::Repeatable;
use crate::domain::task::Task;
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::store::pool::Client;
use crate::store::{Effect, Error, Store};

/// What came of making a task under a key.
#[derive(Debug)]
pub enum Repeated {
    /// It was made.
    Made(Task),
    /// It was made before; as it was then.
    Before(Task),
    /// The key was used with another body.
    OtherBody,
    /// A request with this key is still under way.
    Running,
    /// The user has a task with that id already; nothing was changed.
    IdTaken,
}

// All in one statement, and so in one transaction. While the row of a request that is under way cannot be seen, its lock can; it
// goes with the transaction. A statement that began before that one's end sees neither row nor lock, makes the task again, and
// is undone by the key's uniqueness; its second try sees the row.
// A key is good for 24 hours. Whoever makes a new one clears some old ones away, so that they do not pile up.
const CREATE_ONCE: &str = concat!(
    "WITH lock AS MATERIALIZED (
         SELECT pg_try_advisory_xact_lock(hashtextextended($1, hashtextextended($11, 0))) AS held
     ), known AS MATERIALIZED (
         SELECT digest, task_id, created_at FROM {schema}.idempotency_keys
         WHERE user_id = $1 AND key = $11 AND created_at > now() - interval '24 hours'
     ), mine AS MATERIALIZED (
         SELECT FROM lock WHERE held AND NOT EXISTS (SELECT FROM known)
     ), oldest AS MATERIALIZED (
         SELECT user_id, key FROM {schema}.idempotency_keys
         WHERE created_at <= now() - interval '24 hours' ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED
     ), old AS MATERIALIZED (
         SELECT user_id, key FROM oldest UNION SELECT $1, $11
     ), cleared AS (
         DELETE FROM {schema}.idempotency_keys AS expired USING mine
         WHERE (user_id, key) IN (SELECT user_id, key FROM old) AND created_at <= now() - interval '24 hours'
         RETURNING 1
     ), owner AS (",
    OWNER!(" FROM mine"),
    "), made AS (
         INSERT INTO {schema}.tasks (user_id, id, title, description, completed_at, priority, due_at, due_on, tags, search)
         SELECT $1, $2, $3, $4, CASE WHEN $5::bool THEN now() END, $6, $7, $8, $9, $10 FROM mine
         RETURNING ",
    task_columns!(),
    "), noted AS (
         INSERT INTO {schema}.idempotency_keys (user_id, key, digest, task_id)
         SELECT $1, $11, $12::bytea, made.id FROM made, (SELECT count(*) FROM cleared) AS first
     )
     SELECT made.*, lock.held, known.digest, known.task_id, known.created_at
     FROM lock LEFT JOIN known ON true LEFT JOIN made ON true"
);

impl Store {
    /// Makes a task, unless that was done before under the same key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_task_once(
        &self,
        user: &UserId,
        task: &NewTask,
        request: &Repeatable,
    ) -> Result<Repeated, Error> {
        let columns = NewColumns::of(user, task);
        self.run(Effect::Write, |client| {
            let first = create_once(client, user, task, &columns, request);
            match first {
                Err(error) if violates(&error, "idempotency_keys_pkey") => {
                    create_once(client, user, task, &columns, request)
                }
                result => result,
            }
        })
    }
}

fn create_once(
    client: &mut Client,
    user: &UserId,
    task: &NewTask,
    columns: &NewColumns,
    request: &Repeatable,
) -> Result<Repeated, PgError> {
    let statement = client.prepared(CREATE_ONCE)?;
    let (key, digest) = (request.key(), request.digest());
    let mut parameters = columns.parameters().to_vec();
    parameters.push(&key);
    parameters.push(&digest);
    let row = match client.query_one(&statement, &parameters) {
        Err(error) if violates(&error, "tasks_pkey") => return Ok(Repeated::IdTaken),
        row => row?,
    };
    // The columns of the task come first, and then these.
    let at = row.len() - 4;
    if let Some(known) = row.try_get::<_, Option<Vec<u8>>>(at + 1)? {
        if known != digest {
            return Ok(Repeated::OtherBody);
        }
        let id: Uuid = row.try_get(at + 2)?;
        let made = Timestamp::from(row.try_get::<_, OffsetDateTime>(at + 3)?);
        return Ok(Repeated::Before(task.made(user, id, made)));
    }
    if row.try_get(at)? {
        read_task(user, &row).map(Repeated::Made)
    } else {
        Ok(Repeated::Running)
    }
}
