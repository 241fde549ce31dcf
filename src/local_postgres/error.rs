//! What can go wrong with a private PostgreSQL, each in a sentence that says what to do.

use std::fmt::{self, Display};
use std::path::Path;

use super::installation::OLDEST;

/// How many of the last lines that a program said are shown.
const SHOWN_LINES: usize = 8;

/// Why a private PostgreSQL could not be started or stopped: one sentence for the person who starts the program,
/// which says what to do. After it may come the last lines that PostgreSQL said, each on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(super) fn not_installed() -> Error {
        Error(
            "PostgreSQL is not installed: install it (on Debian and Ubuntu `apt-get install postgresql`, on Fedora \
             `dnf install postgresql-server`), or set DATABASE_URL to a PostgreSQL that runs elsewhere"
                .to_owned(),
        )
    }

    pub(super) fn too_old(major: u32, programs: &Path) -> Error {
        Error(format!(
            "PostgreSQL {major} in {} is too old: install PostgreSQL {OLDEST} or newer, or set DATABASE_URL to one \
             that runs elsewhere",
            programs.display()
        ))
    }

    /// The cluster was made by a major version that is not installed.
    pub(super) fn other_version(cluster: &Path, major: u32) -> Error {
        Error(format!(
            "{} was made by PostgreSQL {major}, which is not installed: install it (on Debian and Ubuntu \
             `apt-get install postgresql-{major}`), or set DATA_DIR to another directory to begin anew",
            cluster.display()
        ))
    }

    pub(super) fn in_use(directory: &Path, process: Option<u32>) -> Error {
        let process = process.map_or(String::new(), |process| format!(" (process {process})"));
        Error(format!(
            "{} is in use by another todo-api{process}: stop that one first, or set DATA_DIR to another directory",
            directory.display()
        ))
    }

    /// The account that PostgreSQL runs as may not enter a directory on the way to the cluster.
    pub(super) fn unreachable(blocked_by: &Path, account: &str) -> Error {
        Error(format!(
            "the user {account}, which PostgreSQL runs as because root may not run it, cannot enter {}: set DATA_DIR \
             to a directory that everybody can reach, for example /var/lib/todo-api",
            blocked_by.display()
        ))
    }

    pub(super) fn no_account() -> Error {
        Error(
            "root may not run PostgreSQL, and /etc/passwd has neither a user postgres nor a user nobody: add one, or \
             start this program as another user"
                .to_owned(),
        )
    }

    pub(super) fn wrong_owner(cluster: &Path, owner: u32) -> Error {
        let cluster = cluster.display();
        Error(match owner {
            0 => format!(
                "{cluster} belongs to root, who may not run PostgreSQL: give it to the user it was made for (for \
                 example `chown -R postgres: {cluster}`)"
            ),
            _ => format!(
                "{cluster} belongs to the user with the number {owner}: start this program as that user or as root, \
                 or set DATA_DIR to another directory"
            ),
        })
    }

    pub(super) fn not_a_cluster(path: &Path) -> Error {
        Error(format!(
            "{} is not a PostgreSQL cluster: move it away, or set DATA_DIR to another directory",
            path.display()
        ))
    }

    /// The directory for the socket was there before and is not private to the cluster's account.
    pub(super) fn unsafe_socket_directory(path: &Path) -> Error {
        Error(format!(
            "{} was there before and another user may have a hand in it, so PostgreSQL's socket is not put there: \
             remove it, or set DATA_DIR to a directory with a shorter path",
            path.display()
        ))
    }

    /// A file or a program could not be used: `verb` says what was tried with `path`.
    pub(super) fn io(verb: &str, path: &Path, error: &std::io::Error) -> Error {
        Error(format!(
            "cannot {verb} {}: {error}; put that right, or set DATA_DIR to a directory that this user may write to",
            path.display()
        ))
    }

    /// PostgreSQL or one of its programs failed: `what` it did, and what it `said`.
    pub(super) fn failed(what: impl Display, log: &Path, said: &str) -> Error {
        let mut message = format!(
            "the private PostgreSQL {what}: put right what it says here (more may be in {}), or set DATABASE_URL to \
             another PostgreSQL",
            log.display(),
        );
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
            message.push_str("\n  ");
            message.push_str(line.trim_end());
        }
        Error(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_that_were_said() {
        let said: String = (1..=20).map(|n| format!("line {n}\n\n")).collect();
        let error = Error::failed("did not start", Path::new("/d/postgres.log"), &said).to_string();
        assert!(
            error.starts_with("the private PostgreSQL did not start: "),
            "{error}"
        );
        assert!(error.contains("another PostgreSQL\n  line 13\n"), "{error}");
        assert!(error.ends_with("\n  line 20"), "{error}");
    }

    #[test]
    fn a_directory_in_use_names_the_process() {
        let error = Error::in_use(Path::new("/d"), Some(7)).to_string();
        assert!(
            error.starts_with("/d is in use by another todo-api (process 7): "),
            "{error}"
        );
    }
}
