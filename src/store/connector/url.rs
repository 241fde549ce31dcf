//! Reads a database address in the forms people already have: libpq's URLs and `key=value` strings, SQLAlchemy's URLs
//! with a driver in them, asyncpg's `ssl`.
//!
//! It is more lenient than libpq in one point, because SQLAlchemy is: a password may hold `@`, `/` or `?` as they are.
//! And it is stricter in one: no limit of time can be switched off.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use postgres::config::{ChannelBinding, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{Check, Encryption, Roots, client_config};

const DEFAULT_PORT: u16 = 5432;

/// What other software of the family writes into the same address for its own use. None of it weakens a connection
/// when it is left out.
const FOR_OTHERS: &[&str] = &[
    "gssencmode",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcompression",
    "sslsni",
    "sslcertmode",
    "requiressl",
    "client_encoding",
    "fallback_application_name",
    "keepalives_retries",
    "ssl_max_protocol_version",
    "schema",
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "statement_cache_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "async_fallback",
    "command_timeout",
    "uselibpqcompat",
];

/// A database address, read and checked, with everything in it that is needed to connect.
///
/// Beyond what libpq does with the same address:
/// - `verify-ca` and `verify-full` without `sslrootcert`, and `sslrootcert=system`, trust Mozilla's authorities as
///   compiled in; for the machine's own, name their file, such as `/etc/ssl/certs/ca-certificates.crt`.
/// - `sslrootcert` is read here and not again. `~/.postgresql` and the `PG…` variables are not looked at.
/// - `sslmode=allow` is taken for `prefer`.
/// - TCP keepalive is on (after 30 s, every 10 s, 3 times) and `tcp_user_timeout` is 10 s unless the address says
///   otherwise.
///
/// Clones share what has been learned about the server. `Debug` shows host and database only.
#[derive(Clone)]
pub struct Target {
    pub(super) hosts: Vec<Host>,
    /// User, password, database and everything else that is the same for every host.
    pub(super) config: postgres::Config,
    database: String,
    pub(super) encryption: Encryption,
    pub(super) checks_nothing: bool,
    pub(super) direct: bool,
    pub(super) tls: MakeRustlsConnect,
    pub(super) options: Option<String>,
    pub(super) application_name: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    random_order: bool,
    /// The server, or the pooler before it, has refused settings in the startup message.
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
    /// Reads an address: `postgresql://user:password@host:port/database?sslmode=…`, the same with `postgres` or with
    /// a driver (`postgresql+asyncpg`), or libpq's `host=… user=… password=…`.
    ///
    /// Errors: a predicate to be written after the setting's name ("names no host"). It never quotes user, password
    /// or the address; of parameters it quotes names and known words.
    pub fn parse(url: &str) -> Result<Target, String> {
        let url = url.trim();
        // As it arrives from an env file that is read without a shell.
        let url = ['"', '\'']
            .into_iter()
            .find_map(|quote| url.strip_prefix(quote)?.strip_suffix(quote))
            .unwrap_or(url)
            .trim();
        if url.is_empty() {
            return Err("is empty".to_owned());
        }
        let mut raw = Raw::default();
        match url.split_once("://") {
            Some((scheme, rest)) if is_ours(scheme) => read_url(rest, &mut raw)?,
            _ if url
                .split_once('=')
                .is_some_and(|(key, _)| key.trim_end().chars().all(is_word)) =>
            {
                read_pairs(url, &mut raw)?;
            }
            _ => return Err(
                "is no PostgreSQL address: it begins with neither postgresql:// nor postgres://"
                    .to_owned(),
            ),
        }
        raw.finish()
    }

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
        &self.database
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
        let start = match self.random_order {
            // No random number to be had means no change of order, which is no harm.
            true => getrandom::u32().unwrap_or(0) as usize % self.hosts.len().max(1),
            false => 0,
        };
        self.hosts.iter().cycle().skip(start).take(self.hosts.len())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host())
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

