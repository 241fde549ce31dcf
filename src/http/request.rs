//! A whole request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use uuid::Uuid;

use crate::audit::Trail;
use crate::domain::fair_budget::Holder;

/// A request method (RFC 9110, section 9; PATCH: RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// Any other; no route has it.
    Other,
}

const METHODS: [(Method, &str); 7] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Patch, "PATCH"),
    (Method::Delete, "DELETE"),
    (Method::Options, "OPTIONS"),
];

impl Method {
    /// Reads a method, which is case-sensitive.
    pub fn parse(name: &str) -> Method {
        let known = METHODS.iter().find(|(_, known)| *known == name);
        known.map_or(Method::Other, |(method, _)| *method)
    }

    /// The method's name; `OTHER` for any other, so that metrics have a bounded number of names.
    pub fn as_str(self) -> &'static str {
        let known = METHODS.iter().find(|(method, _)| *method == self);
        known.map_or("OTHER", |(_, name)| name)
    }
}

/// Header fields in the order they came, in one piece of memory: two allocations for a request, not two for a field. Values may
/// contain bytes that are not UTF-8 (RFC 9110, section 5.5: obs-text).
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    /// Fields in `text`: for each the range of its name and of its value.
    pub fn in_place(text: Vec<u8>, fields: Vec<(Range<usize>, Range<usize>)>) -> Headers {
        Headers { text, fields }
    }

    /// Adds a field.
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        let middle = self.text.len();
        self.text.extend_from_slice(value.as_bytes());
        self.fields.push((start..middle, middle..self.text.len()));
    }

    /// The value of the first field of that name, in any case, without white space around it. A value that is not UTF-8 counts as
    /// absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of that name, as [`Headers::get`] returns them.
    pub fn all<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h str> {
        self.raw(name)
            .filter_map(|value| std::str::from_utf8(value).ok().map(str::trim))
    }

    /// The weight that the list in `field` (`Accept`, `Accept-Encoding`) gives to `name`; `None` if it does not name it (RFC 9110,
    /// section 12.4.2).
    pub fn weight(&self, field: &str, name: &str) -> Option<f32> {
        let mut entries = self.all(field).flat_map(|value| value.split(','));
        entries.find_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
        })
    }

    /// Whether the list in `field` names `name` as acceptable.
    pub fn names(&self, field: &str, name: &str) -> bool {
        self.weight(field, name).is_some_and(|weight| weight > 0.0)
    }

    /// Whether the client prefers HTML to JSON, as browsers do when they load a page.
    pub fn prefer_html(&self) -> bool {
        let mut ranges = ["application/json", "application/*", "*/*"].iter();
        let json = ranges.find_map(|name| self.weight("Accept", name));
        self.weight("Accept", "text/html") > json.or(Some(0.0))
    }

    /// The values of all fields of that name, byte for byte.
    pub fn raw<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.fields.iter().filter_map(move |(field, value)| {
            let field = self.text.get(field.clone())?;
            let named = field.eq_ignore_ascii_case(name.as_bytes());
            named.then_some(self.text.get(value.clone())?)
        })
    }
}

/// Names a request in answers and logs: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Takes the client's own id if it is valid, else makes one.
    pub fn from_header(value: Option<&str>) -> RequestId {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_valid = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(fits);
        match value.filter(is_valid) {
            Some(id) => RequestId(id.to_owned()),
            None => RequestId(Uuid::new_v4().simple().to_string()),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The address that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A Unix socket.
    Local,
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddress::Ip(address) => write!(f, "{address}"),
            ClientAddress::Local => f.write_str("local"),
        }
    }
}

impl ClientAddress {
    /// The other end of a connection; `None` if it is on a Unix socket.
    pub fn of_peer(address: Option<SocketAddr>) -> ClientAddress {
        address.map_or(ClientAddress::Local, |address| {
            ClientAddress::Ip(address.ip().to_canonical())
        })
    }

    /// The network that its requests count for.
    pub fn network(self) -> Network {
        match self {
            ClientAddress::Ip(IpAddr::V4(address)) => Network::V4(address),
            // The upper half.
            ClientAddress::Ip(IpAddr::V6(address)) => Network::V6((address.to_bits() >> 64) as u64),
            ClientAddress::Local => Network::Local,
        }
    }
}

/// One client, if its user is not known: an IPv4 address, or an IPv6 network of the size that one customer gets (/64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits of IPv6 addresses.
    V6(u64),
    /// Clients of Unix sockets.
    Local,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::V4(address) => write!(f, "{address}"),
            Network::V6(network) => {
                write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*network) << 64))
            }
            Network::Local => f.write_str("local"),
        }
    }
}

impl Network {
    /// The site that it belongs to: for an IPv6 network the /48, the largest network that providers commonly give to one customer.
    pub fn site(self) -> Network {
        match self {
            Network::V6(network) => Network::V6(network >> 16 << 16),
            network => network,
        }
    }
}

/// A request that was received whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query as they came, still encoded.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
    /// Names the request in its answer and in logs.
    pub id: RequestId,
    /// The client that sent it.
    pub client: ClientAddress,
    /// The client's network, which holds budgets until the user is known; `None` for a trusted proxy's own address.
    pub holder: Option<Holder>,
    /// When its last byte arrived.
    pub received: Instant,
}

impl Request {
    /// The audit trail of this request.
    pub fn trail(&self) -> Trail {
        Trail::new(self.client, self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_case_insensitive() {
        let mut headers = Headers::default();
        headers.push("Content-Type", " application/json ");
        headers.push("X-Twice", "1");
        headers.push("x-twice", "2");
        assert_eq!(headers.get("content-type"), Some("application/json"));
        assert_eq!(headers.all("X-TWICE").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers.get("Content"), None);
    }

    #[test]
    fn html_is_preferred_by_browsers_alone() {
        let accepting = |value: &str| {
            let mut headers = Headers::default();
            headers.push("Accept", value);
            headers
        };
        for (value, html) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
                true,
            ),
            ("text/html", true),
            ("application/json;q=0.5, Text/HTML ; q=0.6", true),
            ("*/*", false),
            ("application/json, text/plain, */*", false),
            ("application/json, text/html", false),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("", false),
        ] {
            assert_eq!(accepting(value).prefer_html(), html, "{value}");
        }
        assert!(!Headers::default().prefer_html());
    }

    #[test]
    fn ipv6_addresses_count_by_network() {
        let network = |address: &str| ClientAddress::Ip(address.parse().unwrap()).network();
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(
            network("2001:db8:1:2::").site(),
            network("2001:db8:1:3::").site()
        );
        assert_ne!(
            network("2001:db8:1::").site(),
            network("2001:db8:2::").site()
        );
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(
            network("2001:db8:1:2:3::1").to_string(),
            "2001:db8:1:2::/64"
        );
        assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn a_valid_request_id_is_kept_and_another_replaced() {
        let longest = "x".repeat(64);
        for id in ["a", "A-1_b.c", &longest] {
            assert_eq!(RequestId::from_header(Some(id)).as_str(), id);
        }
        for id in ["", "a b", "é", "a\"b", &"x".repeat(65)] {
            let made = RequestId::from_header(Some(id));
            assert_eq!(made.as_str().len(), 32, "{id:?}");
        }
        assert_ne!(RequestId::from_header(None), RequestId::from_header(None));
    }
}
