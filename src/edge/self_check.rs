//! The server's self-check: a request over its own address and through a worker.
//!
//! Any answer counts, also a 503, and is reported to the supervisor. After three failed checks in a row the process ends, so that its
//! supervisor starts it again. A check waits for its answer as long as the interval. So a server that is busy or has no database
//! passes, because its workers still take requests.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use uuid::Uuid;

use super::EdgeShared;
use crate::domain::address::Address;
use crate::sync::lock;

/// Failed checks in a row after which the process ends.
const FAILURES: u32 = 3;

/// Checks every `interval`, each time waiting as long for an answer, until the server stops.
pub fn run(shared: &Arc<EdgeShared>, address: &Address, interval: Duration) {
    let mut failures = 0;
    loop {
        thread::sleep(interval);
        if shared.is_draining() {
            return;
        }
        let asked = ask(shared, address, interval);
        *lock(&shared.own) = None;
        let Err(error) = asked else {
            failures = 0;
            (shared.options.on_alive)();
            continue;
        };
        failures += 1;
        if failures == FAILURES {
            return (shared.options.on_failure)(format!(
                "the server has not answered itself at {address} {FAILURES} times in a row: {error}"
            ));
        }
        log::warn!(
            "the server does not answer itself at {address} ({failures} of {FAILURES}): {error}"
        );
    }
}

fn ask(shared: &EdgeShared, address: &Address, timeout: Duration) -> io::Result<()> {
    let (socket, to) = match address {
        Address::Tcp(address) => tcp(*address)?,
        Address::Unix(path) => unix(path)?,
    };
    // Bound before it connects, so that the event loop recognises the connection.
    *lock(&shared.own) = Some(socket.local_addr()?);
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&to)?;
    let mut socket = &socket;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 9];
    socket.read_exact(&mut start)?;
    match start.starts_with(b"HTTP/1.1 ") {
        true => Ok(()),
        false => Err(io::Error::other("the answer is not HTTP")),
    }
}

fn tcp(listening: SocketAddr) -> io::Result<(Socket, SockAddr)> {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let socket = Socket::new(Domain::for_address(listening), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(ip, 0).into())?;
    Ok((socket, SocketAddr::new(ip, listening.port()).into()))
}

fn unix(path: &Path) -> io::Result<(Socket, SockAddr)> {
    let name = format!("todo-api-self-check-{}", Uuid::new_v4().simple());
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A name that starts with NUL is abstract: it is in no directory and goes away with the socket.
    socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
    Ok((socket, SockAddr::unix(path)?))
}
