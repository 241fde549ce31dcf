//! From an open socket to a stream PostgreSQL speaks on: the deadline, the request for TLS, the handshake.
//!
//! `tokio-postgres` knows three `sslmode`s and asks the server for TLS itself, on the bare socket, where no deadline
//! reaches. Told that TLS begins at once (`ssl_negotiation=direct`), it hands the bare socket over to its TLS
//! connector before a byte is sent. Ours puts the deadline on it and then does what libpq does for the mode in force,
//! which may be to speak no TLS at all.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::deadline::{Deadline, DeadlineStream};

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
) -> Result<ClientConfig, String> {
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
        provider: Arc::clone(&provider),
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| format!("asks for a TLS this program cannot speak: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn read_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let shown = path.display();
    let unreadable =
        |e: io::Error| format!("names an sslrootcert file that cannot be read: {shown}: {e}");
    if std::fs::metadata(path).map_err(unreadable)?.len() > ROOTS_FILE_LIMIT {
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

/// Judges certificates as libpq's `sslmode` does, which rustls' own verifier cannot be set to.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// A server that presents exactly a certificate of the `sslrootcert` file is trusted. PostgreSQL's documentation
    /// has people make a self-signed certificate and give it to both sides; being a CA certificate in the place of a
    /// server's, it would be refused as the end of a chain.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
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
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signature over the handshake is checked in every mode: channel binding is worth nothing against somebody
    // who may present the server's certificate without holding its key.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, dss, schemes).or_else(|e| {
            self.verify_with_bare_key(message, certificate, dss)
                .ok_or(e)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, dss, schemes).or_else(|e| {
            self.verify_with_bare_key(message, certificate, dss)
                .ok_or(e)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl Verifier {
    /// The check of a handshake's signature for a certificate rustls does not read, where nothing else is asked of
    /// it: version 1 certificates, which `openssl x509 -req` makes unless told otherwise, and libpq accepts.
    fn verify_with_bare_key(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Option<HandshakeSignatureValid> {
        if self.check != Check::Nothing || ParsedCertificate::try_from(certificate).is_ok() {
            return None;
        }
        let key = Certificate::from_der(certificate)
            .ok()?
            .tbs_certificate
            .subject_public_key_info;
        let algorithm = key.algorithm.to_der().ok()?;
        // What rustls calls the algorithm's id is the inside of this SEQUENCE: tag and length, two bytes since no
        // such algorithm has an id of 128 bytes, are left out.
        let algorithm = algorithm.get(2..)?;
        let bits = key.subject_public_key.as_bytes()?;
        let (_, candidates) = self
            .provider
            .signature_verification_algorithms
            .mapping
            .iter()
            .find(|(s, _)| *s == dss.scheme)?;
        candidates
            .iter()
            .filter(|candidate| candidate.public_key_alg_id().as_ref() == algorithm)
            .any(|candidate| {
                candidate
                    .verify_signature(bits, message, dss.signature())
                    .is_ok()
            })
            .then(HandshakeSignatureValid::assertion)
    }
}

/// Makes the stream for one attempt to connect.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) encryption: Encryption,
    /// TLS begins without a request for it (`sslnegotiation=direct`, PostgreSQL 17).
    pub(super) direct: bool,
    pub(super) tls: MakeRustlsConnect,
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
        let Handshake {
            mut connector,
            name,
        } = self;
        let link: Link = match connector.unix_socket {
            Some(path) => Box::pin(UnixStream::connect(path).await?),
            None => Box::pin(socket),
        };
        let mut stream = DeadlineStream::new(link, connector.deadline);
        if connector.encryption == Encryption::Off {
            return Ok(Stream(Box::pin(stream)));
        }
        if !connector.direct && !request_tls(&mut stream).await? {
            return match connector.encryption {
                Encryption::Required => Err(io::Error::other(
                    "the server has no TLS, and the sslmode in force does not do without it",
                )),
                _ => Ok(Stream(Box::pin(stream))),
            };
        }
        let Ok(handshake) =
            MakeTlsConnect::<DeadlineStream<Link>>::make_tls_connect(&mut connector.tls, &name);
        Ok(Stream(Box::pin(handshake.connect(stream).await?)))
    }
}

/// Asks the server for TLS; true when it is ready for the handshake.
///
/// Exactly one byte is read: whatever somebody in between appended to the answer goes to the TLS handshake, which
/// chokes on it, and is never taken for something the server said (CVE-2021-23222).
async fn request_tls(stream: &mut DeadlineStream<Link>) -> io::Result<bool> {
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
        // An error in plain text may come from anybody, so it is not passed on (CVE-2024-10977).
        [b'E'] => Err(io::Error::other(
            "the server answered the request for TLS with an error",
        )),
        _ => Err(io::Error::other("what answers there is not PostgreSQL")),
    }
}

/// A bare socket, of either family.
trait Socketlike: AsyncRead + AsyncWrite + Send {}

impl Socketlike for Socket {}
impl Socketlike for UnixStream {}

type Link = Pin<Box<dyn Socketlike>>;

impl TlsStream for DeadlineStream<Link> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// What `tokio-postgres` speaks on, plain or TLS: every byte of it passes the deadline.
pub(super) struct Stream(Pin<Box<dyn TlsStream + Send>>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
