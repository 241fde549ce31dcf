//! `todo-api export`: writes all tasks of a user into a file.

use std::fs::{self, File};
use std::io::{self, Write};

use super::user::open_and_find;
use super::{CommandLine, Failure, setup};
use crate::domain::transfer::Format;

commands! {
    "export [FILE] --user USER [--id] [--format FORMAT]", "Write all tasks of a user into a file",
        "
  FILE             the file, which is replaced at the end; without it, standard output
  --user USER      the user: an id, or the email address of an account
  --id             USER is an id, even if it looks like an address
  --format FORMAT  jsonl or csv (default: csv for a FILE that ends with .csv, else jsonl)

The tasks are read at one moment. The trash is not exported.
", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let file = line.argument(0);
    let format = format(line)?;
    let (open, user) = open_and_find(line, line.value("user").unwrap_or_default())?;
    let part = format!("{file}.part");
    let cannot_write = |error: io::Error| format!("cannot write {file}: {error}");
    let mut output: Box<dyn Write> = match file {
        "" => Box::new(io::stdout()),
        _ => Box::new(File::create(&part).map_err(cannot_write)?),
    };
    let (mut done, mut written) = (0, Ok(()));
    let exported = open
        .store
        .export_all(&user.account.id, format, |text, tasks| {
            written = output.write_all(text);
            done += tasks;
            setup::show_progress("exported", done);
            written.is_ok()
        });
    written
        .and_then(|()| output.flush())
        .map_err(cannot_write)?;
    exported?;
    if !file.is_empty() {
        fs::rename(&part, file).map_err(cannot_write)?;
    }
    Ok(())
}

/// The format that the flag names, or that the name of the file ends with.
pub fn format(line: &CommandLine) -> Result<Format, Failure> {
    let is_csv = line.argument(0).to_lowercase().ends_with(".csv");
    let by_name = if is_csv { Format::Csv } else { Format::Jsonl };
    Ok(line.parsed("format", Format::parse)?.unwrap_or(by_name))
}
