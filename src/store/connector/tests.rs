//! Tables of addresses, and the protocol against simulated servers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion, version};

use super::tls::Encryption;
use super::{Target, connect};
use crate::config::source::Source;
use crate::config::{Config, DatabaseSettings, ModuleChecks};

fn target(address: &str) -> Target {
    Target::parse(address).unwrap_or_else(|e| panic!("{address} {e}"))
}

fn refusal(address: &str) -> String {
    Target::parse(address)
        .err()
        .unwrap_or_else(|| panic!("{address} should have been refused"))
}

/// The columns of a row, which are separated by ` | `.
fn columns<const N: usize>(row: &str) -> [&str; N] {
    let columns: Vec<&str> = row.split(" | ").collect();
    columns.try_into().unwrap()
}

fn session() -> DatabaseSettings {
    let checks = ModuleChecks {
        database_is_local: |_| Ok(true),
        key_set_url: |_| Ok(()),
    };
    DatabaseSettings {
        statement_timeout: Duration::from_secs(7),
        lock_timeout: Duration::from_micros(1),
        connect_timeout: Duration::from_millis(300),
        ..Config::load(&Source::of_pairs(&[]), &checks)
            .unwrap()
            .database
    }
}

#[test]
fn addresses_are_read_in_every_common_form() {
    // Address; host, user, password, database.
    for row in [
        "postgresql://u:p@db.example/todo | db.example:5432 | u | p | todo",
        "postgres://u:p@db.example:6432/todo | db.example:6432 | u | p | todo",
        "postgresql+psycopg2://u:p@db.example/todo | db.example:5432 | u | p | todo",
        "postgresql+asyncpg://u:p@db.example/todo | db.example:5432 | u | p | todo",
        "POSTGRESQL://u:p@db.example/todo | db.example:5432 | u | p | todo",
        " \"postgresql://u:p@db.example/todo\"\n | db.example:5432 | u | p | todo",
        "postgresql://u:p@db.example | db.example:5432 | u | p | u",
        "postgresql://u:p@db.example/ | db.example:5432 | u | p | u",
        "postgresql://u:p@db.example/?sslmode=require | db.example:5432 | u | p | u",
        "postgresql://u:p@db.example?sslmode=require | db.example:5432 | u | p | u",
        "postgresql://u:p@[2001:db8::1]:6432/todo | [2001:db8::1]:6432 | u | p | todo",
        "postgresql://u:p@[::1]/todo | [::1]:5432 | u | p | todo",
        "postgresql://u:p@a:1,b,c:3/todo | a:1,b:5432,c:3 | u | p | todo",
        "postgresql://u:p@%2Frun%2Fpostgresql/todo | /run/postgresql | u | p | todo",
        "postgresql://u:p@%2Frun%2Fpostgresql:6432/todo | /run/postgresql/.s.PGSQL.6432 | u | p | todo",
        "postgresql://u:p@/todo?host=/run/postgresql | /run/postgresql | u | p | todo",
        "postgresql:///todo?host=%2Frun%2Fpostgresql&user=u&password=p | /run/postgresql | u | p | todo",
        "postgresql://u:p@/todo?hostaddr=192.0.2.1 | 192.0.2.1:5432 | u | p | todo",
        "postgresql://u:p@db.example/todo?hostaddr=192.0.2.1 | db.example:5432 | u | p | todo",
        "postgresql://u:p%40%3A%2F%3f%25@db.example/to%20do | db.example:5432 | u | p@:/?% | to do",
        "postgresql://u:p/ss@db.example/todo | db.example:5432 | u | p/ss | todo",
        "postgresql://u:p:p+100%@db.example/todo | db.example:5432 | u | p:p+100% | todo",
        "postgresql://u:p#p@db.example/todo | db.example:5432 | u | p#p | todo",
        "postgresql://db.example/todo?user=u&password=p | db.example:5432 | u | p | todo",
    ] {
        let [address, host, user, password, database] = columns(row);
        let target = target(address);
        assert_eq!(target.host(), host, "{address}");
        assert_eq!(target.config.get_user(), Some(user), "{address}");
        assert_eq!(
            target.config.get_password().unwrap_or_default(),
            password.as_bytes(),
            "{address}"
        );
        assert_eq!(target.database(), database, "{address}");
    }
}

