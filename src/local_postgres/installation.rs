//! Finding PostgreSQL's programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{Account, Error, account};

/// Longest time for `postgres --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// The oldest major version that will do.
pub(super) const OLDEST: u32 = 13;
/// The programs that are needed; `postgresql-client` alone does not bring them.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// A PostgreSQL on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    directory: PathBuf,
    pub(super) major: u32,
}

impl Installation {
    /// The PostgreSQL to use: the first on `PATH`, else the newest in the places where distributions put it. Where the
    /// cluster was made by a major version (`made_by`), only that version will do.
    pub(super) fn find(
        account: &Account,
        cluster: &Path,
        made_by: Option<u32>,
    ) -> Result<Installation, Error> {
        let path = env::var_os("PATH").unwrap_or_default();
        // A relative entry would mean another directory for the programs that we start.
        let on_path: Vec<PathBuf> = env::split_paths(&path)
            .filter(|directory| directory.is_absolute())
            .collect();
        let mut known = Vec::new();
        known.extend(
            each_below(Path::new("/usr/lib/postgresql"), "").map(|version| version.join("bin")),
        );
        known.extend(each_below(Path::new("/usr"), "pgsql-").map(|version| version.join("bin")));
        known.push(PathBuf::from("/usr/local/pgsql/bin"));
        let look = |directories: Vec<PathBuf>| {
            directories
                .into_iter()
                .filter_map(|directory| Installation::in_directory(account, directory))
                .collect()
        };
        choose(look(on_path), look(known), cluster, made_by)
    }

    /// The path of one of PostgreSQL's programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn in_directory(account: &Account, directory: PathBuf) -> Option<Installation> {
        if !PROGRAMS.iter().all(|name| directory.join(name).is_file()) {
            return None;
        }
        let mut command = account.command(&directory.join("postgres"));
        let output = account::run(
            command.arg("--version").stdout(Stdio::piped()),
            VERSION_LIMIT,
        )
        .ok()?;
        let major = major(&output.said)?;
        Some(Installation { directory, major })
    }
}

fn choose(
    on_path: Vec<Installation>,
    mut known: Vec<Installation>,
    cluster: &Path,
    made_by: Option<u32>,
) -> Result<Installation, Error> {
    known.sort_by_key(|installation| std::cmp::Reverse(installation.major));
    let all: Vec<Installation> = on_path.into_iter().chain(known).collect();
    let will_do = |found: &&Installation| {
        found.major >= OLDEST && made_by.is_none_or(|major| major == found.major)
    };
    match (all.iter().find(will_do), made_by, all.first()) {
        (Some(installation), _, _) => Ok(installation.clone()),
        (None, _, None) => Err(Error::not_installed()),
        (None, Some(major), _) => Err(Error::other_version(cluster, major)),
        (None, None, Some(old)) => Err(Error::too_old(old.major, &old.directory)),
    }
}

/// The directories right below `directory` whose names begin with `prefix`.
fn each_below(directory: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

/// The major version in what `postgres --version` says, such as `postgres (PostgreSQL) 15.14 (Debian 15.14-1)`.
fn major(version: &str) -> Option<u32> {
    leading_number(version.split_once("(PostgreSQL) ")?.1)
}

/// The number that a text begins with.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(directory: &str, major: u32) -> Installation {
        Installation {
            directory: directory.into(),
            major,
        }
    }

    fn chosen(on_path: &[u32], known: &[u32], made_by: Option<u32>) -> Result<Installation, Error> {
        let on_path = on_path
            .iter()
            .map(|major| installation("/path", *major))
            .collect();
        let known = known
            .iter()
            .map(|major| installation("/known", *major))
            .collect();
        choose(on_path, known, Path::new("/d/postgres"), made_by)
    }

    #[test]
    fn versions_are_read_as_every_release_writes_them() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta2\n"), Some(18));
        assert_eq!(major("postgres (PostgreSQL) 9.6.24\n"), Some(9));
        assert_eq!(major("something else 15\n"), None);
        assert_eq!(leading_number("13\n"), Some(13));
        assert_eq!(leading_number("\n"), None);
    }

    #[test]
    fn the_path_wins_and_then_the_newest() {
        assert_eq!(
            chosen(&[14, 17], &[13, 18], None).unwrap(),
            installation("/path", 14)
        );
        assert_eq!(
            chosen(&[12], &[9, 18, 13], None).unwrap(),
            installation("/known", 18)
        );
    }

    #[test]
    fn a_cluster_gets_the_version_that_made_it() {
        assert_eq!(
            chosen(&[18], &[17, 15], Some(15)).unwrap(),
            installation("/known", 15)
        );
        let error = chosen(&[18], &[17], Some(15)).unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql-15"), "{error}");
    }

    #[test]
    fn nothing_usable_says_what_to_install() {
        let error = chosen(&[], &[], None).unwrap_err().to_string();
        assert!(
            error.contains("apt-get install postgresql") && error.contains("DATABASE_URL"),
            "{error}"
        );
        let error = chosen(&[12], &[9], None).unwrap_err().to_string();
        assert!(
            error.starts_with("PostgreSQL 12 in /path is too old: install PostgreSQL 13"),
            "{error}"
        );
    }
}
