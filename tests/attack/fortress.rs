//! The program under attack, behind one of its doors.

use std::fmt;

use tempfile::TempDir;

use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::tls::Certificate;
use crate::support::wire::Door;

/// How one gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Tls,
    Unix,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Tcp => "TCP",
            Kind::Tls => "TLS",
            Kind::Unix => "a Unix socket",
        })
    }
}

/// Without a line for every request, where there are hundreds of thousands.
pub const QUIET: (&str, &str) = ("RUST_LOG", "warn,tiny_http=off,todo_api=info,access=warn");

/// Every way in.
pub const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Tls, Kind::Unix];

/// A server process with a database of its own.
pub struct Fortress {
    pub server: Process,
    pub door: Door,
    pub database: String,
    pub certificate: Option<Certificate>,
    _directory: TempDir,
}

impl Fortress {
    /// The program with these settings, and else as it comes.
    pub fn behind(kind: Kind, settings: &[(&str, &str)]) -> Fortress {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("todo.sock");
        let listen = format!("unix:{}", socket.display());
        let certificate = (kind == Kind::Tls).then(Certificate::make);
        let of_tls = certificate.as_ref().map(Certificate::settings);
        let mut all: Vec<(&str, &str)> = of_tls
            .iter()
            .flatten()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        if kind == Kind::Unix {
            all.push(("LISTEN", &listen));
        }
        all.extend_from_slice(settings);
        let database = fresh_database();
        let server = Process::serve(&database, &all);
        let door = match &certificate {
            Some(certificate) => Door::Tls(server.address, certificate.client()),
            None if kind == Kind::Unix => Door::Unix(socket),
            None => Door::Tcp(server.address),
        };
        Fortress {
            server,
            door,
            database,
            certificate,
            _directory: directory,
        }
    }

    /// Threads it has.
    pub fn threads(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.server.pid());
        std::fs::read_dir(tasks).unwrap().count()
    }

    /// Asserts that it lives and has at no moment had more than so much memory; gives the most it had.
    #[track_caller]
    pub fn expect_alive_within(&mut self, mebibytes: u64) -> String {
        assert!(self.server.is_alive(), "the process has ended");
        let peak = self.server.peak_memory() / 1024 / 1024;
        assert!(
            peak <= mebibytes,
            "{peak} MiB of memory, and not {mebibytes}"
        );
        format!("memory at most {peak} MiB")
    }
}
