//! `todo-api healthcheck`: asks the server of this configuration whether it is alive. It needs no other program.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{CommandLine, Failure, print};
use crate::domain::address::{Address, Listen};
use crate::store::connector::tls_without_verification;

/// Longest wait for each step.
const TIMEOUT: Duration = Duration::from_secs(3);

commands! {
    "healthcheck [--ready]", "Ask the server of this configuration whether it is alive; exit 0 or 1",
        "\n  --ready  ask whether it can serve tasks, too\n", run;
}

/// Asks at the first address of the configuration.
fn run(line: &CommandLine) -> Result<(), Failure> {
    let listening = line.config()?.listening;
    let Some(Listen { address, direct }) = listening.addresses.first() else {
        return Err("LISTEN names no address".into());
    };
    let tls = listening.tls_cert_file.is_some() && !direct;
    let path = match line.has("ready") {
        true => "/health/ready",
        false => "/health",
    };
    let answer =
        ask(address, tls, path).map_err(|error| format!("{address} does not answer: {error}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        "200" => print(&format!("{body}\n")),
        _ => Err(format!("{address} answers {status}: {body}").into()),
    }
}

fn ask(address: &Address, tls: bool, path: &str) -> io::Result<String> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            if !tls {
                return exchange(stream, path);
            }
            // The request holds no secret and asks only for a status, so any certificate will do.
            let config = tls_without_verification().map_err(io::Error::other)?;
            let name = ServerName::from(address.ip());
            let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
            exchange(StreamOwned::new(connection, stream), path)
        }
        Address::Unix(socket) => {
            let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            // Of the connecting too: it waits while the server's backlog is full (unix(7)).
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.connect(&SockAddr::unix(socket)?)?;
            exchange(stream, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server that listens on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
