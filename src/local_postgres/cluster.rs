//! Creates, starts and stops the cluster.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::account::{self, ProgramResult};
use super::{
    ClusterOptions, OsAccount, PostgresInstallation, SocketDirectory, directory, failed_to, socket,
};

/// The name of the superuser and of the database.
pub(super) const NAME: &str = "todo";
/// The prefix of the name of a cluster that is being created.
const HALF_MADE: &str = "postgres.new.";
/// Time limit of creating a cluster, which writes about 40 MB, and of creating its database.
const MAKE_LIMIT: Duration = Duration::from_secs(180);
/// Time limit of a start. Crash recovery replays the write-ahead log of a few minutes at most.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Added to the time limit of a program; and the time limit of a kill.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time limit of a clean shutdown, which writes a checkpoint. Then follows an immediate one, which needs a recovery.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The same for one of a killed server, which may hang.
const LEFT_BEHIND_LIMIT: Duration = Duration::from_secs(5);
/// A longer log, in bytes, is renamed when PostgreSQL starts, and replaces the one that was renamed before.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// How many of the last lines of a program's output an error shows.
const SHOWN_LINES: usize = 8;

/// A cluster, running or not. Its methods are for the holder of the directory's lock.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Absolute and without symbolic links.
    pub(super) directory: PathBuf,
    /// PostgreSQL's data directory, `postgres` in `directory`.
    pub(super) files: PathBuf,
    pub(super) account: OsAccount,
    pub(super) installation: PostgresInstallation,
    pub(super) socket: SocketDirectory,
}

impl Cluster {
    fn log_path(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// Runs one of PostgreSQL's programs in our directory, with arguments separated by spaces and a last one as it is. Paths are
    /// relative, because pg_ctl puts them into a shell command without quoting.
    fn run(
        &self,
        name: &str,
        arguments: &str,
        last: &str,
        limit: Duration,
    ) -> Result<ProgramResult, String> {
        let program = self.installation.program(name);
        let mut command = self.account.command(&program);
        command
            .current_dir(&self.directory)
            .args(arguments.split(' '))
            .arg(last);
        account::run(&mut command, limit).map_err(|e| failed_to("run", &program, &e))
    }

    /// Removes clusters whose creation was interrupted. One that cannot be removed does no harm.
    pub(super) fn remove_half_made(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let is_half_made = entry.file_name().to_string_lossy().starts_with(HALF_MADE);
            if is_half_made && let Err(error) = fs::remove_dir_all(entry.path()) {
                let path = entry.path();
                let path = path.display();
                log::warn!("cannot remove {path}, which is not used: {error}");
            }
        }
    }

    /// Creates the cluster under another name and renames it when it is complete. Each name is used once, because the initdb of a
    /// killed server may still be writing.
    pub(super) fn make(&self, options: ClusterOptions) -> Result<(), String> {
        log::info!(
            "making a private PostgreSQL in {}; this takes some seconds",
            self.directory.display()
        );
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = since_1970.unwrap_or_default().as_nanos();
        let name = format!("{HALF_MADE}{}.{nanoseconds}", process::id());
        let new = self.directory.join(&name);
        let make = || {
            DirBuilder::new()
                .mode(0o700)
                .create(&new)
                .map_err(|e| failed_to("make", &new, &e))?;
            self.account.own(&new)?;
            self.run_initdb(&name, options)?;
            self.create_database(&name, options)?;
            fs::rename(&new, &self.files)
                .map_err(|e| failed_to("put the new cluster at", &self.files, &e))?;
            if options.durable {
                let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
                synced.map_err(|e| failed_to("write to disk", &self.directory, &e))?;
            }
            Ok(())
        };
        let result = make();
        if result.is_err() {
            // If it fails, the error above matters more.
            let _ = fs::remove_dir_all(&new);
        }
        result
    }

