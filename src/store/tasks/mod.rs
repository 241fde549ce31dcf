//! The statements on tasks. Each names the user, runs in one round trip, and is its own transaction.
//!
//! - `list`: pages of tasks
//! - `filters`: which tasks are in a list
//! - `statement`: a statement that is put together from parts
//! - `repeat`: making a task once, however often that is asked for
//! - `tags`: counts them, renames and removes them everywhere
//! - `stats`: numbers

// The order in which `read_task` reads them. The user is the one who asked.
macro_rules! task_columns {
    () => {
        "id, title, description, completed_at, priority, due_at, due_on, created_at, updated_at, version, tags"
    };
}

mod filters;
mod list;
mod repeat;
mod statement;
mod stats;
mod tags;

use postgres::types::ToSql;
use postgres::{Error as PgError, Row};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::accounts::OWNER;
use super::{Effect, Error, Store, violates};
use crate::domain::draft::{Completion, NewTask, TaskChanges};
use crate::domain::etag::{ETag, EntityTags};
use crate::domain::fold::{fold, search_text};
use crate::domain::tag::Tags;
use crate::domain::task::{Description, Due, Priority, Task, Title};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// What came of making a task.
#[derive(Debug)]
pub enum Created {
    /// It was made.
    Task(Task),
    /// The user has a task with that id already; nothing was changed.
    IdTaken,
}

/// What came of a write to one task.
#[derive(Debug, PartialEq)]
pub enum Outcome<T> {
    /// It was done.
    Done(T),
    /// The user has no task of that id.
    NotFound,
    /// The task is in another state than the precondition names; nothing was changed.
    Stale,
}

pub use list::{Listed, TaskPage};
pub use repeat::Repeated;

const GET: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {schema}.tasks WHERE user_id = $1 AND id = $2"
);

const STATE: &str = "SELECT version, created_at FROM {schema}.tasks WHERE user_id = $1 AND id = $2";

// Makes a task of a user who is known; no row where they are not. All else about the task is known before.
const CREATE: &str =
    "INSERT INTO {schema}.tasks (user_id, id, title, description, completed_at, priority, due_at, due_on, tags, search)
     SELECT $1, $2, $3, $4, CASE WHEN $5::bool THEN now() END, $6, $7, $8, $9, $10 FROM {schema}.users WHERE id = $1
     RETURNING created_at";

// A user known only from a token gets a row with the first write. The foreign key is checked when the statement ends, so it
// sees that row. It is a statement of its own because it made every other write dearer.
const CREATE_FIRST: &str = concat!(
    "WITH owner AS (",
    OWNER!(""),
    ")
     INSERT INTO {schema}.tasks (user_id, id, title, description, completed_at, priority, due_at, due_on, tags, search)
     VALUES ($1, $2, $3, $4, CASE WHEN $5::bool THEN now() END, $6, $7, $8, $9, $10)
     RETURNING created_at"
);

// A write to one task, in two forms: as it is, and under a precondition, which holds for the row that is changed: a write that
// waited for another sees what that one left. Told apart from a task that is not there by a look at what there was when the
// statement began. The precondition's versions and moments of making are the two parameters named.
macro_rules! write_statements {
    ($plain:ident, $guarded:ident, $versions:literal, $moments:literal, $write:expr, $returning:expr) => {
        const $plain: &str = concat!($write, " RETURNING ", $returning);
        const $guarded: &str = concat!(
            "WITH written AS (",
            $write,
            " AND (version, created_at) IN (SELECT * FROM unnest(",
            $versions,
            "::int8[], ",
            $moments,
            "::timestamptz[])) RETURNING ",
            $returning,
            ")
             SELECT written.*, EXISTS (SELECT FROM {schema}.tasks WHERE user_id = $1 AND id = $2) AS there
             FROM (SELECT) AS always LEFT JOIN written ON true"
        );
    };
}

// `updated_at` and `version` move when something really changes; `updated_at` always forward, whatever the clock does.
write_statements!(
    UPDATE,
    UPDATE_GUARDED,
    "$15",
    "$16",
    "UPDATE {schema}.tasks AS task
     SET (title, description, completed_at, priority, due_at, due_on, tags, search, updated_at, version) = (
         SELECT new.title, new.description, new.completed_at, new.priority, new.due_at, new.due_on, new.tags, new.search,
                CASE WHEN changed THEN greatest(now(), task.updated_at + interval '1 microsecond') ELSE task.updated_at END,
                CASE WHEN changed THEN task.version + 1 ELSE task.version END
         FROM (SELECT coalesce($3::text, task.title) AS title,
                      CASE WHEN $4::bool THEN $5::text ELSE task.description END AS description,
                      CASE WHEN coalesce($6::bool, task.completed) THEN coalesce(task.completed_at, now()) END AS completed_at,
                      coalesce($7::int2, task.priority) AS priority,
                      CASE WHEN $8::bool THEN $9::timestamptz ELSE task.due_at END AS due_at,
                      CASE WHEN $8::bool THEN $10::date ELSE task.due_on END AS due_on,
                      coalesce($11::text[], task.tags) AS tags,
                      CASE WHEN $12::bool
                           THEN coalesce($13::text, split_part(task.search, E'\\n', 1)) || E'\\n'
                                || coalesce($14::text, substr(task.search, strpos(task.search, E'\\n') + 1))
                           ELSE task.search END AS search) AS new,
              LATERAL (SELECT (new.title, new.description, new.completed_at, new.priority, new.due_at, new.due_on, new.tags)
                              IS DISTINCT FROM
                              (task.title, task.description, task.completed_at, task.priority, task.due_at, task.due_on, task.tags)
                              AS changed) AS comparison
     )
     WHERE user_id = $1 AND id = $2",
    task_columns!()
);

