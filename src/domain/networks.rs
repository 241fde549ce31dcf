//! Lists of networks, and the proxies that are trusted.

use std::net::IpAddr;

use ipnet::IpNet;

/// The proxies that may name the client, and the header in which they do.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// Whether peers on a Unix socket are trusted.
    pub unix: bool,
    /// The header in which they name the client.
    pub header: ProxyHeader,
}

/// The header in which trusted proxies name the client. No other header is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), with `proto` for the scheme.
    Forwarded,
}

impl ProxyHeader {
    /// Reads the header's name, in any case.
    ///
    /// # Errors
    /// Says what the name must be, as the end of a sentence.
    pub fn parse(name: &str) -> Result<ProxyHeader, &'static str> {
        match name.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(ProxyHeader::XForwardedFor),
            "forwarded" => Ok(ProxyHeader::Forwarded),
            _ => Err("must be x-forwarded-for or forwarded"),
        }
    }
}

impl TrustedProxies {
    /// Reads a comma-separated list of networks and addresses; `none` trusts no peer. Any other list trusts Unix sockets too.
    ///
    /// # Errors
    /// Says what the list must be, as the end of a sentence.
    pub fn parse(list: &str) -> Result<TrustedProxies, &'static str> {
        Ok(TrustedProxies {
            networks: networks(list)?,
            unix: list != "none",
            header: ProxyHeader::default(),
        })
    }
}

/// Reads a comma-separated list of networks and addresses, or `none`.
///
/// # Errors
/// Says what the list must be, as the end of a sentence.
pub fn networks(list: &str) -> Result<Vec<IpNet>, &'static str> {
    if list == "none" {
        return Ok(Vec::new());
    }
    let network = |text: &str| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(address)
    };
    list.split(',')
        .map(|text| network(text.trim()))
        .collect::<Option<_>>()
        .ok_or(
            "must be none, or a list of addresses and networks such as 10.0.0.0/8, comma-separated",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_a_network_is_refused() {
        for list in ["", "10.0.0.0/33", "example.org", "10.0.0.1,,::1", "any"] {
            assert!(TrustedProxies::parse(list).is_err(), "{list}");
        }
    }
}
