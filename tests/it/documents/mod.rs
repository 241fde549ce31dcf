//! Generated documents, and documents that are compared with the code.
//!
//! - this file: the pages on settings, and the tables of docs/api.md and docs/lists.md
//! - `openapi`, `schemas`: the API's description
//! - `reference`: the page /redoc
//! - `checks`: names, messages and tests in documents that are written by hand

mod checks;
mod openapi;
mod reference;
mod schemas;

use std::path::{Path, PathBuf};

use todo_api::config::documents::plain;
use todo_api::config::settings::SETTINGS;
use todo_api::domain::list::{PARAMETERS, SORT_KEYS};
use todo_api::domain::shape::Shape;
use todo_api::domain::task::TASK_FIELDS;
use todo_api::http::error::{ERRORS, ErrorRow};

const SETTINGS_HEAD: &str = "\
# Settings

Generated from the rows in `src/config/settings.rs` by `UPDATE_DOCUMENTS=1 cargo test documents`.

Settings are environment variables. Every setting has a default for trying out. They may also be in a file: `--env-file FILE`, or `.env` in
the working directory, which is read in development only. Environment variables override the file. A secret `X` may also be in a file that
`X_FILE` names, or in a systemd credential of the same name. `todo-api config` prints every setting with its value and where it came from.

A bad value stops the start with one line that names the variable and never the value. An unknown name in `FILE` stops it, too. `.env` may
hold variables of other programs, so there only a name that looks like a misspelt setting stops the start. In the environment such a name
is a warning.
";

const EXAMPLE_HEAD: &str = "\
# Settings of todo-api. Copy this file to .env, which is read in development, or to a file that --env-file names,
# and uncomment what you need. Put a value with quotes, backslashes or # into single quotes.
# Every setting has a default for trying out. A secret X may also be in a file named by X_FILE, or a systemd credential X.
";

/// `docs/settings.md`.
fn settings_page() -> String {
    let mut page = SETTINGS_HEAD.to_owned();
    for group in SETTINGS.chunk_by(|one, next| one.group == next.group) {
        page += &format!(
            "\n## {}\n\n| variable | default | what it does |\n|---|---|---|\n",
            group[0].group.trim()
        );
        for setting in group {
            let names: Vec<String> = setting.names().map(|name| format!("`{name}`")).collect();
            let (names, about) = (names.join(" or "), setting.about.trim());
            page += &format!("| {names} | {} | {about} |\n", setting.default.text());
        }
    }
    page
}

/// `.env.example`.
fn env_example() -> String {
    let settings = SETTINGS.iter().map(|setting| {
        let (about, default) = (plain(setting.about), plain(setting.default.text()));
        let aliases = setting.aliases.iter();
        let aliases: String = aliases
            .map(|name| format!("# Also read from {name}.\n"))
            .collect();
        format!(
            "\n# {about}\n# Default: {default}\n{aliases}#{}=\n",
            setting.name
        )
    });
    EXAMPLE_HEAD.to_owned() + &settings.collect::<String>()
}

/// The table of a task's fields, in docs/api.md.
fn field_table() -> String {
    let rows = TASK_FIELDS.iter().map(|field| {
        let meaning = with_choices(field.meaning, &field.shape);
        (field.name, field.aliases, meaning)
    });
    table("field", rows)
}

/// A meaning, with the allowed values.
fn with_choices(meaning: &str, shape: &Shape) -> String {
    match shape {
        Shape::Named { shape, .. } => with_choices(meaning, shape),
        Shape::OneOf(values) => format!("{meaning} One of `{}`.", values.join("`, `")),
        _ => meaning.to_owned(),
    }
}

/// The table of the parameters of lists, in docs/lists.md.
fn parameter_table() -> String {
    let rows = PARAMETERS
        .iter()
        .map(|row| (row.name, row.aliases, with_choices(row.meaning, &row.shape)));
    table("parameter", rows)
}

/// The table of the keys by which lists are sorted, in docs/lists.md.
fn sort_key_table() -> String {
    let last = |nullable| match nullable {
        true => "Tasks without one come last.".to_owned(),
        false => String::new(),
    };
    let rows = SORT_KEYS
        .iter()
        .map(|key| (key.name, key.aliases, last(key.nullable)));
    table("sort key", rows)
}

/// The table of errors, in docs/api.md.
fn error_table() -> String {
    let mut table = "| status | `error.code` | when |\n|---|---|---|\n".to_owned();
    for ErrorRow {
        status, code, when, ..
    } in ERRORS
    {
        table.push_str(&format!("| {status} | `{code}` | {when} |\n"));
    }
    table
}

fn table<'r>(what: &str, rows: impl Iterator<Item = (&'r str, &'r [&'r str], String)>) -> String {
    let mut table = format!("| {what} | meaning |\n|---|---|\n");
    for (name, aliases, meaning) in rows {
        let aliases: String = aliases.iter().map(|alias| format!(", `{alias}`")).collect();
        table.push_str(&format!("| `{name}`{aliases} | {meaning} |\n"));
    }
    table
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Empty if the file does not exist.
fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_default()
}

/// Every Rust file in these directories, with its text.
fn source_files(places: &[&str]) -> Vec<(PathBuf, String)> {
    let mut places: Vec<PathBuf> = places.iter().map(|place| path(place)).collect();
    let mut files = Vec::new();
    while let Some(place) = places.pop() {
        if place.is_dir() {
            let entries = std::fs::read_dir(place).unwrap();
            places.extend(entries.map(|entry| entry.unwrap().path()));
        } else if place.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&place).unwrap();
            files.push((place, text));
        }
    }
    files
}

/// Compares a document with the generated text; `UPDATE_DOCUMENTS=1` writes it instead.
fn check(file: &str, wanted: &str) {
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        return std::fs::write(path(file), wanted).unwrap();
    }
    assert!(
        read(file) == wanted,
        "{file} is out of date: run UPDATE_DOCUMENTS=1 cargo test documents"
    );
}

#[test]
fn the_documents_on_settings_list_every_setting() {
    check(".env.example", &env_example());
    check("docs/settings.md", &settings_page());
}

#[test]
fn the_description_and_its_page_are_up_to_date() {
    let document = openapi::document();
    let description = serde_json::to_string_pretty(&document).unwrap() + "\n";
    check("src/api/pages/openapi.json", &description);
    check("src/api/pages/reference.html", &reference::page(&document));
}

#[test]
fn the_tables_in_the_pages_are_up_to_date() {
    for (file, tables) in [
        ("docs/api.md", [field_table(), error_table()]),
        ("docs/lists.md", [parameter_table(), sort_key_table()]),
    ] {
        let mut page = read(file);
        for table in tables {
            let head = table.lines().next().unwrap();
            let start = page
                .find(head)
                .expect("the page has the table's first line");
            let length = page[start..].find("\n\n").map(|end| end + 1);
            let end = length.map_or(page.len(), |length| start + length);
            page.replace_range(start..end, &table);
        }
        check(file, &page);
    }
}
