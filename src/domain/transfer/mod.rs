//! Files of tasks: what an export writes and an import reads.
//!
//! Both follow from [`TASK_FIELDS`](super::task::TASK_FIELDS): an export has every field, an import reads all but the owner.
//!
//! - `json`: JSON Lines, and JSON as lists return it
//! - [`csv`]: CSV with a header
//! - `imported`: one task of a file

pub mod csv;
mod imported;
mod json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::iter;
use std::ops::AddAssign;

use serde::Serialize;

use super::fields::FieldError;
use super::timestamp::Timestamp;
use super::user::UserId;
pub use imported::{Ids, ImportedTask};

/// Most errors that an import names.
pub const ERRORS_MAX: usize = 100;

/// The format of a file of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines: one task a line.
    Jsonl,
    /// CSV (RFC 4180) in UTF-8, with a header.
    Csv,
}

impl Format {
    /// The names, which are also how the names of files end.
    pub const NAMES: &[&str] = &["jsonl", "csv"];

    /// Reads its name.
    ///
    /// # Errors
    /// Says which names there are, as the end of a sentence.
    pub fn parse(name: &str) -> Result<Format, &'static str> {
        match name {
            "jsonl" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            _ => Err("must be jsonl or csv"),
        }
    }
}

/// What an import does with a task whose id the user has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Leaves the stored task as it is.
    #[default]
    Skip,
    /// Changes the fields of the stored task that the file has.
    Update,
}

impl OnConflict {
    /// The names.
    pub const NAMES: &[&str] = &["skip", "update"];

    /// Reads its name.
    ///
    /// # Errors
    /// Says which names there are, as the end of a sentence.
    pub fn parse(name: &str) -> Result<OnConflict, &'static str> {
        match name {
            "skip" => Ok(OnConflict::Skip),
            "update" => Ok(OnConflict::Update),
            _ => Err("must be skip or update"),
        }
    }
}

/// How many tasks an import created, and so on. The sum is the number of tasks in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportCount {
    /// Tasks that were created.
    pub created: usize,
    /// Tasks that were there and are changed.
    pub updated: usize,
    /// Tasks that were there and are as the file says.
    pub unchanged: usize,
    /// Tasks that were left out: they are there and differ, another one in the file has the same id, or they have an error.
    pub skipped: usize,
}

impl AddAssign for ImportCount {
    fn add_assign(&mut self, other: ImportCount) {
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
    }
}

/// One thing that is wrong with a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The number of the line on which the task starts, from 1.
    pub line: u64,
    /// The field's name; `json` or `row` if the task cannot be read at all.
    pub field: Cow<'static, str>,
    /// What it must be: the end of a sentence that starts with the field's name.
    pub message: Cow<'static, str>,
}

/// A task of a file, by the number of the line on which it starts, from 1; or every field that is wrong.
pub type FileTask = (u64, Result<ImportedTask, Vec<FieldError>>);

/// The same, unread: a JSON object.
type Record = (u64, Result<String, FieldError>);

fn wrong(line: u64, field: &'static str, message: impl Into<Cow<'static, str>>) -> Record {
    let (field, message) = (Cow::Borrowed(field), message.into());
    (line, Err(FieldError { field, message }))
}

/// Reads the tasks of a file. Tasks without `created_at` are created at `start`, less a microsecond for each line: a list has them in
/// the order of the file.
///
/// Memory depends on the longest line, and on the number of tasks without an id (see [`Ids`]).
pub fn read_tasks<'r, R: BufRead + 'r>(
    input: R,
    format: Format,
    user: &UserId,
    start: Timestamp,
) -> impl Iterator<Item = io::Result<FileTask>> + use<'r, R> {
    let records: Box<dyn Iterator<Item = io::Result<Record>> + 'r> = match format {
        Format::Jsonl => Box::new(json::records(input)),
        Format::Csv => match csv::records(input) {
            Ok(records) => Box::new(records),
            Err(error) => Box::new(iter::once(Err(error))),
        },
    };
    let mut ids = Ids::new(user, &format!("{format:?}"));
    records.map(move |record| {
        let (line, json) = record?;
        let task = json.map_err(|error| vec![error]);
        let task = task.and_then(|json| ImportedTask::read(&json, &mut ids));
        let created_at = Timestamp::nearest(start.micros() - line as i64);
        Ok((line, task.map(|task| task.created_at(created_at))))
    })
}

/// Some tasks of a file.
#[derive(Debug, Default)]
pub struct FileTasks {
    /// Those that can be imported.
    pub tasks: Vec<ImportedTask>,
    /// How many others there are.
    pub wrong: usize,
    /// What is wrong with them; at most [`ERRORS_MAX`].
    pub errors: Vec<LineError>,
}

impl FileTasks {
    /// Adds one.
    pub fn add(&mut self, (line, task): FileTask) {
        let errors = match task {
            Ok(task) => return self.tasks.push(task),
            Err(errors) => errors.into_iter(),
        };
        self.wrong += 1;
        self.errors.extend(errors.map(|error| LineError {
            line,
            field: error.field,
            message: error.message,
        }));
        self.errors.truncate(ERRORS_MAX);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tasks.len() + self.wrong
    }
}
