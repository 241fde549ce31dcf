//! `todo-api config`: every setting, its value, and where it came from.

use serde_json::{Map, Value, json};

use super::{CommandLine, Failure, complain, print};
use crate::config::documents::plain;
use crate::config::reader::Effective;

commands! {
    "config [--json]", "Print every setting, its value, and where it came from; secrets are hidden",
        "\n  --json  print a JSON object by setting, with value, source and secret\n\n`todo-api help settings` explains the settings.\n", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let origin = line.config()?.origin;
    for warning in &origin.misspelt {
        complain(warning);
    }
    let settings = origin.effective.iter();
    if line.has("json") {
        let entry = |one: &Effective| {
            let secret = one.setting.secret;
            let entry = json!({"value": one.value, "source": source(one), "secret": secret});
            (one.setting.name.to_owned(), entry)
        };
        let object: Map<String, Value> = settings.map(entry).collect();
        return print(&format!("{:#}\n", Value::Object(object)));
    }
    let lengths = settings.clone().map(|one| one.setting.name.len());
    let width = lengths.max().unwrap_or(0);
    let line = |one: &Effective| {
        let value = match &one.value {
            // On one line, and without control characters for the terminal.
            Some(value) => value.escape_debug().to_string(),
            None if one.given.is_some() => "(hidden)".to_owned(),
            None => plain(one.setting.default.text()),
        };
        format!("{:width$}  {value}  ({})\n", one.setting.name, source(one))
    };
    print(&settings.map(line).collect::<String>())
}

fn source(one: &Effective) -> &str {
    one.given.as_deref().unwrap_or("default")
}
