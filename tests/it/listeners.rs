//! Listeners: Unix sockets, inherited sockets, direct addresses, TLS; and the address of the client.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::Actor;
use crate::support::app::SECRET;
use crate::support::hold::{large_list, wait_until};
use crate::support::http;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, free_address, run};
use crate::support::tls::Certificate;
use crate::support::wire::{Endpoint, Stream, bearer, new_task, request};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn the_mode_of_a_unix_socket_is_a_setting() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, wanted) in [(None, 0o660), (Some("0600"), 0o600), (Some("0666"), 0o666)] {
        let socket = directory.path().join(format!("{wanted:o}.sock"));
        let listen = format!("unix:{}", socket.display());
        let mut settings = vec![("LISTEN", listen.as_str())];
        settings.extend(mode.map(|mode| ("SOCKET_MODE", mode)));
        let _server = Process::serve(&fresh_database(), &settings);
        let made = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(made, wanted, "{made:o}");
        Endpoint::Unix(socket).ask(HEALTH).expect(200);
    }
    for mode in ["0999", "rw", "-1", "10000"] {
        let settings = [
            ("SOCKET_MODE", mode),
            ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
        ];
        let output = run(&["serve"], &settings);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{mode}: {line}");
        assert!(line.contains("SOCKET_MODE"), "{line}");
    }
}

#[test]
fn a_direct_address_must_be_loopback_or_a_unix_socket() {
    for listen in [
        "direct:0.0.0.0:0",
        "direct:[::]:0",
        "direct:192.0.2.1:8000",
        "127.0.0.1:0,direct:0.0.0.0:0",
        "direct:[::ffff:192.0.2.1]:8000",
        "direct:",
        "direct:direct:127.0.0.1:0",
    ] {
        let settings = [
            ("LISTEN", listen),
            ("ENVIRONMENT", "development"),
            ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
        ];
        let output = run(&["serve"], &settings);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{listen}: {line}");
        assert!(line.contains("LISTEN"), "{line}");
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("direct.sock");
    let (direct, edge) = (free_address(), free_address());
    let listen = format!("direct:{direct},direct:unix:{},{edge}", socket.display());
    let server = Process::serve(&fresh_database(), &[("LISTEN", &listen)]);
    let token = bearer("u1");
    for endpoint in [
        Endpoint::from(direct),
        Endpoint::Unix(socket),
        Endpoint::from(edge),
    ] {
        endpoint
            .ask(&new_task(&token, "by any endpoint"))
            .expect(201);
        // No other program can use the private socket between edge and tiny_http.
        let mut wire = endpoint.open().unwrap();
        for number in 0..30 {
            for target in [
                format!("/{number}"),
                format!("/ticket/{number}"),
                format!("/{number:x}"),
            ] {
                wire.write(&request(
                    "GET",
                    &target,
                    &[("X-Ticket", &number.to_string())],
                    b"",
                ))
                .unwrap();
                wire.answer()
                    .unwrap()
                    .unwrap()
                    .expect_error(404, "NOT_FOUND");
            }
        }
    }
    let list = Actor::user(edge, "u1").get("/api/tasks").expect(200).json();
    assert_eq!(list["count"], 3);
    server.signal("TERM");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn inherited_sockets_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handed.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    // As systemd does.
    tcp.set_nonblocking(true).unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let database = fresh_database();
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", SECRET),
        ("LISTEN_FDS", "2"),
        // The program does not know the address of an inherited Unix socket.
        ("ENVIRONMENT", "development"),
    ];
    let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$; export LISTEN_PID";
    let mut command = Process::under_shell(script, &settings);
    command
        .stdin(Stdio::from(OwnedFd::from(tcp)))
        .stdout(Stdio::from(OwnedFd::from(unix)));
    // A client connects before the program runs.
    let mut early = Endpoint::from(address).open().unwrap();
    early.write(HEALTH).unwrap();
    let server = Process::spawn(command, address);
    early.answer().unwrap().unwrap().expect(200);
    server.wait_for("ready: ");
    server.user("u1").task("over the inherited socket");
    Endpoint::Unix(path.clone()).ask(HEALTH).expect(200);
    // The same limits apply there.
    Endpoint::from(address)
        .ask(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000000\r\n\r\n")
        .expect_error(413, "PAYLOAD_TOO_LARGE");
    drop(early);
    server.signal("TERM");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        path.exists(),
        "the program does not remove a socket of systemd"
    );
}

