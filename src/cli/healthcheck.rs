//! `todo-api healthcheck`: asks the server of this configuration, and answers by exit code. It needs no other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::tls_client;
use super::{Call, Command, Failure, print};
use crate::domain::address::{Address, Listen};

/// Longest wait for each step.
const TIMEOUT: Duration = Duration::from_secs(3);

pub const COMMAND: Command = Command {
    usage: "healthcheck [--ready]",
    about: "Ask the server of this configuration whether it is alive; exit 0 or 1",
    help: "\n  --ready  ask whether it can serve tasks, too\n",
    run,
};

/// Asks the first address of the configuration.
fn run(call: &Call) -> Result<(), Failure> {
    let listening = call.config()?.listening;
    let Listen { address, direct } = listening
        .addresses
        .first()
        .ok_or_else(|| Failure::Failed("LISTEN names no address".to_owned()))?;
    let tls = listening.tls_cert_file.is_some() && !direct;
    let path = if call.has("ready") {
        "/health/ready"
    } else {
        "/health"
    };
    let answer = ask(address, tls, path)
        .map_err(|error| Failure::Failed(format!("{address} does not answer: {error}")))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if status == "200" {
        print(&format!("{body}\n"))
    } else {
        Err(Failure::Failed(format!(
            "{address} answers {status}: {body}"
        )))
    }
}

fn ask(address: &Address, tls: bool, path: &str) -> io::Result<String> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            if tls {
                exchange(tls_client::connect(stream).map_err(io::Error::other)?, path)
            } else {
                exchange(stream, path)
            }
        }
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
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
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
