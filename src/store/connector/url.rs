//! Reads a database address.
//!
//! [`postgres::Config`] reads the URL. It knows three of libpq's `sslmode`s, refuses parameters of other programs, and has other names or
//! units for some. Those parameters are read here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::config::{Config, Host as UrlHost};

use super::target::{DEFAULT_PORT, Host, HostKind, Target};
use super::tls::{Check, Encryption, Roots, client_config};

/// Parameters for other programs. Without them a connection is not less secure.
const IGNORED: &str = "async_fallback client_encoding command_timeout connection_limit fallback_application_name gssdelegation \
     gssencmode gsslib krbsrvname pgbouncer pool_timeout prepared_statement_cache_size prepared_statement_name_func requiressl \
     schema socket_timeout ssl_max_protocol_version sslcertmode sslcompression sslsni statement_cache_size uselibpqcompat";

/// Our defaults. Those of the operating system notice a dead connection after hours.
const KEEPALIVE: &str = "keepalives_idle=30&keepalives_interval=10&keepalives_retries=3";
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters that [`postgres::Config`] does not read as libpq does.
#[derive(Default)]
struct OurParameters {
    sslmode: Option<String>,
    ssl: Option<String>,
    sslrootcert: Option<String>,
    ssl_min_protocol_version: Option<String>,
    sslnegotiation: Option<String>,
    tcp_user_timeout: Option<String>,
}

impl Target {
    /// Reads an address: `postgresql://user:password@host:port/database?sslmode=…`, also with `postgres` or with a driver
    /// (`postgresql+asyncpg`) as its scheme.
    ///
    /// # Errors
    /// A predicate to be written after the setting's name ("names no host"). It never quotes user, password or the address; of
    /// parameters it quotes only names.
    pub fn parse(url: &str) -> Result<Target, String> {
        let rest = without_scheme(url)?;
        let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        // Without escapes it is not clear where the password ends, and the rest of it could get into the log.
        if credentials.contains(['@', '?']) {
            return Err(
                "has an @ or ? that is not escaped: write %40 or %3F in a user, a password or a parameter".to_owned(),
            );
        }
        let (place, query) = place.split_once('?').unwrap_or((place, ""));
        let (ours, query) = split_parameters(query)?;
        let separator = if rest.contains('@') { "@" } else { "" };
        let parsed: Config =
            format!("postgresql://{credentials}{separator}{place}?{KEEPALIVE}{query}")
                .parse()
                .map_err(|error| reason(&error))?;
        let (encryption, check, roots) = ours.tls()?;
        let direct = match ours.sslnegotiation.as_deref() {
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
        let only_tls13 = match ours.ssl_min_protocol_version.as_deref() {
            None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
            Some("TLSv1.3") => true,
            Some(_) => {
                return Err(
                    "has an ssl_min_protocol_version other than TLSv1 to TLSv1.3".to_owned(),
                );
            }
        };
        Ok(Target {
            hosts: hosts(&parsed)?,
            config: without_hosts(&parsed, ours.tcp_user_timeout()?),
            encryption,
            checks_nothing: check == Check::Nothing,
            direct,
            tls: client_config(check, &roots, only_tls13, direct)?,
            refuses_settings: Arc::default(),
        })
    }
}

/// Cuts off the scheme, and quotes around the address, which an env file that no shell reads keeps.
fn without_scheme(url: &str) -> Result<&str, String> {
    let url = url.trim().trim_matches(['"', '\'']).trim();
    if url.is_empty() {
        return Err("is empty".to_owned());
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let scheme = scheme.split('+').next().unwrap_or_default();
    if !["postgresql", "postgres"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(
            "is no PostgreSQL address: it begins with neither postgresql:// nor postgres://"
                .to_owned(),
        );
    }
    Ok(rest)
}

/// Takes our parameters out of a query. The others are returned as [`postgres::Config`] reads them, each after a `&`.
fn split_parameters(query: &str) -> Result<(OurParameters, String), String> {
    let mut ours = OurParameters::default();
    let mut others = String::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err("has a parameter without a value".to_owned());
        };
        let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| NOT_UTF8);
        let (key, decoded) = (&*decode(key)?, decode(value)?);
        let ours = match key {
            // As in libpq, empty is not given.
            _ if value.is_empty() => continue,
            "sslmode" => &mut ours.sslmode,
            "ssl" => &mut ours.ssl,
            "sslrootcert" => &mut ours.sslrootcert,
            "ssl_min_protocol_version" => &mut ours.ssl_min_protocol_version,
            "sslnegotiation" => &mut ours.sslnegotiation,
            "tcp_user_timeout" => &mut ours.tcp_user_timeout,
            "gssencmode" | "sslcertmode" if value == "require" => {
                return Err(format!("asks for {key}=require, which is not supported"));
            }
            key if IGNORED.split_whitespace().any(|ignored| ignored == key) => continue,
            key => {
                let (key, value) = match (key, value) {
                    ("keepalives_count", _) => ("keepalives_retries", value),
                    ("target_session_attrs", "primary") => (key, "read-write"),
                    ("target_session_attrs", "standby") => (key, "read-only"),
                    _ => (key, value),
                };
                others.push_str(&format!("&{key}={value}"));
                continue;
            }
        };
        *ours = Some(decoded.into_owned());
    }
    Ok((ours, others))
}