#[test]
fn unsupported_options_are_refused_with_a_sentence() {
    for row in [
        " | is empty",
        "  '' | is empty",
        "db.example | is no PostgreSQL address: it begins with neither postgresql:// nor postgres://",
        "mysql://u:p@h/d | is no PostgreSQL address: it begins with neither postgresql:// nor postgres://",
        "sqlite:///x?a=b | is no PostgreSQL address: it begins with neither postgresql:// nor postgres://",
        "postgresql:// | names no host",
        "postgresql://u:p@/todo | names no host",
        "postgresql://u:p@a,,b/todo | names no host",
        "postgresql://u:p@h:0/d | has port 0",
        "postgresql://u:p@h:65536/d | cannot be used: invalid value for option `port`",
        "postgresql://u:p@h:x/d | cannot be used: invalid value for option `port`",
        "postgresql://u:p@[::1/d | cannot be used: invalid value for option `host`",
        "postgresql://u:p@a,b/d?port=1,2,3 | does not have as many ports as hosts",
        "postgresql://u:p@a,b/d?hostaddr=192.0.2.1 | does not have as many hostaddrs as hosts",
        "postgresql://u:p@a/d?hostaddr=b | cannot be used: invalid value for option `hostaddr`",
        "postgresql://u:p@a%20b/d | has a host with a character that no name has",
        "postgresql://%ff:p@a/d | is not UTF-8 once its %-escapes are decoded",
        "postgresql://u:p@a/d?sslmode | has a parameter without a value",
        "postgresql://u:p@a/d?sslmod=require | cannot be used: unknown option `sslmod`",
        "postgresql://u:p@a/d?sslmode=on | has an sslmode other than disable, allow, prefer, require, verify-ca and verify-full",
        "postgresql://u:p@a/d?sslcert=/x | cannot be used: unknown option `sslcert`",
        "postgresql://u:p@a/d?passfile=/x | cannot be used: unknown option `passfile`",
        "postgresql://u:p@a/d?gssencmode=require | asks for gssencmode=require, which is not supported",
        "postgresql://u:p@a/d?require_auth=scram-sha-256 | cannot be used: unknown option `require_auth`",
        "postgresql://u:p@a/d?channel_binding=yes | cannot be used: invalid value for option `channel_binding`",
        "postgresql://u:p@a/d?connect_timeout=5s | cannot be used: invalid value for option `connect_timeout`",
        "postgresql://u:p@a/d?sslrootcert=system&sslmode=require | has sslrootcert=system, which needs sslmode=verify-full",
        "postgresql://u:p@a/d?sslnegotiation=direct | has sslnegotiation=direct, which needs sslmode=require or stricter",
        "postgresql://u:p@a/d?sslmode=verify-ca&sslrootcert=/no/file | names an sslrootcert file that cannot be read: /no/file: No such file or directory (os error 2)",
        "postgresql://u:p@a/d?sslmode=verify-ca&sslrootcert=/dev/null | names an sslrootcert file without a certificate that can be used: /dev/null",
        "postgresql://u:p@ss@h/d | has an @ or ? that is not escaped: write %40 or %3F in a user, a password or a parameter",
        "postgresql://u:p?s@h/d | has an @ or ? that is not escaped: write %40 or %3F in a user, a password or a parameter",
        "postgresql://h/d?user=u@x | has an @ or ? that is not escaped: write %40 or %3F in a user, a password or a parameter",
        "host=a user=u | is no PostgreSQL address: it begins with neither postgresql:// nor postgres://",
        "postgresql://u@/d?host=a,b | has a host with a character that no name has",
        "postgresql://u:p@a/d?tcp_user_timeout=5s | has a tcp_user_timeout that is no whole number",
    ] {
        let [address, sentence] = columns(row);
        assert_eq!(refusal(address), sentence, "{address}");
    }
}

#[test]
fn parameters_of_other_drivers_are_accepted() {
    target(
        "postgresql://u:p@a/d?gssencmode=prefer&sslcompression=0&krbsrvname=x&schema=public&pgbouncer=true",
    );
    target(
        "postgresql://u:p@a/d?connection_limit=1&uselibpqcompat=true&sslmode=&ssl_min_protocol_version=TLSv1.2",
    );
    target(
        "postgresql://u:p@a/d?target_session_attrs=read-write&keepalives=0&tcp_user_timeout=0&connect_timeout=-1",
    );
}

