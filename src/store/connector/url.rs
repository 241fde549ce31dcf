//! Reads a database address.
//!
//! [`Config`] reads the URL. It knows three of libpq's `sslmode`s, refuses parameters of other programs, and has other names or
//! units for some. Those parameters are read here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postgres::config::{Config, Host as UrlHost};

use super::target::{DEFAULT_PORT, Host, HostKind, Target};
use super::tls::{Check, Encryption, client_config};

/// Parameters for other programs. Without them a connection is not less secure.
const IGNORED: &str = "async_fallback client_encoding command_timeout connection_limit fallback_application_name gssdelegation \
     gssencmode gsslib krbsrvname pgbouncer pool_timeout prepared_statement_cache_size prepared_statement_name_func requiressl \
     schema socket_timeout ssl_max_protocol_version sslcertmode sslcompression sslsni statement_cache_size uselibpqcompat";

/// Parameters that are read here, because [`Config`] does not read them as libpq does.
const OURS: &str =
    "sslmode ssl sslrootcert ssl_min_protocol_version sslnegotiation tcp_user_timeout";

/// Our defaults. Those of the operating system notice a dead connection after hours.
const KEEPALIVE: &str = "keepalives_idle=30&keepalives_interval=10&keepalives_retries=3&";
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

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
            Err(
                "has an @ or ? that is not escaped: write %40 or %3F in a user, a password or a parameter",
            )?;
        }
        let (place, query) = place.split_once('?').unwrap_or((place, ""));
        let (servers, database) = place.split_once('/').unwrap_or((place, ""));
        let parameters = Parameters::read(query)?;
        // Every attempt to connect has a host of its own, so the hosts are read apart from the rest.
        let hosts = hosts(&read(&format!("{servers}?{}", parameters.of_hosts))?)?;
        let credentials = match credentials.split_once(':') {
            // As in libpq, an empty password is none.
            Some((user, "")) => user,
            _ => credentials,
        };
        let at = if rest.contains('@') { "@" } else { "" };
        let others = &parameters.others;
        let mut config = read(&format!("{credentials}{at}/{database}?{KEEPALIVE}{others}"))?;
        config.tcp_user_timeout(parameters.tcp_user_timeout()?);
        let (encryption, check, roots) = parameters.tls()?;
        let direct = match parameters.ours("sslnegotiation") {
            None | Some("postgres") => false,
            Some("direct") if encryption == Encryption::Required => true,
            Some("direct") => {
                Err("has sslnegotiation=direct, which needs sslmode=require or stricter")?
            }
            Some(_) => Err("has an sslnegotiation other than postgres and direct")?,
        };
        let only_tls13 = match parameters.ours("ssl_min_protocol_version") {
            None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
            Some("TLSv1.3") => true,
            Some(_) => Err("has an ssl_min_protocol_version other than TLSv1 to TLSv1.3")?,
        };
        Ok(Target {
            hosts,
            config,
            encryption,
            checks_nothing: check == Check::Nothing,
            direct,
            tls: client_config(check, roots, only_tls13, direct)?,
            refuses_settings: Arc::default(),
        })
    }
}

/// Cuts off the scheme, and quotes around the address, which an env file that no shell reads keeps.
fn without_scheme(url: &str) -> Result<&str, &'static str> {
    let url = url.trim().trim_matches(['"', '\'']).trim();
    if url.is_empty() {
        return Err("is empty");
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let scheme = scheme.split('+').next().unwrap_or_default();
    if !["postgresql", "postgres"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(
            "is no PostgreSQL address: it begins with neither postgresql:// nor postgres://",
        );
    }
    Ok(rest)
}

const NOT_UTF8: &str = "is not UTF-8 once its %-escapes are decoded";

/// Reads an address without its scheme. The errors of [`Config`] name parameters and never quote values.
fn read(address: &str) -> Result<Config, String> {
    let config: Result<Config, _> = format!("postgresql://{address}").parse();
    config.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if source.is::<std::str::Utf8Error>() => NOT_UTF8.to_owned(),
        Some(source) => format!("cannot be used: {source}"),
        None => "cannot be used".to_owned(),
    })
}

/// The parameters of an address.
#[derive(Default)]
struct Parameters {
    ours: HashMap<String, String>,
    /// As [`Config`] reads them, each with a `&` after it.
    of_hosts: String,
    others: String,
}

