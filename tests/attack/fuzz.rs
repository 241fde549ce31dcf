//! Random and mutated requests. The server must find the same requests in every stream as the strict parser, with the same
//! bodies, and must treat the rest as the parser says.
//!
//! The server runs in this process, with a route that echoes the request. The test fails if any thread panics.

use std::io::ErrorKind;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use todo_api::api::routes::routes;
use todo_api::api::{App, Call, Handler, HandlerOutcome};
use todo_api::auth::token::TokenVerifier;
use todo_api::config::EdgeLimits;
use todo_api::domain::address::Address;
use todo_api::domain::origins::Origins;
use todo_api::edge::tls::Tls;
use todo_api::http::error::Error;
use todo_api::http::policy::Policy;
use todo_api::http::request::Method;
use todo_api::http::response::Response;
use todo_api::http::router::{Route, Router};
use todo_api::server::{Parts, Server};
use todo_api::store::Store;

use crate::parser::{Bounds, End, Request, split};
use crate::support::Answer;
use crate::support::app::{SECRET, app, parts, server_settings, settings, start_server};
use crate::support::postgres::fresh_database;
use crate::support::requests::{LAST, MALFORMED, REFUSED_WITH_ONE_OF, UNUSUAL, bytes, code};
use crate::support::tls::Certificate;
use crate::support::wire::{Endpoint, bearer, find};

/// Number of inputs for each kind of listener.
const OVER_TCP: usize = 200_000;
const OVER_UNIX: usize = 50_000;
const OVER_TLS: usize = 30_000;
/// Number of parallel clients.
const CLIENTS: usize = 8;

/// Small limits, so that random requests reach them.
const BOUNDS: Bounds = Bounds {
    head: 2_048,
    fields: 16,
    target: 256,
    body: 4_096,
};

/// Reproducible random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap()
    }

    /// True with this probability, in percent.
    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, number: usize) -> Vec<u8> {
        (0..number).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Bytes that are valid in a field value.
    fn value(&mut self, number: usize) -> Vec<u8> {
        (0..number)
            .map(|_| match self.below(10) {
                0 => b' ',
                1 => b'\t',
                2 => 0x80 | self.next().to_le_bytes()[0],
                _ => u8::try_from(0x21 + self.below(0x7e - 0x20)).unwrap(),
            })
            .collect()
    }
}

fn odd_case(random: &mut Random, name: &str) -> Vec<u8> {
    name.bytes()
        .map(|byte| {
            if random.percent(30) {
                byte ^ if byte.is_ascii_alphabetic() { 0x20 } else { 0 }
            } else {
                byte
            }
        })
        .collect()
}

fn field(random: &mut Random, name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend(odd_case(random, name));
    out.push(b':');
    out.extend_from_slice(random.pick(&[&b" "[..], b" ", b" ", b"", b"\t", b"  \t "]));
    out.extend_from_slice(value);
    out.extend_from_slice(random.pick(&[&b""[..], b"", b"", b" ", b"\t"]));
    out.extend_from_slice(b"\r\n");
}

