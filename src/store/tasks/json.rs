//! Writes tasks as JSON, directly from the binary form of PostgreSQL's rows.
//!
//! Nothing here fails. A stored value that no request can write is shown as the nearest valid one, so that one such row does not
//! break a list.

use std::error::Error;

use postgres::types::{FromSql, Type};
use postgres::{Error as PgError, Row};
use time::Date;
use uuid::Uuid;

use super::columns::SHOWN;
use crate::domain::etag::ETag;
use crate::domain::task::Priority;
use crate::domain::timestamp::{Timestamp, format_date};
use crate::domain::value::{Kind, Value};

/// A task as its owner sees it.
#[derive(Debug, PartialEq)]
pub struct ShownTask {
    /// As JSON.
    pub json: Vec<u8>,
    /// Its id.
    pub id: Uuid,
    /// Its entity tag.
    pub tag: ETag,
}

/// A value as PostgreSQL sends it; `None` for null.
pub(super) type Cell<'r> = Option<&'r [u8]>;

/// Writes a field's value from its one or two columns.
pub(super) type Show = fn(&mut Vec<u8>, [Cell; 2]);

/// Bytes of an ordinary task, for the initial capacity.
const USUAL: usize = 512;
/// PostgreSQL counts microseconds from the beginning of 2000: seconds from 1970 to there.
const EPOCH: i64 = 946_684_800;
/// The same moment as a Julian day, as `time` counts.
const EPOCH_DAY: i64 = 2_451_545;

/// A value of any type, unread.
struct Raw<'r>(&'r [u8]);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Raw<'r>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ShownTask {
    /// Reads the columns of [`all`](super::columns::all).
    pub(in crate::store) fn read(row: &Row) -> Result<ShownTask, PgError> {
        let mut json = Vec::with_capacity(USUAL);
        show_task(&mut json, row)?;
        Ok(ShownTask {
            json,
            id: row.try_get("id")?,
            tag: read_tag(row)?,
        })
    }
}

/// The entity tag of a row with the columns `version` and `created_at`.
pub(super) fn read_tag(row: &Row) -> Result<ETag, PgError> {
    Ok(ETag {
        version: row.try_get("version")?,
        created_at: nearest(cell(row, "created_at")?),
    })
}

/// Writes the task whose row starts with the columns of [`all`](super::columns::all).
pub(super) fn show_task(out: &mut Vec<u8>, row: &Row) -> Result<(), PgError> {
    let (start, mut at) = (out.len(), 0);
    for shown in SHOWN {
        out.extend_from_slice(shown.key.as_bytes());
        let mut cells = [None; 2];
        for (slot, place) in cells.iter_mut().zip(at..at + shown.columns.len().max(1)) {
            *slot = cell(row, place)?;
        }
        at += shown.columns.len();
        (shown.show)(out, cells);
    }
    // In place of the first comma.
    if let Some(first) = out.get_mut(start) {
        *first = b'{';
    }
    out.push(b'}');
    Ok(())
}

/// As [`show_task`], with the columns `deleted_at` and `purge_at`.
pub(super) fn show_deleted_task(out: &mut Vec<u8>, row: &Row) -> Result<(), PgError> {
    show_task(out, row)?;
    // The closing brace.
    out.pop();
    for field in ["deleted_at", "purge_at"] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        moment(out, [cell(row, field)?, None]);
    }
    out.push(b'}');
    Ok(())
}

/// Reads a number of any type.
pub(super) fn read_integer(row: &Row, column: &str) -> Result<i64, PgError> {
    Ok(integer(cell(row, column)?).unwrap_or_default())
}

/// Reads a value by which tasks are sorted.
pub(super) fn read_value(row: &Row, column: &str, kind: Kind) -> Result<Value, PgError> {
    let value = cell(row, column)?;
    Ok(match kind {
        _ if value.is_none() => Value::Null,
        Kind::Bool => Value::Bool(value == Some(&[1])),
        Kind::Number => Value::of(integer(value), Value::Number),
        Kind::Text => Value::Text(String::from_utf8_lossy(value.unwrap_or_default()).into_owned()),
        Kind::Moment => Value::of(integer(value), Value::Micros),
    })
}

