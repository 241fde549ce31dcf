//! Where an attempt to connect goes: addresses, sockets, names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::target::{Host, HostKind};

/// Where one attempt goes.
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Looks a name up, waiting no longer than the deadline.
///
/// The system's resolver has no deadline of its own, so it is asked by a thread, which is left to finish when it is
/// late. (It ends with the resolver's own limits: 5 s for each server and attempt, as resolv.conf(5) has it.)
pub(super) fn look_up(name: &str, port: u16, by: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let question = (name.to_owned(), port);
    thread::Builder::new()
        .name("look-up".to_owned())
        .spawn(move || {
            let answer = question
                .to_socket_addrs()
                .map(|addresses| addresses.collect::<Vec<_>>());
            // After the deadline there is no receiver.
            let _ = sender.send(answer);
        })?;
    receiver
        .recv_timeout(by.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// The name for SNI and for the check of the certificate; the address where the name cannot be one.
pub(super) fn name_for_tls(host: &Host, address: IpAddr) -> String {
    match &host.kind {
        HostKind::Tcp { name, .. } if ServerName::try_from(name.as_str()).is_ok() => name.clone(),
        _ => address.to_string(),
    }
}

/// A listener on loopback for `tokio-postgres` to connect to when the server is on a Unix socket.
///
/// `tokio-postgres` hands Unix sockets to no TLS connector, so that no deadline could be put on them; and a server on
/// this machine can fall silent too, with the disk under it or with its container. So it is given a TCP connection
/// that carries no data, and our connector opens the Unix socket in its place. That costs 20 µs per connection.
///
/// Errors: where a sandbox allows no TCP, which is tried here, because there packets may simply vanish.
pub(super) fn stand_in() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_millis(250))?;
    Ok(listener)
}
