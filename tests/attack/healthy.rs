//! A well-behaved client that measures its latency during an attack.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::attacked::AttackedServer;
use crate::support::Answer;
use crate::support::wire::{Endpoint, Wire, bearer, new_task, request};

/// The latency that 99 of 100 requests of other clients must keep during an attack.
const P99: Duration = Duration::from_millis(100);
/// Requests on one connection before the client opens another.
const ON_ONE_CONNECTION: usize = 16;
const PAUSE: Duration = Duration::from_millis(3);

/// The running client.
pub struct Watch {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Seen>,
}

/// The results of the client.
#[derive(Default)]
pub struct Seen {
    latencies: Vec<Duration>,
    /// Clean refusals: 503 with `Retry-After`, the connection closed after it.
    pub refusals: usize,
    errors: Vec<String>,
}

/// Starts a client that requests one task again and again until [`Watch::finish`].
pub fn watch(attacked: &AttackedServer) -> Watch {
    watch_at(&attacked.endpoint)
}

/// As [`watch`], for any server.
pub fn watch_at(endpoint: &Endpoint) -> Watch {
    let stop = Arc::new(AtomicBool::new(false));
    let (endpoint, stopped) = (endpoint.clone(), Arc::clone(&stop));
    let token = bearer("healthy");
    let task = endpoint
        .ask(&new_task(&token, "healthy"))
        .expect(201)
        .json();
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    let ask = request("GET", &path, &[("Authorization", &token)], b"");
    let client = thread::spawn(move || {
        let mut seen = Seen::default();
        while !stopped.load(Ordering::Relaxed) {
            if let Err(error) = seen.visit(&endpoint, &ask, &stopped) {
                seen.errors.push(error);
                thread::sleep(PAUSE);
            }
        }
        seen
    });
    Watch { stop, client }
}

impl Watch {
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap()
    }
}

impl Seen {
    /// Sends some requests on one connection. The time of the first includes opening the connection.
    fn visit(
        &mut self,
        endpoint: &Endpoint,
        ask: &[u8],
        stopped: &AtomicBool,
    ) -> Result<(), String> {
        let mut began = Instant::now();
        let mut wire = endpoint
            .open()
            .map_err(|error| format!("to connect: {error}"))?;
        for _ in 0..ON_ONE_CONNECTION {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let answer = exchange(&mut wire, ask)?;
            match answer.status {
                200 => self.latencies.push(began.elapsed()),
                503 if answer.header("Retry-After").is_some() => {
                    self.refusals += 1;
                    if answer.header("Connection") == Some("close") {
                        break;
                    }
                }
                _ => return Err(format!("{answer:?}")),
            }
            thread::sleep(PAUSE);
            began = Instant::now();
        }
        Ok(())
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }

    /// Asserts that the attack did not affect the client.
    #[track_caller]
    pub fn expect_undisturbed(&self) {
        self.expect_p99_under(P99);
    }

    /// Asserts that the client was always served, 99 of 100 times within this limit.
    #[track_caller]
    pub fn expect_p99_under(&self, limit: Duration) {
        self.expect_clean();
        assert_eq!(self.refusals, 0, "{self}");
        assert!(self.latencies.len() >= 50, "{self}");
        assert!(self.percentile(99) < limit, "{self}");
    }

    /// Asserts that every request was served or refused with 503.
    #[track_caller]
    pub fn expect_clean(&self) {
        assert!(
            self.errors.is_empty(),
            "{self}: {}",
            self.errors[..self.errors.len().min(5)].join("\n")
        );
    }
}

fn exchange(wire: &mut Wire, ask: &[u8]) -> Result<Answer, String> {
    // A server that refuses may close before everything is written. Its answer can still be read.
    let written = wire.write(ask);
    match wire.answer() {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(format!("closed without an answer ({written:?})")),
        Err(error) => Err(error.to_string()),
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "a healthy client: {} requests, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms, {} refused with 503, {} errors",
            self.latencies.len(),
            milliseconds(self.percentile(50)),
            milliseconds(self.percentile(99)),
            milliseconds(self.percentile(100)),
            self.refusals,
            self.errors.len()
        )
    }
}
