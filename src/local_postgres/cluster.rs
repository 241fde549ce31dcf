//! Making, starting and ending the cluster.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postgres::{Client, Config, NoTls};

use super::{Account, Error, Installation, Options, SocketDirectory, account, directory, socket};

/// Name of the superuser and of the database.
pub(super) const NAME: &str = "todo";
/// How the name of a cluster that is being made begins.
const HALF_MADE: &str = "postgres.new.";
/// How long the first making of the cluster may take; it writes about 40 MB.
const MAKE_LIMIT: Duration = Duration::from_secs(180);
/// How long a start may take. Crash recovery replays at most the write-ahead log of a few minutes.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a program may take beyond its own limit, and a kill to take effect.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a clean shutdown may take (it writes a checkpoint) before a quick one, which costs a recovery, is taken.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The same for one that a server left behind, which may hang.
const LEFT_BEHIND_LIMIT: Duration = Duration::from_secs(5);
/// A log longer than this, in bytes, is set aside when PostgreSQL starts, in place of the one set aside before.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// A cluster, whether it runs or not. Its methods are for the holder of the directory's lock.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Absolute and without symbolic links.
    pub(super) directory: PathBuf,
    /// PostgreSQL's data directory, `postgres` in `directory`.
    pub(super) files: PathBuf,
    pub(super) account: Account,
    pub(super) installation: Installation,
    pub(super) socket: SocketDirectory,
}

impl Cluster {
    fn log_path(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// A command that runs one of PostgreSQL's programs in our directory. Paths given to it are relative to that,
    /// because pg_ctl pastes them into a shell command, where a `$` or `"` in the path would not stay itself.
    fn program(&self, name: &str) -> Command {
        let mut command = self.account.command(&self.installation.program(name));
        command.current_dir(&self.directory);
        command
    }

    /// Removes clusters whose making was interrupted. What can't be removed is in nobody's way.
    pub(super) fn remove_half_made(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(HALF_MADE) {
                continue;
            }
            if let Err(error) = fs::remove_dir_all(&path) {
                log::warn!(
                    "{} is left over and cannot be removed: {error}",
                    path.display()
                );
            }
        }
    }

    /// Makes the cluster under another name and renames it when it is complete. The name is never used again, because
    /// the initdb of a server that was killed may still be writing.
    pub(super) fn make(&self, options: Options) -> Result<(), Error> {
        log::info!(
            "making a private PostgreSQL in {}; this takes some seconds",
            self.directory.display()
        );
        let nanoseconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let name = format!("{HALF_MADE}{}.{nanoseconds}", process::id());
        let new = self.directory.join(&name);
        let make = || {
            DirBuilder::new()
                .mode(0o700)
                .create(&new)
                .map_err(|e| Error::io("make", &new, &e))?;
            self.account
                .own(&new)
                .map_err(|e| Error::io("give away", &new, &e))?;
            self.run_initdb(&name, options)?;
            fs::rename(&new, &self.files)
                .map_err(|e| Error::io("put the new cluster at", &self.files, &e))?;
            if options.durable {
                let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
                synced.map_err(|e| Error::io("write to disk", &self.directory, &e))?;
            }
            Ok(())
        };
        let result = make();
        if result.is_err() {
            // The error that matters is the one above.
            let _ = fs::remove_dir_all(&new);
        }
        result
    }

    fn run_initdb(&self, name: &str, options: Options) -> Result<(), Error> {
        let initdb = |locale: &str| {
            let mut command = self.program("initdb");
            command.args([
                "-D",
                name,
                "-U",
                NAME,
                "--encoding=UTF8",
                "--auth-local=trust",
                "--auth-host=reject",
            ]);
            command.arg(format!("--locale={locale}"));
            if !options.durable {
                command.arg("--no-sync");
            }
            self.run(&mut command, MAKE_LIMIT)
        };
        let mut outcome = initdb("C.UTF-8")?;
        if !outcome.success && outcome.said.contains("locale") {
            outcome = initdb("C")?;
        }
        if outcome.success {
            Ok(())
        } else {
            Err(self.failed("could not make its cluster", &outcome.said))
        }
    }

