//! What lies between a connection's thread and its socket: nothing, or TLS.

use std::io::{self, Read, Write};
use std::time::Instant;

use rustls::ServerConnection;

use super::socket::{Socket, WriteUntil};

/// How bytes get to the client and from it.
pub enum Transport {
    /// As they are.
    Plain,
    /// Through TLS. The connection's thread keeps this to itself: it is the only one that reads and writes.
    Tls(Box<ServerConnection>),
}

impl Transport {
    /// Whether workers may write to the socket themselves.
    pub fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Waits once for the socket, within its own read timeout, and reads what that brings: 0 is the end, `None` that more has
    /// to come before there is anything to read (a handshake goes on, a record is incomplete). What TLS sends by itself must be
    /// out by `until`.
    pub fn read(
        &mut self,
        mut socket: &Socket,
        buffer: &mut [u8],
        until: Instant,
    ) -> io::Result<Option<usize>> {
        let Transport::Tls(tls) = self else {
            return socket.read(buffer).map(Some);
        };
        if let Some(read) = decrypted(tls, buffer)? {
            return Ok(Some(read));
        }
        flush(tls, socket, until)?;
        if tls.read_tls(&mut socket)? == 0 {
            return Ok(Some(0));
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert says what is wrong.
            let _ = flush(tls, socket, until);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        flush(tls, socket, until)?;
        decrypted(tls, buffer)
    }

    /// Whether a handshake has still to be finished.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.is_handshaking())
    }

    /// Writes all of it by `until`.
    pub fn write_all(&mut self, socket: &Socket, bytes: &[u8], until: Instant) -> io::Result<()> {
        let Transport::Tls(tls) = self else {
            return WriteUntil(socket, until).write_all(bytes);
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = tls.writer().write(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
            flush(tls, socket, until)?;
        }
        flush(tls, socket, until)
    }

    /// Tells the other side, by `until`, that nothing more will come.
    pub fn finish(&mut self, socket: &Socket, until: Instant) {
        if let Transport::Tls(tls) = self {
            tls.send_close_notify();
            // A closed connection is not an error.
            let _ = flush(tls, socket, until);
        }
    }
}

/// What has been decrypted; `None` where there is nothing yet.
fn decrypted(tls: &mut ServerConnection, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match tls.reader().read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // The other side has cut the connection without saying goodbye; whoever counts bytes notices.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
        read => read.map(Some),
    }
}

fn flush(tls: &mut ServerConnection, socket: &Socket, until: Instant) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(&mut WriteUntil(socket, until))? == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
    }
    Ok(())
}
