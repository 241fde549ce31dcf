//! Addresses to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `addr:port` or `[v6]:port`
    Tcp(SocketAddr),
    /// `unix:path`
    Unix(PathBuf),
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl Address {
    /// The address as clients write it. `tls`: whether TCP addresses use TLS.
    pub fn url(&self, tls: bool) -> String {
        match self {
            Address::Tcp(address) if tls => format!("https://{address}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address, and whether tiny_http itself listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: Address,
    /// `direct:`: tiny_http itself listens, for measurements and for a fully trusted proxy.
    pub direct: bool,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            if self.direct { "direct:" } else { "" },
            self.address
        )
    }
}

/// Reads a comma-separated list of at least one address.
///
/// # Errors
/// Says what an address must be, as the end of a sentence.
pub fn parse_list(list: &str) -> Result<Vec<Listen>, &'static str> {
    let listens: Vec<Listen> = list
        .split(',')
        .map(|item| {
            let item = item.trim();
            let (item, direct) = item.strip_prefix("direct:").map_or((item, false), |item| (item, true));
            parse(item).map(|address| Listen { address, direct })
        })
        .collect::<Option<_>>()
        .ok_or("must be a list of addr:port, [v6]:port or unix:path, comma-separated, each also with direct: before it")?;
    if listens
        .iter()
        .any(|listen| listen.direct && !listen.address.is_local())
    {
        return Err(
            "must name loopback or a Unix socket after direct:, which is for clients that are trusted",
        );
    }
    Ok(listens)
}

fn parse(address: &str) -> Option<Address> {
    if let Some(path) = address.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Address::Unix(PathBuf::from(path)));
    }
    if let Some(port) = address.strip_prefix("localhost:") {
        return Some(Address::Tcp(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            port.parse().ok()?,
        )));
    }
    address.parse().ok().map(Address::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms() {
        let list = parse_list(
            "127.0.0.1:8000, [::]:80,unix:/run/todo.sock,localhost:1,direct:[::1]:2,direct:unix:x",
        )
        .unwrap();
        assert_eq!(
            list.iter().map(Listen::to_string).collect::<Vec<_>>(),
            [
                "http://127.0.0.1:8000",
                "http://[::]:80",
                "unix:/run/todo.sock",
                "http://127.0.0.1:1",
                "direct:http://[::1]:2",
                "direct:unix:x"
            ]
        );
        let local: Vec<bool> = list
            .iter()
            .map(|listen| listen.address.is_local())
            .collect();
        assert_eq!(local, [true, false, true, true, true, true]);
    }

    #[test]
    fn other_forms_are_refused() {
        for list in [
            "",
            "8000",
            ":8000",
            "unix:",
            "example.org:80",
            "127.0.0.1",
            "127.0.0.1:99999",
            "127.0.0.1:1,,127.0.0.1:2",
            "direct:0.0.0.0:80",
            "direct:192.0.2.1:80",
            "direct:direct:127.0.0.1:1",
        ] {
            assert!(parse_list(list).is_err(), "{list}");
        }
    }
}
