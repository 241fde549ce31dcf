//! Exports tasks.

use std::cell::RefCell;

use postgres::{Error as PgError, Row};

use super::json::show_task;
use super::list::{cursor_behind, is_unknown_zone};
use super::statement::Statement;
use crate::domain::list::ListQuery;
use crate::domain::list::cursor::Cursor;
use crate::domain::transfer::{Format, csv};
use crate::domain::user::UserId;
use crate::store::{Effect, Error, Store};

/// Most tasks of a page.
const MOST_TASKS: usize = 10_000;
/// A page with more bytes than this takes no further task: 8 MiB with the largest one.
const FULL: usize = (8 * 1024 - 64) * 1024;

/// A file of tasks, and where the next page starts.
pub type ExportPage = (Vec<u8>, Option<Cursor>);

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
        let mut statement = Statement::in_order(user, query, self.settings.database.trash);
        statement.text += &format!(" LIMIT {}", MOST_TASKS + 1);
        self.run(Effect::Read, |client| {
            let (mut file, mut count) = (beginning(format), 0);
            let (mut last, mut next) = (None, None);
            let exported = statement.each_batch(client, self.patience(), |rows| {
                for row in rows {
                    if last.is_some() {
                        next = last.take();
                        return Ok(false);
                    }
                    write_task(&mut file, row, format)?;
                    count += 1;
                    if count == MOST_TASKS || file.len() > FULL {
                        last = Some(cursor_behind(row, query)?);
                    }
                }
                Ok(true)
            });
            match exported {
                Err(error) if is_unknown_zone(&error) => Ok(None),
                exported => exported.map(|()| Some((file, next))),
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
        let trash = self.settings.database.trash;
        let statement = Statement::in_order(user, &ListQuery::default(), trash);
        let write = RefCell::new(write);
        self.run(Effect::Once, |client| {
            let (mut write, mut part) = (write.borrow_mut(), beginning(format));
            statement.each_batch(client, self.patience(), |rows| {
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

fn beginning(format: Format) -> Vec<u8> {
    match format {
        Format::Jsonl => Vec::new(),
        Format::Csv => csv::header().into_bytes(),
    }
}

fn write_task(file: &mut Vec<u8>, row: &Row, format: Format) -> Result<(), PgError> {
    let start = file.len();
    show_task(file, row)?;
    match format {
        Format::Jsonl => file.push(b'\n'),
        Format::Csv => csv::write_row(file, start),
    }
    Ok(())
}
