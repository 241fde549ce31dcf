//! Pipelining: answers come in the order of the requests, on the right connection.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::hold::large_list;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address};
use crate::support::tls::Certificate;
use crate::support::wire::{Endpoint, Wire, bearer, request};

/// A kind of request.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Health,
    Nowhere,
    Head,
    New,
    NewInChunks,
    List,
}

/// A client with a user of its own. It writes its requests in pieces.
struct Client {
    wire: Wire,
    name: String,
    asks: Vec<Ask>,
    bytes: Vec<u8>,
    written: usize,
}

impl Client {
    fn new(endpoint: &Endpoint, name: String, asks: &[Ask]) -> Client {
        let token = bearer(&name);
        let mut bytes = Vec::new();
        for (number, ask) in asks.iter().enumerate() {
            let id = format!("{name}-{number}");
            let headers = [("Authorization", token.as_str()), ("X-Request-ID", &id)];
            let body = format!("{{\"title\":\"{id}\"}}");
            bytes.extend(match ask {
                Ask::Health => request("GET", "/health", &headers, b""),
                Ask::Nowhere => request("DELETE", "/nowhere", &headers, b"a body"),
                Ask::Head => request("HEAD", "/", &headers, b""),
                Ask::List => request("GET", "/api/tasks", &headers, b""),
                Ask::New => request("POST", "/api/tasks", &headers, body.as_bytes()),
                Ask::NewInChunks => {
                    let headers = [headers[0], headers[1], ("Transfer-Encoding", "chunked")];
                    let (start, end) = body.split_at(3);
                    let chunks =
                        format!("3\r\n{start}\r\n{:X};x=y\r\n{end}\r\n0\r\n\r\n", end.len());
                    [
                        request("POST", "/api/tasks", &headers, b""),
                        chunks.into_bytes(),
                    ]
                    .concat()
                }
            });
        }
        let asks = asks.to_vec();
        Client {
            wire: endpoint.open().unwrap(),
            name,
            asks,
            bytes,
            written: 0,
        }
    }

    /// Writes up to `most` more bytes.
    fn write(&mut self, most: usize) {
        let end = self.bytes.len().min(self.written.saturating_add(most));
        self.wire.write(&self.bytes[self.written..end]).unwrap();
        self.written = end;
    }

    /// Writes the rest and reads every answer.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.write(usize::MAX);
        let mut made = 0;
        for (number, ask) in self.asks.clone().into_iter().enumerate() {
            let id = format!("{}-{number}", self.name);
            let answer = match ask {
                Ask::Head => self.wire.answer_to_head(),
                _ => self.wire.answer(),
            };
            let answer = answer.unwrap().unwrap();
            prop_assert_eq!(answer.header("X-Request-ID"), Some(id.as_str()));
            match ask {
                Ask::Health | Ask::Head => prop_assert_eq!(answer.status, 200),
                Ask::Nowhere => prop_assert_eq!(answer.status, 404),
                Ask::New | Ask::NewInChunks => {
                    made += 1;
                    prop_assert_eq!(answer.status, 201);
                    prop_assert_eq!(&answer.json()["title"], id.as_str());
                }
                Ask::List => {
                    prop_assert_eq!(answer.status, 200);
                    prop_assert_eq!(answer.json()["count"].as_u64(), Some(made));
                }
            }
        }
        self.wire.end_writing().unwrap();
        prop_assert!(self.wire.rest().unwrap().is_empty());
        Ok(())
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = prop_oneof![
        Just(Ask::Health),
        Just(Ask::Nowhere),
        Just(Ask::Head),
        Just(Ask::New),
        Just(Ask::NewInChunks),
        Just(Ask::List)
    ];
    proptest::collection::vec(ask, 1..8)
}

/// Two clients pipeline to an endpoint, in this many random orders.
fn interleave(endpoint: &Endpoint, cases: u32) {
    // Which client writes next, and how many bytes.
    let turns = proptest::collection::vec((any::<bool>(), 1_usize..400), 0..24);
    let numbers = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&(asks(), asks(), turns), |(first, second, turns)| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let mut stalled = Client::new(endpoint, format!("stalled-{number}"), &first);
        let mut other = Client::new(endpoint, format!("other-{number}"), &second);
        for (first, most) in turns {
            if first {
                stalled.write(most);
            } else {
                other.write(most);
            }
        }
        // The stalled client reads nothing and may stop in the middle of a request; the other gets all of its answers.
        other.finish()?;
        stalled.finish()
    });
    outcome.unwrap_or_else(|error| panic!("{error}\n{runner}"));
}

#[test]
fn two_pipelining_clients_never_get_each_others_answers() {
    let server = Process::serve(&fresh_database(), &[]);
    interleave(&Endpoint::from(server.address), 300);
}

#[test]
fn two_pipelining_clients_over_tls_or_a_unix_socket_never_get_each_others_answers() {
    let certificate = Certificate::make();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("todo.sock");
    let address = free_address();
    let listen = format!("{address},unix:{}", socket.display());
    let settings = certificate.settings();
    let mut settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    settings.push(("LISTEN", &listen));
    for endpoint in [
        Endpoint::Tls(address, certificate.client()),
        Endpoint::Unix(socket.clone()),
    ] {
        let _server = Process::serve(&fresh_database(), &settings);
        interleave(&endpoint, 60);
    }
}

#[test]
fn a_client_that_pipelines_and_does_not_read_delays_no_other_client() {
    let database = fresh_database();
    large_list(&database, "large");
    let server = Process::serve(&database, &[("WORKERS", "1")]);
    let token = bearer("large");
    let mut stalled = Endpoint::from(server.address).open_narrow().unwrap();
    for number in 0..7 {
        let target = if number % 3 == 1 {
            "/api/tasks"
        } else {
            "/api/tasks?limit=1"
        };
        let id = format!("large-{number}");
        let headers = [("Authorization", token.as_str()), ("X-Request-ID", &id)];
        stalled
            .write(&request("GET", target, &headers, b""))
            .unwrap();
    }
    for round in 0..5 {
        let name = format!("other-{round}");
        let mut other = Client::new(
            &server.address.into(),
            name,
            &[Ask::New, Ask::List, Ask::Health, Ask::List],
        );
        other.finish().unwrap();
    }
    stalled.widen();
    for number in 0..7 {
        let answer = stalled.answer().unwrap().unwrap().expect(200);
        let id = format!("large-{number}");
        assert_eq!(answer.header("X-Request-ID"), Some(id.as_str()));
        assert_eq!(
            answer.json()["count"],
            if number % 3 == 1 { 1000 } else { 1 }
        );
    }
}
