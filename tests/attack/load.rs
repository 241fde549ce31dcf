//! Heavy load of valid requests, during a stop and a change of certificates.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use serde_json::Value;

use crate::attacked::{AttackedServer, KINDS, Kind, QUIET};
use crate::support::hold::wait_until;
use crate::support::wire::{Endpoint, Wire, bearer, new_task, request};

const CLIENTS: usize = 1_000;
/// Stack size of a client's thread, small because there are many.
const STACK: usize = 256 * 1024;

/// The tasks of a client by id: title and `completed`.
type Tasks = HashMap<String, (String, bool)>;

/// Works on tasks of one user over one connection until this moment. Returns the tasks that must then exist.
fn work(
    endpoint: &Endpoint,
    name: &str,
    until: Instant,
    done: &AtomicUsize,
) -> Result<Tasks, String> {
    let token = bearer(name);
    let mut tasks = Tasks::new();
    let mut wire = endpoint
        .open()
        .map_err(|error| format!("{name} to connect: {error}"))?;
    let mut ask = |method: &str, path: &str, body: &str, expected: u16| -> Result<Value, String> {
        let headers = [
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
        ];
        let failed = |what: String| format!("{name}: {method} {path}: {what}");
        wire.write(&request(method, path, &headers, body.as_bytes()))
            .map_err(|error| failed(error.to_string()))?;
        let answer = wire.answer().map_err(|error| failed(error.to_string()))?;
        let answer = answer.ok_or_else(|| failed("closed".to_owned()))?;
        if answer.status != expected {
            return Err(failed(format!("{answer:?}")));
        }
        done.fetch_add(1, Ordering::Relaxed);
        Ok(if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        })
    };
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let title = format!("{name}-{number}");
        let task = ask(
            "POST",
            "/api/tasks",
            &format!("{{\"title\":\"{title}\"}}"),
            201,
        )?;
        let id = task["id"].as_str().ok_or("no id")?.to_owned();
        let path = format!("/api/tasks/{id}");
        let seen = ask("GET", &path, "", 200)?;
        if seen["title"] != title.as_str() {
            return Err(format!("{name}: {seen} is not {title}"));
        }
        let changed = format!("{title} changed");
        let patch = format!("{{\"title\":\"{changed}\",\"completed\":true}}");
        ask("PATCH", &path, &patch, 200)?;
        if number % 2 == 0 {
            ask("DELETE", &path, "", 204)?;
            ask("GET", &path, "", 404)?;
        } else {
            tasks.insert(id, (changed, true));
        }
    }
    Ok(tasks)
}

/// Asserts that the database has exactly these tasks.
fn expect_tasks(database: &str, expected: &Tasks) {
    let mut client = Client::connect(database, NoTls).unwrap();
    let rows = client
        .query(
            "SELECT id::text, title, completed_at IS NOT NULL FROM todo.tasks",
            &[],
        )
        .unwrap();
    let found: Tasks = rows
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect();
    let lost = expected
        .iter()
        .filter(|(id, task)| found.get(*id) != Some(task))
        .count();
    assert_eq!((lost, found.len()), (0, expected.len()), "lost, found");
}

pub fn seconds() -> u64 {
    std::env::var("ATTACK_SECONDS").map_or(60, |seconds| {
        seconds.parse().expect("ATTACK_SECONDS is a number")
    })
}

#[test]
fn a_thousand_clients_lose_nothing() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[QUIET]);
        let done = AtomicUsize::new(0);
        let (began, until) = (
            Instant::now(),
            Instant::now() + Duration::from_secs(seconds()),
        );
        let results: Vec<Result<Tasks, String>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (endpoint, done) = (&attacked.endpoint, &done);
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || {
                            work(endpoint, &format!("c{number}"), until, done)
                        })
                        .unwrap()
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        let took = began.elapsed().as_secs_f64();
        let errors: Vec<&String> = results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .collect();
        let done = done.into_inner();
        println!(
            "{CLIENTS} clients for {took:.0} s, {kind}: {done} requests, {} errors, {}",
            errors.len(),
            attacked.expect_memory_within(400)
        );
        assert!(errors.is_empty(), "{:?}", &errors[..errors.len().min(5)]);
        let expected: Tasks = results.into_iter().flat_map(Result::unwrap).collect();
        expect_tasks(&attacked.database, &expected);
    }
}

/// Makes tasks on persistent connections until the server announces the last answer. Returns the number of acknowledged tasks.
/// Fails if a connection is closed while a request is in flight.
fn make_until_told(endpoint: &Endpoint, name: usize, begun: &AtomicUsize) -> Result<usize, String> {
    let token = bearer("busy");
    let mut wire = endpoint.open().map_err(|error| error.to_string())?;
    for number in 0.. {
        wire.write(&new_task(&token, &format!("{name}-{number}")))
            .map_err(|error| error.to_string())?;
        let answer = wire
            .answer()
            .map_err(|error| error.to_string())?
            .ok_or("closed without an answer")?;
        if answer.status != 201 {
            return Err(format!("{answer:?}"));
        }
        if number == 0 {
            begun.fetch_add(1, Ordering::Relaxed);
        }
        if answer.header("Connection") == Some("close") {
            return match wire.rest() {
                Ok(rest) if rest.is_empty() => Ok(number + 1),
                other => Err(format!("after the last answer: {other:?}")),
            };
        }
    }
    unreachable!()
}

