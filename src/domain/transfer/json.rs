//! Reads JSON Lines: a task on each line. A list of tasks as the API returns it is also read, on one line or as the whole file.

use std::collections::VecDeque;
use std::io::{self, BufRead, Cursor, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LONGEST_LINE;
use super::reader::{Record, too_long};

/// The answer of a list.
#[derive(Deserialize)]
struct List<'t> {
    #[serde(borrow)]
    tasks: Vec<&'t RawValue>,
}

/// The tasks of a file, unread.
pub(super) struct JsonRecords<R> {
    input: R,
    /// Text that was read ahead of the lines.
    ahead: Cursor<Vec<u8>>,
    /// The number of the last line.
    line: u64,
    /// Whether a task, or an error, has been found.
    begun: bool,
    ready: VecDeque<Record>,
}

impl<R: BufRead> JsonRecords<R> {
    pub fn new(input: R) -> JsonRecords<R> {
        JsonRecords {
            input,
            ahead: Cursor::default(),
            line: 0,
            begun: false,
            ready: VecDeque::new(),
        }
    }

    /// Reads until a line has tasks or an error. False at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        let mut text = Vec::new();
        self.ahead.read_until(b'\n', &mut text)?;
        if !text.ends_with(b"\n") {
            let room = LONGEST_LINE.saturating_sub(text.len()) as u64;
            (&mut self.input).take(room).read_until(b'\n', &mut text)?;
        }
        if text.is_empty() {
            return Ok(false);
        }
        if text.len() >= LONGEST_LINE && !text.ends_with(b"\n") {
            return Err(too_long());
        }
        self.line += 1;
        if self.line == 1 && text.starts_with(b"\xEF\xBB\xBF") {
            text.drain(..3);
        }
        if text.trim_ascii().is_empty() {
            return Ok(true);
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        if !(is_first && self.read_as_document(&mut text)?) {
            add_records(&text, self.line, &mut self.ready);
        }
        Ok(true)
    }

    /// Reads the whole file as one JSON value that begins with this line. If it is none, the lines behind the first are read again.
    fn read_as_document(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let value = serde_json::from_slice::<&RawValue>(text);
        if !value.is_err_and(|error| error.is_eof()) {
            return Ok(false);
        }
        let first = text.len();
        let room = LONGEST_LINE.saturating_sub(first) as u64;
        (&mut self.input).take(room).read_to_end(text)?;
        let is_whole =
            text.len() < LONGEST_LINE && serde_json::from_slice::<&RawValue>(text).is_ok();
        if is_whole {
            add_records(text, self.line, &mut self.ready);
        } else {
            self.ahead = Cursor::new(text.split_off(first));
        }
        Ok(is_whole)
    }
}

impl<R: BufRead> Iterator for JsonRecords<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Adds the tasks of a JSON value that starts on this line, or what is wrong with it.
fn add_records(text: &[u8], line: u64, records: &mut VecDeque<Record>) {
    let Ok(text) = std::str::from_utf8(text) else {
        return records.push_back(Record::wrong(line, "line", "must be UTF-8"));
    };
    let value: &RawValue = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("is not valid JSON: see column {}", error.column());
            return records.push_back(Record::wrong(line, "line", message));
        }
    };
    let list: Option<Vec<&RawValue>> = if value.get().starts_with('[') {
        serde_json::from_str(value.get()).ok()
    } else {
        let list: Option<List> = serde_json::from_str(value.get()).ok();
        list.map(|list| list.tasks)
    };
    let (mut line, mut seen) = (line, 0);
    for value in list.unwrap_or_else(|| vec![value]) {
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        let between = text.as_bytes().get(seen..start).unwrap_or_default();
        line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        seen = start;
        records.push_back(match value.get().starts_with('{') {
            true => Record {
                line,
                json: Ok(value.get().to_owned()),
            },
            false => Record::wrong(line, "line", "must be a task: a JSON object"),
        });
    }
}
