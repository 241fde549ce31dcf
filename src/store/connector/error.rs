//! Explains failures to connect, for the log.

use std::error::Error;
use std::fmt;
use std::io;

use postgres::error::SqlState;

use super::target::Host;

/// The reason why no connection could be opened: one line for the log that names the host and never the password.
#[derive(Debug, Default)]
pub struct ConnectError {
    message: String,
    cause: Option<postgres::Error>,
}

impl ConnectError {
    /// The code of the server's error, if the server refused the connection.
    pub fn code(&self) -> Option<&SqlState> {
        self.cause.as_ref().and_then(postgres::Error::code)
    }

    pub(super) fn new(host: &Host, reason: &str, cause: Option<postgres::Error>) -> ConnectError {
        // The reason may be text from the network. A line break in it must not start another log line.
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

// The message contains its causes, so there is no source.
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
    // Every error of our connector arrives as this one, with the error as its source.
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

/// The error of rustls, if the handshake failed by one.
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
            " (neither sslrootcert nor, without it, the built-in list has its authority)"
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
