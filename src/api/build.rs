//! Compresses what the program carries and only few ask for: the API's description, and what the page /docs loads out of the
//! archive of Swagger UI that comes as a crate.
//!
//! It is three files of the dozen that Swagger UI has; the others would weigh twice as much in the program.

use std::error::Error;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const DESCRIPTION: &str = "src/api/openapi/openapi.json";
const FILES: [&str; 3] = [
    "swagger-ui-bundle.js",
    "swagger-ui.css",
    "favicon-32x32.png",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=src/api/build.rs");
    println!("cargo:rerun-if-changed={DESCRIPTION}");
    compress("openapi.json", &std::fs::read(DESCRIPTION)?)?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in FILES {
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

/// Puts a file, compressed, where the program's source includes it from.
fn compress(name: &str, content: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    let path = Path::new(&std::env::var("OUT_DIR")?).join(format!("{name}.gz"));
    Ok(std::fs::write(path, gzip.finish()?)?)
}