#[test]
fn sockets_for_another_process_are_ignored() {
    let handed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free_address();
    let (listen, database) = (address.to_string(), fresh_database());
    let settings = [
        ("DATABASE_URL", database.as_str()),
        ("BETTER_AUTH_SECRET", SECRET),
        ("LISTEN", &listen),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", "1"),
    ];
    let mut command = Process::under_shell("exec 3<&0 0</dev/null", &settings);
    command.stdin(Stdio::from(OwnedFd::from(handed.try_clone().unwrap())));
    let server = Process::spawn(command, address);
    server.wait_for("ready: ");
    Endpoint::from(address).ask(HEALTH).expect(200);
    let mut outsider = Endpoint::from(handed.local_addr().unwrap()).open().unwrap();
    outsider.write(HEALTH).unwrap();
    assert!(!outsider.ends_within(Duration::from_millis(200)));
}

#[test]
fn ipv6_addresses_are_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let ports: Vec<u16> = (0..2).map(|_| free_address().port()).collect();
    // The second form is an IPv4 client on a socket for both versions.
    let listen = format!("[::1]:{},[::ffff:127.0.0.1]:{}", ports[0], ports[1]);
    let settings = [("LISTEN", listen.as_str()), ("ENVIRONMENT", "development")];
    let server = Process::serve(&fresh_database(), &settings);
    for (endpoint, own) in [
        (format!("[::1]:{}", ports[0]), "::1"),
        (format!("127.0.0.1:{}", ports[1]), "127.0.0.1"),
    ] {
        let endpoint = Endpoint::from(endpoint.parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(client_of(&server, &endpoint, &[]), own);
        // Loopback is trusted as a proxy.
        let fields = [("X-Forwarded-For", "1.1.1.1, 203.0.113.7, ::1")];
        assert_eq!(client_of(&server, &endpoint, &fields), "203.0.113.7");
    }
}

