//! Listening sockets, ours and those handed over by systemd.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use uuid::Uuid;

use crate::domain::address::Address;

/// Connections the kernel keeps waiting for us to accept them.
const BACKLOG: i32 = 1024;

/// A socket that is listened on.
pub struct BoundSocket {
    /// Its address, with the port it was given.
    pub address: Address,
    /// `None` for a socket of systemd: it stays open for the next process.
    socket: Option<Socket>,
    /// The socket's file, where we made it.
    file: Option<PathBuf>,
}

impl BoundSocket {
    /// Ends the listening. Connections that are open go on.
    pub fn close(&self) {
        if let Some(socket) = &self.socket {
            // It fails only where the socket is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(file) = &self.file {
            // It fails only where somebody else has removed it.
            let _ = fs::remove_file(file);
        }
    }
}

/// Starts to listen on an address; a Unix socket's file gets this mode.
///
/// # Errors
/// The text names the address.
pub fn bind(address: &Address, mode: u32) -> io::Result<(BoundSocket, Socket)> {
    let named = |error: io::Error| {
        let hint = match address {
            Address::Tcp(tcp) if error.kind() == io::ErrorKind::AddrInUse => {
                format!("; find its owner with: ss -ltnp 'sport = :{}'", tcp.port())
            }
            _ => String::new(),
        };
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}{hint}"),
        )
    };
    let (socket, file) = match address {
        Address::Tcp(address) => (bind_tcp(*address).map_err(named)?, None),
        Address::Unix(path) => (bind_unix(path, mode).map_err(named)?, Some(path.clone())),
    };
    let listener = socket.try_clone().map_err(named)?;
    // With the port that was given in place of port 0.
    let own = socket.local_addr().map_err(named)?.as_socket();
    let bound = BoundSocket {
        address: own.map_or_else(|| address.clone(), Address::Tcp),
        socket: Some(socket),
        file,
    };
    Ok((bound, listener))
}

/// As [`bind`], for tiny_http to accept on. A client over TCP that takes nothing of an answer for `send_time` is given up:
/// accepted sockets inherit the timeout on Linux, but Unix sockets do not.
///
/// # Errors
/// The text names the address.
pub fn bind_for_tiny_http(
    address: &Address,
    mode: u32,
    send_time: Duration,
) -> io::Result<(BoundSocket, tiny_http::Listener)> {
    let (bound, listener) = bind(address, mode)?;
    listener.set_write_timeout(Some(send_time))?;
    let listener = match address {
        Address::Tcp(_) => TcpListener::from(listener).into(),
        Address::Unix(_) => UnixListener::from(listener).into(),
    };
    Ok((bound, listener))
}

/// The sockets that systemd has handed over (sd_listen_fds(3)), if any.
///
/// # Errors
/// One of them is no listening TCP or Unix socket.
pub fn inherited() -> io::Result<Vec<(BoundSocket, Socket)>> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len())
        .map(|index| {
            let (address, listener) = match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => {
                    let listener = Socket::from(listener);
                    listener.set_tcp_nodelay(true)?;
                    (
                        listener.local_addr()?.as_socket().map(Address::Tcp),
                        listener,
                    )
                }
                _ => {
                    let taken =
                        || io::Error::other("a socket handed over by systemd cannot be used");
                    let listener = passed.take_unix_listener(index)?.ok_or_else(taken)?;
                    (None, Socket::from(listener))
                }
            };
            let path = || {
                listener
                    .local_addr()
                    .ok()?
                    .as_pathname()
                    .map(Path::to_path_buf)
            };
            let bound = BoundSocket {
                address: address.unwrap_or_else(|| Address::Unix(path().unwrap_or_default())),
                socket: None,
                file: None,
            };
            Ok((bound, listener))
        })
        .collect()
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it on Linux: an answer is one write and must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    remove_left_behind(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Removes the socket that a crash has left at `path`, if no process listens on it. Any other file is left alone and is an error.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    let in_use = |problem| Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return in_use(
                "there is something that is no socket; move it away, or name another path",
            );
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path) {
        Ok(_) => in_use("another program listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// A directory that only this user may enter, removed with all in it when it is dropped.
pub struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Makes one in the first place that can be written: where the system has its temporary files, in memory, or here.
    pub fn make() -> io::Result<PrivateDirectory> {
        let name = format!("todo-api-{}", Uuid::new_v4().simple());
        let places = [
            std::env::temp_dir(),
            PathBuf::from("/dev/shm"),
            PathBuf::from("."),
        ];
        let mut refusal = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let path = place.join(&name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(PrivateDirectory(path)),
                Err(error) => refusal = error,
            }
        }
        Err(io::Error::new(
            refusal.kind(),
            format!("no directory for temporary files can be written: {refusal}"),
        ))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // If this fails, an empty directory stays that no other user can enter.
        let _ = fs::remove_dir_all(&self.0);
    }
}
