//! README.md and docs/: examples run, links have targets, and no route is missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use todo_api::api::routes::ROUTES;

use crate::support::app::SECRET;
use crate::support::postgres::fresh_database;
use crate::support::process::Process;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap()
}

/// The pages written for people, relative to the repository.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    let docs = docs.map(|file| format!("docs/{}", file.unwrap().file_name().to_str().unwrap()));
    let others = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    docs.chain(others.map(str::to_owned)).collect()
}

/// The text of all code blocks of this kind, in order.
fn blocks(page: &str, kind: &str) -> String {
    let fence = format!("```{kind}\n");
    let blocks = page.split(&fence).skip(1);
    blocks
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect()
}

#[test]
fn sessions_in_the_pages_run_unchanged() {
    let mut run = 0;
    for page in pages() {
        let session = blocks(&read(&page), "sh session");
        if session.is_empty() {
            continue;
        }
        run += 1;
        let database = fresh_database();
        let server = Process::serve(&database, &[]);
        let directory = tempfile::tempdir().unwrap();
        let scripts = directory.path().join("scripts");
        fs::create_dir(&scripts).unwrap();
        let program = format!(
            "#!/bin/sh\nexec {} \"$@\"\n",
            env!("CARGO_BIN_EXE_todo-api")
        );
        fs::write(scripts.join("run"), program).unwrap();
        fs::set_permissions(scripts.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        let address = server.address.to_string();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c"])
            // An answer with an error ends the session.
            .arg(format!(
                "curl() {{ command curl --fail-with-body \"$@\"; }}\n{}",
                session.replace("127.0.0.1:8000", &address)
            ))
            .current_dir(directory.path())
            .env("BETTER_AUTH_SECRET", SECRET)
            .env("DATABASE_URL", &database)
            .output()
            .unwrap();
        assert!(output.status.success(), "{page}: {output:?}");
    }
    assert!(run >= 4);
}

/// The anchor of a heading in the rendered page.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| {
        if c == ' ' {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    })
    .collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    for page in pages() {
        let text = read(&page);
        let directory = Path::new(ROOT).join(&page);
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => directory.clone(),
                file => directory.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{page}: {target}");
            if !heading.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let found = there
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches(['#', ' '])) == heading);
                assert!(found, "{page}: {target}");
            }
        }
    }
}

#[test]
fn files_named_in_the_pages_exist() {
    for page in pages() {
        for word in read(&page).split('`').skip(1).step_by(2) {
            let first = word.split('/').next().unwrap();
            let ours = ["src", "sql", "tests", "docs", "deploy", "scripts"].contains(&first);
            let plain = word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if ours && word.contains('/') && plain {
                let found = Path::new(ROOT).join(word).exists();
                assert!(found, "{page} names {word}, which does not exist");
            }
        }
    }
}

#[test]
fn the_pages_name_every_route() {
    let text = read("docs/api.md") + &read("docs/accounts-and-tokens.md");
    let rows: BTreeSet<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    for route in ROUTES {
        let path = route.pattern.replace("[{user_id}/]", "");
        let named = rows.iter().any(|row| {
            let first = row.split('|').nth(1).unwrap();
            let method = format!("{:?}", route.method).to_uppercase();
            first.contains(&method) && first.split(['`', ' ', ',']).any(|word| word == path)
        });
        assert!(named, "no table has {:?} {path}", route.method);
    }
}

#[test]
fn readme_is_short() {
    assert!(read("README.md").lines().count() <= 200);
}
