//! The server's TLS certificate. It is loaded at the start, and again when its files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::domain::certificate::not_after;
use crate::sync::unpoisoned;

/// The most bytes that are encrypted at a time.
const ENCRYPTED_AT_ONCE: usize = 16 * 1024;

/// Makes TLS connections with the current certificate (TLS 1.2 and 1.3, HTTP/1.1).
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<LoadedCertificate>,
}

struct LoadedCertificate {
    config: Arc<ServerConfig>,
    /// The times of the last change of the files.
    stamps: [Option<SystemTime>; 2],
}

impl Tls {
    /// Loads a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Tls, String> {
        Ok(Tls {
            current: RwLock::new(load(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Loads the files again, for new connections. If they cannot be used, the certificate in use stays.
    pub fn reload(&self) {
        match load(&self.certificate, &self.key) {
            Ok(current) => {
                *unpoisoned(self.current.write()) = current;
                let file = self.certificate.display();
                log::info!("the TLS certificate in {file} is loaded");
            }
            Err(error) => {
                log::error!("the TLS certificate is not replaced: {error}");
                // The next attempt follows the next change of the files.
                unpoisoned(self.current.write()).stamps = self.stamps();
            }
        }
    }

    /// Loads the files again if they have changed.
    pub fn reload_if_changed(&self) {
        let known = unpoisoned(self.current.read()).stamps;
        if known != self.stamps() {
            self.reload();
        }
    }

    /// The server's side of a new TLS connection.
    ///
    /// # Errors
    /// The library's, when it has no memory left.
    pub fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        let config = Arc::clone(&unpoisoned(self.current.read()).config);
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(Some(ENCRYPTED_AT_ONCE));
        Ok(connection)
    }

    fn stamps(&self) -> [Option<SystemTime>; 2] {
        [stamp(&self.certificate), stamp(&self.key)]
    }
}

fn load(certificate: &Path, key: &Path) -> Result<LoadedCertificate, String> {
    // Read before the files, so that a change in between is found at the next check.
    let stamps = [stamp(certificate), stamp(key)];
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(certificate, "certificate", &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(key, "key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = (certificate.display(), key.display());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| format!("{certificate} and {key} do not match: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(LoadedCertificate {
        config: Arc::new(config),
        stamps,
    })
}

/// The sentence for a file that cannot be used.
fn unfit(file: &Path, what: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("{} cannot be read: {error}", file.display()),
        error => format!("{} is no PEM {what}: {error}", file.display()),
    }
}

/// When the first certificate of a PEM file, the server's own, expires.
///
/// # Errors
/// One sentence that names the file.
pub fn end(certificate: &Path) -> Result<SystemTime, String> {
    let own = CertificateDer::from_pem_file(certificate)
        .map_err(|error| unfit(certificate, "certificate", &error))?;
    let end =
        not_after(&own).ok_or_else(|| format!("{} is no certificate", certificate.display()))?;
    Ok(end.into())
}

fn stamp(file: &Path) -> Option<SystemTime> {
    fs::metadata(file)
        .and_then(|metadata| metadata.modified())
        .ok()
}