impl Parameters {
    fn read(query: &str) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter
                .split_once('=')
                .ok_or("has a parameter without a value")?;
            let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| NOT_UTF8);
            let (key, decoded) = (&*decode(key)?, decode(value)?);
            let named_in = |list: &str| list.split_whitespace().any(|name| name == key);
            let (key, value) = match (key, value) {
                // As in libpq, empty is not given.
                (_, "") => continue,
                ("gssencmode" | "sslcertmode", "require") => {
                    Err(format!("asks for {key}=require, which is not supported"))?
                }
                _ if named_in(IGNORED) => continue,
                _ if named_in(OURS) => {
                    parameters.ours.insert(key.to_owned(), decoded.into_owned());
                    continue;
                }
                ("keepalives_count", _) => ("keepalives_retries", value),
                ("target_session_attrs", "primary") => (key, "read-write"),
                ("target_session_attrs", "standby") => (key, "read-only"),
                _ => (key, value),
            };
            let list = match key {
                "host" | "hostaddr" | "port" => &mut parameters.of_hosts,
                _ => &mut parameters.others,
            };
            list.push_str(&format!("{key}={value}&"));
        }
        Ok(parameters)
    }

    fn ours(&self, name: &str) -> Option<&str> {
        self.ours.get(name).map(String::as_str)
    }

    /// libpq's `sslmode` and `sslrootcert`, and the `ssl` of asyncpg and others, which counts where there is no `sslmode`. The file
    /// holds the authorities to trust; without it those compiled in are trusted.
    fn tls(&self) -> Result<(Encryption, Check, Option<&Path>), &'static str> {
        let root = self.ours("sslrootcert");
        let system = root == Some("system");
        let mode = match (self.ours("sslmode"), self.ours("ssl")) {
            (Some(mode), _) => mode,
            (None, Some("true" | "1" | "on" | "yes" | "t" | "no-verify")) => "require",
            (None, Some("false" | "0" | "off" | "no" | "f")) => "disable",
            (None, Some(mode)) => mode,
            (None, None) if system => "verify-full",
            (None, None) => "prefer",
        };
        // As in libpq, `sslrootcert` makes every mode verify the chain.
        let check = match root {
            Some(_) => Check::Chain,
            None => Check::Nothing,
        };
        let (encryption, check) = match mode {
            "disable" => (Encryption::Off, Check::Nothing),
            "allow" | "prefer" => (Encryption::Preferred, check),
            "require" => (Encryption::Required, check),
            "verify-ca" => (Encryption::Required, Check::Chain),
            "verify-full" => (Encryption::Required, Check::ChainAndName),
            _ => Err(
                "has an sslmode other than disable, allow, prefer, require, verify-ca and verify-full",
            )?,
        };
        // Anybody can get a certificate from a public authority, for a name of their own.
        if system && check != Check::ChainAndName {
            return Err("has sslrootcert=system, which needs sslmode=verify-full");
        }
        Ok((encryption, check, root.filter(|_| !system).map(Path::new)))
    }

    /// In milliseconds, as in libpq; 0 or less is the default of the operating system.
    fn tcp_user_timeout(&self) -> Result<Duration, &'static str> {
        let Some(text) = self.ours("tcp_user_timeout") else {
            return Ok(TCP_USER_TIMEOUT);
        };
        let milliseconds: i32 = text
            .parse()
            .map_err(|_| "has a tcp_user_timeout that is no whole number")?;
        Ok(Duration::from_millis(
            u64::try_from(milliseconds).unwrap_or(0),
        ))
    }
}

/// The hosts of an address. `hostaddr` alone is a host too.
fn hosts(config: &Config) -> Result<Vec<Host>, &'static str> {
    let (names, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let count = match names.len() {
        0 => addresses.len(),
        count => count,
    };
    if count == 0 {
        return Err("names no host");
    }
    if !addresses.is_empty() && addresses.len() != count {
        return Err("does not have as many hostaddrs as hosts");
    }
    let ports = match config.get_ports() {
        [] => vec![DEFAULT_PORT; count],
        [one] => vec![*one; count],
        ports if ports.len() == count => ports.to_vec(),
        _ => return Err("does not have as many ports as hosts"),
    };
    if ports.contains(&0) {
        return Err("has port 0");
    }
    let hosts = ports.into_iter().enumerate().map(|(index, port)| {
        let address = addresses.get(index).copied();
        let kind = host_kind(names.get(index), address)?;
        Ok(Host { kind, port })
    });
    hosts.collect()
}

fn host_kind(host: Option<&UrlHost>, address: Option<IpAddr>) -> Result<HostKind, &'static str> {
    let name = match host {
        Some(UrlHost::Unix(directory)) => return Ok(HostKind::Unix(directory.clone())),
        Some(UrlHost::Tcp(name)) => name.clone(),
        None => address.map_or(String::new(), |address| address.to_string()),
    };
    if name.is_empty() {
        return Err("names no host");
    }
    let fits = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    // Also where a part of a password without escapes looks like a name.
    if !name.chars().all(fits) {
        return Err("has a host with a character that no name has");
    }
    Ok(HostKind::Tcp { name, address })
}
