//! The places to connect to: addresses, sockets, names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::target::{Host, HostKind};
use crate::sync::call_within;

/// A place to connect to.
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Looks a name up, until the deadline at the latest.
pub(super) fn look_up(name: &str, port: u16, by: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let question = (name.to_owned(), port);
    answer_by(by, move || Ok(question.to_socket_addrs()?.collect()))
}

/// Calls a resolver, because the system's has no deadline. One that is late ends by its own limits: 5 s for each server and attempt
/// (resolv.conf(5)).
fn answer_by<T: Send + 'static>(
    by: Instant,
    resolve: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let left = by.saturating_duration_since(Instant::now());
    call_within(left, "look-up", resolve)?
        .unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// The name for SNI and for the check of the certificate; the address if the name is not a valid one.
pub(super) fn name_for_tls(host: &Host, address: IpAddr) -> String {
    match &host.kind {
        HostKind::Tcp { name, .. } if ServerName::try_from(name.as_str()).is_ok() => name.clone(),
        _ => address.to_string(),
    }
}

/// A listener on loopback for `tokio-postgres` to connect to if the server is on a Unix socket.
///
/// `tokio-postgres` passes Unix sockets to no TLS connector, so they could have no deadline; but a server on this machine may stop
/// answering too, with its disk or its container. So `tokio-postgres` gets a TCP connection that carries no data, and our connector
/// opens the Unix socket instead. That costs 20 µs per connection.
///
/// # Errors
/// A sandbox allows no TCP. A connection is tried here, because a sandbox may drop its packets.
pub(super) fn stand_in() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_millis(250))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_look_up_at_a_silent_name_server_ends_with_its_deadline() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = silent.local_addr().unwrap();
        let limit = Duration::from_millis(100);
        let began = Instant::now();
        let answer = answer_by(began + limit, move || {
            let client = UdpSocket::bind("127.0.0.1:0")?;
            client.send_to(b"a query", server)?;
            client.recv(&mut [0; 512])
        });
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((limit..Duration::from_secs(5)).contains(&began.elapsed()));
        assert!(silent.recv(&mut [0; 512]).is_ok(), "the query was sent");
    }
}
