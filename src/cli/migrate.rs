//! `todo-api migrate`: brings the database's schema up to date.

use super::{Call, Command, Failure, print, setup};

pub const COMMAND: Command = Command {
    usage: "migrate",
    about: "Bring the database's schema up to date, whatever MIGRATE is",
    help: "",
    run,
};

fn run(call: &Call) -> Result<(), Failure> {
    let mut config = call.config()?;
    config.database.migrate = true;
    let opened = setup::open_store(&config)?.opened;
    let applied = if opened.applied.is_empty() {
        "nothing to do".to_owned()
    } else {
        format!("applied {}", opened.applied.join(", "))
    };
    print(&format!(
        "schema {} is at version {}: {applied}\n",
        config.database.schema.as_str(),
        opened.schema_version
    ))
}