fn cell<I: postgres::row::RowIndex + std::fmt::Display>(
    row: &Row,
    at: I,
) -> Result<Cell<'_>, PgError> {
    Ok(row.try_get::<_, Option<Raw>>(at)?.map(|raw| raw.0))
}

pub(super) fn uuid(out: &mut Vec<u8>, [id, _]: [Cell; 2]) {
    let id = id.and_then(|id| Uuid::from_slice(id).ok());
    let mut text = [0; 36];
    quoted(
        out,
        id.unwrap_or_default().hyphenated().encode_lower(&mut text),
    );
}

pub(super) fn text(out: &mut Vec<u8>, [text, _]: [Cell; 2]) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn is_there(out: &mut Vec<u8>, [value, _]: [Cell; 2]) {
    out.extend_from_slice(if value.is_some() { b"true" } else { b"false" });
}

pub(super) fn number(out: &mut Vec<u8>, [value, _]: [Cell; 2]) {
    // Writing to a Vec does not fail.
    let _ = serde_json::to_writer(out, &integer(value));
}

pub(super) fn priority(out: &mut Vec<u8>, [rank, _]: [Cell; 2]) {
    let rank = integer(rank).unwrap_or_default();
    quoted(out, Priority::of_rank(rank).name());
}

pub(super) fn moment(out: &mut Vec<u8>, [moment, _]: [Cell; 2]) {
    if moment.is_some() {
        let text = nearest(moment).digits();
        quoted(out, str::from_utf8(&text).unwrap_or_default());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// A plain date takes precedence.
pub(super) fn due(out: &mut Vec<u8>, [at, on]: [Cell; 2]) {
    let Some(days) = integer(on) else {
        return moment(out, [at, None]);
    };
    let day = (days + EPOCH_DAY).clamp(1_721_426, 5_373_484);
    let date = i32::try_from(day).map(Date::from_julian_day);
    let date = date.ok().and_then(Result::ok).unwrap_or(Date::MAX);
    quoted(out, &format_date(date));
}

/// An array of texts: dimensions, whether there are nulls, the type; for each dimension length and lower bound; for each element
/// length and bytes.
pub(super) fn texts(out: &mut Vec<u8>, [array, _]: [Cell; 2]) {
    let mut rest = array.unwrap_or_default();
    let mut next = |length: usize| -> Option<&[u8]> {
        let (part, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(part)
    };
    let dimensions = integer(next(4)).unwrap_or_default();
    next(8 + 8 * usize::try_from(dimensions).unwrap_or_default());
    let mut before = b'[';
    out.push(before);
    while let Some(length) = integer(next(4)) {
        // A null has the length -1.
        if let Some(text) = usize::try_from(length).ok().and_then(&mut next) {
            if before == b',' {
                out.push(before);
            }
            string(out, text);
            before = b',';
        }
    }
    out.push(b']');
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    // The database is in UTF-8, so nothing is lost. Writing to a Vec does not fail.
    let _ = match str::from_utf8(text) {
        Ok(text) => serde_json::to_writer(out, text),
        Err(_) => serde_json::to_writer(out, &String::from_utf8_lossy(text)),
    };
}

/// A text without characters that JSON escapes.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A whole number of two, four or eight bytes.
fn integer(value: Cell) -> Option<i64> {
    let bytes = value?;
    match *bytes {
        [a, b] => Some(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
        _ => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
    }
}

/// A moment, or the nearest one of the years 1 to 9999: PostgreSQL knows others, and infinity.
fn nearest(moment: Cell) -> Timestamp {
    let micros = integer(moment).unwrap_or_default();
    Timestamp::nearest(micros.saturating_add(EPOCH * 1_000_000))
}
