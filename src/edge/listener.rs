//! Listening sockets, bound here or handed over by systemd.

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

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// A listening socket.
pub struct BoundSocket {
    /// Its address, with the real port.
    pub address: Address,
    /// `None` for a socket of systemd, which stays open for the next process.
    socket: Option<Socket>,
    /// The socket's file, if it was created here.
    file: Option<PathBuf>,
}

impl BoundSocket {
    /// Stops listening. Open connections stay open.
    pub fn close(&self) {
        if let Some(socket) = &self.socket {
            // It fails only if the socket is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(file) = &self.file {
            // It fails only if the file is gone already.
            let _ = fs::remove_file(file);
        }
    }
}

/// Starts to listen on an address; a Unix socket's file gets this mode.
///
/// # Errors
/// The text names the address.
pub fn bind(address: &Address, mode: u32) -> io::Result<(BoundSocket, Socket)> {
    let bind = || {
        let (socket, file) = match address {
            Address::Tcp(address) => (bind_tcp(*address)?, None),
            Address::Unix(path) => (bind_unix(path, mode)?, Some(path.clone())),
        };
        let listener = socket.try_clone()?;
        // With the port that the kernel has chosen for port 0.
        let own = socket.local_addr()?.as_socket();
        let bound = BoundSocket {
            address: own.map_or_else(|| address.clone(), Address::Tcp),
            socket: Some(socket),
            file,
        };
        Ok((bound, listener))
    };
    bind().map_err(|error: io::Error| {
        let hint = match address {
            Address::Tcp(tcp) if error.kind() == io::ErrorKind::AddrInUse => {
                format!("; find its owner with: ss -ltnp 'sport = :{}'", tcp.port())
            }
            _ => String::new(),
        };
        let problem = format!("cannot listen on {address}: {error}{hint}");
        io::Error::new(error.kind(), problem)
    })
}

/// As [`bind`], for tiny_http to accept on. The connection of a client over TCP that takes nothing of an answer for `send_time` is
/// closed: on Linux an accepted TCP socket inherits the timeout. An accepted Unix socket does not inherit it, and tiny_http keeps the
/// sockets that it accepts to itself, so answers over a Unix socket have no deadline: a proxy must read them.
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
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            let socket = Socket::from(tcp);
            socket.set_tcp_nodelay(true)?;
            socket
        } else if let Some(unix) = passed.take_unix_listener(index)? {
            Socket::from(unix)
        } else {
            let problem = "a socket handed over by systemd cannot be used";
            return Err(io::Error::other(problem));
        };
        let own = socket.local_addr()?;
        let path = || Address::Unix(own.as_pathname().unwrap_or(Path::new("")).to_owned());
        let bound = BoundSocket {
            address: own.as_socket().map_or_else(path, Address::Tcp),
            socket: None,
            file: None,
        };
        sockets.push((bound, socket));
    }
    Ok(sockets)
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

/// Removes a socket that a killed process has left at `path`. Any other file is left and is an error.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    let in_use = |problem| Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return in_use("a file that is no socket is there; move it, or name another path");
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

/// A directory that only this user may enter. It is removed with its files when this is dropped.
pub struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Creates one in the first place that can be written: the system's temporary directory, /dev/shm, or the working directory.
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
        let problem = format!("no directory for temporary files can be written: {refusal}");
        Err(io::Error::new(refusal.kind(), problem))
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