/// A valid request in an unusual form.
fn well_formed(random: &mut Random, id: &str) -> Vec<u8> {
    let mut out = b"\r\n".repeat(if random.percent(5) {
        random.below(3)
    } else {
        0
    });
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "POST", "PUT", "POST", "PATCH", "OPTIONS",
        "BREW",
    ];
    let method = random.pick(&methods);
    let long = format!("/echo?{}", "q".repeat(random.below(260)));
    let targets = [
        "/echo",
        "/echo",
        "/echo",
        "/echo",
        "/echo?a=b",
        "/echo/",
        "/echo?",
        "http://h/echo",
        "HTTPS://[::1]:1/echo?x=/?",
        "/%65cho",
        "/%65cho/",
        &long,
        "/echo?%",
        random.pick(&["/nowhere", "/health", "/api/tasks", "//echo", "http://h"]),
    ];
    let target = match random.pick(&targets) {
        _ if method == "OPTIONS" && random.percent(30) => "*",
        target => target,
    };
    let old = random.percent(8);
    out.extend_from_slice(format!("{method} {target} HTTP/1.{}\r\n", u8::from(!old)).as_bytes());
    if !old || random.percent(50) {
        let host = random.pick(&[
            "x",
            "localhost:8000",
            "[::1]",
            "[2001:db8::1]:80",
            "a.b_c~d",
            "x%20y",
            "",
            "x:",
        ]);
        field(random, "Host", host.as_bytes(), &mut out);
    }
    field(random, "X-Request-ID", id.as_bytes(), &mut out);
    for _ in 0..random.below(4) {
        let length = random.below(40);
        let value = random.value(length);
        field(random, "X-Echo", &value, &mut out);
    }
    if random.percent(20) {
        let options = [
            "keep-alive",
            "close",
            "Close",
            "x, close",
            "upgrade",
            "Keep-Alive, x",
            "closer",
            ",",
            "",
        ];
        let option = random.pick(&options);
        field(random, "Connection", option.as_bytes(), &mut out);
    }
    if random.percent(5) {
        field(random, "Upgrade", b"websocket", &mut out);
    }
    if random.percent(5) {
        field(random, "Expect", b"100-Continue", &mut out);
    }
    if random.percent(3) {
        for _ in 0..random.below(20) {
            field(random, "X-More", b"and more", &mut out);
        }
    }
    if random.percent(3) {
        let padding = vec![b'p'; random.below(2_200)];
        field(random, "X-Padding", &padding, &mut out);
    }
    // A body may look like anything, even like a request.
    let body = match random.below(6) {
        0 => b"GET /echo HTTP/1.1\r\nHost: inside\r\nX-Request-ID: inside\r\n\r\n".to_vec(),
        1 => b"0\r\n\r\n".to_vec(),
        2 => {
            let length = random.below(4_200);
            random.bytes(length)
        }
        _ => {
            let length = random.below(60);
            random.bytes(length)
        }
    };
    match random.below(10) {
        0..4 => out.extend_from_slice(b"\r\n"),
        4..7 => {
            let zeros = if random.percent(10) { "00" } else { "" };
            field(
                random,
                "Content-Length",
                format!("{zeros}{}", body.len()).as_bytes(),
                &mut out,
            );
            out.extend_from_slice(b"\r\n");
            out.extend(body);
        }
        _ if old => out.extend_from_slice(b"\r\n"),
        _ => {
            let chunked = odd_case(random, "chunked");
            field(random, "Transfer-Encoding", &chunked, &mut out);
            out.extend_from_slice(b"\r\n");
            chunks(random, &body, &mut out);
        }
    }
    out
}

