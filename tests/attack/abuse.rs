//! Clients that reset connections, reconnect at once, and send requests that are expensive to read.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use socket2::SockRef;

use crate::attacked::{AttackedServer, KINDS, Kind, QUIET};
use crate::healthy::watch;
use crate::support::hold::wait_until;
use crate::support::wire::{Endpoint, Stream, Wire, bearer, new_task, request};

/// Resets the connection; data in flight is lost.
fn reset(wire: Wire) {
    let abort = Some(Duration::ZERO);
    match &wire.stream {
        Stream::Tcp(stream) => SockRef::from(stream).set_linger(abort).unwrap(),
        Stream::Tls(stream) => SockRef::from(&stream.sock).set_linger(abort).unwrap(),
        Stream::Unix(_) => {}
    }
}

#[test]
fn clients_that_disconnect_before_their_answer_leave_nothing_behind() {
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[QUIET]);
        let token = bearer("rude");
        let descriptors = attacked.server.settled_descriptors();
        let healthy = watch(&attacked);
        let sent: usize = thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let (endpoint, token) = (&attacked.endpoint, &token);
                    scope.spawn(move || {
                        let began = Instant::now();
                        let mut sent = 0_usize;
                        while began.elapsed() < Duration::from_secs(4) {
                            let mut wire = endpoint.open().unwrap();
                            let title = format!("{client}-{sent}");
                            // Several requests in one write: when the first answer fails, the others still wait. Few of them use
                            // the database, which finishes its work even if the client has disconnected.
                            let requests = match sent % 8 {
                                0 => new_task(token, &title),
                                1..4 => request("GET", "/", &[], b""),
                                _ => request("POST", "/api/tasks", &[], b"{}"),
                            };
                            let _ = wire.write(&requests.repeat(1 + sent % 3));
                            if sent.is_multiple_of(2) {
                                thread::sleep(Duration::from_millis(1));
                            }
                            reset(wire);
                            sent += 1;
                            thread::sleep(Duration::from_millis(1));
                        }
                        sent
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .sum()
        });
        let seen = healthy.finish();
        println!(
            "{sent} clients disconnected before their answer, {kind}: {}; {seen}",
            attacked.expect_memory_within(64)
        );
        wait_until(|| attacked.server.descriptors() <= descriptors);
        seen.expect_undisturbed();
        // Every stored task is complete.
        let mut client = Client::connect(&attacked.database, NoTls).unwrap();
        let row = client
            .query_one("SELECT count(*), count(*) FILTER (WHERE title ~ '^[0-3]-[0-9]+$') FROM todo.tasks WHERE user_id = 'rude'", &[])
            .unwrap();
        let (all, whole): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(all, whole);
    }
}

/// Sends one request on a new connection, which must be served or refused, and another after a pause; by then the server may have
/// closed the idle connection.
fn visit_twice(endpoint: &Endpoint, pause: Duration) -> Result<[usize; 3], String> {
    let (mut served, mut refused, mut closed) = (0, 0, 0);
    let mut wire = endpoint
        .open()
        .map_err(|error| format!("to connect: {error}"))?;
    for visit in 0..2 {
        let written = wire.write(&request("GET", "/", &[], b""));
        match wire.answer() {
            Ok(Some(answer)) if answer.status == 200 => served += 1,
            Ok(Some(answer)) if answer.status == 503 && answer.header("Retry-After").is_some() => {
                refused += 1;
                break;
            }
            Ok(None) if visit > 0 => {
                closed += 1;
                break;
            }
            Err(error)
                if visit > 0
                    && matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) =>
            {
                closed += 1;
                break;
            }
            other => return Err(format!("visit {visit}: {other:?} ({written:?})")),
        }
        thread::sleep(pause);
    }
    Ok([served, refused, closed])
}

