//! `todo-api maintenance`: removes rows that are no longer needed.

use super::{CommandLine, Failure, print, setup};

commands! {
    "maintenance", "Remove expired rows and remains of deleted accounts, as a server does hourly", "", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let open = setup::open_store(&line.config()?)?;
    print(&match open.store.maintain()? {
        Some(done) => format!("{done}\n"),
        None => "another process is doing it now\n".to_owned(),
    })
}
