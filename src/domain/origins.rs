//! The origins whose pages may call the API.

use std::net::Ipv6Addr;

/// The origins whose pages may read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// These origins, with credentials such as cookies.
    Listed(Vec<String>),
    /// All origins, without credentials such as cookies. A bearer token is still allowed, because a page sends it explicitly.
    Any,
}

impl Default for Origins {
    /// No origin.
    fn default() -> Origins {
        Origins::Listed(Vec::new())
    }
}

impl Origins {
    /// Reads a comma-separated list of origins, each as a browser writes it into `Origin`; or `*`, or `none`.
    ///
    /// # Errors
    /// Says what the list must be, as the end of a sentence. An origin in a form that no browser sends is refused, because it
    /// would never match.
    pub fn parse(list: &str) -> Result<Origins, &'static str> {
        match list.trim() {
            "none" => Ok(Origins::default()),
            "*" => Ok(Origins::Any),
            list => list
                .split(',')
                .map(str::trim)
                .map(|origin| is_serialized(origin).then(|| origin.to_owned()))
                .collect::<Option<_>>()
                .map(Origins::Listed)
                .ok_or(
                    "must be *, none, or a comma-separated list of origins as browsers write them, such as https://app.example.com or http://localhost:3000: in lower case, without the scheme's own port, without a path and without a slash at the end",
                ),
        }
    }
}

/// Whether this is the serialization of an origin (RFC 6454, section 6.2) that is not opaque.
fn is_serialized(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    // Brackets contain an IPv6 address with its colons.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    is_scheme(scheme) && is_host(host) && port.is_none_or(|port| is_port(scheme, port))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        // In its shortest form.
        Some(address) => address
            .parse::<Ipv6Addr>()
            .is_ok_and(|parsed| parsed.to_string() == address),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
        }
    }
}

/// A port. The default port of the scheme is left out.
fn is_port(scheme: &str, port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|number| {
        let own = matches!((scheme, number), ("http", 80) | ("https", 443));
        !own && number.to_string() == port
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_in_a_form_that_no_browser_sends_is_refused() {
        for list in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x",
            "https://app.example.com#x",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:0443",
            "https://app.example.com:+444",
            "https://app.example.com:",
            "https://app.example.com:65536",
            "https://App.example.com",
            "Https://app.example.com",
            "https://*.example.com",
            "https://user@app.example.com",
            "https://büro.example",
            "https://[::0001]",
            "https://[::1",
            "https://::1",
            "https://",
            "://app.example.com",
            "null",
            "https://a.example,*",
            "https://a.example,",
            "https://a.example https://b.example",
            "https://a.example\r\nX-Injected: 1",
        ] {
            assert!(Origins::parse(list).is_err(), "{list}");
        }
        for list in [
            "http://localhost:3000",
            "https://xn--bro-hoa.example",
            "http://192.0.2.1:8080",
            "http://[2001:db8::1]",
            "http://[2001:db8::1]:8080",
            "http://my_host:3000",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
            "http://app.example.com:443",
        ] {
            assert!(Origins::parse(list).is_ok(), "{list}");
        }
    }
}
