//! Listening sockets.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::listen::Address;

/// Connections the kernel keeps waiting for us to accept them.
const BACKLOG: i32 = 1024;

/// A socket that is listened on.
pub struct Bound {
    /// Its address, with the port it was given.
    pub address: Address,
    socket: Socket,
}

impl Bound {
    /// Ends the listening. Connections that are open go on.
    pub fn close(&self) {
        // It fails only where the socket is closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Starts to listen on an address.
pub fn bind(address: &Address) -> io::Result<(Bound, tiny_http::Listener)> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    match address {
        Address::Tcp(address) => bind_tcp(*address).map_err(named),
        Address::Unix(path) => bind_unix(path).map_err(named),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(Bound, tiny_http::Listener)> {
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
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    let listener = std::net::TcpListener::from(socket.try_clone()?);
    Ok((
        Bound {
            address: Address::Tcp(bound),
            socket,
        },
        listener.into(),
    ))
}

fn bind_unix(path: &Path) -> io::Result<(Bound, tiny_http::Listener)> {
    if path.exists() {
        // Left behind by a crash, unless somebody answers there.
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another program listens there",
            ));
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket.try_clone()?);
    Ok((
        Bound {
            address: Address::Unix(path.to_owned()),
            socket,
        },
        listener.into(),
    ))
}