    fn run_initdb(&self, name: &str, options: ClusterOptions) -> Result<(), String> {
        let initdb = |locale: &str| {
            let sync = if options.durable { "" } else { " --no-sync" };
            let arguments = format!(
                "-D {name} -U {NAME} --encoding=UTF8 --auth-local=trust --auth-host=reject{sync}"
            );
            let locale = format!("--locale={locale}");
            self.run("initdb", &arguments, &locale, MAKE_LIMIT)
        };
        let mut result = initdb("C.UTF-8")?;
        if !result.success && result.output.contains("locale") {
            result = initdb("C")?;
        }
        match result.success {
            true => Ok(()),
            false => Err(self.failed("could not make its cluster", &result.output)),
        }
    }

    /// Creates the database, with PostgreSQL's single-user mode.
    fn create_database(&self, name: &str, options: ClusterOptions) -> Result<(), String> {
        let program = self.installation.program("postgres");
        let create = || {
            let (input, mut statement) = io::pipe()?;
            writeln!(statement, "CREATE DATABASE {NAME}")?;
            drop(statement);
            let mut command = self.account.command(&program);
            command
                .current_dir(&self.directory)
                .stdin(input)
                .args(["--single", "-D", name, "-c", "exit_on_error=on"])
                // Without fsync.
                .args((!options.durable).then_some("-F"))
                // Every cluster has this database.
                .arg("postgres");
            account::run(&mut command, MAKE_LIMIT)
        };
        let result = create().map_err(|e| failed_to("run", &program, &e))?;
        match result.success {
            true => Ok(()),
            false => Err(self.failed("could not make the database \"todo\"", &result.output)),
        }
    }

