//! RFC 9112: malformed requests are refused and end the connection; unusual valid requests are served.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::Answer;
use crate::support::hold::{Lock, PATIENT};
use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::requests::{LAST, MALFORMED, REFUSED_WITH_ONE_OF, UNUSUAL, bytes, code};
use crate::support::wire::{Endpoint, Wire, bearer, new_task, request};

/// How a malformed request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    InOneWrite,
    AfterAGoodOne,
    ByteByByte,
}

/// Sends a malformed request followed by a good one. Returns the answer to the first. Anything but a closed connection after it
/// is an error.
fn provoke(
    endpoint: &Endpoint,
    malformed: &[u8],
    behind: &[u8],
    manner: Manner,
) -> Result<Answer, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut wire = endpoint.open().map_err(failed)?;
    wire.patience(Duration::from_secs(5)).map_err(failed)?;
    // The server may refuse and close before everything is written. Its answer must still be readable.
    match manner {
        Manner::InOneWrite => {
            let _ = wire.write(&[malformed, behind].concat());
        }
        Manner::AfterAGoodOne => {
            let good = request("GET", "/nowhere", &[], b"");
            let (start, end) = malformed.split_at(malformed.len() / 2);
            let _ = wire.write(&[&good, start].concat());
            let _ = wire.write(&[end, behind].concat());
            match wire.answer().map_err(failed)? {
                Some(answer) if answer.status == 404 => {}
                other => return Err(format!("{other:?} for the good request before it")),
            }
        }
        Manner::ByteByByte => {
            let _ = malformed.iter().try_for_each(|byte| wire.write(&[*byte]));
            let _ = wire.write(behind);
        }
    }
    let answer = wire.answer().map_err(failed)?.ok_or("no answer")?;
    match wire.rest() {
        Ok(rest) if rest.is_empty() => Ok(answer),
        Ok(rest) => Err(format!("{}, then {}", answer.status, rest.escape_ascii())),
        Err(error) => Err(format!("{}, then {error}", answer.status)),
    }
}

