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

use std::ops::AddAssign;

use serde::Serialize;

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
