//! Certificates, and clients that trust them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A directory with a certificate for localhost and its key.
pub struct Certificate {
    directory: tempfile::TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn make() -> Certificate {
        let directory = tempfile::tempdir().unwrap();
        let der = write(&directory);
        Certificate { directory, der }
    }

    /// Replaces the certificate and the key in the same files.
    pub fn replace(&mut self) {
        self.der = write(&self.directory);
    }

    /// The certificate's file, in PEM.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Its key's file, in PEM.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// The settings that make the server use it.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("TLS_CERT_FILE", self.file().display().to_string()),
            ("TLS_KEY_FILE", self.key_file().display().to_string()),
        ]
    }

    /// A client that trusts this certificate and no other.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_of(rustls::ALL_VERSIONS)
    }

    /// As [`Certificate::client`], with these versions of TLS.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// Writes a new certificate to another file and renames it, as tools that renew certificates do.
fn write(directory: &tempfile::TempDir) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [
        ("key.pem", made.signing_key.serialize_pem()),
        ("cert.pem", made.cert.pem()),
    ] {
        let new = directory.path().join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, directory.path().join(name)).unwrap();
    }
    made.cert.der().clone()
}
