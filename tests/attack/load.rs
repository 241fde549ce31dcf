//! Honest work, and a great deal of it, while things change.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use serde_json::Value;

use crate::fortress::{Fortress, KINDS, Kind, QUIET};
use crate::support::hold::wait_until;
use crate::support::wire::{Door, Wire, bearer, new_task, request};

const CLIENTS: usize = 1_000;
/// Stack of a client's thread; there are many.
const STACK: usize = 256 * 1024;

/// What a task is, as far as its client knows: title, and whether it is done.
type Tasks = HashMap<String, (String, bool)>;

/// Works on tasks of one's own over one connection, until the time is over. Gives what must be there then.
fn work(door: &Door, name: &str, until: Instant, done: &AtomicUsize) -> Result<Tasks, String> {
    let token = bearer(name);
    let mut tasks = Tasks::new();
    let mut wire = door
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

/// Asserts that the database holds these tasks, as they are, and no others.
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
        let mut fortress = Fortress::behind(kind, &[QUIET]);
        let done = AtomicUsize::new(0);
        let (began, until) = (
            Instant::now(),
            Instant::now() + Duration::from_secs(seconds()),
        );
        let results: Vec<Result<Tasks, String>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (door, done) = (&fortress.door, &done);
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || {
                            work(door, &format!("c{number}"), until, done)
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
            "{CLIENTS} clients at work for {took:.0} s, {kind}: {done} requests, {} errors, {}",
            errors.len(),
            fortress.expect_alive_within(400)
        );
        assert!(errors.is_empty(), "{:?}", &errors[..errors.len().min(5)]);
        let expected: Tasks = results.into_iter().flat_map(Result::unwrap).collect();
        expect_tasks(&fortress.database, &expected);
    }
}

/// Makes tasks on kept connections until the server says that it is the last, and gives how many were acknowledged. A connection
/// that is closed while a request is on its way to it has failed.
fn make_until_told(door: &Door, name: usize, begun: &AtomicUsize) -> Result<usize, String> {
    let token = bearer("busy");
    let mut wire = door.open().map_err(|error| error.to_string())?;
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
        let fortress = Fortress::behind(kind, &[QUIET]);
        let begun = AtomicUsize::new(0);
        let (made, took) = thread::scope(|scope| {
            let clients: Vec<_> = (0..BUSY)
                .map(|name| {
                    let (door, begun) = (&fortress.door, &begun);
                    thread::Builder::new()
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || make_until_told(door, name, begun))
                        .unwrap()
                })
                .collect();
            wait_until(|| begun.load(Ordering::Relaxed) == BUSY);
            thread::sleep(Duration::from_secs(2));
            fortress.server.signal("TERM");
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
        let Fortress {
            server, database, ..
        } = fortress;
        let (status, log) = server.wait_at_most(Duration::from_secs(12));
        assert_eq!(status.code(), Some(0), "{log}");
        let mut client = Client::connect(&database, NoTls).unwrap();
        let rows: i64 = client
            .query_one("SELECT count(*) FROM todo.tasks", &[])
            .unwrap()
            .get(0);
        assert_eq!(usize::try_from(rows).unwrap(), acknowledged);
        println!(
            "SIGTERM while {BUSY} clients make tasks, {kind}: every one of {acknowledged} acknowledged and there, the last answer \
             {:.2} s after the signal",
            took.as_secs_f64()
        );
    }
}

/// Asks on new connections until told to stop; trusts whatever certificate is the one before or after the next change.
fn connect_again_and_again(doors: &Mutex<[Door; 2]>, stop: &AtomicBool) -> Result<usize, String> {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let [old, new] = doors.lock().unwrap().clone();
        let ask = |door: &Door| -> std::io::Result<bool> {
            let mut wire = door.open()?;
            for _ in 0..3 {
                wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
                match wire.answer()? {
                    Some(answer) if answer.status == 200 => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        };
        // A certificate that is not trusted is invalid data; anything else would be the server's fault.
        let outcome = match ask(&new) {
            Err(error) if error.kind() == ErrorKind::InvalidData => match ask(&old) {
                Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                other => other,
            },
            other => other,
        };
        match outcome {
            Ok(true) => answered += 1,
            Ok(false) => return Err("an answer that is none".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(answered)
}

#[test]
fn certificates_are_swapped_under_load() {
    let mut fortress = Fortress::behind(Kind::Tls, &[QUIET]);
    let mut certificate = fortress.certificate.take().unwrap();
    let address = fortress.server.address;
    let door =
        |certificate: &crate::support::tls::Certificate| Door::Tls(address, certificate.client());
    let doors = Mutex::new([door(&certificate), door(&certificate)]);
    let stop = AtomicBool::new(false);
    let mut kept: Vec<Wire> = (0..20)
        .map(|_| {
            let mut wire = fortress.door.open().unwrap();
            wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            wire.answer().unwrap().unwrap().expect(200);
            wire
        })
        .collect();
    let (swaps, answered) = thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| connect_again_and_again(&doors, &stop)))
            .collect();
        let mut swaps = 0;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(8) {
            certificate.replace();
            let new = door(&certificate);
            {
                let mut doors = doors.lock().unwrap();
                *doors = [doors[1].clone(), new.clone()];
            }
            fortress.server.signal("HUP");
            wait_until(|| new.open().and_then(|mut wire| wire.write(b"x")).is_ok());
            swaps += 1;
            thread::sleep(Duration::from_millis(100));
        }
        // Without a signal it is noticed, too; and what is no certificate is not taken.
        let good = fs::read(certificate.file()).unwrap();
        fs::write(certificate.file(), b"no certificate").unwrap();
        thread::sleep(Duration::from_secs(6));
        fs::write(certificate.file(), good).unwrap();
        certificate.replace();
        let new = door(&certificate);
        {
            let mut doors = doors.lock().unwrap();
            *doors = [doors[1].clone(), new.clone()];
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
        fortress.expect_alive_within(100)
    );
}
