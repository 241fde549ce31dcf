//! A database address that is ready to be connected to.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::config::LoadBalanceHosts;
use rustls::ClientConfig;

use super::tls::Encryption;

pub(super) const DEFAULT_PORT: u16 = 5432;

/// A database address that was read and checked.
///
/// Differences from libpq:
/// - `verify-ca` and `verify-full` without `sslrootcert`, and `sslrootcert=system`, trust Mozilla's authorities, compiled in. For
///   the machine's own, name their file, such as `/etc/ssl/certs/ca-certificates.crt`.
/// - `sslrootcert` is read once, here. `~/.postgresql` and the `PG…` variables are not used.
/// - `sslmode=allow` means `prefer`.
/// - The defaults are TCP keepalive (after 30 s, every 10 s, 3 times) and a `tcp_user_timeout` of 10 s.
/// - `connect_timeout=0` means the default: this limit cannot be switched off.
///
/// Clones share `refuses_settings`. `Debug` shows host and database only.
#[derive(Clone)]
pub struct Target {
    pub(super) hosts: Vec<Host>,
    /// The parts that are the same for every host.
    pub(super) config: postgres::Config,
    pub(super) encryption: Encryption,
    pub(super) checks_nothing: bool,
    pub(super) direct: bool,
    pub(super) tls: Arc<ClientConfig>,
    /// Whether the server, or a pooler before it, has refused or ignored settings in the startup message.
    pub(super) refuses_settings: Arc<AtomicBool>,
}

/// A host of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) kind: HostKind,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostKind {
    Tcp {
        name: String,
        /// From `hostaddr`: the name is not looked up.
        address: Option<IpAddr>,
    },
    /// The directory of the socket.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            HostKind::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            HostKind::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            HostKind::Unix(directory) if self.port == DEFAULT_PORT => {
                write!(f, "{}", directory.display())
            }
            HostKind::Unix(directory) => {
                write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port)
            }
        }
    }
}

impl Target {
    /// The hosts for the log, separated by commas: `db.example:5432`, or a socket's directory.
    pub fn host(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        hosts.join(",")
    }

    /// The database's name; without one in the address the user's, as in libpq.
    pub fn database(&self) -> &str {
        let user = || self.config.get_user().unwrap_or("its default");
        self.config.get_dbname().unwrap_or_else(user)
    }

    /// Whether every host is a Unix socket or a loopback address.
    pub fn is_on_this_machine(&self) -> bool {
        self.hosts.iter().all(|host| {
            let HostKind::Tcp { name, address } = &host.kind else {
                return true;
            };
            if let Some(address) = address.or(name.parse().ok()) {
                return address.to_canonical().is_loopback();
            }
            // RFC 6761, section 6.3.
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        })
    }

    /// Whether the settings in a startup message have been refused, as poolers do.
    pub fn refuses_settings(&self) -> bool {
        self.refuses_settings.load(Ordering::Relaxed)
    }

    /// Makes later sessions set their settings by a statement, because a pooler ignores those in the startup message.
    pub fn set_settings_by_statement(&self) {
        self.refuses_settings.store(true, Ordering::Relaxed);
    }

    /// The address of the same database without the pooler, if the name is that of a pooler of Neon's: its first label ends in
    /// `-pooler`, and the database has the same name without that.
    pub fn unpooled(&self) -> Option<Target> {
        let mut target = self.clone();
        let mut found = false;
        for host in &mut target.hosts {
            let HostKind::Tcp { name, address } = &mut host.kind else {
                continue;
            };
            let (label, rest) = name.split_at(name.find('.').unwrap_or(name.len()));
            let database = label.strip_suffix("-pooler").unwrap_or_default();
            if !database.is_empty() {
                *name = format!("{database}{rest}");
                // It was the pooler's.
                *address = None;
                found = true;
            }
        }
        target.refuses_settings = Arc::default();
        found.then_some(target)
    }

    /// All hosts, in the order of the next attempt.
    pub(super) fn hosts_in_turn(&self) -> impl Iterator<Item = &Host> {
        let random = match self.config.get_load_balance_hosts() {
            // Without a random number the order of the address is used.
            LoadBalanceHosts::Random => getrandom::u32().unwrap_or(0),
            _ => 0,
        };
        let start = random as usize % self.hosts.len().max(1);
        self.hosts.iter().cycle().skip(start).take(self.hosts.len())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host())
            .field("database", &self.database())
            .finish_non_exhaustive()
    }
}
