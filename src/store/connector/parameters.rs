//! Judges the parts of a database address and makes a [`Target`] of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{ChannelBinding, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::target::{DEFAULT_PORT, Host, HostKind, Target};
use super::tls::{Check, Encryption, Roots, client_config};
use super::url::Raw;

impl Raw {
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

    /// Errors: as of [`Target::parse`].
    pub(super) fn finish(self) -> Result<Target, String> {
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
