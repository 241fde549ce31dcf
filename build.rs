//! Lists the migrations of `sql/` for src/store/migrations.rs.
//!
//! It also compresses the API's description, its pages, and the three files of Swagger UI that the page /docs loads. They are taken from the
//! archive in the crate: the rest of it would need twice as much space in the program.

use std::error::Error;
use std::ffi::OsString;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const PAGES: &str = "src/api/pages";
const OWN: [&str; 6] = [
    "openapi.json",
    "reference.html",
    "reference.css",
    "docs.html",
    "docs.css",
    "docs.js",
];
const VENDORED: [&str; 3] = [
    "swagger-ui-bundle.js",
    "swagger-ui.css",
    "favicon-32x32.png",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    list_migrations()?;
    for name in OWN {
        let path = Path::new(PAGES).join(name);
        println!("cargo:rerun-if-changed={}", path.display());
        // The generator needs the program: before its first run the file does not exist.
        compress(name, &std::fs::read(path).unwrap_or_default())?;
    }
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in VENDORED {
        let path = archive
            .file_names()
            .filter_map(|path| Some(path.ok()?.into_owned()))
            .find(|path| path.ends_with(&format!("/dist/{name}")))
            .ok_or(format!("Swagger UI has no {name}"))?;
        let mut content = Vec::new();
        archive.by_name(&path)?.read_to_end(&mut content)?;
        compress(name, &content)?;
    }
    Ok(())
}

/// Writes the names and texts of the migrations in their order, as an expression of Rust.
fn list_migrations() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=sql");
    let files = std::fs::read_dir("sql")?.map(|entry| Ok(entry?.file_name()));
    let files: Vec<OsString> = files.collect::<std::io::Result<_>>()?;
    let names = files
        .iter()
        .filter_map(|file| file.to_str()?.strip_suffix(".sql"));
    let names: Vec<&str> = names.collect();
    let mut list = String::new();
    for version in 1..=names.len() {
        let begin = format!("V{version}__");
        let name = names.iter().find(|name| name.starts_with(&begin));
        let name = name.ok_or(format!(
            "sql/ has {} files, and none of them is {begin}….sql",
            names.len()
        ))?;
        list += &format!(
            "Migration {{ name: \"{name}\", sql: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/sql/{name}.sql\")) }},"
        );
    }
    let path = Path::new(&std::env::var("OUT_DIR")?).join("migrations.rs");
    Ok(std::fs::write(path, format!("&[{list}]"))?)
}

/// Writes a compressed file to where src/api/pages includes it from.
fn compress(name: &str, content: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    let path = Path::new(&std::env::var("OUT_DIR")?).join(format!("{name}.gz"));
    Ok(std::fs::write(path, gzip.finish()?)?)
}