#[test]
fn tcp_limits_are_ours_unless_the_address_sets_them() {
    let config = target("postgresql://u@a").config;
    assert!(config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(10))
    );
    assert_eq!(config.get_keepalives_retries(), Some(3));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(10))
    );
    let target = target(
        "postgresql://u@a?keepalives_idle=1&keepalives_interval=2&keepalives_count=4&tcp_user_timeout=2500\
         &connect_timeout=9",
    );
    assert_eq!(target.config.get_keepalives_idle(), Duration::from_secs(1));
    assert_eq!(
        target.config.get_keepalives_interval(),
        Some(Duration::from_secs(2))
    );
    assert_eq!(target.config.get_keepalives_retries(), Some(4));
    // In milliseconds, as libpq has it.
    assert_eq!(
        target.config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(2_500))
    );
    assert_eq!(
        target.config.get_connect_timeout(),
        Some(&Duration::from_secs(9))
    );
}

#[test]
fn encryption_follows_sslmode_then_ssl() {
    for (parameters, encryption, checks_nothing) in [
        ("", Encryption::Preferred, true),
        ("sslmode=allow", Encryption::Preferred, true),
        ("sslmode=disable&ssl=true", Encryption::Off, true),
        ("ssl=true", Encryption::Required, true),
        ("ssl=verify-full", Encryption::Required, false),
        ("ssl=0", Encryption::Off, true),
        ("sslmode=require", Encryption::Required, true),
        ("sslmode=verify-ca", Encryption::Required, false),
        ("sslrootcert=system", Encryption::Required, false),
    ] {
        let target = target(&format!("postgresql://u@a?{parameters}"));
        assert_eq!(
            (target.encryption, target.checks_nothing),
            (encryption, checks_nothing),
            "{parameters}"
        );
    }
}

#[test]
fn this_machine_is_a_socket_or_loopback() {
    for (address, here) in [
        ("postgresql://u@localhost/d", true),
        ("postgresql://u@127.0.0.9/d", true),
        ("postgresql://u@[::1]/d", true),
        ("postgresql://u@[::ffff:127.0.0.1]/d", true),
        ("postgresql://u@DB.LocalHost./d", true),
        ("postgresql://u@db.example/d?hostaddr=127.0.0.1", true),
        ("postgresql://u@localhost/d?hostaddr=192.0.2.1", false),
        ("postgresql:///d?host=/run/postgresql", true),
        ("postgresql://u@localhost,db.example/d", false),
        ("postgresql://u@localhost.example/d", false),
    ] {
        assert_eq!(target(address).is_on_this_machine(), here, "{address}");
    }
}

#[test]
fn the_direct_host_of_neon_is_derived_from_its_pooler() {
    let pooled = target(
        "postgresql://u:p@ep-a-1-pooler.eu.neon.example:5432/d?sslmode=require&hostaddr=192.0.2.1",
    );
    pooled.refuses_settings.store(true, Ordering::Relaxed);
    let direct = pooled.unpooled().unwrap();
    assert_eq!(direct.host(), "ep-a-1.eu.neon.example:5432");
    assert_eq!(direct.database(), "d");
    assert!(!direct.refuses_settings.load(Ordering::Relaxed));
    assert!(direct.unpooled().is_none());
    for address in [
        "postgresql://u@-pooler.example/d",
        "postgresql://u@db.x-pooler.example/d",
        "postgresql://u@/d?host=/x-pooler",
    ] {
        assert!(target(address).unpooled().is_none(), "{address}");
    }
    assert_eq!(
        target("postgresql://u@x-pooler").unpooled().unwrap().host(),
        "x:5432"
    );
}

