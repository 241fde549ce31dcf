//! `todo-api maintenance`: removes rows that are no longer needed.

use super::{Call, Command, Failure, print, setup};

pub const COMMAND: Command = Command {
    usage: "maintenance",
    about: "Remove expired rows and remains of deleted accounts, as a server does hourly",
    help: "",
    run,
};

fn run(call: &Call) -> Result<(), Failure> {
    let open = setup::open_store(&call.config()?)?;
    print(&match open.store.maintain()? {
        Some(done) => format!("{done}\n"),
        None => "a server is doing it at the moment\n".to_owned(),
    })
}
