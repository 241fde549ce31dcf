//! The server under attack, on one kind of listener.

use std::fmt;

use tempfile::TempDir;

use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::tls::Certificate;
use crate::support::wire::Endpoint;

/// The kind of listener.
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

/// Turns the access log off, for tests with hundreds of thousands of requests.
pub const QUIET: (&str, &str) = ("RUST_LOG", "warn,tiny_http=off,todo_api=info,access=warn");

/// Every kind of listener.
pub const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Tls, Kind::Unix];

/// A server process with a database of its own.
pub struct AttackedServer {
    pub server: Process,
    pub endpoint: Endpoint,
    pub database: String,
    pub certificate: Option<Certificate>,
    _directory: TempDir,
}

impl AttackedServer {
    /// Starts the server with these settings.
    pub fn start(kind: Kind, settings: &[(&str, &str)]) -> AttackedServer {
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
        let endpoint = match &certificate {
            Some(certificate) => Endpoint::Tls(server.address, certificate.client()),
            None if kind == Kind::Unix => Endpoint::Unix(socket),
            None => Endpoint::Tcp(server.address),
        };
        AttackedServer {
            server,
            endpoint,
            database,
            certificate,
            _directory: directory,
        }
    }

    /// The number of its threads.
    pub fn threads(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.server.pid());
        std::fs::read_dir(tasks).unwrap().count()
    }

    /// Asserts that the process runs and that its peak of memory is at most this. Returns the peak as text.
    #[track_caller]
    pub fn expect_memory_within(&mut self, mebibytes: u64) -> String {
        assert!(self.server.is_alive(), "the process has ended");
        let peak = self.server.peak_memory() / 1024 / 1024;
        assert!(
            peak <= mebibytes,
            "{peak} MiB of memory; at most {mebibytes} are allowed"
        );
        format!("memory at most {peak} MiB")
    }
}
