//! Reads and writes tasks as CSV (RFC 4180). A cell is the JSON value of a field in another form.
//!
//! Spreadsheets run a text as a formula that begins with one of a few characters. Such a text is written with an apostrophe before it,
//! which the reader removes.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use serde_json::json;

use super::LONGEST_LINE;
use super::reader::{Record, too_long};
use crate::domain::shape::Shape;
use crate::domain::task::{Sent, TASK_FIELDS, TaskField};

/// A text that begins with one of these may be run as a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Delimiters that spreadsheets write. The first row has most of the right one.
const DELIMITERS: [u8; 3] = [b'\t', b';', b','];

/// The columns of an export, as the first row.
pub fn header() -> String {
    let names: Vec<&str> = TASK_FIELDS.iter().map(|field| field.name).collect();
    names.join(",") + "\r\n"
}

/// Writes a field's JSON value as a cell.
pub fn write_cell(out: &mut Vec<u8>, json: &[u8]) {
    let text: Cow<str> = match json.first() {
        Some(b'"') => serde_json::from_slice(json).unwrap_or_default(),
        Some(b'[') => tags_as_text(json),
        _ if json == b"null" => Cow::Borrowed(""),
        _ => return out.extend_from_slice(json),
    };
    let apostrophe = if is_formula(&text) { "'" } else { "" };
    let quote = if text.contains(['"', ',', '\r', '\n']) {
        "\""
    } else {
        ""
    };
    for part in [quote, apostrophe, &text.replace('"', "\"\""), quote] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Tags separated by commas; as JSON if that would not be read back.
fn tags_as_text(json: &[u8]) -> Cow<'_, str> {
    let tags: Vec<String> = serde_json::from_slice(json).unwrap_or_default();
    let ambiguous = tags.iter().any(|tag| tag.contains(',')) || tags.concat().starts_with('[');
    match ambiguous {
        true => String::from_utf8_lossy(json),
        false => tags.join(",").into(),
    }
}

/// Whether a text, or what is behind its apostrophes, begins as a formula.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(FORMULA)
}

/// The JSON value of a cell; `None` if an empty cell is as no cell.
fn as_json(cell: &str, field: &TaskField) -> Option<String> {
    let mut shape = &field.shape;
    while let Shape::Named { shape: inner, .. } = shape {
        shape = inner;
    }
    let is_text = matches!(shape, Shape::Text { .. } | Shape::List { .. });
    let text = match cell.strip_prefix('\'') {
        Some(rest) if is_text && is_formula(rest) => rest,
        _ if is_text => cell,
        _ => cell.trim(),
    };
    if text.is_empty() {
        let clears = field.nullable || matches!(field.sent, Sent::Clearable(_));
        return clears.then(|| "null".to_owned());
    }
    Some(match shape {
        Shape::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => "true".to_owned(),
            "false" | "no" | "0" => "false".to_owned(),
            _ => json!(text).to_string(),
        },
        Shape::Integer { .. } if text.parse::<i64>().is_ok() => text.to_owned(),
        Shape::List { .. } => {
            let tags: Option<Vec<Cow<str>>> = serde_json::from_str(text).ok();
            let words = text.split(',').map(str::trim);
            let words = words.filter(|word| !word.is_empty()).map(Cow::Borrowed);
            json!(tags.unwrap_or_else(|| words.collect())).to_string()
        }
        _ => json!(text).to_string(),
    })
}

/// A column of a file: its name, and the field it has.
type Column = (&'static str, &'static TaskField);

/// The field of a column, by its name or an alias. Case does not matter, and a space is as good as `_`.
fn column(header: &[u8]) -> Option<Column> {
    let name = String::from_utf8_lossy(header).trim().to_lowercase();
    let name = name.replace(' ', "_");
    let mut fields = TASK_FIELDS.iter();
    fields.find_map(|field| {
        let mut names = std::iter::once(&field.name).chain(field.aliases);
        let known = names.find(|known| **known == name)?;
        Some((*known, field))
    })
}

/// An input of which a limited number of bytes may be read.
struct Limited<R> {
    input: R,
    left: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(too_long)?;
        Ok(read)
    }
}

/// The tasks of a file, unread.
pub(super) struct CsvRecords<R> {
    input: Option<R>,
    rows: Option<Rows<R>>,
}

struct Rows<R> {
    reader: csv::Reader<Limited<R>>,
    columns: Vec<Option<Column>>,
}

impl<R: BufRead> CsvRecords<R> {
    pub fn new(input: R) -> CsvRecords<R> {
        CsvRecords {
            input: Some(input),
            rows: None,
        }
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        if let Some(input) = self.input.take() {
            let mut rows = Rows::new(input)?;
            let header = rows.next_row()?.unwrap_or_default();
            rows.columns = header.iter().map(column).collect();
            let mut columns = rows.columns.iter().flatten();
            if !header.is_empty() && !columns.any(|(_, field)| field.name == "title") {
                let message = "must be named in the first row, the header";
                return Ok(Some(Record::wrong(1, "title", message)));
            }
            self.rows = Some(rows);
        }
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let row = rows.next_row()?;
        Ok(row.map(|row| rows.record(&row)))
    }
}

impl<R: BufRead> Iterator for CsvRecords<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        self.next_record().transpose()
    }
}

impl<R: BufRead> Rows<R> {
    fn new(mut input: R) -> io::Result<Rows<R>> {
        let first = input.fill_buf()?.split(|byte| *byte == b'\n').next();
        let first = first.unwrap_or_default();
        let delimiters = DELIMITERS.into_iter();
        let delimiter = delimiters.max_by_key(|known| first.iter().filter(|b| *b == known).count());
        let input = Limited {
            input,
            left: LONGEST_LINE,
        };
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true);
        builder.delimiter(delimiter.unwrap_or(b','));
        Ok(Rows {
            reader: builder.from_reader(input),
            columns: Vec::new(),
        })
    }

    fn next_row(&mut self) -> io::Result<Option<csv::ByteRecord>> {
        self.reader.get_mut().left = LONGEST_LINE;
        let mut row = csv::ByteRecord::new();
        let there = self.reader.read_byte_record(&mut row);
        Ok(there.map_err(io::Error::from)?.then_some(row))
    }

    /// A row as a JSON object.
    fn record(&self, row: &csv::ByteRecord) -> Record {
        let line = row.position().map_or(0, csv::Position::line);
        if row.len() != self.columns.len() {
            let (has, wanted) = (row.len(), self.columns.len());
            let message = format!("has {has} values, and the header has {wanted}");
            return Record::wrong(line, "line", message);
        }
        let mut json = String::new();
        for (cell, column) in row.iter().zip(&self.columns) {
            let Some((name, field)) = column else {
                continue;
            };
            let Ok(cell) = std::str::from_utf8(cell) else {
                return Record::wrong(line, name, "must be UTF-8");
            };
            if let Some(value) = as_json(cell, field) {
                let comma = if json.is_empty() { "" } else { "," };
                json.extend([comma, "\"", name, "\":", &value]);
            }
        }
        let json = Ok(format!("{{{json}}}"));
        Record { line, json }
    }
}
