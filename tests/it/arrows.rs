//! A module imports only modules below it on the map in `src/lib.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every module may import these.
const SHARED: [&str; 5] = ["domain", "metrics", "logging", "log_writer", "sync"];

/// Imports that are allowed although they point up: from, to.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The modules on the map, in order.
fn map() -> Vec<String> {
    let lib = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! - [`"));
    lines
        .map(|rest| rest.split('`').next().unwrap().to_owned())
        .collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file under a directory, with the module of `lib.rs` it belongs to.
fn files(directory: &Path, found: &mut Vec<(String, PathBuf)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(source()).unwrap();
            let first = inside.iter().next().unwrap().to_str().unwrap();
            found.push((first.trim_end_matches(".rs").to_owned(), path));
        }
    }
}

/// The modules that a file names as `crate::module`, outside comments and tests.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap()
                .to_owned()
        })
        .filter(|module| !module.is_empty())
        .collect()
}

/// What is wrong with an import; `None` if the map allows it.
fn complaint(map: &[String], from: &str, to: &str) -> Option<String> {
    let place = |module: &str| map.iter().position(|known| known == module);
    match (place(from), place(to)) {
        (None, _) => Some(format!("{from} is not on the map in lib.rs")),
        (_, None) => Some(format!(
            "{from} names {to}, which is not on the map in lib.rs"
        )),
        (Some(above), Some(below)) => {
            let allowed =
                from == to || above < below || (SHARED.contains(&to) && !SHARED.contains(&from));
            (!allowed).then(|| format!("{from} imports {to}, which is above it"))
        }
    }
}

#[test]
fn every_arrow_points_down() {
    let map = map();
    let mut found = Vec::new();
    files(&source(), &mut found);
    for (from, path) in found {
        if ["main", "lib"].contains(&from.as_str()) {
            continue;
        }
        for to in named(&std::fs::read_to_string(&path).unwrap()) {
            let Some(complaint) = complaint(&map, &from, &to) else {
                continue;
            };
            let known = EXCEPTIONS.contains(&(&from, &to));
            assert!(known, "{}: {complaint}", path.display());
        }
    }
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let map = map();
    for (from, to) in [
        ("store", "api"),
        ("http", "edge"),
        ("domain", "store"),
        ("auth", "http"),
        ("http", "unheard_of"),
    ] {
        assert!(complaint(&map, from, to).is_some(), "{from} {to}");
    }
    let text = "use crate::api::App;\n// crate::cli\nfn f() { crate::edge::g() }\n#[cfg(test)]\nmod tests { use crate::server; }";
    assert_eq!(
        named(text),
        BTreeSet::from(["api".to_owned(), "edge".to_owned()])
    );
}
