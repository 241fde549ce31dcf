//! Checks names, messages and tests in documents that are written by hand.

use std::path::{Path, PathBuf};

use super::{read, source_files};

#[test]
fn operations_shows_the_fail2ban_filter_unchanged() {
    let filter = read("deploy/fail2ban/filter.d/todo-api.conf");
    let expression = filter
        .lines()
        .find(|line| line.starts_with("failregex"))
        .unwrap();
    let guide = read("docs/operations.md");
    assert!(guide.lines().any(|line| line == expression));
}

#[test]
fn the_image_build_has_every_file_that_cargo_needs() {
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

#[test]
fn header_fields_in_the_pages_are_ones_that_the_program_reads_or_sends() {
    let pages = read("docs/api.md") + &read("docs/front-ends.md");
    let names = pages.split('`').skip(1).step_by(2).filter(|word| {
        let is_name = word.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
        is_name && word.contains('-') && word.starts_with(|c: char| c.is_ascii_uppercase())
    });
    let sources = source_files(&["src"]);
    let mut found = 0;
    for name in names {
        let is_there = sources.iter().any(|(_, text)| {
            text.match_indices(name).any(|(start, _)| {
                let before = text[..start].chars().next_back();
                !before.is_some_and(|c| c.is_ascii_alphabetic() || c == '-')
            })
        });
        assert!(is_there, "the program has no header field {name}");
        found += 1;
    }
    assert!(found >= 15);
}

/// Whether a file called `module.rs` has a test called `name`.
fn has_test(sources: &[(PathBuf, String)], module: &str, name: &str) -> bool {
    let is_named = |path: &Path| path.file_stem().is_some_and(|stem| stem == module);
    let mut files = sources.iter().filter(|(path, _)| is_named(path));
    let start = format!("fn {name}(");
    files.any(|(_, text)| {
        let mut tests = text.split("#[test]\n").skip(1);
        tests.any(|rest| rest.trim_start().starts_with(&start))
    })
}

/// Checks that each line of the table with this head ends with names of existing tests. Returns how many lines there are.
fn check_names_of_tests(page: &str, head: &str) -> usize {
    let text = read(page);
    let (_, table) = text.split_once(head).unwrap();
    let lines = table.lines().skip(2);
    let lines: Vec<&str> = lines.take_while(|line| line.starts_with('|')).collect();
    let sources = source_files(&["tests", "src"]);
    for line in &lines {
        let tests = line.trim_end_matches('|').rsplit('|').next().unwrap();
        for test in tests.split(',') {
            let test = test.trim().trim_matches('`');
            let (module, name) = test.split_once("::").unwrap_or_else(|| panic!("{line}"));
            assert!(has_test(&sources, module, name), "{test} does not exist");
        }
    }
    lines.len()
}

#[test]
fn every_line_of_the_penetration_checklist_names_an_existing_test() {
    assert!(check_names_of_tests("SECURITY.md", "| try | it must | test |") >= 30);
}

#[test]
fn every_wait_in_the_table_of_deadlines_names_an_existing_test() {
    assert!(check_names_of_tests("docs/architecture.md", "| wait | at most | test |") >= 20);
}

#[test]
fn every_message_in_operations_is_one_of_the_program() {
    let guide = read("docs/operations.md");
    let (_, table) = guide.split_once("| what it says | what to do |\n").unwrap();
    let lines = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<&str> = lines.filter_map(|line| line.split('`').next()).collect();
    assert!(messages.len() >= 10);
    let sources = source_files(&["src"]);
    for part in messages.iter().flat_map(|message| message.split('…')) {
        let part = part.trim();
        let is_there = sources.iter().any(|(_, text)| text.contains(part));
        assert!(is_there, "the program has no message {part:?}");
    }
}
