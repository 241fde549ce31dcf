//! The documents that are generated, and those that are checked against the code.
//!
//! - `openapi`, `schemas`: the API's description
//! - `reference`: the page /redoc

mod openapi;
mod reference;
mod schemas;

use todo_api::config::documents::{env_example, settings_page};
use todo_api::domain::list::{PARAMETERS, SORT_KEYS};
use todo_api::domain::shape::Shape;
use todo_api::domain::task::TASK_FIELDS;
use todo_api::http::error::{ERRORS, ErrorRow};

/// The table of a task's fields, in docs/api.md.
fn field_table() -> String {
    let rows = TASK_FIELDS
        .iter()
        .map(|field| (field.name, &[][..], said(field.meaning, &field.shape)));
    table("field", rows)
}

/// A meaning, and the values to choose from.
fn said(meaning: &str, shape: &Shape) -> String {
    match shape {
        Shape::Named { shape, .. } => said(meaning, shape),
        Shape::OneOf(values) => format!("{meaning} One of `{}`.", values.join("`, `")),
        _ => meaning.to_owned(),
    }
}

/// The table of the parameters of lists, in docs/lists.md.
fn parameter_table() -> String {
    let rows = PARAMETERS
        .iter()
        .map(|row| (row.name, row.aliases, said(row.meaning, &row.shape)));
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

/// Empty where there is no such file yet.
fn read(file: &str) -> String {
    std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default()
}

/// Compares a document with what it should say; `UPDATE_DOCUMENTS=1` writes that into it instead.
fn check(file: &str, written: &str, wanted: &str, update: impl FnOnce() -> String) {
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(format!("{}/{file}", env!("CARGO_MANIFEST_DIR")), update()).unwrap();
        return;
    }
    assert!(
        written == wanted,
        "{file} is out of date: run UPDATE_DOCUMENTS=1 cargo test documents"
    );
}

#[test]
fn the_example_environment_lists_every_setting() {
    let wanted = env_example();
    check(".env.example", &read(".env.example"), &wanted, || {
        wanted.clone()
    });
}

#[test]
fn the_description_and_its_page_follow_from_the_tables() {
    let document = openapi::document();
    let description = serde_json::to_string_pretty(&document).unwrap() + "\n";
    for (file, wanted) in [
        ("src/api/pages/openapi.json", description),
        ("src/api/pages/reference.html", reference::page(&document)),
    ] {
        check(file, &read(file), &wanted, || wanted.clone());
    }
}

#[test]
fn the_page_of_settings_lists_every_setting() {
    let (file, page) = ("docs/settings.md", settings_page());
    check(file, &read(file), &page, || page.clone());
}

#[test]
fn the_pages_have_the_tables_of_the_program() {
    for (file, tables) in [
        ("docs/api.md", [field_table(), error_table()]),
        ("docs/lists.md", [parameter_table(), sort_key_table()]),
    ] {
        let page = read(file);
        let mut wanted = page.clone();
        for table in tables {
            let head = table.lines().next().unwrap();
            let start = wanted
                .find(head)
                .expect("the page has the table's first line");
            let length = wanted[start..].find("\n\n").map(|end| end + 1);
            let end = length.map_or(wanted.len(), |length| start + length);
            wanted.replace_range(start..end, &table);
        }
        check(file, &page, &wanted, || wanted.clone());
    }
}

#[test]
fn operations_shows_the_filter_for_failed_logins_as_it_is() {
    let filter = read("deploy/fail2ban/filter.d/todo-api.conf");
    let expression = filter
        .lines()
        .find(|line| line.starts_with("failregex"))
        .unwrap();
    assert!(
        read("docs/operations.md")
            .lines()
            .any(|line| line == expression)
    );
}

#[test]
fn an_image_is_built_from_all_that_cargo_wants() {
    let allowed = read("deploy/Dockerfile.dockerignore");
    let manifest = read("Cargo.toml");
    let wanted = manifest
        .lines()
        .filter_map(|line| {
            line.split_once("path = \"")
                .or(line.split_once("build = \""))
        })
        .filter_map(|(_, path)| path.split(['/', '"']).next());
    for place in wanted.chain(["sql", "Cargo.toml", "Cargo.lock", "scripts"]) {
        let there = allowed.lines().any(|line| line == format!("!{place}"));
        assert!(there, "deploy/Dockerfile.dockerignore leaves out {place}");
    }
}

/// The text of every file with tests that is called `module`.
fn test_files(module: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![
        format!("{}/tests", env!("CARGO_MANIFEST_DIR")),
        format!("{}/src", env!("CARGO_MANIFEST_DIR")),
    ];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path.display().to_string());
            } else if path
                .file_name()
                .is_some_and(|name| *name == *format!("{module}.rs"))
            {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_line_of_the_penetration_checklist_names_a_test_that_is_there() {
    let security = read("SECURITY.md");
    let (_, checklist) = security.split_once("| try | it must | test |\n").unwrap();
    let lines: Vec<&str> = checklist
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(lines.len() >= 30);
    for line in lines {
        let tests = line.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = tests
            .split(',')
            .map(|test| test.trim().trim_matches('`'))
            .collect();
        for test in tests {
            let (module, name) = test.split_once("::").unwrap_or_else(|| panic!("{line}"));
            let there = test_files(module).iter().any(|file| {
                file.split("#[test]\n")
                    .skip(1)
                    .any(|rest| rest.trim_start().starts_with(&format!("fn {name}(")))
            });
            assert!(there, "there is no test {test}");
        }
    }
}

#[test]
fn the_messages_in_operations_are_those_of_the_program() {
    let guide = read("docs/operations.md");
    let (_, table) = guide.split_once("| what it says | what to do |\n").unwrap();
    let messages: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(messages.len() >= 10);
    let mut source = String::new();
    let mut directories = vec![format!("{}/src", env!("CARGO_MANIFEST_DIR"))];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path.display().to_string());
            } else {
                source.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for message in messages {
        for part in message.split('…').map(str::trim) {
            assert!(source.contains(part), "the program never says {part:?}");
        }
    }
}
