//! A client's socket, TCP or Unix: one descriptor, read by its connection's thread and written by whoever has the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Sends what the kernel takes at once, and answers how much that was: 0 when it takes nothing now.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the kernel takes more, by `until` at the latest.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after that.
    fn wait_writable(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(self, PollFlags::OUT)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads past what has arrived; false when nothing more will.
    pub fn discard_now(&self) -> bool {
        let mut buffer = [0; 8 * 1024];
        matches!(
            recv(self, &mut buffer, RecvFlags::DONTWAIT),
            Ok((1.., _)) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// Whether something has arrived that has not been read.
    pub fn has_input(&self) -> bool {
        let mut byte = [0; 1];
        matches!(
            recv(self, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK),
            Ok((1.., _))
        )
    }

    /// Ends one or both directions. It fails only where the other side has done so already.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Socket::Tcp(socket) => socket.shutdown(how),
            Socket::Unix(socket) => socket.shutdown(how),
        };
    }

    /// Bounds each read that follows; the least is a millisecond.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Socket::Tcp(socket) => socket.set_read_timeout(timeout),
            Socket::Unix(socket) => socket.set_read_timeout(timeout),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Socket::Tcp(socket) => (&*socket).read(buffer),
                Socket::Unix(socket) => (&*socket).read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// Writes to a socket until a deadline. A client that does not read ends the write with [`io::ErrorKind::TimedOut`].
pub struct WriteUntil<'s>(pub &'s Socket, pub Instant);

impl Write for WriteUntil<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.send_now(bytes)? {
                0 if !bytes.is_empty() => self.0.wait_writable(self.1)?,
                sent => return Ok(sent),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error says that a timeout of the socket has passed.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_client_that_does_not_read_ends_in_time() {
        let (socket, _client) = UnixStream::pair().unwrap();
        let socket = Socket::Unix(socket);
        let began = Instant::now();
        let until = began + Duration::from_millis(200);
        let error = WriteUntil(&socket, until)
            .write_all(&[0; 10_000_000])
            .unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
