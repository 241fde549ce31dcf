//! Raw connections for misbehaving clients: over TCP, a Unix socket or TLS; in one write or in pieces.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use todo_api::auth::token::Minter;
use todo_api::domain::user::UserId;
use uuid::Uuid;

use super::app::SECRET;
use super::http::Answer;

/// Limit on a read or a write: longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The address of a server, and how to connect.
#[derive(Clone)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Tls(SocketAddr, Arc<ClientConfig>),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}

impl Endpoint {
    /// Opens a connection. Over TLS the handshake begins with the first read or write.
    pub fn open(&self) -> Result<Wire> {
        self.open_with(None)
    }

    /// As [`Endpoint::open`], with a receive buffer so small that the server can send almost nothing unless this side reads.
    pub fn open_narrow(&self) -> Result<Wire> {
        self.open_with(Some(4096))
    }

    fn open_with(&self, receive_buffer: Option<usize>) -> Result<Wire> {
        let stream = match self {
            Endpoint::Tcp(address) => Stream::Tcp(tcp(*address, receive_buffer)?),
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Endpoint::Tls(address, config) => {
                let name = ServerName::try_from("localhost").unwrap();
                let client =
                    ClientConnection::new(Arc::clone(config), name).map_err(Error::other)?;
                let stream = tcp(*address, receive_buffer)?;
                Stream::Tls(Box::new(StreamOwned::new(client, stream)))
            }
        };
        let wire = Wire {
            stream,
            read: Vec::new(),
        };
        wire.patience(PATIENCE)?;
        Ok(wire)
    }

    /// Sends these bytes on a connection of their own and returns the answer.
    #[track_caller]
    pub fn ask(&self, request: &[u8]) -> Answer {
        let mut wire = self.open().unwrap();
        wire.write(request).unwrap();
        wire.answer().unwrap().expect("an answer")
    }
}

