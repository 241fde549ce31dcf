//! All tasks of a file, one after the other.

use std::borrow::Cow;
use std::io::{self, BufRead};

use super::Format;
use super::csv::CsvRecords;
use super::imported::{Ids, ImportedTask};
use super::json::JsonRecords;
use crate::domain::fields::FieldError;
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// A task of a file, unread.
pub(super) struct Record {
    /// The number of the line on which it starts, from 1.
    pub line: u64,
    /// A JSON object, or what is wrong with the line.
    pub json: Result<String, FieldError>,
}

impl Record {
    /// An error of this line: `message` ends a sentence that starts with `field`.
    pub fn wrong(line: u64, field: &'static str, message: impl Into<Cow<'static, str>>) -> Record {
        let field = Cow::Borrowed(field);
        let message = message.into();
        Record {
            line,
            json: Err(FieldError { field, message }),
        }
    }
}

/// The error of a line or row that is longer than [`LONGEST_LINE`](super::LONGEST_LINE).
pub(super) fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a line or row is longer than 16 MiB",
    )
}

/// A task of a file, or what is wrong with it.
#[derive(Debug, PartialEq)]
pub struct FileTask {
    /// The number of the line on which it starts, from 1.
    pub line: u64,
    /// The task, or every field that is wrong.
    pub task: Result<ImportedTask, Vec<FieldError>>,
}

/// Reads the tasks of a file. Its memory does not depend on the size of the file, except for tasks without an id (see [`Ids`]).
///
/// An error ends the reading: the input failed, or a line is too long.
pub struct TaskReader<'r> {
    records: Box<dyn Iterator<Item = io::Result<Record>> + 'r>,
    ids: Ids,
    start: Timestamp,
}

impl<'r> TaskReader<'r> {
    /// Tasks without `created_at` are created at `start`, less a microsecond for each line: a list shows them in the order of the file.
    pub fn new(
        input: impl BufRead + 'r,
        format: Format,
        user: &UserId,
        start: Timestamp,
    ) -> TaskReader<'r> {
        TaskReader {
            records: match format {
                Format::Jsonl => Box::new(JsonRecords::new(input)),
                Format::Csv => Box::new(CsvRecords::new(input)),
            },
            ids: Ids::new(user, format.name()),
            start,
        }
    }

    fn read(&mut self, record: Record) -> FileTask {
        let Record { line, json } = record;
        let task = json.map_err(|error| vec![error]).and_then(|json| {
            let mut read = ImportedTask::read(&json, &mut self.ids)?;
            let behind = i64::try_from(line).unwrap_or(i64::MAX);
            let start = Timestamp::nearest(self.start.micros().saturating_sub(behind));
            read.kept.created_at.get_or_insert(start);
            Ok(read)
        });
        FileTask { line, task }
    }
}

impl Iterator for TaskReader<'_> {
    type Item = io::Result<FileTask>;

    fn next(&mut self) -> Option<io::Result<FileTask>> {
        let record = self.records.next()?;
        Some(record.map(|record| self.read(record)))
    }
}
