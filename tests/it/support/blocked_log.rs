//! A server whose standard error is a pipe that the test reads late.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::app::SECRET;
use super::hold::wait_until;
use super::process::{Process, free_address};
use super::wire::{Endpoint, bearer, request};

/// Requests on each connection in [`BlockedLog::fill`].
const BATCH: usize = 500;

/// The server, and the pipe.
pub struct BlockedLog {
    pub server: Process,
    path: PathBuf,
    /// Keeps the pipe open. Opening it for reading and writing does not wait for the other end.
    pipe: File,
    _directory: TempDir,
}

impl BlockedLog {
    pub fn start(database: &str, environment: &[(&str, &str)]) -> BlockedLog {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let pipe = File::options().read(true).write(true).open(&path).unwrap();
        let address = free_address();
        let (listen, log) = (address.to_string(), path.display().to_string());
        let mut all = vec![
            ("DATABASE_URL", database),
            ("BETTER_AUTH_SECRET", SECRET),
            ("RATE_LIMIT_PER_HOUR", "0"),
            ("RATE_LIMIT_ANON_PER_HOUR", "0"),
            ("LISTEN", &listen),
            ("LOG", &log),
        ];
        all.extend_from_slice(environment);
        let command = Process::under_shell("exec 2>\"$LOG\"", &all);
        let server = Process::spawn(command, address);
        wait_until(|| {
            let ready = server
                .anonymous()
                .try_send("GET", "/health/ready", &[], None);
            ready.is_ok_and(|answer| answer.status == 200)
        });
        BlockedLog {
            server,
            path,
            pipe,
            _directory: directory,
        }
    }

    /// Sends requests until lines are dropped.
    pub fn fill(&self) {
        let endpoint = Endpoint::from(self.server.address);
        // Long lines fill the queue sooner.
        let token = bearer(&"u".repeat(255));
        let one = request("GET", "/nowhere", &[("Authorization", &token)], b"");
        while self.dropped() == 0 {
            let mut wire = endpoint.open().unwrap();
            for _ in 0..BATCH {
                wire.write(&one).unwrap();
                wire.answer().unwrap().unwrap().expect(404);
            }
        }
    }

    /// Dropped lines, from the metrics.
    pub fn dropped(&self) -> u64 {
        self.server.metric("todo_api_log_lines_dropped_total")
    }

    /// Reads the pipe from now on. Returns its text once the server has ended and the file is closed here.
    pub fn read(self) -> (Process, JoinHandle<String>) {
        let mut reader = File::open(&self.path).unwrap();
        let (pipe, directory) = (self.pipe, self._directory);
        let log = thread::spawn(move || {
            drop((pipe, directory));
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        (self.server, log)
    }
}
