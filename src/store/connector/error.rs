//! Why a connection failed, in words for the log.

use std::error::Error;
use std::fmt;
use std::io;

use postgres::error::SqlState;

use super::target::Host;

/// Why no connection could be had: one line for the log, which names the host and never the password.
#[derive(Debug, Default)]
pub struct ConnectError {
    message: String,
    cause: Option<postgres::Error>,
}

impl ConnectError {
    /// What the server said, when it was the server that refused.
    pub fn code(&self) -> Option<&SqlState> {
        self.cause.as_ref().and_then(postgres::Error::code)
    }

    pub(super) fn new(host: &Host, reason: &str, cause: Option<postgres::Error>) -> ConnectError {
        // The reason may be text from the network, and must not break the lines of the log.
        let reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        ConnectError {
            message: format!("{host}: {reason}"),
            cause,
        }
    }

    /// Both failures in one, with the cause of the later.
    pub(super) fn before(self, later: ConnectError) -> ConnectError {
        let separator = if self.message.is_empty() { "" } else { "; " };
        ConnectError {
            message: self.message + separator + &later.message,
            cause: later.cause,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// The message already holds what the causes say, so there is no source to be printed after it.
impl Error for ConnectError {}

/// An error with all its causes, in one sentence.
pub(super) fn explain(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    if let Some(tls) = tls_error(error) {
        return format!("TLS: {tls}{}", advice(tls));
    }
    let mut parts = Vec::new();
    // Everything our connector says arrives as a failed handshake; it speaks for itself.
    if error.to_string() != "error performing TLS handshake" {
        parts.push(error.to_string());
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    parts.join(": ")
}

/// What rustls had to say, if the handshake failed over it.
pub(super) fn tls_error(error: &postgres::Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref()
}

fn advice(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            " (neither sslrootcert nor, where that is not given, the built-in list has its authority)"
        }
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => " (names count only as subjectAltName, not as the subject's common name)",
        rustls::Error::InvalidCertificate(Certificate::Other(_)) => {
            " (the certificate must be of X.509 version 3)"
        }
        _ => "",
    }
}
