//! A client's socket, TCP or Unix. No call on it waits.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// A connected socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Socket {
        Socket(descriptor)
    }
}

impl Socket {
    /// Sends what the kernel takes at once. Returns how much that was: 0 if it takes nothing now.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// Reads what has arrived: `Some(0)` at the end, `None` if nothing has arrived.
    pub fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self, buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(None),
            received => Ok(Some(received?.0)),
        }
    }

    /// Whether something has arrived that has not been read.
    pub fn has_input(&self) -> bool {
        let mut byte = [0; 1];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        matches!(recv(self, &mut byte, flags), Ok((1.., _)))
    }

    /// Ends sending: the client finds the end of the stream.
    pub fn end_sending(&self) {
        // It fails only if the other side has closed the connection already.
        let _ = shutdown(self, Shutdown::Write);
    }

    /// Ends both directions, also for the thread that holds the socket.
    pub fn end(&self) {
        let _ = shutdown(self, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Fails with [`io::ErrorKind::WouldBlock`] if the kernel takes nothing now.
impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.send_now(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            sent => Ok(sent),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