    /// Starts the cluster. A PostgreSQL that runs already was left behind by a server that was killed; it is ended first.
    pub(super) fn start(&self, options: Options) -> Result<(), Error> {
        let deadline = Instant::now() + START_LIMIT;
        let (major, directory) = (self.installation.major, self.directory.display());
        loop {
            self.halt(LEFT_BEHIND_LIMIT)?;
            self.remove_stale_files()?;
            let log_start = self.open_log()?;
            let limit = START_LIMIT.as_secs().to_string();
            let mut command = self.program("pg_ctl");
            command.args([
                "start",
                "-s",
                "-w",
                "-t",
                &limit,
                "-D",
                "postgres",
                "-l",
                "postgres.log",
                "-o",
            ]);
            command.arg(self.server_options(options));
            let outcome = self.run(&mut command, START_LIMIT + PATIENCE)?;
            if outcome.success {
                log::info!("private PostgreSQL {major} is running in {directory}");
                return Ok(());
            }
            let said = format!("{}{}", outcome.said, self.log_since(log_start));
            // The pg_ctl of a server that was killed may have started PostgreSQL just before us.
            let alive = self.postmaster().is_some();
            let orphans = !alive && said.contains("is still in use");
            if Instant::now() > deadline || !(alive || orphans) {
                return Err(self.failed("did not start", &said));
            }
            if orphans {
                self.end_orphans()?;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is given on PostgreSQL's command line, where it wins over the cluster's own configuration.
    fn server_options(&self, options: Options) -> String {
        let durable = on_or_off(options.durable);
        format!(
            "-k '{}' -p {} -c listen_addresses= -c max_connections={} -c superuser_reserved_connections=0 \
             -c fsync={durable} -c synchronous_commit={durable} -c full_page_writes={durable} \
             -c logging_collector=off -c log_destination=stderr -c cluster_name=todo-api",
            self.socket.path(),
            socket::PORT,
            options.max_connections,
        )
    }

    pub(super) fn make_database(&self) -> Result<(), Error> {
        let made = self.ask(Duration::from_secs(60), |client| {
            if client
                .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&NAME])?
                .is_none()
            {
                client.batch_execute(&format!("CREATE DATABASE {NAME}"))?;
            }
            Ok(())
        });
        made.map_err(|silence| {
            self.failed("could not make the database \"todo\"", &silence.to_string())
        })
    }

    /// Asks PostgreSQL something in the database `postgres`, which every cluster has. On a thread of its own, because
    /// a PostgreSQL that hangs takes the connection and then says nothing, for which the driver has no time limit.
    fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Silence> {
        let mut config = Config::new();
        config
            .host_path(self.socket.path())
            .port(socket::PORT)
            .user(NAME)
            .dbname("postgres")
            .connect_timeout(limit);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // Nobody receives once the limit has passed.
            let _ = sender.send(
                config
                    .connect(NoTls)
                    .and_then(|mut client| question(&mut client)),
            );
        });
        receiver
            .recv_timeout(limit)
            .map_err(|_| Silence::TimedOut(limit))?
            .map_err(Silence::Sql)
    }

    /// The state of the cluster's PostgreSQL (proc_pid_stat(5)); `None` if it has ended. Starts no program, so it can be called
    /// often.
    pub(super) fn process_state(&self) -> Option<char> {
        let pid = directory::recorded_pid(&self.files)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, state) = stat.split_once("(postgres) ")?;
        // A zombie has ended: some containers have no init process to wait for it.
        state.chars().next().filter(|state| *state != 'Z')
    }

    /// The process id of the cluster's PostgreSQL if it is alive.
    fn postmaster(&self) -> Option<u32> {
        directory::recorded_pid(&self.files).filter(|pid| self.is_ours(*pid))
    }

    /// Whether a process is one of this cluster's. After a crash or a reboot a pid that was one may be another
    /// program's, so it must be called `postgres` and work in the cluster, which PostgreSQL does.
    fn is_ours(&self, pid: u32) -> bool {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let works_in = PathBuf::from(format!("/proc/{pid}/cwd"));
        // As the cluster's account, because root in a container may not look at other accounts' processes.
        name.trim_end() == "postgres"
            && self
                .account
                .test(&[&works_in, Path::new("-ef"), &self.files])
                .unwrap_or(false)
    }

    /// Ends sessions whose PostgreSQL was killed. They notice that when they wait for something, so that one with a
    /// long query would keep a new PostgreSQL from starting.
    fn end_orphans(&self) -> Result<(), Error> {
        let Ok(processes) = fs::read_dir("/proc") else {
            return Ok(());
        };
        let pids = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in pids.filter(|pid| self.is_ours(*pid)) {
            log::warn!("ending process {pid}, which a PostgreSQL that was killed has left behind");
            let mut command = self.program("pg_ctl");
            command.args(["kill", "QUIT", &pid.to_string()]);
            self.run(&mut command, PATIENCE)?;
        }
        Ok(())
    }

    /// Removes what would keep PostgreSQL from starting when a pid in it is now another program's of the same account.
    /// Called when the cluster's PostgreSQL is not alive; one that is would still be protected by its shared memory.
    fn remove_stale_files(&self) -> Result<(), Error> {
        if directory::recorded_pid(&self.files).is_some() && self.postmaster().is_none() {
            directory::remove_file(&self.files.join("postmaster.pid"))?;
        }
        for name in [
            format!(".s.PGSQL.{}", socket::PORT),
            format!(".s.PGSQL.{}.lock", socket::PORT),
        ] {
            directory::remove_file(&Path::new(self.socket.path()).join(name))?;
        }
        Ok(())
    }

    /// Ends PostgreSQL, if it is alive, with rising force; `limit` is how long it may take to shut down cleanly.
    pub(super) fn halt(&self, limit: Duration) -> Result<(), Error> {
        let mut said = String::new();
        for (mode, limit) in [("fast", limit), ("immediate", limit.min(PATIENCE))] {
            if self.postmaster().is_none() {
                return Ok(());
            }
            let mut command = self.program("pg_ctl");
            let seconds = limit.as_secs().to_string();
            command.args([
                "stop", "-s", "-w", "-t", &seconds, "-D", "postgres", "-m", mode,
            ]);
            said = self.run(&mut command, limit + PATIENCE)?.said;
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(pid) = self.postmaster() {
            if Instant::now() > deadline {
                return Err(self.failed(
                    &format!("(process {pid}) could not be stopped; end it yourself"),
                    &said,
                ));
            }
            let mut command = self.program("pg_ctl");
            command.args(["kill", "KILL", &pid.to_string()]);
            said = self.run(&mut command, PATIENCE)?.said;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn run(&self, command: &mut Command, limit: Duration) -> Result<account::Outcome, Error> {
        let program = PathBuf::from(command.get_program());
        account::run(command, limit).map_err(|e| Error::io("run", &program, &e))
    }

    /// Makes the log ready for PostgreSQL to append to. Returns its length in bytes.
    fn open_log(&self) -> Result<u64, Error> {
        let path = self.log_path();
        let open = || {
            if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
                fs::rename(&path, self.directory.join("postgres.log.1"))?;
            }
            let log = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)?;
            self.account.own_open(&log)?;
            Ok(log.metadata()?.len())
        };
        open().map_err(|e| Error::io("write to", &path, &e))
    }

    /// What was logged since the log had `start` bytes, at most 16 KiB of it.
    fn log_since(&self, start: u64) -> String {
        let mut text = Vec::new();
        let _ = File::open(self.log_path()).and_then(|mut log| {
            let start = start.max(log.metadata()?.len().saturating_sub(16 * 1024));
            log.seek(SeekFrom::Start(start))?;
            log.take(16 * 1024).read_to_end(&mut text)
        });
        String::from_utf8_lossy(&text).into_owned()
    }

    fn failed(&self, what: &str, said: &str) -> Error {
        Error::failed(what, &self.log_path(), said)
    }
}

/// Why PostgreSQL did not answer a question.
#[derive(Debug)]
enum Silence {
    TimedOut(Duration),
    Sql(postgres::Error),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Silence::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            Silence::Sql(error) => match error.as_db_error() {
                Some(said) => write!(f, "{said}"),
                None => write!(f, "{error}"),
            },
        }
    }
}

fn on_or_off(setting: bool) -> &'static str {
    if setting { "on" } else { "off" }
}
