//! Exports tasks.

use std::cell::RefCell;

use postgres::{Error as PgError, Row};

use super::json::{show_task, show_task_as_csv};
use super::list::{cursor_behind, is_unknown_zone};
use super::statement::Statement;
use crate::domain::list::ListQuery;
use crate::domain::list::cursor::Cursor;
use crate::domain::transfer::{Format, csv};
use crate::domain::user::UserId;
use crate::store::{Effect, Error, SILENCE, Store};

/// Most tasks of a page.
const MOST_TASKS: usize = 10_000;
/// A page with more bytes than this takes no further task: 8 MiB with the largest one.
const FULL: usize = (8 * 1024 - 64) * 1024;

/// A page of an export: a whole file.
#[derive(Debug, Default)]
pub struct ExportPage {
    /// The file.
    pub file: Vec<u8>,
    /// Where the next page starts; `None` if this is the last one.
    pub next: Option<Cursor>,
    count: usize,
    /// The place behind the last task of a full page.
    last: Option<Cursor>,
}

impl Store {
    /// A page of the tasks that a list would have. `None` if PostgreSQL does not know the time zone.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn export_page(
        &self,
        user: &UserId,
        query: &ListQuery,
        format: Format,
    ) -> Result<Option<ExportPage>, Error> {
        let mut statement = Statement::in_order(user, query);
        statement.text += &format!(" LIMIT {}", MOST_TASKS + 1);
        let limit = self.settings.database.statement_timeout + SILENCE;
        self.run(Effect::Read, |client| {
            let mut page = ExportPage::new(format);
            let exported = statement.each_batch(client, limit, |rows| {
                for row in rows {
                    if !page.add(row, query, format)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            });
            match exported {
                Err(error) if is_unknown_zone(&error) => Ok(None),
                exported => exported.map(|()| Some(page)),
            }
        })
    }

    /// Writes a file of all tasks of a user, newest first. `write` gets one part of it after the other, and the number of tasks in the
    /// part; it returns false to end this.
    ///
    /// # Errors
    /// See [`Error`]. Some of the file may be written then.
    pub fn export_all(
        &self,
        user: &UserId,
        format: Format,
        write: impl FnMut(&[u8], usize) -> bool,
    ) -> Result<(), Error> {
        let statement = Statement::in_order(user, &ListQuery::default());
        let limit = self.settings.database.statement_timeout + SILENCE;
        let write = RefCell::new(write);
        self.run(Effect::Once, |client| {
            let (mut write, mut part) = (write.borrow_mut(), beginning(format));
            statement.each_batch(client, limit, |rows| {
                for row in rows {
                    write_task(&mut part, row, format)?;
                }
                let goes_on = write(&part, rows.len());
                part.clear();
                Ok(goes_on)
            })
        })
    }
}

impl ExportPage {
    fn new(format: Format) -> ExportPage {
        ExportPage {
            file: beginning(format),
            ..ExportPage::default()
        }
    }

    /// Adds a task. False if the page is full already.
    fn add(&mut self, row: &Row, query: &ListQuery, format: Format) -> Result<bool, PgError> {
        if self.last.is_some() {
            self.next = self.last.take();
            return Ok(false);
        }
        write_task(&mut self.file, row, format)?;
        self.count += 1;
        if self.count == MOST_TASKS || self.file.len() > FULL {
            self.last = Some(cursor_behind(row, query)?);
        }
        Ok(true)
    }
}

fn beginning(format: Format) -> Vec<u8> {
    match format {
        Format::Jsonl => Vec::new(),
        Format::Csv => csv::header().into_bytes(),
    }
}

fn write_task(file: &mut Vec<u8>, row: &Row, format: Format) -> Result<(), PgError> {
    match format {
        Format::Jsonl => {
            show_task(file, row)?;
            file.push(b'\n');
            Ok(())
        }
        Format::Csv => show_task_as_csv(file, row),
    }
}