proptest! {
    /// No error shows the password, wherever the mistake is.
    #[test]
    fn no_output_shows_the_password(
        password in "[A-Za-z0-9@:/?#%&=+ \\[\\]',;!-]{0,12}",
        scheme in proptest::sample::select(vec!["postgresql://", "postgres+x://", "mysql://", "postgresql:/", ""]),
        place in proptest::sample::select(vec!["db.example/todo", "db.example:x/todo?a=b", "/todo", "[::1", "h?sslmode=x", ""]),
    ) {
        let address = format!("{scheme}us3r:S3CR3T{password}S3CR3T@{place}");
        match Target::parse(&address) {
            Err(sentence) => prop_assert!(!sentence.contains("S3CR3T") && !sentence.contains("us3r"), "{sentence}"),
            Ok(target) => {
                let shown = format!("{target:?} {}", target.host());
                prop_assert!(!shown.contains("S3CR3T") && !shown.contains("us3r"), "{shown}");
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", tail in "[a-z:/@?&=%,\\[\\]']{0,30}") {
        let _ = Target::parse(&text);
        let _ = Target::parse(&format!("postgresql://{text}{tail}"));
    }

    #[test]
    fn an_escaped_password_is_read_back(password in any::<Vec<u8>>()) {
        let password: Vec<u8> = password.into_iter().filter(|byte| *byte != 0).collect();
        let escaped: String = password.iter().map(|byte| format!("%{byte:02X}")).collect();
        let target = target(&format!("postgresql://u:{escaped}@h/d"));
        prop_assert_eq!(target.config.get_password().unwrap_or_default(), password.as_slice());
    }
}

/// A server on loopback that calls a function for each connection.
fn fake_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    format!("postgresql://u:p@{address}/d")
}

/// Keeps a connection open and silent until the other side closes it.
fn be_silent(mut stream: impl Read) {
    while matches!(stream.read(&mut [0; 512]), Ok(1..)) {}
}

fn read_startup(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

fn error_response(code: &str, text: &str) -> Vec<u8> {
    message(
        b'E',
        format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0").as_bytes(),
    )
}

/// AuthenticationOk and ReadyForQuery.
fn welcome() -> Vec<u8> {
    [message(b'R', &[0, 0, 0, 0]), message(b'Z', b"I")].concat()
}

/// Answers simple queries with no rows, and returns their texts.
fn answer_queries(mut stream: impl Read + Write, told: impl Fn(String)) {
    let mut head = [0; 5];
    while stream.read_exact(&mut head).is_ok() {
        let [tag, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut body).unwrap();
        if tag != b'Q' {
            return;
        }
        told(String::from_utf8(body).unwrap());
        let answer = [message(b'C', b"SET\0"), message(b'Z', b"I")].concat();
        stream.write_all(&answer).unwrap();
    }
}

fn error_within(limit: Duration, address: &str) -> String {
    let start = Instant::now();
    let error = connect(&target(address), &session())
        .err()
        .expect("no error")
        .to_string();
    let took = start.elapsed();
    assert!(took < limit, "{took:?}: {error}");
    error
}

#[test]
fn connecting_to_a_silent_server_ends_with_its_timeout() {
    let begin = [
        message(b'R', &[0, 0, 0, 0]),
        message(b'S', b"TimeZone\0UTC\0"),
    ]
    .concat();
    for after in [0, 1, 4, begin.len() - 3, begin.len()] {
        let begin = begin[..after].to_vec();
        let address = fake_server(move |mut stream| {
            stream.write_all(&begin).unwrap();
            be_silent(stream);
        });
        let error = error_within(
            Duration::from_millis(500),
            &format!("{address}?sslmode=disable"),
        );
        assert!(
            error.ends_with("the server did not answer in time"),
            "{after}: {error}"
        );
    }
    for answer in [&b""[..], b"S", b"S\x16\x03\x03\x00"] {
        let address = fake_server(move |mut stream| {
            stream.write_all(answer).unwrap();
            be_silent(stream);
        });
        let error = error_within(
            Duration::from_millis(500),
            &format!("{address}?sslmode=require"),
        );
        assert!(
            error.ends_with("the server did not answer in time"),
            "{answer:?}: {error}"
        );
    }
}

#[test]
fn connecting_to_a_server_that_sends_single_bytes_ends_with_its_timeout() {
    let address = fake_server(|mut stream| {
        let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mwait\0\0");
        while stream.write_all(&notice).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    // A notice before authentication is an error. After authentication, notices may continue forever.
    error_within(
        Duration::from_millis(500),
        &format!("{address}?sslmode=disable"),
    );
    let address = fake_server(|mut stream| {
        stream.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
        let status = message(b'S', b"application_name\0x\0");
        while stream.write_all(&status).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let error = error_within(
        Duration::from_millis(500),
        &format!("{address}?sslmode=disable"),
    );
    assert!(
        error.ends_with("the server did not answer in time"),
        "{error}"
    );
}

#[test]
fn connecting_to_a_server_that_never_stops_sending_ends_with_its_timeout() {
    let address = fake_server(|mut stream| {
        stream.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
        let status = message(b'S', b"application_name\0x\0").repeat(1_000);
        while stream.write_all(&status).is_ok() {}
    });
    error_within(
        Duration::from_secs(2),
        &format!("{address}?sslmode=disable"),
    );
}

#[test]
fn connecting_to_a_unix_socket_without_a_server_ends_with_its_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let address = format!("postgresql://u@/d?host={}", directory.path().display());
    let error = error_within(Duration::from_millis(500), &address);
    assert!(
        error.ends_with("the server did not answer in time"),
        "{error}"
    );
}

#[test]
fn a_silent_host_does_not_use_the_time_of_the_next_host() {
    let silent = fake_server(be_silent);
    let silent = silent
        .trim_start_matches("postgresql://u:p@")
        .trim_end_matches("/d");
    let good = fake_server(|mut stream| {
        read_startup(&mut stream);
        stream.write_all(&welcome()).unwrap();
        answer_queries(stream, drop);
    });
    let good = good
        .trim_start_matches("postgresql://u:p@")
        .trim_end_matches("/d");
    let address = format!("postgresql://u:p@{silent},{good}/d?sslmode=disable");
    connect(&target(&address), &session()).unwrap();
}

#[test]
fn a_server_without_tls_is_refused_by_require_and_accepted_by_prefer() {
    let address = fake_server(|mut stream| {
        let request = read_startup(&mut stream);
        if request == [4, 210, 22, 47] {
            stream.write_all(b"N").unwrap();
            read_startup(&mut stream);
        }
        stream.write_all(&welcome()).unwrap();
        answer_queries(stream, drop);
    });
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = error_within(
            Duration::from_millis(500),
            &format!("{address}?sslmode={mode}"),
        );
        assert!(
            error.ends_with("the server has no TLS, and the sslmode in force requires it"),
            "{error}"
        );
    }
    for mode in ["prefer", "allow", "disable"] {
        connect(&target(&format!("{address}?sslmode={mode}")), &session()).unwrap();
    }
}

#[test]
fn odd_answers_to_the_request_for_tls_are_errors() {
    for (answer, said) in [
        (
            &b""[..],
            "the server closed the connection when it was asked for TLS",
        ),
        (
            b"E\0\0\0\x08lies",
            "the server answered the request for TLS with an error",
        ),
        (
            b"HTTP/1.1 400 Bad Request",
            "what answers there is not PostgreSQL",
        ),
    ] {
        let address = fake_server(move |mut stream| {
            read_startup(&mut stream);
            stream.write_all(answer).unwrap();
        });
        let error = error_within(Duration::from_millis(500), &address);
        assert!(error.ends_with(said), "{error}");
    }
}

#[test]
fn prefer_continues_without_tls_when_the_handshake_fails() {
    let address = fake_server(|mut stream| {
        if read_startup(&mut stream) == [4, 210, 22, 47] {
            stream.write_all(b"Sthis is no TLS").unwrap();
            be_silent(stream);
        } else {
            stream.write_all(&welcome()).unwrap();
            answer_queries(stream, drop);
        }
    });
    connect(&target(&address), &session()).unwrap();
    let error = error_within(
        Duration::from_millis(500),
        &format!("{address}?sslmode=require"),
    );
    assert!(error.contains("TLS: "), "{error}");
}

#[test]
fn a_pooler_that_refuses_settings_at_the_start_gets_them_afterwards() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let (told, queries) = channel();
    let counter = Arc::clone(&attempts);
    let address = fake_server(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        let startup = String::from_utf8(read_startup(&mut stream)).unwrap_or_default();
        if startup.contains("options\0") {
            let refusal = error_response(
                "08P01",
                "unsupported startup parameter in options: statement_timeout",
            );
            return stream.write_all(&refusal).unwrap();
        }
        stream.write_all(&welcome()).unwrap();
        answer_queries(stream, |query| told.send(query).unwrap());
    });
    let target = target(&format!("{address}?sslmode=disable"));
    let settings = "SET statement_timeout = '7000';SET lock_timeout = '1';\
                    SET idle_in_transaction_session_timeout = '7000';SET TimeZone = 'UTC';\
                    SET enable_seqscan = 'off';SET max_parallel_workers_per_gather = '0';SET jit = 'off';\0";

    connect(&target, &session()).unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    assert_eq!(next(&queries), settings);

    // It is remembered, also by clones.
    connect(&target.clone(), &session()).unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    assert_eq!(next(&queries), settings);
}

fn next(queries: &Receiver<String>) -> String {
    queries.recv_timeout(Duration::from_secs(1)).unwrap()
}

#[test]
fn a_broken_pooler_is_not_remembered_as_one_that_refuses_settings() {
    let address = fake_server(|mut stream| {
        read_startup(&mut stream);
        stream
            .write_all(&error_response("08P01", "server\nlogin\rfailing"))
            .unwrap();
    });
    let target = target(&format!("{address}?sslmode=disable"));
    let error = connect(&target, &session()).err().unwrap().to_string();
    assert!(
        error.ends_with(": server login failing (SQLSTATE 08P01)"),
        "{error}"
    );
    assert!(!target.refuses_settings.load(Ordering::Relaxed));
}

/// A server with TLS and one certificate, from the first byte or after SSLRequest.
fn tls_server(
    certificate: Vec<u8>,
    key: &rcgen::KeyPair,
    version: &'static SupportedProtocolVersion,
    direct: bool,
) -> String {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.into()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let config = Arc::new(config);
    fake_server(move |mut stream| {
        if !direct {
            read_startup(&mut stream);
            stream.write_all(b"S").unwrap();
        }
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        // The handshake. Clients that refuse the certificate disconnect here.
        if stream.flush().is_err() {
            return;
        }
        assert!(!direct || stream.conn.alpn_protocol() == Some(b"postgresql"));
        if stream.conn.is_handshaking() {
            return;
        }
        read_startup(&mut stream);
        stream.write_all(&welcome()).unwrap();
        answer_queries(stream, drop);
    })
}

#[test]
fn a_self_signed_certificate_given_as_sslrootcert_is_trusted_for_its_name() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    // As `openssl req -x509` makes certificates.
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    let parameters = format!("sslmode=verify-full&sslrootcert={}", file.path().display());
    let address = tls_server(certificate.der().to_vec(), &key, &version::TLS13, false);
    let port = address.rsplit_once(':').unwrap().1;
    connect(
        &target(&format!("postgresql://u@localhost:{port}?{parameters}")),
        &session(),
    )
    .unwrap();
    let error = error_within(
        Duration::from_millis(500),
        &format!("{address}?{parameters}"),
    );
    assert!(error.contains("not valid for name"), "{error}");
    let error = error_within(
        Duration::from_millis(500),
        &format!("{address}?sslmode=verify-ca"),
    );
    assert!(error.contains("TLS: "), "{error}");
}

#[test]
fn tls_may_begin_without_a_request_for_it() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let address = tls_server(
        made.cert.der().to_vec(),
        &made.signing_key,
        &version::TLS13,
        true,
    );
    let address = format!("{address}?sslmode=require&sslnegotiation=direct");
    connect(&target(&address), &session()).unwrap();
}

#[test]
fn a_server_must_have_the_key_of_its_certificate_even_if_nothing_is_verified() {
    for version in [&version::TLS12, &version::TLS13] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let another_key = rcgen::KeyPair::generate().unwrap();
        let address = tls_server(made.cert.der().to_vec(), &another_key, version, false);
        let error = error_within(
            Duration::from_millis(500),
            &format!("{address}?sslmode=require"),
        );
        assert!(error.contains("TLS: "), "{error}");
    }
}

#[test]
fn time_limits_in_the_address_override_ours() {
    let address = fake_server(be_silent);
    let start = Instant::now();
    let error = connect(&target(&format!("{address}?connect_timeout=1")), &session())
        .err()
        .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{error}");
}

#[test]
fn connecting_to_an_address_that_drops_packets_ends_with_its_timeout() {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // If the queue is full, the kernel drops further packets.
    let _full: Vec<_> = (0..4)
        .map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(20)))
        .collect();
    let error = error_within(
        Duration::from_millis(500),
        &format!("postgresql://u@{address}"),
    );
    assert!(error.ends_with("connection timed out"), "{error}");
}

#[test]
fn a_connection_may_be_pooled() {
    fn may_be_pooled<T: Send + 'static>() {}
    fn may_be_shared<T: Send + Sync + Clone + 'static>() {}
    may_be_pooled::<super::PostgresConnection>();
    may_be_pooled::<super::ConnectError>();
    may_be_shared::<Target>();
    may_be_shared::<super::Deadline>();
}
