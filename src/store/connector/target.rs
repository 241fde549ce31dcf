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

/// A database address, read and checked, with everything in it that is needed to connect.
///
/// Beyond what libpq does with the same address:
/// - `verify-ca` and `verify-full` without `sslrootcert`, and `sslrootcert=system`, trust Mozilla's authorities as
///   compiled in; for the machine's own, name their file, such as `/etc/ssl/certs/ca-certificates.crt`.
/// - `sslrootcert` is read here and not again. `~/.postgresql` and the `PG…` variables are not used.
/// - `sslmode=allow` means `prefer`.
/// - TCP keepalive is on (after 30 s, every 10 s, 3 times) and `tcp_user_timeout` is 10 s unless the address says
///   otherwise.
/// - Only the limit of TCP can be switched off: `connect_timeout=0` means the default.
///
/// Clones share what was learned about the server. `Debug` shows host and database only.
#[derive(Clone)]
pub struct Target {
    pub(super) hosts: Vec<Host>,
    /// Everything that is the same for every host.
    pub(super) config: postgres::Config,
    pub(super) encryption: Encryption,
    pub(super) checks_nothing: bool,
    pub(super) direct: bool,
    pub(super) tls: Arc<ClientConfig>,
    /// The server, or the pooler before it, has refused settings in the startup message, or dropped them.
    pub(super) refuses_settings: Arc<AtomicBool>,
}

/// One place where the database may be.
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
    /// For the log: `db.example:5432`, or a socket's directory; several separated by commas.
    pub fn host(&self) -> String {
        self.hosts
            .iter()
            .map(Host::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The database's name; where the address has none it is the user's, as in libpq.
    pub fn database(&self) -> &str {
        let user = || self.config.get_user().unwrap_or("its default");
        self.config.get_dbname().unwrap_or_else(user)
    }

    /// Whether every host is a Unix socket or a loopback address.
    pub fn is_on_this_machine(&self) -> bool {
        self.hosts.iter().all(|host| match &host.kind {
            HostKind::Unix(_) => true,
            HostKind::Tcp {
                address: Some(address),
                ..
            } => is_loopback(*address),
            HostKind::Tcp {
                name,
                address: None,
            } => match name.parse() {
                Ok(address) => is_loopback(address),
                // RFC 6761, section 6.3.
                Err(_) => {
                    let name = name.trim_end_matches('.').to_ascii_lowercase();
                    name == "localhost" || name.ends_with(".localhost")
                }
            },
        })
    }

    /// Whether the settings in a startup message have been refused, as poolers do.
    pub fn refuses_settings(&self) -> bool {
        self.refuses_settings.load(Ordering::Relaxed)
    }

    /// Has later sessions set their settings by a statement, because a pooler drops those in the startup message.
    pub fn set_settings_by_statement(&self) {
        self.refuses_settings.store(true, Ordering::Relaxed);
    }

    /// The same database without the pooler before it, where the name gives it away: Neon's poolers have a first
    /// label that ends in `-pooler`, and the database itself has the same name without it.
    pub fn unpooled(&self) -> Option<Target> {
        let mut target = self.clone();
        let mut found = false;
        for host in &mut target.hosts {
            let HostKind::Tcp { name, address } = &mut host.kind else {
                continue;
            };
            let (label, rest) = name.split_once('.').unwrap_or((name, ""));
            let Some(label) = label
                .strip_suffix("-pooler")
                .filter(|label| !label.is_empty())
            else {
                continue;
            };
            *name = if rest.is_empty() {
                label.to_owned()
            } else {
                format!("{label}.{rest}")
            };
            // It was the pooler's.
            *address = None;
            found = true;
        }
        target.refuses_settings = Arc::default();
        found.then_some(target)
    }

    /// All hosts, in the order they are to be tried in this time.
    pub(super) fn hosts_in_turn(&self) -> impl Iterator<Item = &Host> {
        let start = match self.config.get_load_balance_hosts() {
            // Without a random number the order stays, which does no harm.
            LoadBalanceHosts::Random => {
                getrandom::u32().unwrap_or(0) as usize % self.hosts.len().max(1)
            }
            _ => 0,
        };
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

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
