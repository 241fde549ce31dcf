//! A whole request, already read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

impl Method {
    /// Reads a method, which is case-sensitive.
    pub fn parse(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// The method's name; a client's invention is shown as `OTHER`, so that logs stay bounded.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "OTHER",
        }
    }
}

/// Header fields in the order they came. One piece of memory holds them all, so that a request costs two allocations and not
/// two a field. Values may hold bytes that are no UTF-8 (RFC 9110, section 5.5: obs-text).
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    /// Fields that lie in `text`: for each the place of its name and of its value.
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

    /// The value of the first field of that name, in any case, without white space around it. A value that is no UTF-8
    /// counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of that name, as [`Headers::get`] has them.
    pub fn all<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h str> {
        self.raw(name)
            .filter_map(|value| std::str::from_utf8(value).ok().map(str::trim))
    }

    /// The values of all fields of that name, byte for byte.
    pub fn raw<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.fields.iter().filter_map(move |(field, value)| {
            let field = self.text.get(field.clone())?;
            field
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| self.text.get(value.clone()))
                .flatten()
        })
    }
}

/// What a request and all that is said about it are known by: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Keeps the client's own id where it is a fit one, else makes one.
    pub fn from_header(value: Option<&str>) -> RequestId {
        let fit = |id: &&str| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        match value.filter(fit) {
            Some(id) => RequestId(id.to_owned()),
            None => RequestId(Uuid::new_v4().simple().to_string()),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// An internet address.
    Address(IpAddr),
    /// A Unix socket.
    Local,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Address(address) => write!(f, "{address}"),
            Client::Local => f.write_str("local"),
        }
    }
}

impl Client {
    /// The network it is counted with.
    pub fn network(self) -> Network {
        match self {
            Client::Address(IpAddr::V4(address)) => Network::V4(address),
            // The upper half.
            Client::Address(IpAddr::V6(address)) => Network::V6((address.to_bits() >> 64) as u64),
            Client::Local => Network::Local,
        }
    }
}

/// What counts as one client where there is no user to count by: all of an IPv4 address, but of an IPv6 address the network
/// that one customer gets, a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits of many.
    V6(u64),
    /// Whoever comes over a Unix socket.
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
    /// The site it belongs to: of an IPv6 network the /48, which is the most that somebody gets without asking.
    pub fn site(self) -> Network {
        match self {
            Network::V6(network) => Network::V6(network >> 16 << 16),
            network => network,
        }
    }
}

/// A whole request: nothing of it is still to be read.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// To what: the path and query as they came, still encoded.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
    /// What the request is known by.
    pub id: RequestId,
    /// Who sent it.
    pub client: Client,
    /// The client's network as holder of budgets until the user is known; `None` for a trusted proxy's own address.
    pub holder: Option<Holder>,
    /// When it was whole.
    pub received: Instant,
}

impl Request {
    /// The audit trail for what this request does.
    pub fn trail(&self) -> Trail {
        Trail::new(self.client, self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_have_no_case() {
        let mut headers = Headers::default();
        headers.push("Content-Type", " application/json ");
        headers.push("X-Twice", "1");
        headers.push("x-twice", "2");
        assert_eq!(headers.get("content-type"), Some("application/json"));
        assert_eq!(headers.all("X-TWICE").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers.get("Content"), None);
    }

    #[test]
    fn ipv6_counts_by_network() {
        let network = |address: &str| Client::Address(address.parse().unwrap()).network();
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
    fn a_fit_request_id_is_kept_and_another_replaced() {
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
