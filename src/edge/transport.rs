//! Between a connection and its socket: nothing, or TLS. No call here waits.

use std::io::{self, Read, Write};

use rustls::ServerConnection;

use super::socket::Socket;

/// How bytes get to the client and from it.
pub enum Transport {
    /// Unchanged. Workers may write to the socket themselves.
    Plain,
    /// Through TLS, by the event loop alone.
    Tls(Box<ServerConnection>),
}

impl Transport {
    /// Whether bytes pass unchanged.
    pub fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Whether a handshake has still to be finished.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.is_handshaking())
    }

    /// Whether TLS has bytes that the socket has not taken yet.
    pub fn wants_to_send(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.wants_write())
    }

    /// Appends to `input` what the client says in `received`. False if it says that nothing more will come.
    ///
    /// # Errors
    /// It is no TLS, or TLS that cannot be accepted; the alert that says so is ready to be sent.
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
        // The library bounds how much it encrypts at once.
        let taken = tls.writer().write(bytes)?;
        flush(tls, socket)?;
        Ok(taken)
    }

    /// Sends what TLS has to say; false if the socket did not take all of it.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        match self {
            Transport::Plain => Ok(true),
            Transport::Tls(tls) => flush(tls, socket),
        }
    }

    /// Tells the client that nothing more will come.
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
