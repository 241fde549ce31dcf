//! `todo-api config`: every setting, its value, and where it came from.

use std::ffi::OsStr;

use super::{Failure, print};
use crate::config::settings::{SETTINGS, Setting};
use crate::config::source::Source;
use crate::config::{Config, Environment};

/// Prints the settings, also where one is wrong; that one is then named, and the command fails.
pub fn run(source: &Source) -> Result<(), Failure> {
    let config = Config::load(source);
    let width = SETTINGS
        .iter()
        .map(|setting| setting.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for setting in SETTINGS {
        let (value, origin) = match source.place_in_words(setting.name) {
            Some(origin) => (shown(setting, source), origin),
            None => (
                config
                    .as_ref()
                    .ok()
                    .and_then(|config| worked_out(setting, config))
                    .unwrap_or_else(|| setting.default.replace('`', "")),
                "default".to_owned(),
            ),
        };
        text.push_str(&format!(
            "{name:width$}  {value}  ({origin})\n",
            name = setting.name
        ));
    }
    print(&text)?;
    config?;
    Ok(())
}

/// The value of a setting that is set.
fn shown(setting: &Setting, source: &Source) -> String {
    if setting.secret {
        return "(hidden)".to_owned();
    }
    match source.value(setting.name) {
        // On one line, and harmless to a terminal.
        Some(value) => OsStr::to_string_lossy(value).escape_debug().to_string(),
        None => String::new(),
    }
}

/// What a default comes to that depends on other settings or on the machine.
fn worked_out(setting: &Setting, config: &Config) -> Option<String> {
    match setting.name {
        "ENVIRONMENT" => Some(match config.environment {
            Environment::Development => "development".to_owned(),
            Environment::Production => "production".to_owned(),
        }),
        "WORKERS" => Some(config.workers.to_string()),
        "DB_POOL_SIZE" => Some(config.pool_size.to_string()),
        _ => None,
    }
}
