//! A link to PostgreSQL that can be cut, fall silent, and be measured: TCP in front, the Unix socket behind.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A proxy that runs until the process ends.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    silent: AtomicBool,
    /// Messages, or batches of them, that the client has sent.
    sent: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(socket: &Path) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            silent: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let (accepting, socket): (_, PathBuf) = (Arc::clone(&state), socket.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, state, socket) =
                    (client.unwrap(), Arc::clone(&accepting), socket.clone());
                thread::spawn(move || {
                    state.open.lock().unwrap().push(client.try_clone().unwrap());
                    state.wait();
                    let Ok(server) = UnixStream::connect(socket) else {
                        return;
                    };
                    let (mut from_client, mut to_server) =
                        (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let (mut from_server, mut to_client) = (server, client);
                    let other = Arc::clone(&state);
                    thread::spawn(move || {
                        copy(&mut from_client, &mut to_server, || {
                            other.sent.fetch_add(1, Ordering::SeqCst);
                            other.wait();
                        });
                        let _ = to_server.shutdown(Shutdown::Both);
                    });
                    copy(&mut from_server, &mut to_client, || state.wait());
                    let _ = to_client.shutdown(Shutdown::Both);
                });
            }
        });
        Proxy { address, state }
    }

    /// The URL of a database through the proxy, from its direct URL.
    pub fn url(&self, direct: &str) -> String {
        let database = direct
            .rsplit_once('/')
            .unwrap()
            .1
            .split('?')
            .next()
            .unwrap();
        format!("postgresql://todo@{}/{database}", self.address)
    }

    /// How many times the client has sent data. Each transaction counts at least once.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Stops forwarding and keeps connections open.
    pub fn fall_silent(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
    }

    /// Forwards again, the delayed data first.
    pub fn speak(&self) {
        self.state.silent.store(false, Ordering::SeqCst);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn wait(&self) {
        while self.silent.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, before_write: impl Fn()) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        before_write();
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
}
