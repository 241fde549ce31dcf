//! Takes a database address apart, in the forms people already have: libpq's URLs and `key=value` strings, and
//! SQLAlchemy's URLs with a driver in them.
//!
//! It is more lenient than libpq in one point, because SQLAlchemy is: a password may hold `@`, `/` or `?` as they are.

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

/// An address taken apart, before any of it is judged.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) user: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) database: Option<String>,
    /// Names, socket directories; `host` of libpq.
    pub(super) hosts: Vec<String>,
    /// `hostaddr` of libpq.
    pub(super) addresses: Vec<String>,
    /// Empty for the default port.
    pub(super) ports: Vec<String>,
    /// Names that are known, with values that are not yet judged; the last of a name counts.
    pub(super) parameters: Vec<(String, String)>,
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
    /// Errors: as of [`super::Target::parse`].
    pub(super) fn read(text: &str) -> Result<Raw, String> {
        let text = text.trim();
        // As it arrives from an env file that is read without a shell.
        let text = ['"', '\'']
            .into_iter()
            .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
            .unwrap_or(text)
            .trim();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let mut raw = Raw::default();
        match text.split_once("://") {
            Some((scheme, rest)) if is_ours(scheme) => read_url(rest, &mut raw)?,
            _ if text
                .split_once('=')
                .is_some_and(|(key, _)| key.trim_end().chars().all(is_word)) =>
            {
                read_pairs(text, &mut raw)?;
            }
            _ => {
                return Err(
                    "is no PostgreSQL address: it begins with neither postgresql:// nor postgres://".to_owned(),
                );
            }
        }
        Ok(raw)
    }

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
            // What `tokio-postgres` calls it.
            "keepalives_retries" => self.parameters.push(("keepalives_count".to_owned(), value)),
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
}
