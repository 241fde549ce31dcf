//! `todo-api import`: reads tasks of a user from a file.

use std::fs::File;
use std::io::BufReader;

use super::export::format;
use super::progress::Progress;
use super::user::find_or_take_id;
use super::{CommandLine, Failure, complain, print, setup};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{
    ERRORS_MAX, FileTasks, Format, ImportCount, LineError, OnConflict, TaskReader,
};
use crate::domain::user::UserId;
use crate::store::IMPORTED_AT_ONCE;

commands! {
    "import FILE --user USER [--id] [--format FORMAT] [--on-conflict RULE] [--skip-errors] [--dry-run]",
        "Read tasks of a user from a file",
        "
  FILE                the file: an export, a list as the API returns it, or another table
  --user USER         the user: an id, or the email address of an account
  --id                USER is an id, even if it looks like an address or is not known here
  --format FORMAT     jsonl or csv (default: csv for a FILE that ends with .csv, else jsonl)
  --on-conflict RULE  a task that is there already: skip (default) leaves it, update changes it
  --skip-errors       leave out tasks with errors; without this, one error refuses the file
  --dry-run           write nothing, and count what would be done

A second import of the same file changes nothing. So after a failure the same command goes on.
", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let path = line.argument(0);
    let (dry_run, skip_errors) = (line.has("dry-run"), line.has("skip-errors"));
    let rule = line
        .parsed("on-conflict", OnConflict::parse)?
        .unwrap_or_default();
    let format = format(line, path)?;
    let open = setup::open_store(&line.config()?)?;
    let user = line.value("user").unwrap_or_default();
    let user = find_or_take_id(&open.store, user, line.has("id"))?;
    if !skip_errors {
        check(path, format, &user)?;
    }
    let (mut count, mut progress) = (ImportCount::default(), Progress::new("imported"));
    let mut room = ERRORS_MAX;
    each_lot(path, format, &user, |lot| {
        show(lot.errors.iter().take(room));
        room = room.saturating_sub(lot.errors.len());
        if lot.wrong > 0 && !skip_errors {
            return Err(format!("{path} was changed while it was imported").into());
        }
        let done = open.store.import_tasks(&user, &lot.tasks, rule, dry_run);
        count +=
            done.map_err(|error| format!("failed after {} tasks: {error}", progress.tasks()))?;
        count.skipped += lot.wrong;
        progress.add(lot.tasks.len() + lot.wrong);
        Ok(())
    })?;
    drop(progress);
    let ImportCount {
        created,
        updated,
        unchanged,
        skipped,
    } = count;
    let nothing = if dry_run { "; nothing is written" } else { "" };
    print(&format!(
        "created {created}, updated {updated}, unchanged {unchanged}, skipped {skipped}{nothing}\n"
    ))
}

/// Reads the whole file, and refuses it if a task is wrong.
fn check(path: &str, format: Format, user: &UserId) -> Result<(), Failure> {
    let (mut wrong, mut errors) = (0, Vec::new());
    each_lot(path, format, user, |lot| {
        wrong += lot.wrong;
        errors.extend(lot.errors);
        errors.truncate(ERRORS_MAX);
        Ok(())
    })?;
    if wrong == 0 {
        return Ok(());
    }
    show(errors.iter());
    Err(format!(
        "{wrong} tasks in {path} are wrong, and nothing is imported; --skip-errors leaves them out"
    )
    .into())
}

/// Reads a file, and does something with one lot of tasks after the other.
fn each_lot(
    path: &str,
    format: Format,
    user: &UserId,
    mut with: impl FnMut(FileTasks) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let cannot_read = |error| format!("cannot read {path}: {error}");
    let input = BufReader::new(File::open(path).map_err(cannot_read)?);
    let mut lot = FileTasks::default();
    for task in TaskReader::new(input, format, user, Timestamp::now()) {
        lot.add(task.map_err(cannot_read)?);
        if lot.tasks.len() + lot.wrong == IMPORTED_AT_ONCE {
            with(std::mem::take(&mut lot))?;
        }
    }
    with(lot)
}

fn show<'e>(errors: impl Iterator<Item = &'e LineError>) {
    for LineError {
        line,
        field,
        message,
    } in errors
    {
        complain(&format!("line {line}: {field} {message}"));
    }
}
