//! Reads and writes tasks as CSV (RFC 4180). A cell is the JSON value of a field in another form.
//!
//! Spreadsheets run a text as a formula if it begins with one of a few characters. Such a text is written with an apostrophe before it,
//! which the reader removes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Record, wrong};
use crate::domain::shape::Shape;
use crate::domain::task::{Sent, TASK_FIELDS, TaskField};

/// A text that begins with one of these may be run as a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];
/// Delimiters that spreadsheets write. The header has most of the right one.
const DELIMITERS: [u8; 3] = [b'\t', b';', b','];

/// The columns of an export, as the first row.
pub fn header() -> String {
    let names: Vec<&str> = TASK_FIELDS.iter().map(|field| field.name).collect();
    names.join(",") + "\r\n"
}

/// Turns a task in JSON, which begins here in the text, into a row.
pub fn write_row(text: &mut Vec<u8>, start: usize) {
    let json = text.split_off(start);
    let fields: HashMap<&str, &RawValue> = serde_json::from_slice(&json).unwrap_or_default();
    for (number, field) in TASK_FIELDS.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        let value = fields.get(field.name).map_or("null", |value| value.get());
        write_cell(text, value);
    }
    text.extend_from_slice(b"\r\n");
}

/// Writes a field's JSON value as a cell. Tags are separated by commas, and in JSON if that would not be read back.
fn write_cell(out: &mut Vec<u8>, json: &str) {
    let text: Cow<str> = match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_default(),
        Some(b'[') => {
            let tags: Vec<String> = serde_json::from_str(json).unwrap_or_default();
            match tags.concat().contains(',') || tags.concat().starts_with('[') {
                true => json.into(),
                false => tags.join(",").into(),
            }
        }
        _ if json == "null" => return,
        _ => json.into(),
    };
    let apostrophe = if is_formula(&text) { "'" } else { "" };
    let quote = match text.contains(['"', ',', '\r', '\n']) {
        true => "\"",
        false => "",
    };
    for part in [quote, apostrophe, &text.replace('"', "\"\""), quote] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Whether a text begins as a formula, also after apostrophes.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(FORMULA)
}

/// The tasks of a file, unread.
pub(super) fn records<R: BufRead>(
    mut input: R,
) -> io::Result<impl Iterator<Item = io::Result<Record>>> {
    let mut first = input.fill_buf()?.split(|byte| *byte == b'\n');
    let first = first.next().unwrap_or_default();
    let count = |known: &u8| first.iter().filter(|byte| *byte == known).count();
    let delimiter = DELIMITERS.into_iter().max_by_key(count);
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true);
    builder.delimiter(delimiter.unwrap_or(b','));
    let mut rows = builder.from_reader(input).into_byte_records();
    let header = rows.next().transpose()?.unwrap_or_default();
    let columns: Vec<Option<Column>> = header.iter().map(column).collect();
    Ok(rows.map(move |row| Ok(record(&row?, &columns))))
}

/// A column of a file: its name, and the field it has.
type Column = (&'static str, &'static TaskField);

/// The field of a column, by its name or an alias. Case does not matter, and a space is as good as `_`.
fn column(header: &[u8]) -> Option<Column> {
    let name = String::from_utf8_lossy(header).trim().to_lowercase();
    let name = name.replace(' ', "_");
    TASK_FIELDS.iter().find_map(|field| {
        let mut names = field.aliases.iter().chain([&field.name]);
        Some((*names.find(|known| **known == name)?, field))
    })
}

/// A row as a JSON object.
fn record(row: &csv::ByteRecord, columns: &[Option<Column>]) -> Record {
    let line = row.position().map_or(0, csv::Position::line);
    let (has, wanted) = (row.len(), columns.len());
    if has != wanted {
        let message = format!("has {has} values, and the header has {wanted}");
        return wrong(line, "row", message);
    }
    let mut fields = Vec::new();
    for (cell, column) in row.iter().zip(columns) {
        let Some((name, field)) = column else {
            continue;
        };
        let Ok(cell) = std::str::from_utf8(cell) else {
            return wrong(line, name, "must be UTF-8");
        };
        fields.extend(as_json(cell, field).map(|value| format!("\"{name}\":{value}")));
    }
    (line, Ok(format!("{{{}}}", fields.join(","))))
}

/// The JSON value of a cell; `None` if an empty cell counts as absent.
fn as_json(cell: &str, field: &TaskField) -> Option<String> {
    let mut shape = &field.shape;
    while let Shape::Named { shape: inner, .. } = shape {
        shape = inner;
    }
    let text = match (shape, cell.strip_prefix('\'')) {
        (Shape::Text { .. } | Shape::List { .. }, Some(rest)) if is_formula(rest) => rest,
        (Shape::Text { .. } | Shape::List { .. }, _) => cell,
        _ => cell.trim(),
    };
    if text.is_empty() {
        let clears = field.nullable || matches!(field.sent, Sent::Clearable(_));
        return clears.then(|| "null".to_owned());
    }
    Some(match shape {
        Shape::Boolean | Shape::Integer { .. } => {
            let word = text.to_lowercase();
            let is_json = serde_json::from_str::<Value>(&word).is_ok();
            if is_json {
                word
            } else {
                json!(word).to_string()
            }
        }
        Shape::List { .. } => {
            let tags = serde_json::from_str::<Vec<String>>(text);
            let words = text.split(',').map(str::trim).map(str::to_owned);
            json!(tags.unwrap_or_else(|_| words.filter(|word| !word.is_empty()).collect()))
                .to_string()
        }
        _ => json!(text).to_string(),
    })
}
