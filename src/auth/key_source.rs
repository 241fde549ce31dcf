//! A key set's way to us: read from a file, or fetched from an address.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::key_set::KeySet;

/// Most bytes of a key set; real ones have a few thousand.
const SET_MAX: u64 = 256 * 1024;
/// Until a fetch is given up.
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
    /// The setting that says where it is.
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
            // Whoever can change the keys on their way can sign tokens.
            Some("http") if is_loopback(authority.host()) => Ok(KeySetUrl(uri)),
            Some("http") => Err("must start with https:// unless it is on this machine"),
            _ => Err(MUST),
        }
    }

    /// The host and port, for the log.
    pub fn host(&self) -> &str {
        self.0
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    fn is_loopback(&self) -> bool {
        self.0.host().is_some_and(is_loopback)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Reads a key set from a file.
///
/// # Errors
/// One sentence that names the file: it cannot be read, is too large, or holds no key that can be used.
pub fn read_file(path: &Path) -> Result<KeySet, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut document = Vec::new();
        File::open(path)?
            .take(SET_MAX + 1)
            .read_to_end(&mut document)?;
        Ok(document)
    };
    let name = path.display();
    let document = read().map_err(|error| format!("the key set {name} cannot be read: {error}"))?;
    if document.len() as u64 > SET_MAX {
        return Err(format!("the key set {name} has more than {SET_MAX} bytes"));
    }
    let set = KeySet::parse(&document)
        .map_err(|problem| format!("the key set {name} cannot be used: {problem}"))?;
    if set.is_empty() {
        let reasons = set.left_out().join("; ");
        return Err(format!(
            "the key set {name} has no key that can be used{}{reasons}",
            if reasons.is_empty() { "" } else { ": " }
        ));
    }
    Ok(set)
}

/// A client that asks this address.
pub fn agent(url: &KeySetUrl) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::WebPki)
        .build();
    let settings = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(FETCH_TIMEOUT))
        // Whoever is asked is who was configured, and nobody they may name.
        .max_redirects(0)
        .http_status_as_error(false)
        // A connection is minutes old when it is needed again.
        .max_idle_connections(0)
        .user_agent(concat!("todo-api/", env!("CARGO_PKG_VERSION")))
        .accept("application/jwk-set+json, application/json");
    // Elsewhere the way out may lead through HTTPS_PROXY; on this machine it never does.
    let settings = if url.is_loopback() {
        settings.proxy(None)
    } else {
        settings.https_only(true)
    };
    settings.build().new_agent()
}

/// Asks for a key set, as it is published.
///
/// # Errors
/// One sentence when there is none to be had.
pub fn fetch(agent: &Agent, url: &KeySetUrl) -> Result<Vec<u8>, String> {
    let mut answer = agent
        .get(&url.0)
        .call()
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!(
            "it answers {}, and redirects are not followed: set AUTH_JWKS_URL to where it leads",
            status.as_u16()
        ));
    }
    if status != 200 {
        return Err(format!("it answers {}", status.as_u16()));
    }
    answer
        .body_mut()
        .with_config()
        .limit(SET_MAX)
        .read_to_vec()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
