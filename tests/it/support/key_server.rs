//! A server that publishes a key set, correctly or not.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use todo_api::auth::jwks::{KeySetUrl, Keys, Location, Timing};

/// How a [`KeyServer`] answers a request.
#[derive(Clone)]
pub enum Publishes {
    /// Answers 200 with this body.
    Body(String),
    /// Answers with this status, this header field and this body.
    Status(u16, String, String),
    /// Answers with this many bytes, without a length.
    Endless(usize),
    /// Reads the request and does not answer for this long.
    Silence(Duration),
    /// Answers 200 with this body after this time.
    Late(Duration, String),
    /// Closes the connection.
    Nothing,
}

/// An HTTP server on loopback with a key set.
pub struct KeyServer {
    pub address: SocketAddr,
    publishes: Arc<Mutex<Publishes>>,
    asked: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KeyServer {
    pub fn start(publishes: Publishes) -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let publishes = Arc::new(Mutex::new(publishes));
        let asked = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let state = (
            Arc::clone(&publishes),
            Arc::clone(&asked),
            Arc::clone(&stopping),
        );
        let thread = thread::spawn(move || {
            let (publishes, asked, stopping) = state;
            for client in listener.incoming().flatten() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let publishes = publishes.lock().unwrap().clone();
                thread::spawn(move || answer(client, publishes));
            }
        });
        KeyServer {
            address,
            publishes,
            asked,
            stopping,
            thread: Some(thread),
        }
    }

    /// Changes the answers.
    pub fn publish(&self, publishes: Publishes) {
        *self.publishes.lock().unwrap() = publishes;
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it has had this many requests.
    #[track_caller]
    pub fn wait_until_asked(&self, times: usize) {
        super::hold::wait_until(|| self.asked() >= times);
    }

    /// The keys of a server that is configured with its address.
    pub fn keys(&self, timing: Timing) -> Keys {
        let url = format!("http://{}/api/auth/jwks", self.address);
        let location = Location::Url(KeySetUrl::parse(&url).unwrap());
        Keys::load(&location, timing).unwrap()
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut client: TcpStream, publishes: Publishes) {
    let head = BufReader::new(client.try_clone().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .count();
    if head == 0 {
        return;
    }
    let publishes = match publishes {
        Publishes::Late(time, body) => {
            thread::sleep(time);
            Publishes::Body(body)
        }
        other => other,
    };
    // Ends when the client closes the connection.
    let _ = match publishes {
        Publishes::Body(body) | Publishes::Late(_, body) => write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
        Publishes::Status(status, field, body) => write!(
            client,
            "HTTP/1.1 {status} Other\r\n{field}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
        Publishes::Endless(bytes) => client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"keys\":[")
            .and_then(|()| client.write_all(&vec![b' '; bytes]))
            .and_then(|()| client.write_all(b"]}")),
        Publishes::Silence(time) => {
            thread::sleep(time);
            Ok(())
        }
        Publishes::Nothing => Ok(()),
    };
}
