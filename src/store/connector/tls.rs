//! From an open socket to a stream PostgreSQL speaks on: the deadline, the request for TLS, the handshake.
//!
//! `tokio-postgres` knows three `sslmode`s and sends the request for TLS itself, on the bare socket, where no deadline
//! applies. With `ssl_negotiation=direct` it hands the bare socket to its TLS connector before a byte is sent. Our
//! connector puts the deadline on the socket and then does what libpq does for the mode in force, with or without TLS.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ring::digest::{SHA256, SHA384, SHA512, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::deadline::{Deadline, DeadlineStream};
use crate::domain::certificate::signature_algorithm;

/// The SSLRequest message: length 8, code 80877103 (PostgreSQL documentation, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A file of certificate authorities larger than this is not one; Debian's whole bundle has 0.2 MB.
const ROOTS_FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Off,
    /// Where the server has it.
    Preferred,
    Required,
}

/// What is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Whom a chain may end at.
pub(super) enum Roots {
    /// Mozilla's authorities, compiled in.
    Public,
    /// Those of a PEM file.
    File(PathBuf),
}

/// A rustls configuration for one database address.
///
/// Errors: a predicate to go after the setting's name, in which only the file's path is quoted.
pub(super) fn client_config(
    check: Check,
    roots: &Roots,
    only_tls13: bool,
    direct: bool,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (store, pinned) = match roots {
        _ if check == Check::Nothing => (RootCertStore::empty(), Vec::new()),
        Roots::Public => (
            webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
            Vec::new(),
        ),
        Roots::File(path) => read_roots(path)?,
    };
    let versions: &[_] = if only_tls13 {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let verifier = Verifier {
        check,
        roots: store,
        pinned,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| format!("asks for a TLS this program cannot speak: {e}"))?
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
        // Opening it could wait forever.
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
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// A server that presents one of the certificates in the `sslrootcert` file is trusted. PostgreSQL's documentation
    /// creates a self-signed certificate and gives it to both sides. As a CA certificate it could not end a chain.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
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

    // The signature over the handshake is verified in every mode. Channel binding does not help against a server that
    // presents a certificate without its key.

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
    /// Where to connect in place of the socket that is handed over.
    pub(super) unix_socket: Option<PathBuf>,
    pub(super) deadline: Deadline,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, name: &str) -> io::Result<Handshake> {
        Ok(Handshake {
            connector: self.clone(),
            name: name.to_owned(),
        })
    }
}

/// What a [`Connector`] does with one socket.
pub(super) struct Handshake {
    connector: Connector,
    name: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(self.run(socket))
    }
}

impl Handshake {
    async fn run(self, socket: Socket) -> io::Result<Stream> {
        let Handshake { connector, name } = self;
        let socket: Bytes = match connector.unix_socket {
            Some(path) => Box::pin(UnixStream::connect(path).await?),
            None => Box::pin(socket),
        };
        let mut bytes = DeadlineStream::new(socket, connector.deadline);
        let encrypt = match connector.encryption {
            Encryption::Off => false,
            _ if connector.direct => true,
            Encryption::Preferred => request_tls(&mut bytes).await?,
            Encryption::Required if request_tls(&mut bytes).await? => true,
            Encryption::Required => {
                return Err(io::Error::other(
                    "the server has no TLS, and the sslmode in force does not do without it",
                ));
            }
        };
        if !encrypt {
            return Ok(Stream {
                bytes: Box::pin(bytes),
                end_point: None,
            });
        }
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let tls = TlsConnector::from(connector.tls);
        let encrypted = tls.connect(name, bytes).await?;
        let certificate = encrypted
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        Ok(Stream {
            end_point: certificate.and_then(|certificate| end_point(certificate)),
            bytes: Box::pin(encrypted),
        })
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

/// Asks the server for TLS; true when it is ready for the handshake.
///
/// Exactly one byte is read. Bytes that an attacker appended to the answer go to the TLS handshake, which fails on them, and are
/// never read as PostgreSQL's (CVE-2021-23222).
async fn request_tls(stream: &mut DeadlineStream<Bytes>) -> io::Result<bool> {
    stream.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    stream
        .read_exact(&mut answer)
        .await
        .map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                e.kind(),
                "the server closed the connection when it was asked for TLS",
            ),
            _ => e,
        })?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        // An error in plain text may come from an attacker, so its text is not used (CVE-2024-10977).
        [b'E'] => Err(io::Error::other(
            "the server answered the request for TLS with an error",
        )),
        _ => Err(io::Error::other("what answers there is not PostgreSQL")),
    }
}

/// Any stream of bytes: a socket of either family, or TLS on one.
trait ByteStream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ByteStream for T {}

type Bytes = Pin<Box<dyn ByteStream>>;

/// What `tokio-postgres` reads and writes, plain or TLS. Every byte of it passes the deadline.
pub(super) struct Stream {
    bytes: Bytes,
    /// The channel binding of the TLS connection.
    end_point: Option<Vec<u8>>,
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point
            .clone()
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_shutdown(cx)
    }
}
