//! Files of tasks: what an export writes and an import reads.
//!
//! Both follow from [`TASK_FIELDS`](super::task::TASK_FIELDS): an export has every field, an import reads all but the owner.
//!
//! - `json`: JSON Lines, and JSON as lists return it
//! - [`csv`]: CSV with a header
//! - `imported`: one task of a file
//! - `reader`: all tasks of a file

pub mod csv;
mod imported;
mod json;
mod reader;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::AddAssign;

use serde::Serialize;

use super::fields::FieldError;

pub use imported::{Ids, ImportedTask};
pub use reader::{FileTask, TaskReader};

/// The longest line of JSON, or row of CSV, in bytes. A list of 1,000 tasks in one line is shorter.
pub const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// The format of a file of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines: one task a line.
    Jsonl,
    /// CSV (RFC 4180) in UTF-8, with a header.
    Csv,
}

impl Format {
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

    /// Its name, which is also how the names of its files end.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
        }
    }
}

/// What an import does with a task whose id the user has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Leaves the stored task as it is.
    #[default]
    Skip,
    /// Changes the stored task to what the file says.
    Update,
}

impl OnConflict {
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

/// Most errors that an import names.
pub const ERRORS_MAX: usize = 100;

/// One thing that is wrong with a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The number of the line on which the task starts, from 1.
    pub line: u64,
    /// The field's name; `line` if the whole line is wrong.
    pub field: Cow<'static, str>,
    /// What it must be: the end of a sentence that starts with the field's name.
    pub message: Cow<'static, str>,
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
    pub fn add(&mut self, FileTask { line, task }: FileTask) {
        match task {
            Ok(task) => self.tasks.push(task),
            Err(errors) => {
                self.wrong += 1;
                let room = ERRORS_MAX.saturating_sub(self.errors.len());
                let errors = errors.into_iter().take(room);
                self.errors
                    .extend(errors.map(|FieldError { field, message }| LineError {
                        line,
                        field,
                        message,
                    }));
            }
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
