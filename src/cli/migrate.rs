//! `todo-api migrate`: brings the database's schema up to date.

use super::{CommandLine, Failure, print, setup};

commands! {
    "migrate", "Bring the database's schema up to date, whatever MIGRATE is", "", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let mut config = line.config()?;
    config.database.migrate = true;
    let opened = setup::open_store(&config)?.opened;
    let applied = match opened.applied.join(", ") {
        applied if applied.is_empty() => "nothing to do".to_owned(),
        applied => format!("applied {applied}"),
    };
    let (schema, version) = (config.database.schema.as_str(), opened.schema_version);
    print(&format!(
        "schema {schema} is at version {version}: {applied}\n"
    ))
}
