//! Reads a key set from a file, or fetches it from an address.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::key_set::KeySet;

/// Largest key set, in bytes; real ones have a few thousand.
const SET_MAX: u64 = 256 * 1024;
/// Longest time for a fetch, the look-up of the host included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(KeySetUrl),
}

impl fmt::Display for Location {
    /// The setting that names the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Location::File(_) => "AUTH_JWKS_FILE",
            Location::Url(_) => "AUTH_JWKS_URL",
        })
    }
}

/// The address of a key set: `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetUrl(Uri);

impl KeySetUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// Says what it must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<KeySetUrl, &'static str> {
        const MUST: &str = "must be an address such as https://app.example/api/auth/jwks";
        let uri: Uri = text.parse().map_err(|_| MUST)?;
        let authority = uri.authority().ok_or(MUST)?;
        if authority.host().is_empty() {
            return Err(MUST);
        }
        if authority.as_str().contains('@') {
            return Err("must not hold a user or a password");
        }
        match uri.scheme_str() {
            Some("https") => Ok(KeySetUrl(uri)),
            // On plain HTTP an attacker in the network could replace the keys, and then sign tokens.
            Some("http") if is_loopback(authority.host()) => Ok(KeySetUrl(uri)),
            Some("http") => Err("must start with https:// unless it is on this machine"),
            _ => Err(MUST),
        }
    }

    /// The host and port, for the log.
    pub fn host(&self) -> &str {
        let authority = self.0.authority();
        authority.map_or("", |authority| authority.as_str())
    }

    fn is_loopback(&self) -> bool {
        self.0.host().is_some_and(is_loopback)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = address.parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|it| it.is_loopback())
}

/// Reads a key set from a file.
///
/// # Errors
/// One sentence that names the file: it cannot be read, is too large, or holds no key that can be used.
pub fn read_file(path: &Path) -> Result<KeySet, String> {
    let name = path.display();
    let read = || -> io::Result<Vec<u8>> {
        // Opening a pipe could wait forever.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut document = Vec::new();
        File::open(path)?
            .take(SET_MAX + 1)
            .read_to_end(&mut document)?;
        Ok(document)
    };
    let document = read().map_err(|error| format!("the key set {name} cannot be read: {error}"))?;
    if document.len() as u64 > SET_MAX {
        return Err(format!("the key set {name} has more than {SET_MAX} bytes"));
    }
    let set = KeySet::parse(&document)
        .map_err(|problem| format!("the key set {name} cannot be used: {problem}"))?;
    if set.is_empty() {
        let reasons = set.left_out.join("; ");
        let colon = if reasons.is_empty() { "" } else { ": " };
        return Err(format!(
            "the key set {name} has no key that can be used{colon}{reasons}"
        ));
    }
    Ok(set)
}

/// The HTTP client for this address.
pub fn agent(url: &KeySetUrl) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::WebPki)
        .build();
    let settings = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(FETCH_TIMEOUT))
        // Only the configured server is trusted, not a server that it names.
        .max_redirects(0)
        .http_status_as_error(false)
        // Minutes pass between two fetches.
        .max_idle_connections(0)
        .user_agent(concat!("todo-api/", env!("CARGO_PKG_VERSION")))
        .accept("application/jwk-set+json, application/json");
    // A fetch from another machine may use HTTPS_PROXY.
    let settings = if url.is_loopback() {
        settings.proxy(None)
    } else {
        settings.https_only(true)
    };
    settings.build().new_agent()
}

/// Fetches a key set, as JSON text.
///
/// # Errors
/// One sentence that says why it cannot be fetched.
pub fn fetch(agent: &Agent, url: &KeySetUrl) -> Result<Vec<u8>, String> {
    let answer = agent.get(&url.0).call();
    let mut answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let number = status.as_u16();
    if status.is_redirection() {
        return Err(format!(
            "it answers {number}, and redirects are not followed: set AUTH_JWKS_URL to where it leads"
        ));
    }
    if status != 200 {
        return Err(format!("it answers {number}"));
    }
    let body = answer.body_mut().with_config().limit(SET_MAX);
    body.read_to_vec().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_fetch_from_a_silent_server_ends_with_its_deadline() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks", silent.local_addr().unwrap());
        let url = KeySetUrl::parse(&url).unwrap();
        let began = Instant::now();
        assert!(fetch(&agent(&url), &url).is_err());
        assert!((FETCH_TIMEOUT..FETCH_TIMEOUT * 2).contains(&began.elapsed()));
    }

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        for text in [
            "https://app.example/api/auth/jwks",
            "https://app.example:8443/jwks?tenant=a",
            "http://localhost:3000/api/auth/jwks",
            "http://LOCALHOST/jwks",
            "http://127.0.0.1:3000/jwks",
            "http://127.1.2.3/jwks",
            "http://[::1]:3000/jwks",
        ] {
            assert!(KeySetUrl::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "/etc/jwks.json",
            "jwks",
            "file:///etc/jwks.json",
            "ftp://app.example/jwks",
            "app.example/jwks",
            "https://",
            "https:///jwks",
            "http://app.example/jwks",
            "http://10.0.0.1/jwks",
            "http://localhost.app.example/jwks",
            "http://127.0.0.1.app.example/jwks",
            "http://localhost@app.example/jwks",
            "https://user:password@app.example/jwks",
        ] {
            assert!(KeySetUrl::parse(text).is_err(), "{text}");
        }
    }
}
