//! Reads JSON Lines: a task on each line. A list of tasks as the API returns it is also read, on one line or as the whole file.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::iter;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Record, wrong};

/// The answer of a list.
#[derive(Deserialize)]
struct List<'t> {
    #[serde(borrow)]
    tasks: Vec<&'t RawValue>,
}

pub(super) fn records(mut input: impl BufRead) -> impl Iterator<Item = io::Result<Record>> {
    let (mut line, mut ready) = (0, VecDeque::new());
    iter::from_fn(move || {
        while ready.is_empty() {
            match read_more(&mut input, &mut line, &mut ready) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        ready.pop_front().map(Ok)
    })
}

/// Reads the next line. False at the end of the file.
fn read_more(
    input: &mut impl BufRead,
    line: &mut u64,
    records: &mut VecDeque<Record>,
) -> io::Result<bool> {
    let mut text = Vec::new();
    if input.read_until(b'\n', &mut text)? == 0 {
        return Ok(false);
    }
    *line += 1;
    let is_cut = |text: &[u8]| serde_json::from_slice::<&RawValue>(text).is_err_and(|e| e.is_eof());
    if *line == 1 {
        if text.starts_with(b"\xEF\xBB\xBF") {
            text.drain(..3);
        }
        // Either the whole file is one value, or the first line is wrong.
        if !text.trim_ascii().is_empty() && is_cut(&text) {
            input.read_to_end(&mut text)?;
            if serde_json::from_slice::<&RawValue>(&text).is_err() {
                let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
                lines.for_each(|(line, text)| add_records(text, line, records));
                return Ok(true);
            }
        }
    }
    add_records(&text, *line, records);
    Ok(true)
}

/// Adds the tasks of the JSON value that starts on this line, or what is wrong with it.
fn add_records(text: &[u8], mut line: u64, records: &mut VecDeque<Record>) {
    if text.trim_ascii().is_empty() {
        return;
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return records.push_back(wrong(line, "json", "must be UTF-8"));
    };
    let value: &RawValue = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("is not valid: see column {}", error.column());
            return records.push_back(wrong(line, "json", message));
        }
    };
    let list = serde_json::from_str(value.get()).map(|List { tasks }| tasks);
    let list = list.or_else(|_| serde_json::from_str(value.get()));
    let mut seen = 0;
    for value in list.unwrap_or_else(|_| vec![value]) {
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        let between = text.get(seen..start).unwrap_or_default();
        line += between.matches('\n').count() as u64;
        seen = start;
        records.push_back(match value.get().starts_with('{') {
            true => (line, Ok(value.get().to_owned())),
            false => wrong(line, "json", "must be an object, the task"),
        });
    }
}
