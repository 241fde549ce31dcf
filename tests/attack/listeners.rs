//! The tests that tests/it runs over TCP, on every kind of listener: malformed requests, unusual requests, impossible lengths,
//! and the self-check.

use std::thread;
use std::time::{Duration, Instant};

use crate::attacked::{AttackedServer, KINDS};
use crate::support::hold::{Lock, PATIENT};
use crate::support::requests::{LAST, MALFORMED, REFUSED_WITH_ONE_OF, UNUSUAL, bytes, code};
use crate::support::wire::{Endpoint, bearer, new_task, new_task_with_id, request};

/// Sends a malformed request followed by a good one. Returns the status of the refusal; the good one must not be answered.
fn refusal(endpoint: &Endpoint, malformed: &[u8], behind: &[u8]) -> Result<u16, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut wire = endpoint.open().map_err(failed)?;
    wire.write(&[malformed, behind].concat()).map_err(failed)?;
    let answer = wire.answer().map_err(failed)?.ok_or("no answer")?;
    answer.expect_error(answer.status, code(answer.status));
    match wire.rest() {
        Ok(rest) if rest.is_empty() => Ok(answer.status),
        other => Err(format!("{answer:?} and then {other:?}")),
    }
}

#[test]
fn malformed_and_unusual_requests_are_handled_the_same_on_every_listener() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[]);
        let endpoint = &attacked.endpoint;
        let token = bearer("smuggler");
        let mut refused = 0;
        let malformed = MALFORMED
            .iter()
            .map(|(status, template)| (std::slice::from_ref(status), *template));
        for (statuses, template) in malformed.chain(REFUSED_WITH_ONE_OF.iter().copied()) {
            let behind = new_task(&token, "smuggled");
            match refusal(endpoint, &bytes(template, &token), &behind) {
                Ok(status) if statuses.contains(&status) => refused += 1,
                other => panic!(
                    "{}: {statuses:?} wanted: {other:?}",
                    template.escape_ascii()
                ),
            }
        }
        let mut served = 0;
        let mut made = 0;
        let last = LAST
            .iter()
            .map(|(status, template)| (std::slice::from_ref(status), *template));
        for (statuses, template) in UNUSUAL.iter().copied().chain(last) {
            let mut wire = endpoint.open().unwrap();
            wire.write(&bytes(template, &token)).unwrap();
            wire.end_writing().unwrap();
            for status in statuses {
                let answer = wire.answer().unwrap().unwrap();
                assert_eq!(answer.status, *status, "{}", template.escape_ascii());
                made += u64::from(*status == 201);
                served += 1;
            }
            wire.expect_silent_end();
        }
        let list = request("GET", "/api/tasks", &[("Authorization", &token)], b"");
        let list = endpoint.ask(&list).expect(200).json();
        assert_eq!(list["count"], made, "no request was smuggled");
        println!(
            "malformed requests with a good one after them, {kind}: {refused} refused, nothing after them read; {served} unusual \
             ones served; {}",
            attacked.expect_memory_within(64)
        );
    }
}

#[test]
fn impossible_lengths_take_no_memory() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[]);
        let token = bearer("u1");
        let post = |framing: &str| {
            let head = format!(
                "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{framing}\r\n\r\n"
            );
            [head.as_bytes(), b"x"].concat()
        };
        refusal(&attacked.endpoint, &post("Content-Length: 9999999"), b"").unwrap();
        attacked.server.forget_peak();
        let before = attacked.server.memory();
        for _ in 0..50 {
            for framing in [
                "Content-Length: 1000000000000",
                "Content-Length: 1000000000000000",
                "Content-Length: 9223372036854775808",
                "Content-Length: 18446744073709551615",
                "Content-Length: 18446744073709551616",
                "Transfer-Encoding: chunked\r\n\r\nfffffffffffffff",
            ] {
                assert_eq!(
                    refusal(&attacked.endpoint, &post(framing), b""),
                    Ok(413),
                    "{framing}"
                );
            }
        }
        let grown = attacked.server.peak_memory().saturating_sub(before) / 1024;
        println!(
            "Content-Length of 10^12, 10^15, 2^63, 2^64-1, 2^64 and a chunk of 2^60, 50 times, {kind}: 413 each, {grown} KiB more memory, {}",
            attacked.expect_memory_within(64)
        );
        assert!(grown < 10 * 1024, "{grown} KiB");
    }
}

#[test]
fn the_self_check_works_on_every_listener() {
    for kind in KINDS {
        let mut settings = Vec::from(PATIENT);
        settings.extend([("SELF_CHECK_SECONDS", "0.5"), ("WORKERS", "2")]);
        let mut attacked = AttackedServer::start(kind, &settings);
        // Without a stuck worker the server keeps running.
        thread::sleep(Duration::from_secs(3));
        assert!(attacked.server.is_alive());
        let mut lock = Lock::tasks(&attacked.database);
        // One user cannot use the worker that is reserved for others.
        let _stuck = ["u1", "u2", "u3"].map(|user| {
            let mut wire = attacked.endpoint.open().unwrap();
            wire.write(&new_task_with_id(&bearer(user), "stuck"))
                .unwrap();
            wire
        });
        lock.wait_for_waiting(3);
        let began = Instant::now();
        let AttackedServer { server, .. } = attacked;
        let (status, log) = server.wait_at_most(Duration::from_secs(15));
        assert_eq!(status.code(), Some(1), "{log}");
        println!(
            "every worker stuck, {kind}: noticed by the self-check after {:.1} s, exit code 1",
            began.elapsed().as_secs_f64()
        );
    }
}
