//! Certificates: loaded at start, and again when their files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::domain::certificate::not_after;
use crate::sync::unpoisoned;

/// Most bytes that are encrypted at a time.
const PIECE: usize = 16 * 1024;

/// Makes TLS connections with the certificate that is current (TLS 1.2 and 1.3, HTTP/1.1).
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When the files were last changed, as far as it can be told.
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

    /// Loads the files again. Connections that are open keep what they have; when the files are unfit, so do new ones.
    pub fn reload(&self) {
        match load(&self.certificate, &self.key) {
            Ok(current) => {
                *unpoisoned(self.current.write()) = current;
                log::info!(
                    "the TLS certificate in {} is loaded",
                    self.certificate.display()
                );
            }
            Err(error) => {
                log::error!("the TLS certificate is not replaced: {error}");
                // Not tried again until the files change once more.
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

    /// The server's side of a new connection.
    ///
    /// # Errors
    /// The library's, when it has no memory left.
    pub fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        let config = Arc::clone(&unpoisoned(self.current.read()).config);
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(Some(PIECE));
        Ok(connection)
    }

    fn stamps(&self) -> [Option<SystemTime>; 2] {
        [stamp(&self.certificate), stamp(&self.key)]
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Current, String> {
    // Before the files are read: a change in between is found next time.
    let stamps = [stamp(certificate), stamp(key)];
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(certificate, "certificate", &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(key, "key", &error))?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(chain, private)
            })
            .map_err(|error| {
                format!(
                    "{} and {} do not go together: {error}",
                    certificate.display(),
                    key.display()
                )
            })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current {
        config: Arc::new(config),
        stamps,
    })
}

/// Why a file is of no use, as one sentence.
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
