//! The account that a cluster runs as, and running programs as it.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;

/// Who a cluster belongs to and runs as.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) user: u32,
    /// The group to change to; `None` when the account is the one this program runs as, so that nothing changes.
    pub(super) group: Option<u32>,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) success: bool,
    /// What it wrote to standard error, or to standard output if the caller has that piped.
    pub(super) said: String,
}

impl Account {
    /// The account for `cluster`: our own, or, for root, the cluster's owner, or `postgres`, or `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<Account, Error> {
        let own = effective_user();
        let owner = fs::metadata(cluster)
            .ok()
            .map(|metadata| (metadata.uid(), metadata.gid()));
        match owner {
            Some((user, _)) if user == 0 || (own != 0 && user != own) => {
                Err(Error::wrong_owner(cluster, user))
            }
            Some((user, group)) if own == 0 => Ok(Account {
                name: format!("with the number {user}"),
                user,
                group: Some(group),
            }),
            None if own == 0 => {
                let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
                unprivileged(&passwd).ok_or(Error::no_account())
            }
            _ => Ok(Account {
                name: "that started this program".to_owned(),
                user: own,
                group: None,
            }),
        }
    }

    /// A command that runs as this account, in an environment that holds nothing of ours: no secrets, which the
    /// account could read in `/proc`, and no `PG…` variables meant for another PostgreSQL. Messages are in English,
    /// times in UTC. Ctrl-C on the terminal is not for it: this program decides what stops.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        if let Some(libraries) = env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .current_dir("/")
            .process_group(0);
        if let Some(group) = self.group {
            // The standard library drops root's further groups along with its user id.
            command.uid(self.user).gid(group);
        }
        command
    }

    /// Runs test(1) as this account: the kernel's own answer, which knows of access lists and the like.
    pub(super) fn test(&self, arguments: &[&Path]) -> io::Result<bool> {
        let mut command = self.command(Path::new("test"));
        command.args(arguments);
        Ok(run(&mut command, Duration::from_secs(10))?.success)
    }

    /// Gives `path` to this account. A symbolic link is not followed.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        match self.group {
            Some(group) => lchown(path, Some(self.user), Some(group)),
            None => Ok(()),
        }
    }

    /// Gives an open file to this account.
    pub(super) fn own_open(&self, file: &File) -> io::Result<()> {
        match self.group {
            Some(group) => fchown(file, Some(self.user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes sure that this account can enter `directory`, an absolute path without symbolic links. If need be others
    /// are let through that directory itself (not into what lies in it), never through those above it.
    pub(super) fn reach(&self, directory: &Path) -> Result<(), Error> {
        if self.group.is_none() || self.may_enter(directory)? {
            return Ok(());
        }
        let above: Vec<&Path> = directory.ancestors().skip(1).collect();
        for ancestor in above.into_iter().rev() {
            if !self.may_enter(ancestor)? {
                return Err(self.unreachable(ancestor));
            }
        }
        let open = || {
            let mut permissions = fs::metadata(directory)?.permissions();
            permissions.set_mode(permissions.mode() | 0o011);
            fs::set_permissions(directory, permissions)
        };
        open().map_err(|e| Error::io("let others through", directory, &e))?;
        if self.may_enter(directory)? {
            Ok(())
        } else {
            Err(self.unreachable(directory))
        }
    }

    pub(super) fn may_enter(&self, directory: &Path) -> Result<bool, Error> {
        let answer = self.test(&[Path::new("-x"), directory]);
        answer.map_err(|e| Error::io("run", Path::new("test"), &e))
    }

    fn unreachable(&self, blocked_by: &Path) -> Error {
        Error::unreachable(blocked_by, &self.name)
    }
}

/// Runs a program to its end, or ends it after `limit` (then the error is `TimedOut`).
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let (sender, receiver) = mpsc::channel();
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    if let Some(pipe) = stdout.or(stderr) {
        // On a thread, because a child of the child may hold the pipe open for ever.
        thread::spawn(move || {
            let mut said = Vec::new();
            let _ = pipe.take(64 * 1024).read_to_end(&mut said);
            let _ = sender.send(said);
        });
    }
    let success = wait(&mut child, limit)?;
    let said = receiver
        .recv_timeout(Duration::from_millis(500))
        .unwrap_or_default();
    Ok(Outcome {
        success,
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not done after {} s", limit.as_secs()),
            ));
        }
        // Short at first, for the programs that take a millisecond.
        thread::sleep(
            (start.elapsed() / 4).clamp(Duration::from_micros(200), Duration::from_millis(20)),
        );
    }
}

/// Our effective user id. The standard library has no name for it.
fn effective_user() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Should this ever be missing, PostgreSQL itself refuses to run as root.
    line.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(u32::MAX)
}

/// The account in a passwd(5) file to run PostgreSQL as in root's stead.
fn unprivileged(passwd: &str) -> Option<Account> {
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == wanted)?;
            let user = fields.nth(1)?.parse().ok().filter(|user| *user != 0)?;
            let group = fields.next()?.parse().ok()?;
            Some(Account {
                name: name.to_owned(),
                user,
                group: Some(group),
            })
        })
    };
    find("postgres").or_else(|| find("nobody"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";

    #[test]
    fn postgres_is_preferred_to_nobody() {
        let passwd =
            format!("{PASSWD}postgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash\n");
        let account = unprivileged(&passwd).unwrap();
        assert_eq!(
            (account.name.as_str(), account.user, account.group),
            ("postgres", 101, Some(104))
        );
        let account = unprivileged(PASSWD).unwrap();
        assert_eq!(
            (account.name.as_str(), account.user, account.group),
            ("nobody", 65534, Some(65533))
        );
    }

    #[test]
    fn an_account_with_the_number_of_root_is_not_used() {
        assert!(unprivileged("postgres:x:0:0::/:/bin/sh\nnonsense\n::\n").is_none());
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_a_program_says_is_kept() {
        let outcome = run(
            Command::new("sh").args(["-c", "echo no >&2; exit 3"]),
            Duration::from_secs(10),
        )
        .unwrap();
        assert!(!outcome.success);
        assert_eq!(outcome.said, "no\n");
    }

    #[test]
    fn the_effective_user_owns_what_we_make() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(file.as_file().metadata().unwrap().uid(), effective_user());
    }
}
