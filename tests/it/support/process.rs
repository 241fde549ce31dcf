//! The program as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::actors::Actor;
use super::app::SECRET;

/// A directory without a `.env`.
const NO_SETTINGS_HERE: &str = env!("CARGO_TARGET_TMPDIR");

/// The program with this environment only.
pub fn command(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_todo-api"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
        .envs(environment.iter().copied())
        .current_dir(NO_SETTINGS_HERE)
        .stdin(Stdio::null());
    // Keeps the variables of a coverage run.
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("LLVM_")) {
        command.env(name, value);
    }
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(environment).args(arguments).output().unwrap()
}

/// A server process.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
    log: Receiver<String>,
}

impl Process {
    /// Starts a server on this database and waits until it is ready.
    pub fn serve(database: &str, environment: &[(&str, &str)]) -> Process {
        let process = Process::start(database, environment);
        process.wait_for("ready: ");
        process
    }

    /// Starts a server on this database. Without rate limits, because many tests send requests as fast as they can.
    pub fn start(database: &str, environment: &[(&str, &str)]) -> Process {
        let mut all = vec![
            ("DATABASE_URL", database),
            ("BETTER_AUTH_SECRET", SECRET),
            ("RATE_LIMIT_PER_HOUR", "0"),
            ("RATE_LIMIT_ANON_PER_HOUR", "0"),
        ];
        all.extend_from_slice(environment);
        Process::listening(&all)
    }

    /// Starts a server with a private PostgreSQL in this directory.
    pub fn with_private_postgres(data: &Path, environment: &[(&str, &str)]) -> Process {
        let mut all = vec![("DATA_DIR", data.to_str().unwrap())];
        all.extend_from_slice(environment);
        Process::listening(&all)
    }

    /// Starts a server with this environment on a free address.
    fn listening(environment: &[(&str, &str)]) -> Process {
        let address = free_address();
        let listen = address.to_string();
        let mut all = vec![("LISTEN", listen.as_str())];
        all.extend_from_slice(environment);
        let mut command = command(&all);
        command.stdout(Stdio::null());
        Process::spawn(command, address)
    }

    /// Starts a server with this command, which must make it listen on this address.
    pub fn spawn(mut command: Command, address: SocketAddr) -> Process {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // Closes this process's copies of descriptors for the child.
        drop(command);
        let log = lines(child.stderr.take().unwrap());
        Process {
            address,
            child,
            log,
        }
    }

    /// A shell that runs this script and then executes the program, with the arguments that are added to it and this environment
    /// only.
    pub fn under_shell(script: &str, environment: &[(&str, &str)]) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{script}\nexec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_todo-api"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            .current_dir(NO_SETTINGS_HERE)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        shell
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The peak of its memory in bytes since [`Process::forget_peak`], or since its start.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Resets the peak.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// The number of open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Open descriptors, once their number no longer changes.
    pub fn settled_descriptors(&self) -> usize {
        let mut last = (self.descriptors(), Instant::now());
        while last.1.elapsed() < Duration::from_millis(300) {
            thread::sleep(Duration::from_millis(10));
            let now = self.descriptors();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        last.0
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Whether the process runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end, this long at most; returns the exit status and the rest of the log.
    #[track_caller]
    pub fn wait_at_most(mut self, time: Duration) -> (ExitStatus, String) {
        let until = Instant::now() + time;
        while self.is_alive() {
            assert!(
                Instant::now() < until,
                "the process did not end within {time:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        self.wait()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn user(&self, id: &str) -> Actor {
        Actor::user(self.address, id)
    }

    pub fn anonymous(&self) -> Actor {
        Actor::anonymous(self.address)
    }

    /// Waits for a line of the log that contains this, and returns it with all before it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut seen = String::new();
        let until = Instant::now() + Duration::from_secs(20);
        while let Ok(line) = self
            .log
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            seen.push_str(&line);
            seen.push('\n');
            if line.contains(text) {
                return seen;
            }
        }
        panic!("the log has no {text:?}:\n{seen}");
    }

    /// The value of a metric, named with its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.anonymous().get("/metrics").expect(200).body;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("the metric").parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end; returns the exit status and the rest of the log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let log: Vec<String> = self.log.iter().collect();
        (status, log.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn signal(pid: i32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A free address of this machine, a different one for each call. Its port is below those that the kernel gives to clients, so
/// that no client of another test takes it before the server does.
pub fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test processes start at different ports.
    let start = std::process::id().wrapping_mul(397);
    loop {
        let step = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + u16::try_from(step % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            if sender
                .send(std::mem::take(&mut line).trim_end().to_owned())
                .is_err()
            {
                // The receiver is gone, and the program must not block on a full pipe.
                let _ = std::io::copy(&mut reader.by_ref(), &mut std::io::sink());
            }
        }
    });
    receiver
}
