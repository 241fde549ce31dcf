//! The signing key if none is configured. It is made once and kept in a file, so that tokens survive a restart.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The file with the key in the data directory. Only its owner may read it.
const FILE: &str = "secret";

/// Reads the key in `data_dir`, or makes one of 256 random bits.
///
/// # Errors
/// One sentence if the directory cannot be used; never the key.
pub fn load_or_create(data_dir: &Path) -> Result<String, String> {
    let path = data_dir.join(FILE);
    let fail = |what: &str, error: io::Error| format!("cannot {what} {}: {error}", path.display());
    make_private(data_dir).map_err(|error| fail("make the directory of", error))?;
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("no random bytes for a secret: {error}"))?;
    let made: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();

    // Two processes that start at once must use the same complete key: each writes a file of its own, and only one file gets the name.
    let draft = data_dir.join(format!("{FILE}.{}", std::process::id()));
    if !path.exists() {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|error| fail("write", error))?;
        let linked = file
            .write_all(made.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&draft, &path));
        let _ = fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(fail("write", error))?
            }
            _ => {}
        }
    }
    let kept = fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{}; only its owner may: run as the user who made it, or change its owner (ls -l shows it)",
            fail("read", error)
        ),
        _ => fail("read", error),
    })?;
    let kept = kept.trim();
    if kept.len() < 32 {
        return Err(format!(
            "{} holds fewer than 32 bytes; delete it to have a new secret made",
            path.display()
        ));
    }
    Ok(kept.to_owned())
}

/// Whether `data_dir` has a key. The answer is yes if the directory cannot be read.
pub fn exists(data_dir: &Path) -> bool {
    data_dir.join(FILE).try_exists().unwrap_or(true)
}

/// Makes the directory if it is missing. Only its owner may enter it; [`crate::local_postgres`] lets the user in that runs a private
/// PostgreSQL.
fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let made = load_or_create(&data_dir).unwrap();
        assert_eq!(made.len(), 64);
        assert_eq!(load_or_create(&data_dir).unwrap(), made);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir.join(FILE)), 0o600);
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(
            fs::read_dir(&data_dir).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn a_secret_that_is_too_short_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "short\n").unwrap();
        let error = load_or_create(directory.path()).unwrap_err();
        assert!(
            error.contains("32 bytes") && !error.contains("short"),
            "{error}"
        );
    }
}
