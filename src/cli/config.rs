//! `todo-api config`: every setting, its value, and where it came from.

use serde_json::{Map, Value, json};

use super::{Call, Command, Failure, complain, print};
use crate::config::documents::plain;
use crate::config::reader::Effective;

pub const COMMAND: Command = Command {
    usage: "config [--json]",
    about: "Print every setting, its value, and where it came from; secrets are hidden",
    help: "\n  --json  print a JSON object by setting, with value, source and secret\n\n`todo-api help settings` explains the settings.\n",
    run,
};

fn run(call: &Call) -> Result<(), Failure> {
    let origin = call.config()?.origin;
    for warning in &origin.misspelt {
        complain(warning);
    }
    if call.has("json") {
        let settings: Map<String, Value> = origin.effective.iter().map(as_json).collect();
        return print(&format!("{:#}\n", Value::Object(settings)));
    }
    let names = origin.effective.iter().map(|one| one.setting.name.len());
    let width = names.max().unwrap_or(0);
    print(
        &origin
            .effective
            .iter()
            .map(|one| line(one, width))
            .collect::<String>(),
    )
}

fn source(effective: &Effective) -> &str {
    effective.given.as_deref().unwrap_or("default")
}

fn as_json(effective: &Effective) -> (String, Value) {
    let Effective { setting, value, .. } = effective;
    let entry = json!({"value": value, "source": source(effective), "secret": setting.secret});
    (setting.name.to_owned(), entry)
}

fn line(effective: &Effective, width: usize) -> String {
    let Effective {
        setting,
        value,
        given,
    } = effective;
    let value = match value {
        // On one line, and without control characters for the terminal.
        Some(value) => value.escape_debug().to_string(),
        None if given.is_some() => "(hidden)".to_owned(),
        None => plain(setting.default.text()),
    };
    format!(
        "{:width$}  {value}  ({})\n",
        setting.name,
        source(effective)
    )
}