// `$3` is the completion to set, or null to turn it over. Setting what is set already changes nothing.
write_statements!(
    COMPLETE,
    COMPLETE_GUARDED,
    "$4",
    "$5",
    "UPDATE {schema}.tasks
     SET completed_at = CASE WHEN coalesce($3::bool, NOT completed) THEN coalesce(completed_at, now()) END,
         updated_at = CASE WHEN $3::bool IS DISTINCT FROM completed
                           THEN greatest(now(), updated_at + interval '1 microsecond')
                           ELSE updated_at END,
         version = CASE WHEN $3::bool IS DISTINCT FROM completed THEN version + 1 ELSE version END
     WHERE user_id = $1 AND id = $2",
    task_columns!()
);

write_statements!(
    DELETE,
    DELETE_GUARDED,
    "$3",
    "$4",
    "DELETE FROM {schema}.tasks WHERE user_id = $1 AND id = $2",
    "id"
);

impl Store {
    /// One task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_task(&self, user: &UserId, id: Uuid) -> Result<Option<Task>, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(GET)?;
            client
                .query_opt(&statement, &[&user.as_str(), &id])?
                .map(|row| read_task(user, &row))
                .transpose()
        })
    }

    /// The entity tag of a task; `None` where the user has none of that id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn task_state(&self, user: &UserId, id: Uuid) -> Result<Option<ETag>, Error> {
        self.run(Effect::Read, |client| {
            let statement = client.prepared(STATE)?;
            let row = client.query_opt(&statement, &[&user.as_str(), &id])?;
            row.map(|row| {
                Ok(ETag {
                    version: row.try_get(0)?,
                    created_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(1)?),
                })
            })
            .transpose()
        })
    }

    /// Makes a task, and its owner where this is the first that is heard of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_task(&self, user: &UserId, task: &NewTask) -> Result<Created, Error> {
        let columns = NewColumns::of(user, task);
        self.run(Effect::Write, |client| {
            let statement = client.prepared(CREATE)?;
            let made = match client.query_opt(&statement, &columns.parameters()) {
                Ok(None) => {
                    let statement = client.prepared(CREATE_FIRST)?;
                    client.query_one(&statement, &columns.parameters())
                }
                Ok(Some(row)) => Ok(row),
                Err(error) => Err(error),
            };
            match made {
                Ok(row) => Ok(Created::Task(task.made(user, task.id, read_moment(&row)?))),
                Err(error) if violates(&error, "tasks_pkey") => Ok(Created::IdTaken),
                Err(error) => Err(error),
            }
        })
    }

    /// Changes a task, if it is in a state that `if_match` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update_task(
        &self,
        user: &UserId,
        id: Uuid,
        changes: &TaskChanges,
        if_match: Option<&EntityTags>,
    ) -> Result<Outcome<Task>, Error> {
        if *changes == TaskChanges::default() {
            return Ok(match self.get_task(user, id)? {
                None => Outcome::NotFound,
                Some(task)
                    if if_match.is_some_and(|tags| !tags.match_strongly(ETag::of(&task))) =>
                {
                    Outcome::Stale
                }
                Some(task) => Outcome::Done(task),
            });
        }
        let (due_at, due_on) = due_columns(changes.due_date.value().copied());
        let title = changes.title.as_ref().map(Title::as_str);
        let description = changes.description.value().map(Description::as_str);
        let tags = changes
            .tags
            .is_sent()
            .then(|| changes.tags.value().map(Tags::texts).unwrap_or_default());
        let title_folded = title.map(fold);
        let description_folded = changes
            .description
            .is_sent()
            .then(|| fold(description.unwrap_or_default()));
        let statements = Guarded {
            plain: UPDATE,
            guarded: UPDATE_GUARDED,
            if_match,
        };
        self.write_task(
            &statements,
            &[
                &user.as_str(),
                &id,
                &title,
                &changes.description.is_sent(),
                &description,
                &changes.completed,
                &changes.priority.map(Priority::rank),
                &changes.due_date.is_sent(),
                &due_at,
                &due_on,
                &tags,
                &(title.is_some() || changes.description.is_sent()),
                &title_folded,
                &description_folded,
            ],
            |row| read_task(user, row),
        )
    }

    /// Sets or turns over a task's completion, if it is in a state that `if_match` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn complete_task(
        &self,
        user: &UserId,
        id: Uuid,
        completion: Completion,
        if_match: Option<&EntityTags>,
    ) -> Result<Outcome<Task>, Error> {
        let completed = match completion {
            Completion::Toggle => None,
            Completion::Set(completed) => Some(completed),
        };
        let statements = Guarded {
            plain: COMPLETE,
            guarded: COMPLETE_GUARDED,
            if_match,
        };
        self.write_task(&statements, &[&user.as_str(), &id, &completed], |row| {
            read_task(user, row)
        })
    }

    /// Deletes a task, if it is in a state that `if_match` names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_task(
        &self,
        user: &UserId,
        id: Uuid,
        if_match: Option<&EntityTags>,
    ) -> Result<Outcome<()>, Error> {
        let statements = Guarded {
            plain: DELETE,
            guarded: DELETE_GUARDED,
            if_match,
        };
        self.write_task(&statements, &[&user.as_str(), &id], |_| Ok(()))
    }

    /// Runs a write to one task in the form that its precondition asks for.
    fn write_task<T>(
        &self,
        statements: &Guarded,
        parameters: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, PgError>,
    ) -> Result<Outcome<T>, Error> {
        let Some(EntityTags::OneOf { strong, .. }) = statements.if_match else {
            return self.run(Effect::Write, |client| {
                let statement = client.prepared(statements.plain)?;
                let row = client.query_opt(&statement, parameters)?;
                row.map_or(Ok(Outcome::NotFound), |row| read(&row).map(Outcome::Done))
            });
        };
        let versions: Vec<i64> = strong.iter().map(|tag| tag.version).collect();
        let moments: Vec<OffsetDateTime> =
            strong.iter().map(|tag| tag.created_at.as_utc()).collect();
        let mut parameters = parameters.to_vec();
        parameters.push(&versions);
        parameters.push(&moments);
        self.run(Effect::Write, |client| {
            let statement = client.prepared(statements.guarded)?;
            let row = client.query_one(&statement, &parameters)?;
            // The first column is the id; it is null where nothing was written.
            if row.try_get::<_, Option<Uuid>>(0)?.is_some() {
                read(&row).map(Outcome::Done)
            } else if row.try_get("there")? {
                Ok(Outcome::Stale)
            } else {
                Ok(Outcome::NotFound)
            }
        })
    }
}