const NOT_UTF8: &str = "is not UTF-8 once its %-escapes are decoded";

/// Why [`postgres::Config`] does not read an address. Its errors name parameters and never quote values.
fn reason(error: &postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) if source.is::<std::str::Utf8Error>() => NOT_UTF8.to_owned(),
        Some(source) => format!("cannot be used: {source}"),
        None => "cannot be used".to_owned(),
    }
}

impl OurParameters {
    /// libpq's `sslmode` and `sslrootcert`, and the `ssl` of asyncpg and others, which counts where there is no `sslmode`.
    fn tls(&self) -> Result<(Encryption, Check, Roots), String> {
        let root = self.sslrootcert.as_deref();
        let system = root == Some("system");
        let mode = match (self.sslmode.as_deref(), self.ssl.as_deref()) {
            (Some(mode), _) => mode,
            (None, Some("true" | "1" | "on" | "yes" | "t" | "no-verify")) => "require",
            (None, Some("false" | "0" | "off" | "no" | "f")) => "disable",
            (None, Some(mode)) => mode,
            (None, None) if system => "verify-full",
            (None, None) => "prefer",
        };
        let roots = match root {
            Some(path) if !system => Roots::File(PathBuf::from(path)),
            _ => Roots::Public,
        };
        // As in libpq, `sslrootcert` makes every mode verify the chain.
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
        // Anybody can get a certificate from a public authority, for a name of their own.
        if system && check != Check::ChainAndName {
            return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
        }
        Ok((encryption, check, roots))
    }

    /// In milliseconds, as in libpq; 0 or less is the default of the operating system.
    fn tcp_user_timeout(&self) -> Result<Option<Duration>, String> {
        let Some(text) = &self.tcp_user_timeout else {
            return Ok(Some(TCP_USER_TIMEOUT));
        };
        let milliseconds: i32 = text
            .parse()
            .map_err(|_| "has a tcp_user_timeout that is no whole number")?;
        let milliseconds = u64::try_from(milliseconds).ok().filter(|limit| *limit > 0);
        Ok(milliseconds.map(Duration::from_millis))
    }
}

/// The hosts of an address. `hostaddr` alone is a host too.
fn hosts(config: &Config) -> Result<Vec<Host>, String> {
    let names = config.get_hosts();
    let addresses = config.get_hostaddrs();
    let count = if names.is_empty() {
        addresses.len()
    } else {
        names.len()
    };
    if count == 0 {
        return Err("names no host".to_owned());
    }
    if !addresses.is_empty() && addresses.len() != count {
        return Err("has not as many hostaddrs as hosts".to_owned());
    }
    let ports = match config.get_ports() {
        [] => vec![DEFAULT_PORT; count],
        [one] => vec![*one; count],
        ports if ports.len() == count => ports.to_vec(),
        _ => return Err("has not as many ports as hosts".to_owned()),
    };
    if ports.contains(&0) {
        return Err("has port 0".to_owned());
    }
    let hosts = ports.into_iter().enumerate().map(|(index, port)| {
        let address = addresses.get(index).copied();
        let kind = host_kind(names.get(index), address)?;
        Ok(Host { kind, port })
    });
    hosts.collect()
}

fn host_kind(host: Option<&UrlHost>, address: Option<IpAddr>) -> Result<HostKind, String> {
    let name = match host {
        Some(UrlHost::Unix(directory)) => return Ok(HostKind::Unix(directory.clone())),
        Some(UrlHost::Tcp(name)) => name.clone(),
        None => address
            .map(|address| address.to_string())
            .unwrap_or_default(),
    };
    if name.is_empty() {
        return Err("names no host".to_owned());
    }
    // Also where a part of a password without escapes looks like a name.
    if !name
        .chars()
        .all(|c| c.is_alphanumeric() || "-._:%".contains(c))
    {
        return Err("has a host with a character that no name has".to_owned());
    }
    Ok(HostKind::Tcp { name, address })
}

/// A copy without the hosts, because every attempt to connect has its own.
fn without_hosts(parsed: &Config, tcp_user_timeout: Option<Duration>) -> Config {
    let mut config = Config::new();
    if let Some(user) = parsed.get_user() {
        config.user(user);
    }
    // As in libpq, an empty password is none.
    if let Some(password) = parsed
        .get_password()
        .filter(|password| !password.is_empty())
    {
        config.password(password);
    }
    if let Some(database) = parsed.get_dbname() {
        config.dbname(database);
    }
    if let Some(options) = parsed.get_options() {
        config.options(options);
    }
    if let Some(name) = parsed.get_application_name() {
        config.application_name(name);
    }
    if let Some(limit) = parsed.get_connect_timeout() {
        config.connect_timeout(*limit);
    }
    if let Some(interval) = parsed.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = parsed.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    if let Some(limit) = tcp_user_timeout {
        config.tcp_user_timeout(limit);
    }
    config
        .keepalives(parsed.get_keepalives())
        .keepalives_idle(parsed.get_keepalives_idle())
        .channel_binding(parsed.get_channel_binding())
        .target_session_attrs(parsed.get_target_session_attrs())
        .load_balance_hosts(parsed.get_load_balance_hosts());
    config
}