/// The client that the log names for a request with these fields.
fn client_of(server: &Process, endpoint: &Endpoint, fields: &[(&str, &str)]) -> String {
    let mut headers = vec![("X-Request-ID", "who-is-it")];
    headers.extend_from_slice(fields);
    endpoint
        .ask(&request("GET", "/nowhere", &headers, b""))
        .expect(404);
    let log = server.wait_for("request_id=who-is-it");
    let line = log.lines().last().unwrap();
    line.split(" client=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn the_client_address_is_read_from_the_right_and_from_trusted_proxies_only() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("todo.sock");
    let tcp = free_address();
    let listen = format!("{tcp},unix:{}", socket.display());
    let endpoints = [Endpoint::from(tcp), Endpoint::Unix(socket)];
    type Fields = &'static [(&'static str, &'static str)];
    let forwarded: [(&str, Fields); 16] = [
        ("203.0.113.7", &[("X-Forwarded-For", "203.0.113.7")]),
        ("203.0.113.7", &[("x-forwarded-for", "  203.0.113.7  ")]),
        // The left end was written by the client.
        (
            "203.0.113.7",
            &[("X-Forwarded-For", "1.1.1.1, 203.0.113.7")],
        ),
        (
            "203.0.113.7",
            &[("X-Forwarded-For", "evil\"; DROP, 127.0.0.1,203.0.113.7")],
        ),
        (
            "203.0.113.7",
            &[("X-Forwarded-For", "203.0.113.7, 127.0.0.1")],
        ),
        (
            "203.0.113.7",
            &[(
                "X-Forwarded-For",
                "1.1.1.1, 203.0.113.7, 127.0.0.9,127.0.0.1",
            )],
        ),
        // Fields of one name are one list.
        (
            "203.0.113.7",
            &[
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-For", "203.0.113.7"),
            ],
        ),
        (
            "203.0.113.7",
            &[
                ("X-Forwarded-For", "203.0.113.7"),
                ("X-Forwarded-For", "127.0.0.1"),
            ],
        ),
        (
            "2001:db8::7",
            &[("X-Forwarded-For", "1.1.1.1, 2001:db8::7")],
        ),
        (
            "203.0.113.7",
            &[("Forwarded", "for=203.0.113.7;proto=https;by=127.0.0.1")],
        ),
        (
            "203.0.113.7",
            &[("Forwarded", "for=1.1.1.1, proto=http;For=203.0.113.7")],
        ),
        (
            "203.0.113.7",
            &[("Forwarded", "for=203.0.113.7, for=127.0.0.1")],
        ),
        (
            "2001:db8::7",
            &[("Forwarded", "for=\"[2001:db8::7]:4711\"")],
        ),
        ("203.0.113.7", &[("Forwarded", "for=\"203.0.113.7:4711\"")]),
        (
            "203.0.113.7",
            &[
                ("Forwarded", "for=1.1.1.1"),
                ("Forwarded", "for=203.0.113.7"),
            ],
        ),
        (
            "203.0.113.7",
            &[("Forwarded", "for=203.0.113.7;host=\"a, b; for=1.1.1.1\"")],
        ),
    ];
    let mut wrong = Vec::new();
    let mut check =
        |server: &Process, endpoint: &Endpoint, fields: &[(&str, &str)], wanted: &str| {
            let named = client_of(server, endpoint, fields);
            if named != wanted {
                wrong.push(format!("{fields:?}: {named} instead of {wanted}"));
            }
        };
    for header in ["X-Forwarded-For", "Forwarded"] {
        let settings = [("LISTEN", listen.as_str()), ("PROXY_HEADER", header)];
        let server = Process::serve(&fresh_database(), &settings);
        for (endpoint, own) in endpoints.iter().zip(["127.0.0.1", "local"]) {
            for (wanted, fields) in forwarded {
                let believed = fields[0].0.eq_ignore_ascii_case(header);
                check(
                    &server,
                    endpoint,
                    fields,
                    if believed { wanted } else { own },
                );
            }
            if header == "Forwarded" {
                // The client opened a quote, and the proxy appended its element to the same field.
                for text in [
                    "for=1.1.1.1;host=\"x, for=203.0.113.7",
                    "for=\"1.1.1.1, for=\"203.0.113.7:4711\"",
                    "host=\"\\, for=\"203.0.113.7\"",
                ] {
                    check(&server, endpoint, &[("Forwarded", text)], "203.0.113.7");
                }
            }
            // Values without an address, and other header fields.
            for (name, value) in [
                ("X-Forwarded-For", ""),
                ("X-Forwarded-For", "unknown"),
                ("X-Forwarded-For", "203.0.113.7, unknown"),
                ("X-Forwarded-For", "203.0.113.7, 999.1.1.1"),
                ("X-Forwarded-For", "203.0.113.7,"),
                ("X-Forwarded-For", "203.0.113.7 1.1.1.1"),
                ("Forwarded", "for=unknown"),
                ("Forwarded", "for=_hidden"),
                ("Forwarded", "by=203.0.113.7"),
                ("Forwarded", "xfor=203.0.113.7"),
                // These header fields are not trusted.
                ("X-Real-IP", "203.0.113.7"),
                ("X-Client-IP", "203.0.113.7"),
                ("True-Client-IP", "203.0.113.7"),
                ("CF-Connecting-IP", "203.0.113.7"),
                ("X_Forwarded_For", "203.0.113.7"),
                ("X-Client", "203.0.113.7"),
                ("X-Todo-Client", "203.0.113.7"),
            ] {
                check(&server, endpoint, &[(name, value)], own);
            }
        }
    }
    {
        // A network of proxies that includes loopback.
        let settings = [
            ("LISTEN", listen.as_str()),
            (
                "TRUSTED_PROXIES",
                "127.0.0.0/8, 198.51.100.0/24,2001:db8:1::/48",
            ),
        ];
        let server = Process::serve(&fresh_database(), &settings);
        for (fields, wanted) in [
            ("1.1.1.1, 203.0.113.7, 198.51.100.9", "203.0.113.7"),
            ("203.0.113.7, 2001:db8:1::5, 198.51.100.9", "203.0.113.7"),
            ("203.0.113.7, 2001:db8:2::5, 198.51.100.9", "2001:db8:2::5"),
            ("203.0.113.7, 198.51.101.9", "198.51.101.9"),
            ("198.51.100.1, 198.51.100.9", "198.51.100.1"),
        ] {
            check(
                &server,
                &endpoints[0],
                &[("X-Forwarded-For", fields)],
                wanted,
            );
        }
    }
    // A peer that is not a proxy is not believed.
    for (trusted, own) in [
        ("none", ["127.0.0.1", "local"]),
        ("198.51.100.0/24", ["127.0.0.1", "203.0.113.7"]),
    ] {
        for (_, fields) in [forwarded[0], forwarded[9]] {
            let settings = [
                ("LISTEN", listen.as_str()),
                ("TRUSTED_PROXIES", trusted),
                ("PROXY_HEADER", fields[0].0),
            ];
            let server = Process::serve(&fresh_database(), &settings);
            for (endpoint, own) in endpoints.iter().zip(own) {
                check(&server, endpoint, fields, own);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for list in [
        "anonymous",
        "10.0.0.0/33",
        "10.0.0.1,,10.0.0.2",
        "proxy.example.org",
    ] {
        let settings = [
            ("TRUSTED_PROXIES", list),
            ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
        ];
        let output = run(&["serve"], &settings);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{list}: {line}");
        assert!(line.contains("TRUSTED_PROXIES"), "{line}");
    }
}

#[test]
fn no_byte_from_a_client_hides_the_address_that_the_proxy_wrote() {
    let database = fresh_database();
    let servers = ["x-forwarded-for", "forwarded"]
        .map(|header| Process::serve(&database, &[("PROXY_HEADER", header)]));
    for (number, field) in [
        &b"X-Forwarded-For: \xff, 203.0.113.7"[..],
        b"X-Forwarded-For: caf\xe9\r\nX-Forwarded-For: 203.0.113.7",
        b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 127.0.0.1",
        b"Forwarded: for=\xff, for=203.0.113.7",
        b"Forwarded: for=203.0.113.7;host=\"caf\xe9\"",
        b"Forwarded: for=203.0.113.7;host=\"a\\\", for=1.1.1.1\"",
        b"Forwarded: for=\"unbalanced, for=203.0.113.7\r\nForwarded: for=203.0.113.7",
    ]
    .into_iter()
    .enumerate()
    {
        let server = &servers[usize::from(field.starts_with(b"Forwarded"))];
        let endpoint = Endpoint::from(server.address);
        let start = format!("GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-ID: raw-{number}\r\n");
        endpoint
            .ask(&[start.as_bytes(), field, b"\r\n\r\n"].concat())
            .expect(404);
        let log = server.wait_for(&format!("request_id=raw-{number}"));
        let line = log.lines().last().unwrap();
        let shown = field.escape_ascii();
        assert!(line.contains(" client=203.0.113.7 "), "{shown}: {line}");
    }
}

#[test]
fn sighup_does_not_end_the_server() {
    let mut server = Process::serve(&fresh_database(), &[]);
    server.signal("HUP");
    thread::sleep(Duration::from_millis(200));
    server.user("u1").task("after");
    assert!(server.is_alive());
}

/// A server with TLS and this certificate.
fn serve_tls(certificate: &Certificate, database: &str, more: &[(&str, &str)]) -> Process {
    let settings = certificate.settings();
    let mut all: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    all.extend_from_slice(more);
    Process::serve(database, &all)
}

#[test]
fn tls_serves_the_same_as_plain_http() {
    let certificate = Certificate::make();
    let database = fresh_database();
    large_list(&database, "large");
    let server = serve_tls(&certificate, &database, &[]);
    let (token, large) = (bearer("u1"), bearer("large"));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let endpoint = Endpoint::Tls(server.address, certificate.client_of(&[version]));
        let mut wire = endpoint.open().unwrap();
        // Persistent, pipelined, in pieces, with `Expect: 100-continue`.
        for _ in 0..3 {
            wire.write(&new_task(&token, "over TLS")).unwrap();
            wire.answer().unwrap().unwrap().expect(201);
        }
        wire.write(&HEALTH.repeat(20)).unwrap();
        for _ in 0..20 {
            wire.answer().unwrap().unwrap().expect(200);
        }
        for byte in HEALTH {
            wire.write(&[*byte]).unwrap();
        }
        wire.answer().unwrap().unwrap().expect(200);
        let head = format!(
            "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n"
        );
        wire.write(head.as_bytes()).unwrap();
        wire.answer().unwrap().unwrap().expect(100);
        wire.write(b"{\"title\":\"expected\"}").unwrap();
        wire.answer().unwrap().unwrap().expect(201);
        // Large bodies in both directions.
        let body = format!(
            "{{\"title\":\"large\",\"padding\":\"{}\"}}",
            "p".repeat(1_000_000)
        );
        let headers = [("Authorization", token.as_str())];
        wire.write(&request("POST", "/api/tasks", &headers, body.as_bytes()))
            .unwrap();
        wire.answer().unwrap().unwrap().expect(201);
        let headers = [("Authorization", large.as_str()), ("Connection", "close")];
        wire.write(&request("GET", "/api/tasks", &headers, b""))
            .unwrap();
        let list = wire.answer().unwrap().unwrap().expect(200);
        assert!(list.body.len() > 8_000_000);
        // The connection ends with a TLS close alert, which cannot be forged.
        wire.expect_silent_end();
        // A half-closed connection gets its answer.
        let mut wire = endpoint.open().unwrap();
        wire.write(&new_task(&token, "half-closed")).unwrap();
        wire.end_writing().unwrap();
        wire.answer().unwrap().unwrap().expect(201);
        wire.expect_silent_end();
        // A refusal can be read to its end.
        let mut wire = endpoint.open().unwrap();
        let behind = new_task(&token, "smuggled");
        wire.write(&[&b"GET / HTTP/1.1\r\n\r\n"[..], &behind].concat())
            .unwrap();
        wire.answer()
            .unwrap()
            .unwrap()
            .expect_error(400, "BAD_REQUEST");
        wire.expect_silent_end();
    }
    let list = Endpoint::Tls(server.address, certificate.client())
        .ask(&request(
            "GET",
            "/api/tasks",
            &[("Authorization", &token)],
            b"",
        ))
        .expect(200)
        .json();
    assert_eq!(list["count"], 2 * (3 + 1 + 1 + 1), "{}", list["tasks"][0]);
}

#[test]
fn a_client_without_tls_is_disconnected() {
    let certificate = Certificate::make();
    let server = serve_tls(&certificate, &fresh_database(), &[("HEAD_TIMEOUT", "0.6")]);
    let began = Instant::now();
    thread::scope(|scope| {
        for (start, more) in [
            (HEALTH, &b""[..]),
            (b"\x16\x03\x01", b""),
            (b"\x16\x03\x01\xff\xff", b"\0"),
            (b"", b""),
            (&[0xff; 3000], b""),
        ] {
            let endpoint = Endpoint::from(server.address);
            scope.spawn(move || {
                let mut wire = endpoint.open().unwrap();
                wire.write(start).unwrap();
                // Single bytes are not a handshake.
                while !more.is_empty() && began.elapsed() < Duration::from_millis(900) {
                    if wire.write(more).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                // The server may send a TLS alert, but no plain HTTP.
                if let Ok(rest) = wire.rest() {
                    assert!(!rest.starts_with(b"HTTP"), "{}", rest.escape_ascii());
                }
            });
        }
    });
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    Endpoint::Tls(server.address, certificate.client())
        .ask(HEALTH)
        .expect(200);
}

/// Whether this client trusts the server's certificate.
fn is_trusted(endpoint: &Endpoint) -> bool {
    let mut wire = endpoint.open().unwrap();
    wire.write(HEALTH).is_ok() && wire.answer().is_ok_and(|answer| answer.is_some())
}

#[test]
fn sighup_replaces_the_certificate() {
    let mut certificate = Certificate::make();
    let server = serve_tls(&certificate, &fresh_database(), &[]);
    let first = Endpoint::Tls(server.address, certificate.client());
    let mut open = first.open().unwrap();
    open.write(HEALTH).unwrap();
    open.answer().unwrap().unwrap().expect(200);

    certificate.replace();
    server.signal("HUP");
    let second = Endpoint::Tls(server.address, certificate.client());
    let began = Instant::now();
    wait_until(|| is_trusted(&second));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(!is_trusted(&first));
    // An open connection stays open.
    open.write(HEALTH).unwrap();
    open.answer().unwrap().unwrap().expect(200);

    // A file without a certificate does not replace the old one.
    fs::write(certificate.file(), "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    server.signal("HUP");
    thread::sleep(Duration::from_millis(500));
    assert!(is_trusted(&second));
}

#[test]
fn contradictory_tls_settings_stop_the_start() {
    let (one, other) = (Certificate::make(), Certificate::make());
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (certificate, key, wrong_key) = (
        path(one.file()),
        path(one.key_file()),
        path(other.key_file()),
    );
    for (settings, named) in [
        (
            vec![("TLS_CERT_FILE", certificate.as_str())],
            "TLS_KEY_FILE",
        ),
        (vec![("TLS_KEY_FILE", key.as_str())], "TLS_CERT_FILE"),
        (
            vec![
                ("TLS_CERT_FILE", certificate.as_str()),
                ("TLS_KEY_FILE", "/nowhere/key.pem"),
            ],
            "/nowhere/key.pem",
        ),
        (
            vec![
                ("TLS_CERT_FILE", key.as_str()),
                ("TLS_KEY_FILE", key.as_str()),
            ],
            "key.pem",
        ),
        (
            vec![
                ("TLS_CERT_FILE", certificate.as_str()),
                ("TLS_KEY_FILE", wrong_key.as_str()),
            ],
            "key.pem",
        ),
    ] {
        let mut all = vec![
            ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
            ("BETTER_AUTH_SECRET", SECRET),
        ];
        all.extend(settings);
        let listen = free_address().to_string();
        all.push(("LISTEN", &listen));
        let output = run(&["serve"], &all);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{named}: {text}");
        assert!(text.contains(named), "{named}: {text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}

#[test]
fn direct_and_unix_addresses_stay_without_tls() {
    let certificate = Certificate::make();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("todo.sock");
    let (tls, direct) = (free_address(), free_address());
    let listen = format!("{tls},direct:{direct},unix:{}", socket.display());
    let _server = serve_tls(&certificate, &fresh_database(), &[("LISTEN", &listen)]);
    for endpoint in [
        Endpoint::Tls(tls, certificate.client()),
        Endpoint::from(direct),
        Endpoint::Unix(socket),
    ] {
        endpoint.ask(HEALTH).expect(200);
    }
    let mut wire = Endpoint::from(tls).open().unwrap();
    wire.write(HEALTH).unwrap();
    assert!(
        !matches!(wire.answer(), Ok(Some(_))),
        "no plain HTTP on the TLS address"
    );
    assert!(matches!(wire.stream, Stream::Tcp(_)));
    // `todo-api healthcheck` works over TLS.
    drop(
        http::try_send(direct, "GET", "/health", &[], None)
            .unwrap()
            .expect(200),
    );
}
