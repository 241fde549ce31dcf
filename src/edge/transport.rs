//! Between a connection and its socket: plain bytes or TLS. No call here waits.

use std::io::{self, Read, Write};

use rustls::ServerConnection;

use super::socket::Socket;

/// How bytes are sent and received.
pub enum Transport {
    /// Unchanged. Workers may write to the socket themselves.
    Plain,
    /// Through TLS, by the event loop only.
    Tls(Box<ServerConnection>),
}

impl Transport {
    /// TLS, or without a TLS connection plain bytes.
    pub fn new(tls: Option<ServerConnection>) -> Transport {
        tls.map_or(Transport::Plain, |tls| Transport::Tls(Box::new(tls)))
    }

    /// Whether bytes are sent unchanged.
    pub fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Whether a handshake is not finished yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.is_handshaking())
    }

    /// Whether TLS has bytes that the socket has not taken yet.
    pub fn wants_to_send(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.wants_write())
    }

    /// Appends the decrypted `received` bytes to `input`. False if the client has ended the TLS connection.
    ///
    /// # Errors
    /// The bytes are not acceptable TLS. The alert for the client is ready to be sent.
    pub fn open(&mut self, mut received: &[u8], input: &mut Vec<u8>) -> io::Result<bool> {
        let Transport::Tls(tls) = self else {
            input.extend_from_slice(received);
            return Ok(true);
        };
        while !received.is_empty() && tls.read_tls(&mut received)? > 0 {
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let start = input.len();
            input.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader()
                .read_exact(input.get_mut(start..).unwrap_or_default())?;
            if state.peer_has_closed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends some of these bytes. Returns how many were taken: 0 if the socket takes nothing now.
    pub fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let Transport::Tls(tls) = self else {
            return socket.send_now(bytes);
        };
        if !flush(tls, socket)? {
            return Ok(0);
        }
        // The library limits how much it encrypts at once.
        let taken = tls.writer().write(bytes)?;
        flush(tls, socket)?;
        Ok(taken)
    }

    /// Sends the bytes that TLS has ready; false if the socket did not take all of them.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        match self {
            Transport::Plain => Ok(true),
            Transport::Tls(tls) => flush(tls, socket),
        }
    }

    /// Ends the TLS connection.
    pub fn finish(&mut self, socket: &Socket) {
        if let Transport::Tls(tls) = self {
            tls.send_close_notify();
            // A closed connection is not an error.
            let _ = flush(tls, socket);
        }
    }
}

fn flush(tls: &mut ServerConnection, mut socket: &Socket) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
