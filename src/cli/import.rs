//! `todo-api import`: reads tasks of a user from a file.

use std::fs::File;
use std::io::{BufReader, Read, stdin};

use super::export::format;
use super::user::find_or_take_id;
use super::{CommandLine, Failure, complain, print, setup};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{FileTasks, ImportCount, OnConflict, read_tasks};
use crate::store::IMPORTED_AT_ONCE;

commands! {
    "import FILE --user USER [--id] [--format FORMAT] [--on-conflict RULE] [--skip-errors] [--dry-run]",
        "Read tasks of a user from a file",
        "
  FILE                an export, a list as the API returns it, or another table; - is standard input
  --user USER         the user: an id, or the email address of an account
  --id                USER is an id, even if it looks like an address or is not known here
  --format FORMAT     jsonl or csv (default: csv for a FILE that ends with .csv, else jsonl)
  --on-conflict RULE  a task that exists already: skip (default) leaves it, update changes it
  --skip-errors       leave out tasks with errors; without this, the first error ends the import
  --dry-run           write nothing, and count what would be done

Tasks are written in batches of 1,000. A second import of the same file changes nothing. After a
failure, run the same command again to continue.
", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let path = line.argument(0);
    let rule = line.parsed("on-conflict", OnConflict::parse)?;
    let rule = rule.unwrap_or_default();
    let (format, dry_run) = (format(line)?, line.has("dry-run"));
    let open = setup::open_store(&line.config()?)?;
    let user = line.value("user").unwrap_or_default();
    let user = find_or_take_id(&open.store, user, line.has("id"))?;
    let cannot_read = |error| format!("cannot read {path}: {error}");
    let input: Box<dyn Read> = match path {
        "-" => Box::new(stdin()),
        _ => Box::new(File::open(path).map_err(cannot_read)?),
    };
    let mut tasks = read_tasks(BufReader::new(input), format, &user, Timestamp::now());
    let (mut count, mut before) = (ImportCount::default(), 0);
    loop {
        let mut lot = FileTasks::default();
        for task in tasks.by_ref().take(IMPORTED_AT_ONCE) {
            lot.add(task.map_err(cannot_read)?);
        }
        if lot.count() == 0 {
            break;
        }
        for error in &lot.errors {
            let line = error.line;
            complain(&format!("line {line}: {} {}", error.field, error.message));
        }
        if lot.wrong > 0 && !line.has("skip-errors") {
            let wrong = lot.wrong;
            return Err(format!(
                "{wrong} tasks are wrong, and the import ends after {before} tasks; --skip-errors leaves out the wrong ones"
            )
            .into());
        }
        let done = open.store.import_tasks(&user, &lot.tasks, rule, dry_run);
        count += done.map_err(|error| format!("failed after {before} tasks: {error}"))?;
        count.skipped += lot.wrong;
        before += lot.count();
        setup::show_progress("imported", before);
    }
    let nothing = if dry_run { "; nothing is written" } else { "" };
    print(&format!(
        "created {}, updated {}, unchanged {}, skipped {}{nothing}\n",
        count.created, count.updated, count.unchanged, count.skipped
    ))
}