fn is_ours(scheme: &str) -> bool {
    let scheme = scheme
        .split_once('+')
        .map_or(scheme, |(scheme, _driver)| scheme);
    scheme.eq_ignore_ascii_case("postgresql") || scheme.eq_ignore_ascii_case("postgres")
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// An address taken apart, before any of it is judged.
#[derive(Default)]
struct Raw {
    user: Option<String>,
    password: Option<Vec<u8>>,
    database: Option<String>,
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
    parameters: Vec<(String, String)>,
}

/// What stands after `postgresql://`.
fn read_url(rest: &str, raw: &mut Raw) -> Result<(), String> {
    let (userinfo, rest) = split_userinfo(rest);
    if let Some(userinfo) = userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        raw.user = Some(decode_text(user)?);
        raw.password = password.map(decode).transpose()?;
    }
    let (head, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = head.split_once('/').unwrap_or((head, ""));
    raw.database = Some(decode_text(database)?);
    if !hosts.is_empty() {
        for host in hosts.split(',') {
            let (host, port) = split_port(host)?;
            raw.hosts.push(decode_text(host)?);
            raw.ports.push(decode_text(port)?);
        }
    }
    let mut named_hosts = false;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err("has a parameter without a value".to_owned());
        };
        let (key, value) = (decode_text(key)?, decode(value)?);
        if key == "host" && !value.is_empty() {
            // The query's hosts go before those in front of it; SQLAlchemy repeats the parameter for each.
            if !std::mem::replace(&mut named_hosts, true) {
                raw.hosts.clear();
            }
        }
        // An unescaped `@` in a query may mean that the query is part of a password.
        raw.parameter(&key, value, !query.contains('@'))?;
    }
    Ok(())
}

/// Cuts off user and password.
///
/// An `@` before the query ends them, the last one if there are several. Without one, what looks like a host with a
/// port that is no number is a user with a password in which there is a question mark.
fn split_userinfo(rest: &str) -> (Option<&str>, &str) {
    let head = rest.split_once('?').map_or(rest, |(head, _)| head);
    let end = head.rfind('@').or_else(|| {
        let authority = head
            .split_once('/')
            .map_or(head, |(authority, _)| authority);
        let (_, port) = authority.split_once(':')?;
        let is_port = authority.contains([',', '[']) || port.chars().all(|c| c.is_ascii_digit());
        if is_port { None } else { rest.rfind('@') }
    });
    match end {
        Some(end) => {
            let (userinfo, rest) = rest.split_at(end);
            (Some(userinfo), rest.strip_prefix('@').unwrap_or(rest))
        }
        None => (None, rest),
    }
}

/// `host:port`, `[v6]:port` or either without the port, which is then empty.
fn split_port(host: &str) -> Result<(&str, &str), String> {
    let Some(bracketed) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    match bracketed.split_once(']') {
        Some((host, "")) => Ok((host, "")),
        Some((host, port)) if port.starts_with(':') => Ok((host, port.trim_start_matches(':'))),
        _ => Err("has a host with [ that is no IPv6 address".to_owned()),
    }
}

/// libpq's other form, `key = value` with quotes and backslashes (PostgreSQL documentation, section 34.1.1.1).
fn read_pairs(text: &str, raw: &mut Raw) -> Result<(), String> {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err("has a parameter without a value".to_owned());
        };
        let key = key.trim();
        let mut characters = after.trim_start().chars();
        let quoted = characters.as_str().starts_with('\'');
        if quoted {
            characters.next();
        }
        let mut value = String::new();
        loop {
            match characters.next() {
                Some('\'') if quoted => break,
                None if quoted => return Err("has a quote that is not closed".to_owned()),
                None => break,
                Some(c) if c.is_whitespace() && !quoted => break,
                Some('\\') => value.extend(characters.next()),
                Some(c) => value.push(c),
            }
        }
        // A key that is no word is a piece of a value, perhaps of a password with a space in it.
        raw.parameter(key, value.into_bytes(), false)?;
        rest = characters.as_str().trim_start();
    }
    Ok(())
}

fn decode_text(text: &str) -> Result<String, String> {
    String::from_utf8(decode(text)?)
        .map_err(|_| "is not UTF-8 once its %-escapes are decoded".to_owned())
}

