//! Who a request comes from, when proxies stand between.

use std::net::IpAddr;

use crate::domain::fair_budget::Holder;
use crate::domain::networks::TrustedProxies;
use crate::http::request::{Client, Headers};

impl TrustedProxies {
    /// Whether this peer is believed.
    pub fn trusts(&self, peer: Client) -> bool {
        match peer {
            Client::Address(address) => self
                .networks
                .iter()
                .any(|network| network.contains(&address)),
            Client::Local => self.unix,
        }
    }

    /// The holder of budgets for a client that is not authenticated. A trusted proxy's own address is none: it stands for many.
    pub fn holder(&self, client: Client) -> Option<Holder> {
        (!self.trusts(client)).then(|| Holder::of(&client.network()))
    }

    /// Whether a trusted peer says that its own client came over TLS: in the last value of `X-Forwarded-Proto`, or else in the
    /// last element of `Forwarded`. What stands left of it anybody may have written. `last` gives the last field of a name.
    pub fn says_https<'h>(&self, peer: Client, last: impl Fn(&str) -> Option<&'h [u8]>) -> bool {
        if !self.trusts(peer) {
            return false;
        }
        let last = |name: &str| last(name).map(String::from_utf8_lossy);
        let is_https = |scheme: &str| {
            scheme
                .trim()
                .trim_matches('"')
                .eq_ignore_ascii_case("https")
        };
        match (last("X-Forwarded-Proto"), last("Forwarded")) {
            (Some(schemes), _) => schemes.rsplit(',').next().is_some_and(is_https),
            (None, Some(elements)) => split_unquoted(&elements, ',')
                .last()
                .and_then(|element| forwarded(element, "proto"))
                .is_some_and(is_https),
            (None, None) => false,
        }
    }

    /// Where a request came from: the peer, or, when the peer is trusted, the right-most address in `X-Forwarded-For` or
    /// else `Forwarded` (RFC 7239) that is not a trusted proxy's. What stands left of it anybody may have written.
    pub fn client(&self, peer: Client, headers: &Headers) -> Client {
        if !self.trusts(peer) {
            return peer;
        }
        // Byte for byte: what a stranger wrote in front must not hide what the proxy added behind it.
        let lines = |name: &str| -> Vec<String> {
            headers
                .raw(name)
                .map(|value| String::from_utf8_lossy(value).into_owned())
                .collect()
        };
        let (added, standard) = (lines("X-Forwarded-For"), lines("Forwarded"));
        let named: Vec<Option<IpAddr>> = if added.is_empty() {
            standard
                .iter()
                .flat_map(|line| split_unquoted(line, ','))
                .map(|element| forwarded(element, "for").and_then(node))
                .collect()
        } else {
            added
                .iter()
                .flat_map(|line| line.split(','))
                .map(node)
                .collect()
        };
        let mut client = peer;
        for address in named.into_iter().rev() {
            // An entry that is no address says that its writer did not know; what is left of it counts for nothing.
            let Some(address) = address else {
                break;
            };
            client = Client::Address(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text
            .split_once(':')
            .filter(|(_, port)| !port.contains(':'))
            .map_or(text, |(address, _)| address),
    };
    address
        .parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// Splits at a separator, but not inside quotes (RFC 9110, section 5.6.4).
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let splits = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        splits
    })
    .collect()
}

/// A parameter of one element of `Forwarded`.
fn forwarded<'e>(element: &'e str, parameter: &str) -> Option<&'e str> {
    split_unquoted(element, ';').into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(parameter).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, fields: &[(&str, &str)]) -> String {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name, value);
        }
        let peer = peer.parse().map_or(Client::Local, Client::Address);
        TrustedProxies::parse(trusted)
            .unwrap()
            .client(peer, &headers)
            .to_string()
    }

    #[test]
    fn the_right_most_untrusted_address_counts() {
        let (proxy, net) = ("10.0.0.1", "10.0.0.0/8");
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&[("X-Forwarded-For", "192.0.2.1")][..], "192.0.2.1"),
            (
                &[("X-Forwarded-For", "1.1.1.1, 192.0.2.1, 10.0.0.2")],
                "192.0.2.1",
            ),
            (
                &[
                    ("X-Forwarded-For", "1.1.1.1"),
                    ("X-Forwarded-For", "192.0.2.1"),
                ],
                "192.0.2.1",
            ),
            (
                &[("X-Forwarded-For", "1.1.1.1, unknown, 10.0.0.2")],
                "10.0.0.2",
            ),
            (&[("X-Forwarded-For", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[("X-Forwarded-For", "[2001:db8::1]:443")], "2001:db8::1"),
            (&[("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
            (&[("X-Forwarded-For", "192.0.2.1:1234")], "192.0.2.1"),
            (&[("X-Forwarded-For", "::ffff:192.0.2.1")], "192.0.2.1"),
            (
                &[
                    ("X-Forwarded-For", "192.0.2.1"),
                    ("Forwarded", "for=1.1.1.1"),
                ],
                "192.0.2.1",
            ),
            (
                &[(
                    "Forwarded",
                    "for=1.1.1.1, For=\"[2001:db8::1]:1\";proto=https",
                )],
                "2001:db8::1",
            ),
            (&[("Forwarded", "for=_hidden")], "10.0.0.1"),
            (&[("Forwarded", "proto=https")], "10.0.0.1"),
            (
                &[("Forwarded", "for=192.0.2.1;host=\"a, b; for=1.1.1.1\"")],
                "192.0.2.1",
            ),
            (
                &[("Forwarded", "host=\"\\\", for=1.1.1.1\";for=192.0.2.1")],
                "192.0.2.1",
            ),
        ] {
            assert_eq!(client(net, proxy, fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_strangers_word_counts_for_nothing() {
        let spoofed = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1")];
        assert_eq!(client("10.0.0.0/8", "192.0.2.9", &spoofed), "192.0.2.9");
        assert_eq!(client("none", "127.0.0.1", &spoofed), "127.0.0.1");
        assert_eq!(client("none", "unix", &spoofed), "local");
        assert_eq!(client("10.0.0.1", "unix", &spoofed), "1.1.1.1");
    }

    #[test]
    fn a_trusted_proxy_says_whether_tls_was_spoken() {
        let says = |trusted: &str, fields: &[(&str, &str)]| {
            let mut headers = Headers::default();
            for (name, value) in fields {
                headers.push(name, value);
            }
            let peer = Client::Address("10.0.0.1".parse().unwrap());
            TrustedProxies::parse(trusted)
                .unwrap()
                .says_https(peer, |name| headers.raw(name).last())
        };
        for (fields, https) in [
            (&[("X-Forwarded-Proto", "https")][..], true),
            (&[("X-Forwarded-Proto", "HTTPS")], true),
            (&[("X-Forwarded-Proto", "http, https")], true),
            (&[("X-Forwarded-Proto", "https, http")], false),
            (
                &[
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Proto", "http"),
                ],
                false,
            ),
            (&[("Forwarded", "for=192.0.2.1;Proto=\"https\"")], true),
            (&[("Forwarded", "proto=https, for=192.0.2.1")], false),
            (
                &[("X-Forwarded-Proto", "http"), ("Forwarded", "proto=https")],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(says("10.0.0.0/8", fields), https, "{fields:?}");
            assert!(!says("none", fields), "{fields:?}");
        }
    }
}