fn chunks(random: &mut Random, body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    loop {
        let size = if rest.is_empty() {
            0
        } else {
            1 + random.below(rest.len())
        };
        let zeros = if random.percent(10) { "000" } else { "" };
        let line = if random.percent(50) {
            format!("{zeros}{size:x}")
        } else {
            format!("{zeros}{size:X}")
        };
        out.extend_from_slice(line.as_bytes());
        if random.percent(15) {
            out.extend_from_slice(random.pick(&[
                &b";a"[..],
                b";a=b",
                b";a=\"b c\"",
                b";a = b",
                b";\xff",
            ]));
        }
        out.extend_from_slice(b"\r\n");
        if size == 0 {
            break;
        }
        out.extend_from_slice(&rest[..size]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[size..];
    }
    if random.percent(15) {
        let name = random.pick(&["X-Trailer", "Content-Length", "Transfer-Encoding", "Host"]);
        field(random, name, b"5", out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Tokens that HTTP parsers often read differently.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b";",
    b",",
    b"\"",
    b"0",
    b"1",
    b"-",
    b"+",
    b"0x",
    b"_",
    b".",
    b"#",
    b"?",
    b"*",
    b"/",
    b"%",
    b"[",
    b"]",
    b"@",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length:5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"transfer-encoding:chunked\r\n",
    b", chunked",
    b"chunked, ",
    b"Connection: close\r\n",
    b"Host: y\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: x\r\n",
    b" folded\r\n",
    b"\tfolded\r\n",
    b"no colon\r\n",
    b"X : y\r\n",
    b": y\r\n",
    b"ffffffffffffffff",
    b"18446744073709551616",
    b"99999999999999999999",
    b"4097",
    b"1001",
    b"GET /echo HTTP/1.1\r\nHost: z\r\n\r\n",
];

fn mutate(random: &mut Random, stream: &mut Vec<u8>) {
    if stream.is_empty() {
        return;
    }
    let at = random.below(stream.len());
    let some = (1 + random.below(8)).min(stream.len() - at);
    match random.below(12) {
        0 => stream[at] = random.next().to_le_bytes()[0],
        1 => stream[at] ^= 1 << random.below(8),
        2 => drop(stream.drain(at..at + some)),
        3 => {
            let copy = stream[at..at + some].to_vec();
            stream.splice(at..at, copy);
        }
        4 => stream.truncate(at),
        5 => {
            // Changes one line ending to another.
            let ends: Vec<usize> = (0..stream.len() - 1)
                .filter(|at| stream[*at..].starts_with(b"\r\n"))
                .collect();
            if !ends.is_empty() {
                let end = ends[random.below(ends.len())];
                let other = random.pick(&[
                    &b"\n"[..],
                    b"\r",
                    b"\r\r\n",
                    b"",
                    b"\r\n\r\n",
                    b"\r\n ",
                    b"\n\r",
                ]);
                stream.splice(end..end + 2, other.iter().copied());
            }
        }
        6 => {
            // Adds or removes a digit of a length or a size.
            let digits: Vec<usize> = (0..stream.len())
                .filter(|at| stream[*at].is_ascii_digit())
                .collect();
            if !digits.is_empty() {
                let digit = digits[random.below(digits.len())];
                stream[digit] = random.pick(b"0123456789abcdefx ");
            }
        }
        _ => {
            // Inserts a token at the start of a line, or anywhere.
            let starts: Vec<usize> = (2..stream.len())
                .filter(|at| stream[at - 2..].starts_with(b"\r\n"))
                .collect();
            let at = if random.percent(60) && !starts.is_empty() {
                starts[random.below(starts.len())]
            } else {
                at
            };
            let token = random.pick(TOKENS);
            stream.splice(at..at, token.iter().copied());
        }
    }
}

/// The bytes that one client sends.
fn input(random: &mut Random, number: usize, token: &str) -> Vec<u8> {
    if random.percent(3) {
        let length = 1 + random.below(300);
        return random.bytes(length);
    }
    let mut stream = Vec::new();
    for part in 0..=random.below(4) {
        stream.extend(match random.below(20) {
            0 => bytes(random.pick(MALFORMED).1, token),
            1 => bytes(random.pick(UNUSUAL).1, token),
            2 if random.percent(50) => bytes(random.pick(LAST).1, token),
            2 => bytes(random.pick(REFUSED_WITH_ONE_OF).1, token),
            _ => well_formed(random, &format!("n{number}.{part}")),
        });
    }
    if random.percent(45) {
        for _ in 0..=random.below(3) {
            mutate(random, &mut stream);
        }
    }
    // An empty stream cannot be compared.
    if stream.is_empty() {
        stream.extend_from_slice(b"\r\n");
    }
    stream
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Echoes the request.
fn echo(_: &App, call: &Call) -> Result<HandlerOutcome, Error> {
    let request = call.request;
    let echoed: Vec<String> = request.headers.raw("X-Echo").map(hex).collect();
    let told = json!({
        "method": request.method.as_str(),
        "target": request.target,
        "echo": echoed,
        "body": hex(&request.body),
    });
    Ok(Response::json(200, &told).into())
}

/// Whether this request reaches the route that echoes. One slash at the end and percent-encoding make no difference.
fn is_echoed(request: &Request) -> bool {
    let path = request.target.split('?').next().unwrap();
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_echo = path
        .strip_prefix('/')
        .is_some_and(|path| percent_decode_str(path).eq(b"echo".iter().copied()));
    is_echo && ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&request.method.as_str())
}

/// Compares an answer with the request that the parser found.
fn compare(request: &Request, answer: &Answer) -> Result<(), String> {
    let wrong = |what: &str| {
        let (method, target, body) = (&request.method, &request.target, request.body.len());
        Err(format!(
            "{what}: {method} {target} with {body} bytes was answered {} {:?} {}",
            answer.status,
            answer.header("Connection"),
            answer.body
        ))
    };
    let ids: Vec<&Vec<u8>> = request
        .fields
        .iter()
        .filter(|(name, _)| name == "x-request-id")
        .map(|(_, value)| value)
        .collect();
    if let [id] = ids[..] {
        let fits = (1..=64).contains(&id.len())
            && id
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
        if fits && answer.header("X-Request-ID").map(str::as_bytes) != Some(id) {
            return wrong("another id");
        }
    }
    if (answer.header("Connection") == Some("close")) != request.last {
        return wrong("Connection");
    }
    if answer.header("Server") != Some("todo-api") {
        return wrong("Server");
    }
    if !is_echoed(request) {
        return if answer.status == 200 && answer.body.contains("\"echo\"") {
            wrong("told")
        } else {
            Ok(())
        };
    }
    if answer.status != 200 {
        return wrong("status");
    }
    if request.method == "HEAD" {
        return if answer.body.is_empty() {
            Ok(())
        } else {
            wrong("a body")
        };
    }
    let told: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
    let echoed: Vec<String> = request
        .fields
        .iter()
        .filter(|(name, _)| name == "x-echo")
        .map(|(_, value)| hex(value))
        .collect();
    let expected = json!({
        "method": request.method,
        "target": request.target,
        "echo": echoed,
        "body": hex(&request.body),
    });
    if told == expected {
        Ok(())
    } else {
        wrong("read otherwise")
    }
}

/// Counters of a run.
#[derive(Default)]
struct Tally {
    /// Inputs of which a handler saw at least one request.
    handled: AtomicUsize,
    requests: AtomicUsize,
    refused: AtomicUsize,
    ended_early: AtomicUsize,
}

/// Sends a stream and compares the answers with the result of the parser.
fn send(
    endpoint: &Endpoint,
    random: &mut Random,
    stream: &[u8],
    tally: &Tally,
) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let (requests, end) = split(stream, BOUNDS);
    let mut wire = endpoint.open().map_err(failed)?;
    let mut rest = stream;
    while !rest.is_empty() {
        let size = if random.percent(60) {
            rest.len()
        } else {
            1 + random.below(rest.len())
        };
        // The server may have closed the connection.
        if wire.write(&rest[..size]).is_err() {
            break;
        }
        rest = &rest[size..];
    }
    let _ = wire.end_writing();
    let mut next = |head_only: bool| loop {
        let answer = if head_only {
            wire.answer_to_head()
        } else {
            wire.answer()
        };
        match answer {
            Ok(Some(answer)) if answer.status == 100 => {}
            other => return other,
        }
    };
    let mut handled = false;
    for request in &requests {
        match next(request.method == "HEAD").map_err(failed)? {
            Some(answer) => compare(request, &answer)?,
            None => return Err(format!("no answer to {request:?}")),
        }
        handled |= is_echoed(request);
        tally.requests.fetch_add(1, Ordering::Relaxed);
    }
    tally
        .handled
        .fetch_add(usize::from(handled), Ordering::Relaxed);
    let refusal = |answer: &Answer| -> Result<(), String> {
        let body: Value =
            serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {answer:?}"))?;
        let fine = body["error"]["code"] == code(answer.status)
            && answer.header("Connection") == Some("close")
            && answer.header("X-Request-ID") == body["request_id"].as_str();
        if fine {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    };
    // A refused HEAD request is answered without a body, which here reads like an incomplete answer.
    let may_be_bodiless = find(stream, b"HEAD ").is_some();
    let (statuses, last) = match &end {
        End::Clean | End::Last => (None, None),
        End::Early => {
            tally.ended_early.fetch_add(1, Ordering::Relaxed);
            // This may be answered or not; the router never sees it.
            (None, Some(next(false)))
        }
        End::Refused(statuses) => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            (Some(statuses), Some(next(false)))
        }
    };
    let fits = |status: u16| statuses.is_none_or(|statuses| statuses.contains(&status));
    match last {
        None => {}
        Some(Ok(Some(answer))) if fits(answer.status) => refusal(&answer)?,
        Some(Ok(None)) if fits(0) => {}
        Some(Err(error)) if error.kind() == ErrorKind::UnexpectedEof && may_be_bodiless => {
            let rest = String::from_utf8(wire.rest().map_err(failed)?).unwrap();
            let status = rest.get(9..12).and_then(|status| status.parse().ok());
            let one = rest.matches("HTTP/1.1 ").count() == 1 && rest.ends_with("\r\n\r\n");
            return if one && status.is_some_and(fits) {
                Ok(())
            } else {
                Err(format!("{statuses:?} wanted: {rest}"))
            };
        }
        other => return Err(format!("{statuses:?} wanted: {other:?}")),
    }
    match wire.rest() {
        Ok(rest) if rest.is_empty() => Ok(()),
        Ok(rest) => Err(format!("and then {}", rest.escape_ascii())),
        Err(error) => Err(format!("and then {error}")),
    }
}

fn serve(listen: &str, tls: Option<Arc<Tls>>) -> (Server, Vec<Address>) {
    let store = Store::new(settings(&fresh_database()));
    let soon = Instant::now() + Duration::from_secs(10);
    store.open(soon).map_err(|error| error.to_string()).unwrap();
    let app = Arc::new(app(store, TokenVerifier::new(SECRET, None)));
    let methods = [
        Method::Get,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
    ];
    let told = methods.map(|method| Route::new(method, "/echo", Handler::Public(echo)));
    let mut config = server_settings(listen);
    config.edge = EdgeLimits {
        head_bytes: BOUNDS.head,
        head_fields: BOUNDS.fields,
        target_bytes: BOUNDS.target,
        body: BOUNDS.body,
        queue_time: Duration::from_secs(30),
        ..config.edge
    };
    let table = routes().into_iter().chain(told).collect();
    let policy = Policy::new(&Origins::default(), None, false);
    let parts = Parts {
        tls,
        on_failure: Box::new(|reason| panic!("{reason}")),
        ..parts(&app, Router::new(table), Arc::new(policy))
    };
    let server = start_server(&config, parts);
    let addresses = server.addresses().cloned().collect();
    (server, addresses)
}

/// Sends `number` inputs to these endpoints in turn and prints a summary.
fn send_inputs(name: &str, endpoints: &[Endpoint], number: usize, seed: u64) {
    let token = bearer("fuzz");
    let (next, tally) = (AtomicUsize::new(0), Tally::default());
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    if case >= number || wrong.lock().unwrap().len() >= 10 {
                        return;
                    }
                    let mut random =
                        Random(seed ^ (case as u64).wrapping_mul(0xd134_2543_de82_ef95));
                    let stream = input(&mut random, case, &token);
                    if let Err(problem) = send(
                        &endpoints[case % endpoints.len()],
                        &mut random,
                        &stream,
                        &tally,
                    ) {
                        wrong.lock().unwrap().push(format!(
                            "case {case}: {}\n    {problem}",
                            stream.escape_ascii()
                        ));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "ATTACK_SEED={seed} {name}:\n{}",
        wrong.join("\n")
    );
    let handled = tally.handled.into_inner();
    println!(
        "random and mutated requests, {name}, seed {seed}: {number} inputs in {:.0} s, {handled} reached a handler, {} requests \
         read alike, {} refused, {} ended early",
        began.elapsed().as_secs_f64(),
        tally.requests.into_inner(),
        tally.refused.into_inner(),
        tally.ended_early.into_inner()
    );
    assert!(
        handled * 2 >= number,
        "fewer than half of the inputs reached a handler"
    );
}

#[test]
fn random_requests_are_read_as_the_standard_says() {
    // The hook is added to the existing one and never removed, because a failing test could not remove it.
    let panics: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, ours) = (Arc::clone(&panics), thread::current().id());
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        before(panic);
        if thread::current().id() != ours {
            noted.lock().unwrap().push(panic.to_string());
        }
    }));
    let seed = match std::env::var("ATTACK_SEED") {
        Ok(seed) => seed.parse().expect("ATTACK_SEED is a number"),
        Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("fuzz.sock");
    // Several addresses, so that closed connections do not use up the ports of one.
    let listen = format!(
        "127.0.0.1:0,127.0.0.2:0,127.0.0.3:0,127.0.0.4:0,unix:{}",
        socket.display()
    );
    let (server, addresses) = serve(&listen, None);
    let endpoints: Vec<Endpoint> = addresses
        .iter()
        .map(|address| match address {
            Address::Tcp(address) => Endpoint::Tcp(*address),
            Address::Unix(path) => Endpoint::Unix(path.clone()),
        })
        .collect();
    send_inputs("over TCP", &endpoints[..4], OVER_TCP, seed);
    send_inputs("over a Unix socket", &endpoints[4..], OVER_UNIX, seed + 1);
    assert!(server.stop(Duration::from_secs(10)));

    let certificate = Certificate::make();
    let tls = Tls::load(&certificate.file(), &certificate.key_file()).unwrap();
    let (server, addresses) = serve("127.0.0.1:0", Some(Arc::new(tls)));
    let Address::Tcp(address) = addresses[0] else {
        panic!();
    };
    send_inputs(
        "over TLS",
        &[Endpoint::Tls(address, certificate.client())],
        OVER_TLS,
        seed + 2,
    );
    assert!(server.stop(Duration::from_secs(10)));
    let panics = panics.lock().unwrap();
    assert!(panics.is_empty(), "{}", panics.join("\n"));
}