    /// Starts the cluster. A PostgreSQL that runs already belonged to a killed server, and is ended first.
    pub(super) fn start(&self, options: ClusterOptions) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        let (major, directory) = (self.installation.major, self.directory.display());
        loop {
            self.halt(LEFT_BEHIND_LIMIT)?;
            self.remove_stale_files()?;
            let log_start = self.open_log()?;
            let start = format!(
                "start -s -w -t {} -D postgres -l postgres.log -o",
                START_LIMIT.as_secs()
            );
            let options = self.server_options(options);
            let result = self.run("pg_ctl", &start, &options, START_LIMIT + PATIENCE)?;
            if result.success {
                log::info!("private PostgreSQL {major} is running in {directory}");
                return Ok(());
            }
            let output = format!("{}{}", result.output, self.log_since(log_start));
            // The pg_ctl of a killed server may have started PostgreSQL just before us.
            let alive = self.postmaster().is_some();
            let orphans = !alive && output.contains("is still in use");
            if Instant::now() > deadline || !(alive || orphans) {
                return Err(self.failed("did not start", &output));
            }
            if orphans {
                self.end_orphans()?;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Options on PostgreSQL's command line, which override the cluster's own configuration.
    fn server_options(&self, options: ClusterOptions) -> String {
        let durable = if options.durable { "on" } else { "off" };
        format!(
            "-k '{}' -p {} -c listen_addresses= -c max_connections={} -c superuser_reserved_connections=0 \
             -c fsync={durable} -c synchronous_commit={durable} -c full_page_writes={durable} \
             -c logging_collector=off -c log_destination=stderr -c cluster_name=todo-api",
            self.socket.path(),
            socket::PORT,
            options.max_connections,
        )
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

    /// Whether a process is one of this cluster's. After a crash or a reboot its pid may be another program's, so its name must be
    /// `postgres`, and its working directory the cluster.
    fn is_ours(&self, pid: u32) -> bool {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let works_in = PathBuf::from(format!("/proc/{pid}/cwd"));
        let is_cluster = [&works_in, Path::new("-ef"), &self.files];
        // As the cluster's account, because root in a container may not inspect other accounts' processes.
        name.trim_end() == "postgres" && self.account.test(&is_cluster).unwrap_or(false)
    }

    /// Ends sessions whose PostgreSQL was killed. A session notices that only when it waits, so a long query would keep a new
    /// PostgreSQL from starting.
    fn end_orphans(&self) -> Result<(), String> {
        let Ok(processes) = fs::read_dir("/proc") else {
            return Ok(());
        };
        let pids = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in pids.filter(|pid| self.is_ours(*pid)) {
            log::warn!("ending process {pid}, a session of a PostgreSQL that was killed");
            self.run("pg_ctl", "kill QUIT", &pid.to_string(), PATIENCE)?;
        }
        Ok(())
    }

    /// Removes files that keep PostgreSQL from starting if the pid in them is now that of another program of the same account. Called
    /// when the cluster's PostgreSQL is not alive. Shared memory protects one that is alive nevertheless.
    fn remove_stale_files(&self) -> Result<(), String> {
        if directory::recorded_pid(&self.files).is_some() && self.postmaster().is_none() {
            directory::remove_file(&self.files.join("postmaster.pid"))?;
        }
        let socket = format!("{}/.s.PGSQL.{}", self.socket.path(), socket::PORT);
        directory::remove_file(Path::new(&socket))?;
        directory::remove_file(Path::new(&format!("{socket}.lock")))
    }

    /// Ends PostgreSQL, if it is alive: by a clean shutdown within `limit`, an immediate one, or a kill.
    pub(super) fn halt(&self, limit: Duration) -> Result<(), String> {
        let mut output = String::new();
        for (mode, limit) in [("fast", limit), ("immediate", limit.min(PATIENCE))] {
            if self.postmaster().is_none() {
                return Ok(());
            }
            let stop = format!("stop -s -w -t {} -D postgres -m", limit.as_secs());
            output = self.run("pg_ctl", &stop, mode, limit + PATIENCE)?.output;
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(pid) = self.postmaster() {
            if Instant::now() > deadline {
                let problem = format!("(process {pid}) could not be stopped; end it yourself");
                return Err(self.failed(&problem, &output));
            }
            let killed = self.run("pg_ctl", "kill KILL", &pid.to_string(), PATIENCE)?;
            output = killed.output;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Opens the log for PostgreSQL, which appends to it. Returns its length in bytes.
    fn open_log(&self) -> Result<u64, String> {
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
        open().map_err(|e| failed_to("write to", &path, &e))
    }

    /// The log after its first `start` bytes, at most 16 KiB of it.
    fn log_since(&self, start: u64) -> String {
        let mut text = Vec::new();
        let _ = File::open(self.log_path()).and_then(|mut log| {
            let start = start.max(log.metadata()?.len().saturating_sub(16 * 1024));
            log.seek(SeekFrom::Start(start))?;
            log.take(16 * 1024).read_to_end(&mut text)
        });
        String::from_utf8_lossy(&text).into_owned()
    }

    fn failed(&self, what: &str, output: &str) -> String {
        failure(what, &self.log_path(), output)
    }
}

/// The error for a failure of PostgreSQL or one of its programs, with the last lines of its output.
fn failure(what: &str, log: &Path, output: &str) -> String {
    let mut message = format!(
        "the private PostgreSQL {what}: fix the problem in its output below (more may be in {}), or set DATABASE_URL to another \
         PostgreSQL",
        log.display(),
    );
    let lines = output.lines().filter(|line| !line.trim().is_empty());
    let lines: Vec<&str> = lines.collect();
    for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
        message.push_str("\n  ");
        message.push_str(line.trim_end());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_of_output() {
        let output: String = (1..=20).map(|n| format!("line {n}\n\n")).collect();
        let error = failure("did not start", Path::new("/d/postgres.log"), &output);
        assert!(
            error.starts_with("the private PostgreSQL did not start: "),
            "{error}"
        );
        assert!(error.contains("another PostgreSQL\n  line 13\n"), "{error}");
        assert!(error.ends_with("\n  line 20"), "{error}");
    }
}