/// Percent-decoding. A `%` that begins no escape stands for itself, as SQLAlchemy has it.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match after {
            [high, low, ..] if byte == b'%' => {
                hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low)
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                rest = rest.get(2..).unwrap_or_default();
            }
            None => decoded.push(byte),
        }
    }
    if decoded.contains(&0) {
        return Err("holds a NUL character".to_owned());
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

impl Raw {
    /// Takes one parameter in, by its name. `may_be_named` says that the name can be shown if it is unknown.
    fn parameter(&mut self, key: &str, value: Vec<u8>, may_be_named: bool) -> Result<(), String> {
        if key == "password" {
            self.password = Some(value);
            return Ok(());
        }
        let value = String::from_utf8(value)
            .map_err(|_| "is not UTF-8 once its %-escapes are decoded".to_owned())?;
        // As in libpq, empty is not given.
        if value.is_empty() {
            return Ok(());
        }
        let list = || value.split(',').map(str::to_owned);
        match key {
            "user" => self.user = Some(value),
            "dbname" | "database" => self.database = Some(value),
            "host" => {
                for host in list() {
                    self.host(host);
                }
            }
            "hostaddr" => self.addresses = list().collect(),
            "port" => self.ports = list().collect(),
            "sslcert" | "sslkey" | "sslpassword" => {
                return Err(
                    "asks for a client certificate (sslcert, sslkey), which is not supported"
                        .to_owned(),
                );
            }
            "passfile" | "service" | "servicefile" => {
                return Err(format!(
                    "points to another file ({key}), which is not supported: write it out"
                ));
            }
            "require_auth" | "requirepeer" | "sslcrl" | "sslcrldir" | "scram_client_key"
            | "scram_server_key" | "replication" | "oauth_issuer" => {
                return Err(format!("asks for {key}, which is not supported"));
            }
            "gssencmode" | "sslcertmode" if value == "require" => {
                return Err(format!("asks for {key}=require, which is not supported"));
            }
            "sslmode"
            | "ssl"
            | "sslrootcert"
            | "sslnegotiation"
            | "ssl_min_protocol_version"
            | "channel_binding"
            | "connect_timeout"
            | "application_name"
            | "options"
            | "target_session_attrs"
            | "load_balance_hosts"
            | "keepalives"
            | "keepalives_idle"
            | "keepalives_interval"
            | "keepalives_count"
            | "tcp_user_timeout" => {
                self.parameters.push((key.to_owned(), value));
            }
            _ if FOR_OTHERS.contains(&key) => {}
            _ if may_be_named && key.len() <= 32 && key.chars().all(is_word) => {
                return Err(format!("has a parameter that is not known: {key}"));
            }
            _ => {
                return Err(
                    "has a parameter that is not known (or a password that needs %-escapes)"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// A host from a parameter. SQLAlchemy puts the port there too, asyncpg the socket itself.
    fn host(&mut self, host: String) {
        if let Some((directory, port)) = host.rsplit_once("/.s.PGSQL.") {
            self.hosts.push(directory.to_owned());
            self.ports
                .resize(self.hosts.len().saturating_sub(1), String::new());
            self.ports.push(port.to_owned());
        } else if let Some((name, port)) = host.split_once(':')
            && !host.starts_with('/')
            && port.parse::<u16>().is_ok()
        {
            self.hosts.push(name.to_owned());
            self.ports
                .resize(self.hosts.len().saturating_sub(1), String::new());
            self.ports.push(port.to_owned());
        } else {
            self.hosts.push(host);
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parameters
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Result<Option<u32>, String> {
        match self.get(key) {
            None => Ok(None),
            // libpq takes a negative limit for none.
            Some(value) => match value.trim().parse::<i32>() {
                Ok(number) => Ok(Some(u32::try_from(number).unwrap_or(0))),
                Err(_) => Err(format!("has a {key} that is no whole number")),
            },
        }
    }

    fn seconds(&self, key: &str) -> Result<Option<Duration>, String> {
        let number = self.number(key)?.filter(|number| *number > 0);
        Ok(number.map(|number| Duration::from_secs(number.into())))
    }

    fn finish(self) -> Result<Target, String> {
        let hosts = self.all_hosts()?;
        let (encryption, check, roots) = self.tls()?;
        let direct = match self.get("sslnegotiation") {
            None | Some("postgres") => false,
            Some("direct") if encryption == Encryption::Required => true,
            Some("direct") => {
                return Err(
                    "has sslnegotiation=direct, which needs sslmode=require or stricter".to_owned(),
                );
            }
            Some(_) => {
                return Err("has an sslnegotiation other than postgres and direct".to_owned());
            }
        };
        let only_tls13 = match self.get("ssl_min_protocol_version") {
            None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
            Some("TLSv1.3") => true,
            Some(_) => {
                return Err(
                    "has an ssl_min_protocol_version other than TLSv1 to TLSv1.3".to_owned(),
                );
            }
        };
        let mut tls = client_config(check, &roots, only_tls13)?;
        if direct {
            tls.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let user = match &self.user {
            Some(user) if !user.is_empty() => user.clone(),
            _ => whoami::username()
                .map_err(|_| "names no user, and this process runs as one without a name")?,
        };
        let database = self
            .database
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| user.clone());
        Ok(Target {
            config: self.config(&user, &database)?,
            hosts,
            database,
            encryption,
            checks_nothing: check == Check::Nothing,
            direct,
            tls: MakeRustlsConnect::new(tls),
            options: self.get("options").map(str::to_owned),
            application_name: self.get("application_name").map(str::to_owned),
            connect_timeout: self.seconds("connect_timeout")?,
            random_order: match self.get("load_balance_hosts") {
                None | Some("disable") => false,
                Some("random") => true,
                Some(_) => {
                    return Err("has a load_balance_hosts other than disable and random".to_owned());
                }
            },
            refuses_settings: Arc::default(),
        })
    }

    fn all_hosts(&self) -> Result<Vec<Host>, String> {
        // `hostaddr` alone is a host too.
        let names = if self.hosts.is_empty() {
            &self.addresses
        } else {
            &self.hosts
        };
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err("names no host".to_owned());
        }
        if !self.addresses.is_empty() && self.addresses.len() != names.len() {
            return Err("has not as many hostaddrs as hosts".to_owned());
        }
        let ports = self.ports.iter().map(|port| match port.as_str() {
            "" => Ok(DEFAULT_PORT),
            port => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("has a port that is no number from 1 to 65535"),
        });
        let ports: Vec<u16> = match ports.collect::<Result<Vec<_>, _>>()?.as_slice() {
            [] => vec![DEFAULT_PORT; names.len()],
            [one] => vec![*one; names.len()],
            ports if ports.len() == names.len() => ports.to_vec(),
            _ => return Err("has not as many ports as hosts".to_owned()),
        };
        let mut hosts = Vec::with_capacity(names.len());
        for (index, (name, port)) in names.iter().zip(ports).enumerate() {
            let address = match self
                .addresses
                .get(index)
                .filter(|address| !address.is_empty())
            {
                Some(address) => Some(
                    address
                        .parse()
                        .map_err(|_| "has a hostaddr that is no IP address")?,
                ),
                None => None,
            };
            let kind = if name.starts_with('/') && address.is_none() {
                HostKind::Unix(PathBuf::from(name))
            } else if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err("has a space in a host's name".to_owned());
            } else {
                HostKind::Tcp {
                    name: name.clone(),
                    address,
                }
            };
            hosts.push(Host { kind, port });
        }
        Ok(hosts)
    }

    /// libpq's `sslmode` and `sslrootcert`, and the `ssl` of asyncpg and others, which `sslmode` goes before.
    fn tls(&self) -> Result<(Encryption, Check, Roots), String> {
        let root = self.get("sslrootcert");
        let system = root == Some("system");
        let mode = match (self.get("sslmode"), self.get("ssl")) {
            (Some(mode), _) => mode,
            (None, Some("true" | "1" | "on" | "yes" | "t")) => "require",
            (None, Some("false" | "0" | "off" | "no" | "f")) => "disable",
            (None, Some("no-verify")) => "require",
            (None, Some(mode)) => mode,
            (None, None) if system => "verify-full",
            (None, None) => "prefer",
        };
        let roots = match root {
            Some(path) if !system => Roots::File(PathBuf::from(path)),
            _ => Roots::Public,
        };
        // Given authorities are used in every mode; this is how libpq's `require` comes to verify.
        let check = if root.is_some() {
            Check::Chain
        } else {
            Check::Nothing
        };
        let (encryption, check) = match mode {
            "disable" => (Encryption::Off, Check::Nothing),
            "allow" | "prefer" => (Encryption::Preferred, check),
            "require" => (Encryption::Required, check),
            "verify-ca" => (Encryption::Required, Check::Chain),
            "verify-full" => (Encryption::Required, Check::ChainAndName),
            _ => {
                return Err("has an sslmode other than disable, allow, prefer, require, verify-ca and verify-full"
                    .to_owned());
            }
        };
        // Anybody can have a certificate from a public authority, for a name of their own.
        if system && check != Check::ChainAndName {
            return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
        }
        Ok((encryption, check, roots))
    }

    fn config(&self, user: &str, database: &str) -> Result<postgres::Config, String> {
        let mut config = postgres::Config::new();
        config.user(user).dbname(database);
        // As in libpq, an empty password is none.
        if let Some(password) = self
            .password
            .as_ref()
            .filter(|password| !password.is_empty())
        {
            config.password(password);
        }
        config.channel_binding(match self.get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(_) => {
                return Err(
                    "has a channel_binding other than disable, prefer and require".to_owned(),
                );
            }
        });
        config.target_session_attrs(match self.get("target_session_attrs") {
            None | Some("any") => TargetSessionAttrs::Any,
            Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
            Some(_) => {
                return Err("has a target_session_attrs other than any, read-write, read-only, primary and standby"
                    .to_owned());
            }
        });
        config.keepalives(self.number("keepalives")? != Some(0));
        config.keepalives_idle(
            self.seconds("keepalives_idle")?
                .unwrap_or(Duration::from_secs(30)),
        );
        config.keepalives_interval(
            self.seconds("keepalives_interval")?
                .unwrap_or(Duration::from_secs(10)),
        );
        config.keepalives_retries(
            self.number("keepalives_count")?
                .filter(|count| *count > 0)
                .unwrap_or(3),
        );
        match self.number("tcp_user_timeout")? {
            None => config.tcp_user_timeout(Duration::from_secs(10)),
            // The system's default.
            Some(0) => &mut config,
            Some(milliseconds) => {
                config.tcp_user_timeout(Duration::from_millis(milliseconds.into()))
            }
        };
        Ok(config)
    }
}