/// A write in its two forms, and the precondition that decides between them.
struct Guarded<'g> {
    plain: &'static str,
    guarded: &'static str,
    if_match: Option<&'g EntityTags>,
}

/// What is written of a new task, in the order of the parameters of `CREATE`.
struct NewColumns<'t> {
    user: &'t str,
    id: Uuid,
    title: &'t str,
    description: Option<&'t str>,
    completed: bool,
    priority: i16,
    due_at: Option<OffsetDateTime>,
    due_on: Option<Date>,
    tags: Vec<&'t str>,
    search: String,
}

impl<'t> NewColumns<'t> {
    fn of(user: &'t UserId, task: &'t NewTask) -> NewColumns<'t> {
        let (due_at, due_on) = due_columns(task.due_date);
        let title = task.title.as_str();
        let description = task.description.as_ref().map(Description::as_str);
        NewColumns {
            user: user.as_str(),
            id: task.id,
            title,
            description,
            completed: task.completed,
            priority: task.priority.rank(),
            due_at,
            due_on,
            tags: task.tags.texts(),
            search: search_text(title, description),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 10] {
        [
            &self.user,
            &self.id,
            &self.title,
            &self.description,
            &self.completed,
            &self.priority,
            &self.due_at,
            &self.due_on,
            &self.tags,
            &self.search,
        ]
    }
}

/// Reads the moment that a statement returns alone.
fn read_moment(row: &Row) -> Result<Timestamp, PgError> {
    row.try_get::<_, OffsetDateTime>(0).map(Timestamp::from)
}

/// Reads the columns of `task_columns!`.
fn read_task(user: &UserId, row: &Row) -> Result<Task, PgError> {
    let completed_at: Option<OffsetDateTime> = row.try_get(3)?;
    let due_at: Option<OffsetDateTime> = row.try_get(5)?;
    let due_on: Option<Date> = row.try_get(6)?;
    Ok(Task {
        id: row.try_get(0)?,
        user_id: user.clone(),
        title: row.try_get(1)?,
        description: row.try_get(2)?,
        completed: completed_at.is_some(),
        completed_at: completed_at.map(Timestamp::from),
        // The constraint tasks_priority_rank lets no other rank in.
        priority: Priority::from_rank(row.try_get(4)?).unwrap_or_default(),
        due_date: due_on
            .map(Due::On)
            .or_else(|| due_at.map(|at| Due::At(Timestamp::from(at)))),
        created_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(7)?),
        updated_at: Timestamp::from(row.try_get::<_, OffsetDateTime>(8)?),
        version: row.try_get(9)?,
        tags: row.try_get(10)?,
    })
}

/// The columns `due_at` and `due_on`.
fn due_columns(due: Option<Due>) -> (Option<OffsetDateTime>, Option<Date>) {
    let at = due.map(|due| due.moment().as_utc());
    match due {
        Some(Due::On(date)) => (at, Some(date)),
        _ => (at, None),
    }
}
