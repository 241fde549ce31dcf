//! The address of a client that sends its requests through proxies.

use std::net::IpAddr;

use crate::domain::fair_budget::Holder;
use crate::domain::networks::{ProxyHeader, TrustedProxies};
use crate::http::request::{ClientAddress, Headers};

impl TrustedProxies {
    /// Whether this peer is a trusted proxy.
    pub fn trusts(&self, peer: ClientAddress) -> bool {
        match peer {
            ClientAddress::Ip(address) => {
                let mut networks = self.networks.iter();
                networks.any(|network| network.contains(&address))
            }
            ClientAddress::Local => self.unix,
        }
    }

    /// The holder of budgets for a client that is not authenticated. `None` for a trusted proxy's own address, which stands for many
    /// clients.
    pub fn holder(&self, client: ClientAddress) -> Option<Holder> {
        (!self.trusts(client)).then(|| Holder::of(&client.network()))
    }

    /// Whether a trusted peer says that its client used TLS: in the last value of `X-Forwarded-Proto`, or in the last element of
    /// `Forwarded` if that is the configured header. `last` returns the last field of a name.
    pub fn says_https<'h>(
        &self,
        peer: ClientAddress,
        last: impl Fn(&str) -> Option<&'h [u8]>,
    ) -> bool {
        if !self.trusts(peer) {
            return false;
        }
        let last = |name: &str| last(name).map(String::from_utf8_lossy).unwrap_or_default();
        match self.header {
            ProxyHeader::XForwardedFor => last("X-Forwarded-Proto")
                .rsplit(',')
                .next()
                .is_some_and(is_https),
            ProxyHeader::Forwarded => rsplit_unquoted(&last("Forwarded"), ',')
                .first()
                .and_then(|element| forwarded(element, "proto"))
                .is_some_and(is_https),
        }
    }

    /// The client of a request: the peer or, if the peer is trusted, the right-most address in the configured header that is not a
    /// trusted proxy's. The client itself may have written everything to the left of it.
    pub fn client(&self, peer: ClientAddress, headers: &Headers) -> ClientAddress {
        if !self.trusts(peer) {
            return peer;
        }
        let lines: Vec<_> = headers
            .raw(match self.header {
                ProxyHeader::XForwardedFor => "X-Forwarded-For",
                ProxyHeader::Forwarded => "Forwarded",
            })
            // Bytes that are not UTF-8 must not hide what the proxy added after them.
            .map(String::from_utf8_lossy)
            .collect();
        let elements = lines.iter().rev().flat_map(|line| match self.header {
            ProxyHeader::XForwardedFor => line.rsplit(',').map(node).collect(),
            ProxyHeader::Forwarded => rsplit_unquoted(line, ',')
                .into_iter()
                .map(|element| forwarded(element, "for").and_then(node))
                .collect::<Vec<_>>(),
        });
        let mut client = peer;
        for address in elements {
            // The writer of an element without an address did not know it. Elements to the left are not trusted.
            let Some(address) = address else {
                break;
            };
            client = ClientAddress::Ip(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

fn is_https(scheme: &str) -> bool {
    scheme
        .trim()
        .trim_matches('"')
        .eq_ignore_ascii_case("https")
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

/// Splits at a separator outside quoted strings (RFC 9110, section 5.6.4); the right-most part comes first.
///
/// It reads from the right, because a proxy appends there: a quote that the client opened and did not close then ends before the
/// proxy's element, and cannot contain it.
fn rsplit_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for (at, c) in text.char_indices().rev() {
        let before = text.get(..at).unwrap_or_default();
        let escaped = || (before.len() - before.trim_end_matches('\\').len()) % 2 == 1;
        if c == '"' && !(quoted && escaped()) {
            quoted = !quoted;
        } else if c == separator && !quoted {
            parts.extend(text.get(at + c.len_utf8()..end));
            end = at;
        }
    }
    parts.extend(text.get(..end));
    parts
}

/// A parameter of one element of `Forwarded`.
fn forwarded<'e>(element: &'e str, parameter: &str) -> Option<&'e str> {
    rsplit_unquoted(element, ';').into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(parameter).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The setting for requests whose first field is this one.
    fn header_of(fields: &[(&str, &str)]) -> ProxyHeader {
        match fields.first() {
            Some(("Forwarded", _)) => ProxyHeader::Forwarded,
            _ => ProxyHeader::XForwardedFor,
        }
    }

    fn client(trusted: &str, peer: &str, fields: &[(&str, &str)]) -> String {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name, value);
        }
        let peer = peer.parse().map_or(ClientAddress::Local, ClientAddress::Ip);
        proxies(trusted, fields).client(peer, &headers).to_string()
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
            (
                &[
                    ("Forwarded", "for=192.0.2.1"),
                    ("X-Forwarded-For", "1.1.1.1"),
                ],
                "192.0.2.1",
            ),
            // A quote that the client does not close.
            (
                &[("Forwarded", "for=1.1.1.1;host=\"x, for=192.0.2.1")],
                "192.0.2.1",
            ),
            (
                &[("Forwarded", "for=\"1.1.1.1, for=\"192.0.2.1:80\"")],
                "192.0.2.1",
            ),
            (
                &[("Forwarded", "for=1.1.1.1;host=\"\\, for=\"[2001:db8::1]\"")],
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

    fn proxies(trusted: &str, fields: &[(&str, &str)]) -> TrustedProxies {
        TrustedProxies {
            header: header_of(fields),
            ..TrustedProxies::parse(trusted).unwrap()
        }
    }

    #[test]
    fn the_header_of_an_untrusted_peer_is_ignored() {
        let spoofed = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1")];
        assert_eq!(client("10.0.0.0/8", "192.0.2.9", &spoofed), "192.0.2.9");
        assert_eq!(client("none", "127.0.0.1", &spoofed), "127.0.0.1");
        assert_eq!(client("none", "unix", &spoofed), "local");
        assert_eq!(client("10.0.0.1", "unix", &spoofed), "1.1.1.1");
    }

    #[test]
    fn a_trusted_proxy_says_whether_the_client_used_tls() {
        let says = |trusted: &str, fields: &[(&str, &str)]| {
            let mut headers = Headers::default();
            for (name, value) in fields {
                headers.push(name, value);
            }
            let peer = ClientAddress::Ip("10.0.0.1".parse().unwrap());
            proxies(trusted, fields).says_https(peer, |name| headers.raw(name).last())
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
            (
                &[
                    ("X-Forwarded-For", "192.0.2.1"),
                    ("Forwarded", "proto=https"),
                ],
                false,
            ),
            (
                &[("Forwarded", "proto=http"), ("X-Forwarded-Proto", "https")],
                false,
            ),
            (
                &[("Forwarded", "host=\"x, for=192.0.2.1;proto=https")],
                true,
            ),
            (&[], false),
        ] {
            assert_eq!(says("10.0.0.0/8", fields), https, "{fields:?}");
            assert!(!says("none", fields), "{fields:?}");
        }
    }
}