#[test]
fn a_malformed_request_is_refused_once_and_nothing_after_it_is_read() {
    let server = Process::serve(&fresh_database(), &[]);
    let endpoint = Endpoint::from(server.address);
    let token = bearer("smuggler");
    let cases: Vec<(&[u16], &[u8])> = MALFORMED
        .iter()
        .map(|(status, template)| (std::slice::from_ref(status), *template))
        .chain(REFUSED_WITH_ONE_OF.iter().copied())
        .collect();
    let mut ids = HashSet::new();
    let mut wrong = Vec::new();
    for manner in [
        Manner::InOneWrite,
        Manner::AfterAGoodOne,
        Manner::ByteByByte,
    ] {
        for (number, (statuses, template)) in cases.iter().enumerate() {
            let malformed = bytes(template, &token);
            let behind = new_task(&token, &format!("smuggled {manner:?} {number}"));
            let answer = match provoke(&endpoint, &malformed, &behind, manner) {
                Ok(answer) if statuses.contains(&answer.status) => answer,
                other => {
                    let got = other.map_or_else(|why| why, |answer| answer.status.to_string());
                    let shown = malformed.escape_ascii();
                    wrong.push(format!(
                        "{manner:?} {shown}\n    expected {statuses:?}: {got}"
                    ));
                    assert!(wrong.len() < 20, "too many wrong:\n{}", wrong.join("\n"));
                    continue;
                }
            };
            answer.expect_error(answer.status, code(answer.status));
            assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
            assert_eq!(answer.header("Server"), Some("todo-api"), "{answer:?}");
            assert!(
                ids.insert(answer.header("X-Request-ID").unwrap().to_owned()),
                "no request id: {answer:?}"
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let list = server.user("smuggler").get("/api/tasks").expect(200).json();
    assert_eq!(list["tasks"], serde_json::json!([]));

    // Each refusal has a line in the log, as a request has.
    server
        .user("smuggler")
        .send("GET", "/nowhere", &[("X-Request-ID", "the-last-one")], None);
    let log = server.wait_for("request_id=the-last-one");
    let logged: HashSet<&str> = log
        .lines()
        .filter(|line| line.contains(" access: "))
        .filter_map(|line| line.split("request_id=").nth(1))
        .collect();
    let missing: Vec<&String> = ids
        .iter()
        .filter(|id| !logged.contains(id.as_str()))
        .collect();
    assert!(missing.is_empty(), "not logged: {missing:?}");
}

#[test]
fn a_request_with_an_incomplete_body_is_not_served() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = bearer("smuggler");
    for template in [
        &b"$POSTContent-Length: 16\r\n\r\n$BODY"[..],
        b"$POSTContent-Length: 1000\r\n\r\n$BODY",
        b"$POST$CHUNKED\r\nf\r\n$BODY",
        b"$POST$CHUNKED\r\nf\r\n$BODY\r\n",
        b"$POST$CHUNKED\r\nf\r\n$BODY\r\n0",
        b"$POST$CHUNKED\r\nf\r\n$BODY\r\n0\r\n",
        b"$POST$CHUNKED\r\nf\r\n$BODY\r\n0\r\nX-Trailer: a\r\n",
        b"$POSTContent-Length: 15\r\n",
        b"$POST",
        b"POST /api/ta",
    ] {
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(&bytes(template, &token)).unwrap();
        wire.end_writing().unwrap();
        // It may be answered with an error or not at all, but it must not be served.
        if let Some(answer) = wire.answer().unwrap() {
            answer.expect_error(400, "BAD_REQUEST");
        }
        wire.expect_silent_end();
    }
    let list = server.user("smuggler").get("/api/tasks").expect(200).json();
    assert_eq!(list["count"], 0);
}

/// Writes in pieces of this many bytes; 0 for all in one write.
fn write_in_pieces(wire: &mut Wire, bytes: &[u8], size: usize) -> std::io::Result<()> {
    let size = if size == 0 { bytes.len() } else { size };
    bytes.chunks(size).try_for_each(|piece| wire.write(piece))
}

/// Sends a request in pieces and another after it. Returns what went wrong.
fn serve(endpoint: &Endpoint, all: &[u8], statuses: &[u16], piece: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut wire = endpoint.open().map_err(failed)?;
    wire.patience(Duration::from_secs(5)).map_err(failed)?;
    let ordinary = request("GET", "/", &[], b"");
    write_in_pieces(&mut wire, &[all, &ordinary].concat(), piece).map_err(failed)?;
    for status in statuses.iter().chain(&[200]) {
        let answer = wire.answer().map_err(failed)?.ok_or("closed")?;
        let fine = answer.status == *status
            && answer.header("Server") == Some("todo-api")
            && answer.header("Connection") != Some("close")
            && (*status != 201 || answer.json()["title"] == "bad");
        if !fine {
            return Err(format!("{status} wanted: {answer:?}"));
        }
    }
    wire.end_writing().map_err(failed)?;
    match wire.rest().map_err(failed)? {
        rest if rest.is_empty() => Ok(()),
        rest => Err(format!("and then {}", rest.escape_ascii())),
    }
}

#[test]
fn unusual_requests_are_served_and_the_connection_stays_open() {
    let server = Process::serve(&fresh_database(), &[]);
    let endpoint = Endpoint::from(server.address);
    let token = bearer("u1");
    let mut wrong = Vec::new();
    for piece in [0, 1, 7] {
        for (statuses, template) in UNUSUAL {
            let all = bytes(template, &token);
            if let Err(problem) = serve(&endpoint, &all, statuses, piece) {
                wrong.push(format!("{}\n    {problem}", template.escape_ascii()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let created: usize = UNUSUAL
        .iter()
        .map(|(statuses, _)| statuses.iter().filter(|status| **status == 201).count())
        .sum();
    let list = server.user("u1").get("/api/tasks").expect(200).json();
    assert_eq!(list["count"], 3 * created);
}

#[test]
fn nothing_is_read_after_the_last_request_of_a_connection() {
    let server = Process::serve(&fresh_database(), &[]);
    let endpoint = Endpoint::from(server.address);
    let token = bearer("u1");
    let behinds: [&[u8]; 4] = [
        b"",
        b"trailing garbage \0\xff\r\n\r\n",
        b"\r\n\r\n",
        b"$POSTContent-Length: 20\r\n\r\n{\"title\":\"smuggled\"}",
    ];
    for (status, template) in LAST {
        for behind in behinds {
            let mut wire = endpoint.open().unwrap();
            let whole = [bytes(template, &token), bytes(behind, &token)].concat();
            wire.write(&whole).unwrap();
            let answer = wire.answer().unwrap().unwrap().expect(*status);
            assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
            wire.expect_silent_end();
        }
    }
    let list = server.user("u1").get("/api/tasks").expect(200).json();
    let titles: HashSet<&str> = list["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, HashSet::from(["bad"]));
}

#[test]
fn options_with_an_asterisk_is_answered() {
    let server = Process::serve(&fresh_database(), &[]);
    let mut wire = Endpoint::from(server.address).open().unwrap();
    for _ in 0..2 {
        wire.write(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let answer = wire.answer().unwrap().unwrap();
        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    }
}

#[test]
fn head_has_the_header_fields_of_get_and_no_body() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = bearer("u1");
    let mut wire = Endpoint::from(server.address).open().unwrap();
    for target in ["/", "/health", "/api/tasks", "/nowhere", "/api/tasks/x"] {
        let authorization = [("Authorization", token.as_str())];
        wire.write(&request("HEAD", target, &authorization, b""))
            .unwrap();
        let head = wire.answer_to_head().unwrap().unwrap();
        wire.write(&request("GET", target, &authorization, b""))
            .unwrap();
        let get = wire.answer().unwrap().unwrap();
        assert_eq!(head.status, get.status, "{target}");
        assert!(!get.body.is_empty(), "{target}");
        for field in ["Content-Length", "Content-Type"] {
            assert_eq!(head.header(field), get.header(field), "{target} {field}");
        }
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_before_it_sends_the_body() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = bearer("u1");
    let mut wire = Endpoint::from(server.address).open().unwrap();
    for expectation in ["100-continue", "100-Continue"] {
        for (framing, body) in [
            ("Content-Length: 15\r\n", &b"$BODY"[..]),
            ("$CHUNKED", b"f\r\n$BODY\r\n0\r\n\r\n"),
        ] {
            let head = format!("$POSTExpect: {expectation}\r\n{framing}\r\n");
            wire.write(&bytes(head.as_bytes(), &token)).unwrap();
            let interim = wire.answer().unwrap().unwrap().expect(100);
            assert!(interim.header("Content-Length").is_none(), "{interim:?}");
            wire.write(&bytes(body, &token)).unwrap();
            wire.answer().unwrap().unwrap().expect(201);
        }
    }
    // The server does not ask for a body that it will not read.
    for framing in ["1048577", "1000000000000000", "99999999999999999999"] {
        let id = format!("too-large-{framing}");
        let head = format!(
            "$POSTExpect: 100-continue\r\nX-Request-ID: {id}\r\nContent-Length: {framing}\r\n\r\n"
        );
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(&bytes(head.as_bytes(), &token)).unwrap();
        let answer = wire.answer().unwrap().unwrap();
        answer.expect_error(413, "PAYLOAD_TOO_LARGE");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(answer.header("X-Request-ID"), Some(id.as_str()));
        wire.expect_silent_end();
        let log = server.wait_for(&format!("request_id={id}"));
        let line = log.lines().last().unwrap();
        assert!(line.contains("method=POST"), "{line}");
    }
}

#[test]
fn a_100_continue_does_not_overtake_the_answer_before_it() {
    let database = fresh_database();
    let mut settings = Vec::from(PATIENT);
    settings.push(("QUEUE_TIMEOUT", "30"));
    let server = Process::serve(&database, &settings);
    let token = bearer("u1");
    let mut lock = Lock::tasks(&database);
    let mut wire = Endpoint::from(server.address).open().unwrap();
    let head = b"$POSTExpect: 100-continue\r\nContent-Length: 15\r\n\r\n";
    let both = [new_task(&token, "first"), bytes(head, &token)].concat();
    wire.write(&both).unwrap();
    lock.wait_for_waiting(1);
    thread::sleep(Duration::from_millis(100));
    lock.release();
    wire.answer().unwrap().unwrap().expect(201);
    wire.answer().unwrap().unwrap().expect(100);
    wire.write(&bytes(b"$BODY", &token)).unwrap();
    wire.answer().unwrap().unwrap().expect(201);
}

#[test]
fn twenty_requests_in_one_write_are_answered_in_order() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = bearer("u1");
    let mut all = Vec::new();
    for number in 0..20 {
        let id = format!("pipelined-{number}");
        let headers = [
            ("X-Request-ID", id.as_str()),
            ("Authorization", token.as_str()),
        ];
        let body = format!("{{\"title\":\"number {number}\"}}");
        all.extend(match number % 4 {
            0 => request("GET", "/health", &headers, b""),
            1 => request("POST", "/api/tasks", &headers, body.as_bytes()),
            2 => request("GET", "/api/tasks", &headers, b""),
            _ => request("GET", "/nowhere", &headers, b""),
        });
    }
    let mut wire = Endpoint::from(server.address).open().unwrap();
    wire.write(&all).unwrap();
    let mut created = 0;
    for number in 0..20 {
        let answer = wire.answer().unwrap().unwrap();
        let id = format!("pipelined-{number}");
        assert_eq!(answer.header("X-Request-ID"), Some(id.as_str()));
        match number % 4 {
            1 => {
                created += 1;
                let title = answer.expect(201).json()["title"].clone();
                assert_eq!(title, Value::from(format!("number {number}")));
            }
            // The requests run one at a time: each sees the effects of those before it only.
            2 => assert_eq!(answer.expect(200).json()["count"], created),
            0 => drop(answer.expect(200)),
            _ => drop(answer.expect(404)),
        }
    }
}

#[test]
fn a_half_closed_connection_still_gets_its_answers() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let token = bearer("u1");
    for requests in [1, 5] {
        let mut wire = Endpoint::from(server.address).open().unwrap();
        wire.write(&new_task(&token, "half-closed").repeat(requests))
            .unwrap();
        wire.end_writing().unwrap();
        for _ in 0..requests {
            wire.answer().unwrap().unwrap().expect(201);
        }
        wire.expect_silent_end();
    }
    // The same with an answer that takes longer.
    let mut lock = Lock::tasks(&database);
    let mut wire = Endpoint::from(server.address).open().unwrap();
    wire.write(&new_task(&token, "half-closed and slow"))
        .unwrap();
    wire.end_writing().unwrap();
    lock.wait_for_waiting(1);
    thread::sleep(Duration::from_millis(100));
    lock.release();
    wire.answer().unwrap().unwrap().expect(201);
    wire.expect_silent_end();
}
