//! `todo-api import`: reads tasks of a user from a file.

use std::fs::File;
use std::io::BufReader;

use super::export::format;
use super::user::find_or_take_id;
use super::{CommandLine, Failure, complain, print, setup};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{
    ERRORS_MAX, FileTasks, ImportCount, LineError, OnConflict, read_tasks,
};
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
  --skip-errors       leave out tasks with errors; without this, the first error ends the import
  --dry-run           write nothing, and count what would be done

Each 1,000 tasks are written together. A second import of the same file changes nothing: after a
failure, the same command goes on.
", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let path = line.argument(0);
    let on_conflict = line.parsed("on-conflict", OnConflict::parse)?;
    let on_conflict = on_conflict.unwrap_or_default();
    let (format, dry_run) = (format(line)?, line.has("dry-run"));
    let open = setup::open_store(&line.config()?)?;
    let user = line.value("user").unwrap_or_default();
    let user = find_or_take_id(&open.store, user, line.has("id"))?;
    let cannot_read = |error| format!("cannot read {path}: {error}");
    let input = BufReader::new(File::open(path).map_err(cannot_read)?);
    let mut tasks = read_tasks(input, format, &user, Timestamp::now());
    let (mut count, mut room) = (ImportCount::default(), ERRORS_MAX);
    let mut before = 0;
    loop {
        let mut lot = FileTasks::default();
        for task in tasks.by_ref().take(IMPORTED_AT_ONCE) {
            lot.add(task.map_err(cannot_read)?);
        }
        if lot.count() == 0 {
            break;
        }
        for LineError {
            line,
            field,
            message,
        } in lot.errors.iter().take(room)
        {
            complain(&format!("line {line}: {field} {message}"));
        }
        room = room.saturating_sub(lot.errors.len());
        if lot.wrong > 0 && !line.has("skip-errors") {
            let wrong = lot.wrong;
            return Err(format!(
                "{wrong} tasks are wrong, and the import ends after {before} tasks; --skip-errors leaves out the wrong ones"
            )
            .into());
        }
        let done = open
            .store
            .import_tasks(&user, &lot.tasks, on_conflict, dry_run);
        count +=
            done.map_err(|error| format!("the import failed after {before} tasks: {error}"))?;
        count.skipped += lot.wrong;
        before += lot.count();
        setup::show_progress("imported", before);
    }
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