fn tcp(address: SocketAddr, receive_buffer: Option<usize>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(size) = receive_buffer {
        // This must be set before connecting; otherwise the first window is large.
        socket.set_recv_buffer_size(size)?;
    }
    socket.connect_timeout(&SockAddr::from(address), Duration::from_secs(5))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// The stream below a [`Wire`].
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// One connection, with bytes that were read but not used yet.
pub struct Wire {
    pub stream: Stream,
    read: Vec<u8>,
}

impl Wire {
    /// Enlarges a narrow receive buffer.
    pub fn widen(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            SockRef::from(stream)
                .set_recv_buffer_size(1024 * 1024)
                .unwrap();
        }
    }

    /// Sets the limit on a read or a write.
    pub fn patience(&self, time: Duration) -> Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => set_timeouts(stream, time),
            Stream::Tls(stream) => set_timeouts(&stream.sock, time),
            Stream::Unix(stream) => {
                stream.set_write_timeout(Some(time))?;
                stream.set_read_timeout(Some(time))
            }
        }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Closes the writing side.
    pub fn end_writing(&mut self) -> Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
    }

    /// The next answer to a method other than HEAD; `None` if the server has closed the connection.
    pub fn answer(&mut self) -> Result<Option<Answer>> {
        self.next(false)
    }

    /// The next answer, to a HEAD.
    pub fn answer_to_head(&mut self) -> Result<Option<Answer>> {
        self.next(true)
    }

    fn next(&mut self, head_only: bool) -> Result<Option<Answer>> {
        let mut searched = 0;
        let head_end = loop {
            let from = searched.min(self.read.len());
            if let Some(at) = find(&self.read[from..], b"\r\n\r\n") {
                break from + at;
            }
            searched = self.read.len().saturating_sub(3);
            if !self.read_more()? {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let invalid = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
        let head = std::str::from_utf8(&self.read[..head_end])
            .map_err(|_| invalid("the head is not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| invalid(&format!("no status line: {status_line:?}")))?;
        let headers = lines
            .map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .ok_or_else(|| invalid(&format!("no header line: {line:?}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut answer = Answer {
            status,
            headers,
            body: String::new(),
        };
        let length: usize = match answer.header("Content-Length") {
            Some(length) if !head_only => length.parse().map_err(|_| invalid("bad length"))?,
            _ => 0,
        };
        let end = head_end + 4 + length;
        while self.read.len() < end {
            if !self.read_more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        answer.body = String::from_utf8(self.read[head_end + 4..end].to_vec())
            .map_err(|_| invalid("the body is not UTF-8"))?;
        self.read.drain(..end);
        Ok(Some(answer))
    }

    /// All bytes until the server closes the connection.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        while self.read_more()? {}
        Ok(std::mem::take(&mut self.read))
    }

    /// Asserts that the server closes the connection without an answer.
    #[track_caller]
    pub fn expect_silent_end(&mut self) {
        let rest = self.rest().unwrap();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    /// Whether the server closes the connection within this time, without an answer.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        self.patience(time).unwrap();
        let ended = self.read.is_empty()
            && match self.read_more() {
                Ok(more) => !more,
                // During a TLS handshake a closed connection is an error.
                Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            };
        self.patience(PATIENCE).unwrap();
        ended
    }

    /// Whether the server has closed the connection, without an answer.
    pub fn has_ended(&mut self) -> bool {
        self.set_nonblocking(true);
        let ended = self.ends_within(PATIENCE);
        self.set_nonblocking(false);
        ended
    }

    fn set_nonblocking(&self, on: bool) {
        let set = match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(on),
            Stream::Tls(stream) => stream.sock.set_nonblocking(on),
            Stream::Unix(stream) => stream.set_nonblocking(on),
        };
        set.unwrap();
    }

    fn read_more(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer)?;
        self.read.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

fn set_timeouts(stream: &TcpStream, time: Duration) -> Result<()> {
    stream.set_write_timeout(Some(time))?;
    stream.set_read_timeout(Some(time))
}

/// The first position of `needle`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A valid `Authorization` value for a user.
pub fn bearer(user: &str) -> String {
    let user = UserId::parse(user).unwrap();
    let token = Minter::new(SECRET).mint(&user, None, Duration::from_secs(3600));
    format!("Bearer {}", token.unwrap())
}

/// A well-formed request.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A request that makes a task.
pub fn new_task(authorization: &str, title: &str) -> Vec<u8> {
    post_task(authorization, &serde_json::json!({ "title": title }))
}

/// A request that makes a task with an id of the client's. Such a write is not grouped with others, so it occupies a worker.
pub fn new_task_with_id(authorization: &str, title: &str) -> Vec<u8> {
    let id = Uuid::new_v4();
    post_task(
        authorization,
        &serde_json::json!({ "title": title, "id": id }),
    )
}

fn post_task(authorization: &str, body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    let headers = [
        ("Authorization", authorization),
        ("Content-Type", "application/json"),
    ];
    request("POST", "/api/tasks", &headers, body.as_bytes())
}

/// Replaces each `$NAME` in a template.
pub fn fill(template: &[u8], values: &[(&str, &[u8])]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((first, tail)) = rest.split_first() {
        let found = values
            .iter()
            .find(|(name, _)| *first == b'$' && tail.starts_with(name.as_bytes()));
        match found {
            Some((name, value)) => {
                filled.extend_from_slice(value);
                rest = &tail[name.len()..];
            }
            None => {
                filled.push(*first);
                rest = tail;
            }
        }
    }
    filled
}

/// Sends requests that are each answered with an interim response and a refusal, without reading, until the server accepts no
/// more. Each part is sent separately, because the server sends no interim response after the body has begun.
pub fn fill_with_interim_responses(wire: &mut Wire, before: usize) {
    let head =
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    wire.patience(Duration::from_millis(300)).unwrap();
    let health = request("GET", "/health", &[], b"").repeat(before);
    let _ = wire.write(&health);
    for _ in 0..400 {
        std::thread::sleep(Duration::from_millis(3));
        if wire.write(head).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(3));
        if wire.write(b"{}").is_err() {
            return;
        }
    }
}