#[test]
fn sigterm_under_load_loses_nothing() {
    const BUSY: usize = 300;
    for kind in KINDS {
        let attacked = AttackedServer::start(kind, &[QUIET]);
        let begun = AtomicUsize::new(0);
        let (made, took) = thread::scope(|scope| {
            let clients: Vec<_> = (0..BUSY)
                .map(|name| {
                    let (endpoint, begun) = (&attacked.endpoint, &begun);
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || make_until_told(endpoint, name, begun))
                        .unwrap()
                })
                .collect();
            wait_until(|| begun.load(Ordering::Relaxed) == BUSY);
            thread::sleep(Duration::from_secs(2));
            attacked.server.signal("TERM");
            let signalled = Instant::now();
            let made: Vec<Result<usize, String>> = clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect();
            (made, signalled.elapsed())
        });
        let errors: Vec<&String> = made.iter().filter_map(|made| made.as_ref().err()).collect();
        assert!(
            errors.is_empty(),
            "{} of {BUSY}: {:?}",
            errors.len(),
            &errors[..errors.len().min(5)]
        );
        let acknowledged: usize = made.into_iter().map(Result::unwrap).sum();
        let AttackedServer {
            server, database, ..
        } = attacked;
        let (status, log) = server.wait_at_most(Duration::from_secs(12));
        assert_eq!(status.code(), Some(0), "{log}");
        let mut client = Client::connect(&database, NoTls).unwrap();
        let rows: i64 = client
            .query_one("SELECT count(*) FROM todo.tasks", &[])
            .unwrap()
            .get(0);
        assert_eq!(usize::try_from(rows).unwrap(), acknowledged);
        println!(
            "SIGTERM while {BUSY} clients make tasks, {kind}: all {acknowledged} acknowledged tasks exist, the last answer \
             {:.2} s after the signal",
            took.as_secs_f64()
        );
    }
}

/// Sends requests on new connections until stopped. Trusts the certificate before and the one after the next change.
fn connect_again_and_again(
    endpoints: &Mutex<[Endpoint; 2]>,
    stop: &AtomicBool,
) -> Result<usize, String> {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let [old, new] = endpoints.lock().unwrap().clone();
        let ask = |endpoint: &Endpoint| -> std::io::Result<bool> {
            let mut wire = endpoint.open()?;
            for _ in 0..3 {
                wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
                match wire.answer()? {
                    Some(answer) if answer.status == 200 => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        };
        // An untrusted certificate is `InvalidData`. Any other error is a defect of the server.
        let outcome = match ask(&new) {
            Err(error) if error.kind() == ErrorKind::InvalidData => match ask(&old) {
                Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                other => other,
            },
            other => other,
        };
        match outcome {
            Ok(true) => answered += 1,
            Ok(false) => return Err("an invalid answer".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(answered)
}

#[test]
fn certificates_are_swapped_under_load() {
    let mut attacked = AttackedServer::start(Kind::Tls, &[QUIET]);
    let mut certificate = attacked.certificate.take().unwrap();
    let address = attacked.server.address;
    let endpoint = |certificate: &crate::support::tls::Certificate| {
        Endpoint::Tls(address, certificate.client())
    };
    let endpoints = Mutex::new([endpoint(&certificate), endpoint(&certificate)]);
    let stop = AtomicBool::new(false);
    let mut kept: Vec<Wire> = (0..20)
        .map(|_| {
            let mut wire = attacked.endpoint.open().unwrap();
            wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            wire.answer().unwrap().unwrap().expect(200);
            wire
        })
        .collect();
    let (swaps, answered) = thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| connect_again_and_again(&endpoints, &stop)))
            .collect();
        let mut swaps = 0;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(8) {
            certificate.replace();
            let new = endpoint(&certificate);
            {
                let mut endpoints = endpoints.lock().unwrap();
                *endpoints = [endpoints[1].clone(), new.clone()];
            }
            attacked.server.signal("HUP");
            wait_until(|| new.open().and_then(|mut wire| wire.write(b"x")).is_ok());
            swaps += 1;
            thread::sleep(Duration::from_millis(100));
        }
        // The server notices a change without a signal too, and ignores a file that is not a certificate.
        let good = fs::read(certificate.file()).unwrap();
        fs::write(certificate.file(), b"no certificate").unwrap();
        thread::sleep(Duration::from_secs(6));
        fs::write(certificate.file(), good).unwrap();
        certificate.replace();
        let new = endpoint(&certificate);
        {
            let mut endpoints = endpoints.lock().unwrap();
            *endpoints = [endpoints[1].clone(), new.clone()];
        }
        wait_until(|| new.open().and_then(|mut wire| wire.write(b"x")).is_ok());
        stop.store(true, Ordering::Relaxed);
        let answered: Vec<Result<usize, String>> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        (swaps, answered)
    });
    let answered: usize = answered.into_iter().map(|answered| answered.unwrap()).sum();
    for wire in &mut kept {
        wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        wire.answer().unwrap().unwrap().expect(200);
    }
    println!(
        "certificates swapped {swaps} times on SIGHUP and once without while clients connect: {answered} connections served, none \
         failed, {}",
        attacked.expect_memory_within(100)
    );
}
