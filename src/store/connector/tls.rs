//! Makes the stream for PostgreSQL's protocol from an open socket: the request for TLS, the handshake, the deadline.
//!
//! `tokio-postgres` has three `sslmode`s and sends the request for TLS itself, without a deadline. With `ssl_negotiation=direct` it
//! passes the socket to its TLS connector before a byte is sent. Our connector then does under the deadline what libpq does in the
//! given mode, with or without TLS.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use ring::digest::{SHA256, SHA384, SHA512, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;

use super::deadline::{ByteStream, Deadline, DeadlineStream};
use crate::domain::certificate::signature_algorithm;

/// The SSLRequest message: length 8, code 80877103 (PostgreSQL documentation, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Largest file of certificate authorities. Debian's whole bundle has 0.2 MB.
const ROOTS_FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Off,
    /// If the server supports it.
    Preferred,
    Required,
}

/// What is verified of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// A rustls configuration for one database address. A chain may end at the authorities in the file `roots`, or without it at those of
/// Mozilla, compiled in.
///
/// Errors: a predicate to go after the setting's name, in which only the file's path is quoted.
pub(super) fn client_config(
    check: Check,
    roots: Option<&Path>,
    only_tls13: bool,
    direct: bool,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (store, pinned) = match roots {
        _ if check == Check::Nothing => (RootCertStore::empty(), Vec::new()),
        Some(file) => read_roots(file)?,
        None => {
            let authorities = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
            (authorities.collect(), Vec::new())
        }
    };
    let versions: &[_] = if only_tls13 {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let verifier = SslmodeVerifier {
        check,
        roots: store,
        pinned,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| format!("asks for a version of TLS that is not supported: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let shown = path.display();
    let unreadable =
        |e: io::Error| format!("names an sslrootcert file that cannot be read: {shown}: {e}");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.file_type().is_fifo() {
        // Opening a pipe could wait for ever.
        return Err(unreadable(io::Error::other("it is a pipe")));
    }
    if metadata.len() > ROOTS_FILE_LIMIT {
        return Err(format!(
            "names an sslrootcert file that is too large for one: {shown}"
        ));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("names an sslrootcert file that is not PEM: {shown}: {e}"))?;
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(format!(
            "names an sslrootcert file without a certificate that can be used: {shown}"
        ));
    }
    Ok((store, certificates))
}

/// Verifies certificates as libpq's `sslmode` does. The verifier of rustls cannot leave out the name or the chain.
#[derive(Debug)]
struct SslmodeVerifier {
    check: Check,
    roots: RootCertStore,
    /// A server that presents one of the certificates in the `sslrootcert` file is trusted. PostgreSQL's documentation
    /// creates a self-signed certificate and gives it to both sides. As a CA certificate it could not end a chain.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SslmodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if !self.pinned.contains(end_entity) {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signature over the handshake is verified in every mode. Without that, a server could present a certificate without having
    // its key, also with channel binding.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Makes the stream for one attempt to connect.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) encryption: Encryption,
    /// TLS begins without a request for it (`sslnegotiation=direct`, PostgreSQL 17).
    pub(super) direct: bool,
    pub(super) tls: Arc<ClientConfig>,
    /// The server's name for TLS. `tokio-postgres` sets it.
    pub(super) name: String,
    /// The socket to connect to instead of using the one that is passed.
    pub(super) unix_socket: Option<PathBuf>,
    pub(super) deadline: Deadline,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = DeadlineStream;
    type TlsConnect = Connector;
    type Error = io::Error;

    fn make_tls_connect(&mut self, name: &str) -> io::Result<Connector> {
        self.name = name.to_owned();
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Connector {
    type Stream = DeadlineStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<DeadlineStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let deadline = self.deadline.clone();
        Box::pin(async move { deadline.limit(self.run(socket)).await })
    }
}

impl Connector {
    async fn run(self, socket: Socket) -> io::Result<DeadlineStream> {
        let mut socket: Pin<Box<dyn ByteStream>> = match self.unix_socket {
            Some(path) => Box::pin(UnixStream::connect(path).await?),
            None => Box::pin(socket),
        };
        let encrypt = match self.encryption {
            Encryption::Off => false,
            _ if self.direct => true,
            Encryption::Preferred => request_tls(&mut socket).await?,
            Encryption::Required if request_tls(&mut socket).await? => true,
            Encryption::Required => Err(io::Error::other(
                "the server has no TLS, and the sslmode in force requires it",
            ))?,
        };
        if !encrypt {
            return Ok(DeadlineStream::new(socket, None, self.deadline));
        }
        let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
        let encrypted = TlsConnector::from(self.tls).connect(name, socket).await?;
        let certificates = encrypted.get_ref().1.peer_certificates();
        let end_point = certificates
            .and_then(|chain| chain.first())
            .and_then(|certificate| end_point(certificate));
        Ok(DeadlineStream::new(encrypted, end_point, self.deadline))
    }
}

/// The `tls-server-end-point` channel binding: the hash of the certificate by the hash function of its signature, but SHA-256
/// for MD5 and SHA-1 (RFC 5929, section 4.1). `None` for signatures without a separate hash function.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let hash = match signature_algorithm(certificate)? {
        // RSA (1.2.840.113549.1.1) and ECDSA (1.2.840.10045.4).
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => &SHA512,
        _ => return None,
    };
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// Asks the server for TLS; true if it is ready for the handshake.
///
/// Exactly one byte is read. Bytes that an attacker appends to the answer make the TLS handshake fail, and are never read as
/// PostgreSQL's (CVE-2021-23222).
async fn request_tls(stream: &mut Pin<Box<dyn ByteStream>>) -> io::Result<bool> {
    stream.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    let problem = match stream.read_exact(&mut answer).await {
        Ok(_) => match answer {
            [b'S'] => return Ok(true),
            [b'N'] => return Ok(false),
            // An error in plain text may come from an attacker, so its text is not used (CVE-2024-10977).
            [b'E'] => "the server answered the request for TLS with an error",
            _ => "what answers there is not PostgreSQL",
        },
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection when it was asked for TLS"
        }
        Err(error) => return Err(error),
    };
    Err(io::Error::other(problem))
}
