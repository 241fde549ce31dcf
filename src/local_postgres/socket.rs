//! The directory of a cluster's Unix socket. Its mode keeps other users out.

use std::env;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{OsAccount, failed_to};

/// The port number in the socket's name. No port is opened.
pub(super) const PORT: u16 = 5432;
/// `sun_path` of unix(7) has 108 bytes, the last of which is NUL.
const LONGEST_PATH: usize = 107;
/// PostgreSQL appends this to the directory.
const SOCKET_NAME: &str = "/.s.PGSQL.5432";

/// The characters that are encoded in an address: all but the unreserved ones (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A directory that only the cluster's account may enter.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    path: String,
    temporary: bool,
}

impl SocketDirectory {
    /// Makes the socket's directory in `directory`, or in the system's temporary directory if that path is too long or has
    /// characters that need quoting.
    pub(super) fn make(directory: &Path, account: &OsAccount) -> Result<SocketDirectory, String> {
        let (path, temporary) = match suitable(&directory.join("postgres.socket")) {
            Some(path) => (path, false),
            None => (temporary_path(directory, account)?, true),
        };
        make_private(Path::new(&path), account)?;
        Ok(SocketDirectory { path, temporary })
    }

    /// Absolute; free of control characters, quotes, backslashes and commas.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The address of the database `name` for the user `name`.
    pub(super) fn url(&self, name: &str) -> String {
        let path = utf8_percent_encode(&self.path, ENCODED);
        format!("postgresql://{name}@/{name}?host={path}")
    }

    /// Removes a directory in the system's temporary directory. One in the server's own directory stays.
    pub(super) fn remove_if_temporary(&self) {
        if self.temporary {
            // It fails if there are files of another program in it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn suitable(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let needs_quoting = |c: char| c.is_control() || "'\"\\,".contains(c);
    let fits = text.len() + SOCKET_NAME.len() <= LONGEST_PATH && !text.contains(needs_quoting);
    fits.then(|| text.to_owned())
}

/// The same path for the same directory each time, so that the next start finds a PostgreSQL that still runs.
fn temporary_path(directory: &Path, account: &OsAccount) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    let name = format!("todo-api-{}-{:016x}", account.user, hasher.finish());
    for parent in [env::temp_dir(), PathBuf::from("/tmp")] {
        if let (Some(path), true) = (suitable(&parent.join(&name)), account.may_enter(&parent)?) {
            return Ok(path);
        }
    }
    Err(account.cannot_enter(Path::new("/tmp")))
}

/// Makes `path`, or checks that it is private if it exists: any user may have made it in a temporary directory, and its owner could
/// read our data by putting another socket there.
fn make_private(path: &Path, account: &OsAccount) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed_to("make", path, &e))?,
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(|e| failed_to("look at", path, &e))?;
    // Root may have been killed before it gave the directory to the account.
    let ours = found.uid() == account.user || (found.uid() == 0 && account.group.is_some());
    if !found.is_dir() || !ours || found.mode() & 0o077 != 0 {
        return Err(format!(
            "{} exists and another user may have access to it, so PostgreSQL's socket is not put there: remove it, or set \
             DATA_DIR to a directory with a shorter path",
            path.display()
        ));
    }
    account.own(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fits_a_socket_address_to_the_byte_is_used() {
        let path = format!("/{}", "a".repeat(LONGEST_PATH - SOCKET_NAME.len() - 1));
        assert_eq!(suitable(Path::new(&path)), Some(path.clone()));
        assert_eq!(suitable(Path::new(&format!("{path}a"))), None);
    }

    #[test]
    fn a_path_that_needs_quoting_is_not_used() {
        for path in ["/a'b", "/a\"b", "/a,b", "/a\\b", "/a\nb"] {
            assert_eq!(suitable(Path::new(path)), None, "{path}");
        }
        assert!(suitable(Path::new("/with space/$HOME/ümlaut %41")).is_some());
    }

    #[test]
    fn the_url_is_what_the_driver_reads() {
        let socket = SocketDirectory {
            path: "/with space/$HOME/ü&?=%41".to_owned(),
            temporary: false,
        };
        let config: postgres::Config = socket.url("todo").parse().unwrap();
        let host = postgres::config::Host::Unix(socket.path.clone().into());
        assert_eq!(config.get_hosts(), &[host]);
        assert_eq!(
            (config.get_user(), config.get_dbname()),
            (Some("todo"), Some("todo"))
        );
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let account = OsAccount::choose(&directory.path().join("none")).unwrap();
        let path = directory.path().join("socket");
        make_private(&path, &account).unwrap();
        make_private(&path, &account).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let refused = || make_private(&path, &account).unwrap_err();
        assert!(refused().contains("another user may have access"));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(refused().contains("another user may have access"));
    }
}
