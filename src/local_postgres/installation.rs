//! Finds PostgreSQL's programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{OsAccount, account};

/// Longest time for `postgres --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// The oldest major version that is supported.
const OLDEST: u32 = 13;
/// The necessary programs. The package `postgresql-client` does not contain them.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// A PostgreSQL on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostgresInstallation {
    directory: PathBuf,
    pub(super) major: u32,
}

impl PostgresInstallation {
    /// The PostgreSQL to use: the first on `PATH`, else the newest in the directories that distributions use. A cluster that exists
    /// needs the major version that made it (`made_by`).
    pub(super) fn find(
        account: &OsAccount,
        cluster: &Path,
        made_by: Option<u32>,
    ) -> Result<PostgresInstallation, String> {
        let in_directory = |directory| PostgresInstallation::in_directory(account, directory);
        let path = env::var_os("PATH").unwrap_or_default();
        // A relative entry would be another directory for the programs that we start.
        let on_path = env::split_paths(&path).filter(|directory| directory.is_absolute());
        let known = each_below("/usr/lib/postgresql", "")
            .chain(each_below("/usr", "pgsql-"))
            .chain([PathBuf::from("/usr/local/pgsql")])
            .map(|version| version.join("bin"));
        choose(
            on_path.filter_map(in_directory).collect(),
            known.filter_map(in_directory).collect(),
            cluster,
            made_by,
        )
    }

    /// The path of one of PostgreSQL's programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn in_directory(account: &OsAccount, directory: PathBuf) -> Option<PostgresInstallation> {
        if !PROGRAMS.iter().all(|name| directory.join(name).is_file()) {
            return None;
        }
        let mut command = account.command(&directory.join("postgres"));
        command.arg("--version").stdout(Stdio::piped());
        let result = account::run(&mut command, VERSION_LIMIT).ok()?;
        let major = major(&result.output)?;
        Some(PostgresInstallation { directory, major })
    }
}

fn choose(
    on_path: Vec<PostgresInstallation>,
    mut known: Vec<PostgresInstallation>,
    cluster: &Path,
    made_by: Option<u32>,
) -> Result<PostgresInstallation, String> {
    known.sort_by_key(|installation| std::cmp::Reverse(installation.major));
    let all: Vec<PostgresInstallation> = on_path.into_iter().chain(known).collect();
    let fits = |found: &&PostgresInstallation| {
        found.major >= OLDEST && made_by.is_none_or(|major| major == found.major)
    };
    match (all.iter().find(fits), made_by, all.first()) {
        (Some(installation), _, _) => Ok(installation.clone()),
        (None, _, None) => Err(
            "PostgreSQL is not installed: install it (on Debian and Ubuntu `apt-get install postgresql`, on Fedora \
             `dnf install postgresql-server`), or set DATABASE_URL to a PostgreSQL that runs elsewhere"
                .to_owned(),
        ),
        (None, Some(major), _) => Err(format!(
            "{} was made by PostgreSQL {major}, which is not installed: install it (on Debian and Ubuntu \
             `apt-get install postgresql-{major}`), or set DATA_DIR to another directory to start with no data",
            cluster.display()
        )),
        (None, None, Some(old)) => Err(format!(
            "PostgreSQL {} in {} is too old: install PostgreSQL {OLDEST} or newer, or set DATABASE_URL to one that runs \
             elsewhere",
            old.major,
            old.directory.display()
        )),
    }
}

/// The directories in `directory` whose names begin with `prefix`.
fn each_below(directory: &str, prefix: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

/// The major version in the output of `postgres --version`, such as `postgres (PostgreSQL) 15.14 (Debian 15.14-1)`.
fn major(version: &str) -> Option<u32> {
    leading_number(version.split_once("(PostgreSQL) ")?.1)
}

/// The number that a text begins with.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(directory: &str, major: u32) -> PostgresInstallation {
        PostgresInstallation {
            directory: directory.into(),
            major,
        }
    }

    fn chosen(
        on_path: &[u32],
        known: &[u32],
        made_by: Option<u32>,
    ) -> Result<PostgresInstallation, String> {
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
    fn versions_of_all_releases_are_read() {
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
        let error = chosen(&[18], &[17], Some(15)).unwrap_err();
        assert!(error.contains("apt-get install postgresql-15"), "{error}");
    }

    #[test]
    fn an_error_names_the_package_to_install() {
        let error = chosen(&[], &[], None).unwrap_err();
        assert!(
            error.contains("apt-get install postgresql") && error.contains("DATABASE_URL"),
            "{error}"
        );
        let error = chosen(&[12], &[9], None).unwrap_err();
        assert!(
            error.starts_with("PostgreSQL 12 in /path is too old: install PostgreSQL 13"),
            "{error}"
        );
    }
}