#[test]
fn a_new_connection_is_served_or_refused_during_a_flood() {
    // Over TLS a full server can only close the connection, because a refusal before the handshake would be plain text.
    for kind in [Kind::Tcp, Kind::Unix] {
        let mut attacked = AttackedServer::start(kind, &[QUIET, ("MAX_CONNECTIONS", "40")]);
        let until = Instant::now() + Duration::from_secs(5);
        let outcomes: Vec<Result<[usize; 3], String>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..120)
                .map(|number| {
                    let endpoint = &attacked.endpoint;
                    scope.spawn(move || {
                        let mut all = [0; 3];
                        while Instant::now() < until {
                            let outcome = visit_twice(endpoint, Duration::from_millis(number % 7))?;
                            for (sum, one) in all.iter_mut().zip(outcome) {
                                *sum += one;
                            }
                        }
                        Ok(all)
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        let errors: Vec<&String> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().err())
            .collect();
        let mut all = [0; 3];
        for outcome in outcomes.iter().flatten() {
            for (sum, one) in all.iter_mut().zip(outcome) {
                *sum += one;
            }
        }
        let [served, refused, closed] = all;
        println!(
            "120 clients, at most 40 allowed, {kind}: {served} requests served, {refused} refused with 503, {closed} idle ones closed, {} \
             neither; {}",
            errors.len(),
            attacked.expect_memory_within(64)
        );
        assert!(errors.is_empty(), "{:?}", &errors[..errors.len().min(5)]);
        assert!(served > 1000);
    }
}

#[test]
fn expensive_requests_delay_no_other_client() {
    let token = bearer("costly");
    let post = |framing: &str, body: &[u8]| {
        let head = format!(
            "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{framing}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    };
    let nested = |open: &str| {
        let body = format!("{{\"title\":{}", open.repeat(1_000_000 / open.len()));
        post(&format!("Content-Length: {}", body.len()), body.as_bytes())
    };
    let fields: String = (0..62)
        .map(|number| format!("X-{number}: {}\r\n", "y".repeat(200)))
        .collect();
    let one_byte_chunks = [
        &b"1\r\n{\r\n"[..],
        &b"1\r\n \r\n".repeat(200_000),
        b"0\r\n\r\n",
    ]
    .concat();
    let keys: String = (0..60_000)
        .map(|number| format!("\"k{number}\":0,"))
        .collect();
    let keys = format!("{{{keys}\"title\":\"many keys\"}}");
    let attacks: [(&str, Vec<u8>); 7] = [
        (
            "200,000 chunks of a byte",
            post("Transfer-Encoding: chunked", &one_byte_chunks),
        ),
        ("a million brackets", nested("[")),
        ("nested objects", nested("{\"a\":")),
        (
            "60,000 keys",
            post(&format!("Content-Length: {}", keys.len()), keys.as_bytes()),
        ),
        (
            "heads of 14 KB",
            format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
                .repeat(50)
                .into_bytes(),
        ),
        (
            "a path of slashes",
            request("GET", &"/".repeat(4_000), &[], b"").repeat(50),
        ),
        (
            "a query of parameters",
            request(
                "GET",
                &format!("/api/tasks?{}", "a&".repeat(2_000)),
                &[("Authorization", &token)],
                b"",
            )
            .repeat(50),
        ),
    ];
    for kind in KINDS {
        let mut attacked = AttackedServer::start(kind, &[QUIET]);
        for (what, bytes) in &attacks {
            let healthy = watch(&attacked);
            let stop = AtomicBool::new(false);
            let sent = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let mut wire = attacked.endpoint.open().unwrap();
                            let _ = wire.write(bytes);
                            let _ = wire.end_writing();
                            let answer = wire.answer().unwrap().unwrap();
                            assert!(answer.status < 500, "{what}: {answer:?}");
                            let _ = wire.rest();
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                thread::sleep(Duration::from_millis(1500));
                stop.store(true, Ordering::Relaxed);
            });
            let seen = healthy.finish();
            println!(
                "{what}, continuously from 2 clients, {kind}: sent {} times; {seen}",
                sent.into_inner()
            );
            seen.expect_undisturbed();
        }
        attacked.expect_memory_within(100);
    }
}

#[test]
fn connections_made_during_a_stop_are_answered_or_refused() {
    for kind in KINDS {
        let attacked = AttackedServer::start(kind, &[QUIET]);
        let stop = AtomicBool::new(false);
        let (answered, cut): (usize, usize) = thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|_| {
                    let (endpoint, stop) = (&attacked.endpoint, &stop);
                    scope.spawn(move || {
                        let (mut answered, mut cut) = (0, 0);
                        while !stop.load(Ordering::Relaxed) {
                            let Ok(mut wire) = endpoint.open() else {
                                break;
                            };
                            let _ =
                                wire.write(&request("GET", "/", &[("Connection", "close")], b""));
                            match wire.answer() {
                                Ok(Some(answer)) => {
                                    answer.expect(200);
                                    answered += 1;
                                }
                                _ => cut += 1,
                            }
                        }
                        (answered, cut)
                    })
                })
                .collect();
            thread::sleep(Duration::from_secs(1));
            attacked.server.signal("TERM");
            thread::sleep(Duration::from_secs(1));
            stop.store(true, Ordering::Relaxed);
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        });
        let AttackedServer { server, .. } = attacked;
        let (status, log) = server.wait_at_most(Duration::from_secs(12));
        assert_eq!(status.code(), Some(0), "{log}");
        println!(
            "SIGTERM while 16 clients make a connection for every request, {kind}: {answered} answered, {cut} closed before they were accepted"
        );
        // The kernel may have completed a connection that the program has not accepted when it stops listening.
        assert!(cut <= 16, "{cut}");
    }
}
