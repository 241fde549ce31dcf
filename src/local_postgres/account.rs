//! The account of the operating system that a cluster runs as, and running programs as it.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;

use super::failed_to;
use crate::sync::{holds_within, join_within};

/// Bytes of a program's output that are read.
const OUTPUT_MAX: u64 = 64 * 1024;

/// The account that owns a cluster and runs it.
#[derive(Debug)]
pub(super) struct OsAccount {
    pub(super) name: String,
    pub(super) user: u32,
    /// The group to change to; `None` if the account is that of this program.
    pub(super) group: Option<u32>,
}

/// The result of a program.
#[derive(Debug)]
pub(super) struct ProgramResult {
    pub(super) success: bool,
    /// Its output on standard error, or on standard output if the caller has that piped.
    pub(super) output: String,
}

impl OsAccount {
    /// The account for `cluster`: our own, or, for root, the cluster's owner, or `postgres`, or `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<OsAccount, String> {
        let own = geteuid().as_raw();
        let place = cluster.display();
        match fs::metadata(cluster) {
            Ok(owner) if owner.uid() == 0 => Err(format!(
                "{place} belongs to root, who may not run PostgreSQL: give it to the user it was made for (for example \
                 `chown -R postgres: {place}`)"
            )),
            Ok(owner) if own == 0 => Ok(OsAccount {
                name: format!("with the number {}", owner.uid()),
                user: owner.uid(),
                group: Some(owner.gid()),
            }),
            Ok(owner) if owner.uid() != own => Err(format!(
                "{place} belongs to the user with the number {}: start this program as that user or as root, or set \
                 DATA_DIR to another directory",
                owner.uid()
            )),
            Err(_) if own == 0 => {
                let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
                unprivileged(&passwd).ok_or_else(|| {
                    "root may not run PostgreSQL, and /etc/passwd has neither a user postgres nor a user nobody: add one, or \
                     start this program as another user"
                        .to_owned()
                })
            }
            _ => Ok(OsAccount {
                name: "that started this program".to_owned(),
                user: own,
                group: None,
            }),
        }
    }

    /// A command that runs as this account. Its environment has no secrets of ours, which the account could read in `/proc`, and no
    /// `PG…` variables for another PostgreSQL. Messages are in English, times in UTC. Ctrl-C on the terminal does not reach it,
    /// because this program stops it.
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
            // The standard library drops root's supplementary groups along with its user id.
            command.uid(self.user).gid(group);
        }
        command
    }

    /// Runs test(1) as this account: the kernel's own answer, which includes access lists.
    pub(super) fn test(&self, arguments: &[&Path]) -> io::Result<bool> {
        let mut command = self.command(Path::new("test"));
        command.args(arguments);
        Ok(run(&mut command, Duration::from_secs(10))?.success)
    }

    /// Gives `path` to this account. A symbolic link is not followed.
    pub(super) fn own(&self, path: &Path) -> Result<(), String> {
        let Some(group) = self.group else {
            return Ok(());
        };
        lchown(path, Some(self.user), Some(group))
            .map_err(|e| failed_to("change the owner of", path, &e))
    }

    /// Gives an open file to this account.
    pub(super) fn own_open(&self, file: &File) -> io::Result<()> {
        match self.group {
            Some(group) => fchown(file, Some(self.user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes sure that this account can enter `directory`, an absolute path without symbolic links. If necessary, the mode of that
    /// directory is changed, but not of those above it or in it.
    pub(super) fn reach(&self, directory: &Path) -> Result<(), String> {
        if self.group.is_none() || self.may_enter(directory)? {
            return Ok(());
        }
        let open = || {
            let mut permissions = fs::metadata(directory)?.permissions();
            permissions.set_mode(permissions.mode() | 0o011);
            fs::set_permissions(directory, permissions)
        };
        open().map_err(|e| failed_to("let others through", directory, &e))?;
        let from_root: Vec<&Path> = directory.ancestors().collect();
        for place in from_root.into_iter().rev() {
            if !self.may_enter(place)? {
                return Err(self.cannot_enter(place));
            }
        }
        Ok(())
    }

    pub(super) fn may_enter(&self, directory: &Path) -> Result<bool, String> {
        self.test(&[Path::new("-x"), directory])
            .map_err(|e| failed_to("run", Path::new("test"), &e))
    }

    /// The error for a directory on the way to the cluster.
    pub(super) fn cannot_enter(&self, directory: &Path) -> String {
        format!(
            "the user {}, which PostgreSQL runs as because root may not run it, cannot enter {}: set DATA_DIR to a \
             directory that everybody can reach, for example /var/lib/todo-api",
            self.name,
            directory.display()
        )
    }
}

/// Runs a program to its end, or ends it after `limit` (then the error is `TimedOut`).
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<ProgramResult> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let pipes = (child.stdout.take(), child.stderr.take());
    // On a thread, because a child of the child may hold the pipe open for ever.
    let output = thread::spawn(move || {
        let mut output = Vec::new();
        let _ = match pipes {
            (Some(stdout), _) => stdout.take(OUTPUT_MAX).read_to_end(&mut output),
            (None, Some(stderr)) => stderr.take(OUTPUT_MAX).read_to_end(&mut output),
            (None, None) => Ok(0),
        };
        output
    });
    let success = wait(&mut child, limit)?;
    let output = join_within(Duration::from_millis(500), output);
    Ok(ProgramResult {
        success,
        output: String::from_utf8_lossy(&output.unwrap_or_default()).into_owned(),
    })
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let mut status = Ok(None);
    holds_within(limit, || {
        status = child.try_wait();
        !matches!(status, Ok(None))
    });
    if let Some(status) = status? {
        return Ok(status.success());
    }
    child.kill()?;
    child.wait()?;
    let problem = format!("not done after {} s", limit.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, problem))
}

/// The account in a passwd(5) file that runs PostgreSQL instead of root.
fn unprivileged(passwd: &str) -> Option<OsAccount> {
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            fields.next().filter(|found| *found == name)?;
            let user = fields.nth(1)?.parse().ok().filter(|user| *user != 0)?;
            Some(OsAccount {
                name: name.to_owned(),
                user,
                group: Some(fields.next()?.parse().ok()?),
            })
        })
    };
    find("postgres").or_else(|| find("nobody"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
    fn the_output_of_a_program_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no >&2; exit 3"]);
        let result = run(&mut command, Duration::from_secs(10)).unwrap();
        assert!(!result.success);
        assert_eq!(result.output, "no\n");
    }
}
