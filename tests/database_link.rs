//! Connections to a real PostgreSQL: encryption, verification, deadlines.
//!
//! The tests need PostgreSQL's programs (Debian's `postgresql` package). Without them they are skipped with a message, and fail
//! if `CI` is set.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use todo_api::config::source::Source;
use todo_api::config::{Config, DatabaseSettings, ModuleChecks};
use todo_api::store::connector::{ConnectError, PostgresConnection, Target, connect};

const USER: &str = "tester";
const PASSWORD: &str = "correct-horse-battery";

/// One PostgreSQL for all tests of this file.
///
/// It is a child of a shell that stops it when its standard input closes, which happens when this process ends for any reason.
struct Server {
    port: u16,
    directory: PathBuf,
    _shell: Child,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();

fn server() -> Option<&'static Server> {
    let server = SERVER
        .get_or_init(|| programs().map(|bin| Server::start(&bin)))
        .as_ref();
    if server.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "PostgreSQL's programs are not installed"
        );
        eprintln!("skipped: PostgreSQL's programs are not installed");
    }
    server
}

/// The directory of `initdb` and `postgres`, of the newest version.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn id(kind: &str, user: &[&str]) -> u32 {
    let output = Command::new("id").arg(kind).args(user).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// A command as a user other than root, because PostgreSQL refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if id("-u", &[]) == 0 {
        command
            .uid(id("-u", &["postgres"]))
            .gid(id("-g", &["postgres"]));
    }
    command
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Server {
    fn start(bin: &Path) -> Server {
        let directory = tempfile::Builder::new()
            .prefix("database-link-")
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        if id("-u", &[]) == 0 {
            chown(
                &directory,
                Some(id("-u", &["postgres"])),
                Some(id("-g", &["postgres"])),
            )
            .unwrap();
        }
        let data = directory.join("data");
        let password_file = directory.join("password");
        fs::write(&password_file, PASSWORD).unwrap();
        write_certificates(&directory);
        let port = free_port();

        let initdb = unprivileged(&bin.join("initdb"))
            .args([
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "--auth=scram-sha-256",
            ])
            .arg(format!("--username={USER}"))
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(
            initdb.status.success(),
            "{}",
            String::from_utf8_lossy(&initdb.stderr)
        );
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\n\
             hostnossl plain_only all all scram-sha-256\n\
             hostssl plain_only all all reject\n\
             hostssl tls_only all all scram-sha-256\n\
             hostnossl tls_only all all reject\n\
             host all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();

        let keep_until_stdin_closes = r#"
            "$@" & server=$!
            read -r _
            kill -CONT $server; kill -QUIT $server; wait $server
            rm -rf "$DIRECTORY"
        "#;
        let shell = unprivileged(Path::new("/bin/sh"))
            .args(["-c", keep_until_stdin_closes, "sh"])
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
                "-c",
                "ssl=on",
            ])
            .args(["-c", &format!("port={port}")])
            .args([
                "-c",
                &format!("unix_socket_directories={}", directory.display()),
            ])
            .args([
                "-c",
                &format!("ssl_cert_file={}", directory.join("server.crt").display()),
            ])
            .args([
                "-c",
                &format!("ssl_key_file={}", directory.join("server.key").display()),
            ])
            .env("DIRECTORY", &directory)
            // A signal from the terminal must not end the shell, which cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Server {
            port,
            directory,
            _shell: shell,
        };
        let by = Instant::now() + Duration::from_secs(20);
        let mut connection = loop {
            match server.connect("sslmode=disable") {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > by => panic!("PostgreSQL does not start: {error}"),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        for database in ["plain_only", "tls_only", USER] {
            connection
                .client
                .batch_execute(&format!("CREATE DATABASE {database}"))
                .unwrap();
        }
        server
    }

    /// An address of this server with these parameters.
    fn address(&self, parameters: &str) -> String {
        format!(
            "postgresql://{USER}:{PASSWORD}@localhost:{}/postgres?hostaddr=127.0.0.1&{parameters}",
            self.port
        )
    }

    /// Addresses of this server: with TLS, without TLS, and over its Unix socket.
    fn addresses(&self) -> [String; 3] {
        let socket = format!(
            "postgresql://{USER}@/?host={}&port={}",
            self.directory.display(),
            self.port
        );
        [
            self.address("sslmode=require"),
            self.address("sslmode=disable"),
            socket,
        ]
    }

    fn connect(&self, parameters: &str) -> Result<PostgresConnection, ConnectError> {
        connect_to(&self.address(parameters))
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn postmaster(&self) -> String {
        let text = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().to_owned()
    }
}

/// `authority.crt` signs `server.crt`, which is for `localhost` only; `unknown.crt` signs nothing.
fn write_certificates(directory: &Path) {
    let authority = |name: &str| {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, unknown) = (authority("Ours"), authority("Unknown"));
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &ours)
        .unwrap();
    let files = [
        ("authority.crt", ours.pem()),
        ("unknown.crt", unknown.pem()),
        ("server.crt", server.pem()),
        ("server.key", key.serialize_pem()),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if id("-u", &[]) == 0 {
            chown(&path, Some(id("-u", &["postgres"])), None).unwrap();
        }
    }
}

fn session() -> DatabaseSettings {
    let checks = ModuleChecks {
        database_is_local: |_| Ok(true),
        key_set_url: |_| Ok(()),
    };
    DatabaseSettings {
        statement_timeout: Duration::from_secs(7),
        lock_timeout: Duration::from_millis(3_500),
        connect_timeout: Duration::from_secs(5),
        ..Config::load(&Source::of_pairs(&[]), &checks)
            .unwrap()
            .database
    }
}

fn connect_to(address: &str) -> Result<PostgresConnection, ConnectError> {
    connect(&Target::parse(address).unwrap(), &session())
}

fn failure(outcome: Result<PostgresConnection, ConnectError>) -> String {
    let text = outcome
        .err()
        .expect("the connection should have been refused")
        .to_string();
    assert!(!text.contains(PASSWORD), "{text}");
    text
}

fn show(connection: &mut PostgresConnection, sql: &str) -> String {
    connection.client.query_one(sql, &[]).unwrap().get(0)
}

fn is_encrypted(connection: &mut PostgresConnection) -> bool {
    connection
        .client
        .query_one(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            &[],
        )
        .unwrap()
        .get(0)
}

fn signal(signal: &str, pid: &str) {
    assert!(
        Command::new("kill")
            .args([signal, pid])
            .status()
            .unwrap()
            .success()
    );
}

/// Asserts that the statement ended with its deadline and not much later.
fn assert_ended_with_the_deadline(start: Instant, limit: Duration, error: &postgres::Error) {
    let took = start.elapsed();
    assert!(took >= limit, "ended after {took:?}: {error:?}");
    assert!(
        took < limit + Duration::from_millis(500),
        "ended after {took:?}"
    );
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(
        source.map(io::Error::kind),
        Some(io::ErrorKind::TimedOut),
        "{error:?}"
    );
}

/// A TCP proxy that can fall silent: connections stay open, bytes are acknowledged, and nothing is forwarded.
struct Proxy {
    port: u16,
    silent: Arc<AtomicBool>,
}

impl Proxy {
    fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            silent: Arc::new(AtomicBool::new(false)),
        };
        let silent = Arc::clone(&proxy.silent);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent = Arc::clone(&silent);
                    thread::spawn(move || pass_on(from, to, &silent));
                }
            }
        });
        proxy
    }

    fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if silent.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if !silent.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[test]
fn each_sslmode_encrypts_as_libpq_does() {
    let Some(server) = server() else { return };
    for (mode, encrypted) in [
        ("sslmode=disable", false),
        ("sslmode=allow", true),
        ("sslmode=prefer", true),
        ("application_name=x", true),
        ("sslmode=require", true),
        ("ssl=require", true),
        ("ssl=true", true),
        ("ssl=disable", false),
        (
            &format!(
                "sslmode=prefer&sslrootcert={}",
                server.file("authority.crt")
            ),
            true,
        ),
        (
            &format!(
                "sslmode=verify-ca&sslrootcert={}",
                server.file("authority.crt")
            ),
            true,
        ),
        (
            &format!(
                "sslmode=verify-full&sslrootcert={}",
                server.file("authority.crt")
            ),
            true,
        ),
        // The server's own certificate instead of that of its authority.
        (
            &format!(
                "sslmode=verify-full&sslrootcert={}",
                server.file("server.crt")
            ),
            true,
        ),
        ("sslmode=require&ssl_min_protocol_version=TLSv1.3", true),
    ] {
        let mut connection = server
            .connect(mode)
            .unwrap_or_else(|e| panic!("{mode}: {e}"));
        assert_eq!(is_encrypted(&mut connection), encrypted, "{mode}");
    }
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_in_every_mode_with_sslrootcert() {
    let Some(server) = server() else { return };
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let error = failure(server.connect(&format!(
            "sslmode={mode}&sslrootcert={}",
            server.file("unknown.crt")
        )));
        assert!(error.contains("certificate"), "{mode}: {error}");
        assert!(
            error.contains("authority") || error.contains("signature"),
            "{mode}: {error}"
        );
    }
}

#[test]
fn a_private_certificate_is_not_among_the_public_authorities() {
    let Some(server) = server() else { return };
    for parameters in [
        "sslmode=verify-ca",
        "sslmode=verify-full",
        "sslrootcert=system",
    ] {
        let error = failure(server.connect(parameters));
        assert!(error.contains("UnknownIssuer"), "{parameters}: {error}");
    }
}

#[test]
fn only_verify_full_checks_the_host_name() {
    let Some(server) = server() else { return };
    let address = |host: &str, mode: &str| {
        format!(
            "postgresql://{USER}:{PASSWORD}@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}&sslrootcert={}",
            server.port,
            server.file("authority.crt")
        )
    };
    for host in ["elsewhere.example", "127.0.0.1", "under_score", "-no-name-"] {
        connect_to(&address(host, "verify-ca")).unwrap_or_else(|e| panic!("{host}: {e}"));
        let error = failure(connect_to(&address(host, "verify-full")));
        assert!(error.contains("not valid for name"), "{host}: {error}");
    }
}

#[test]
fn channel_binding_can_be_required() {
    let Some(server) = server() else { return };
    let mut connection = server
        .connect("sslmode=require&channel_binding=require")
        .unwrap();
    assert!(is_encrypted(&mut connection));
    let error = failure(server.connect("sslmode=disable&channel_binding=require"));
    assert!(error.contains("channel binding"), "{error}");
}

#[test]
fn prefer_continues_without_tls_if_the_server_accepts_nothing_else() {
    let Some(server) = server() else { return };
    let address = |database: &str, mode: &str| {
        format!(
            "postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode={mode}",
            server.port
        )
    };
    let mut connection = connect_to(&address("plain_only", "prefer")).unwrap();
    assert!(!is_encrypted(&mut connection));
    let error = failure(connect_to(&address("plain_only", "require")));
    assert!(error.contains("28000"), "{error}");
    let mut connection = connect_to(&address("tls_only", "prefer")).unwrap();
    assert!(is_encrypted(&mut connection));
    let error = failure(connect_to(&address("tls_only", "disable")));
    assert!(error.contains("28000"), "{error}");
}

#[test]
fn a_session_starts_with_its_time_limits() {
    let Some(server) = server() else { return };
    for address in server.addresses() {
        let mut connection = connect_to(&address).unwrap();
        for (setting, value) in [
            ("statement_timeout", "7s"),
            ("lock_timeout", "3500ms"),
            ("idle_in_transaction_session_timeout", "7s"),
            ("TimeZone", "UTC"),
            ("client_encoding", "UTF8"),
            ("application_name", "todo-api"),
        ] {
            assert_eq!(
                show(&mut connection, &format!("SHOW {setting}")),
                value,
                "{setting}"
            );
        }
    }
}

#[test]
fn options_in_the_address_override_ours() {
    let Some(server) = server() else { return };
    let own =
        "options=-c%20statement_timeout%3D99s%20-c%20search_path%3Dmine&application_name=mine";
    let mut connection = server.connect(own).unwrap();
    assert_eq!(show(&mut connection, "SHOW statement_timeout"), "99s");
    assert_eq!(show(&mut connection, "SHOW search_path"), "mine");
    assert_eq!(show(&mut connection, "SHOW application_name"), "mine");
    assert_eq!(show(&mut connection, "SHOW lock_timeout"), "3500ms");
}

#[test]
fn the_database_defaults_to_the_user() {
    let Some(server) = server() else { return };
    let target = Target::parse(&format!(
        "postgresql://{USER}:{PASSWORD}@localhost:{}",
        server.port
    ))
    .unwrap();
    assert_eq!(target.database(), USER);
    let mut connection = connect(&target, &session()).unwrap();
    assert_eq!(
        show(&mut connection, "SELECT current_database()::text"),
        USER
    );
}

#[test]
fn the_next_host_is_tried_when_one_is_down() {
    let Some(server) = server() else { return };
    let down = free_port();
    let address = format!(
        "postgresql://{USER}:{PASSWORD}@127.0.0.1:{down},127.0.0.1:{}/postgres",
        server.port
    );
    connect_to(&format!("{address}?target_session_attrs=read-write")).unwrap();
    let error = failure(connect_to(&format!(
        "{address}?target_session_attrs=read-only"
    )));
    assert!(
        error.contains("refused") && error.contains("not read only"),
        "{error}"
    );
}

#[test]
fn failures_say_what_is_wrong() {
    let Some(server) = server() else { return };
    let at = |userinfo: &str, place: &str| {
        connect(
            &Target::parse(&format!("postgresql://{userinfo}@{place}")).unwrap(),
            &session(),
        )
    };
    let here = format!("127.0.0.1:{}", server.port);

    let outcome = at("tester:wrong-horse", &format!("{here}/postgres"));
    assert_eq!(
        outcome.as_ref().err().unwrap().code(),
        Some(&postgres::error::SqlState::INVALID_PASSWORD)
    );
    let error = failure(outcome);
    assert_eq!(
        error,
        format!("{here}: password authentication failed for user \"tester\" (SQLSTATE 28P01)")
    );

    let error = failure(at("tester", &format!("{here}/postgres")));
    assert_eq!(
        error,
        format!("{here}: invalid configuration: password missing")
    );

    let error = failure(at(
        &format!("{USER}:{PASSWORD}"),
        &format!("{here}/nothing"),
    ));
    assert_eq!(
        error,
        format!("{here}: database \"nothing\" does not exist (SQLSTATE 3D000)")
    );

    let down = format!("127.0.0.1:{}", free_port());
    let error = failure(at("tester:x", &down));
    assert_eq!(
        error,
        format!("{down}: error connecting to server: Connection refused (os error 111)")
    );

    let error = failure(at("tester:x", "no-such-host.invalid"));
    assert!(
        error.starts_with("no-such-host.invalid:5432: cannot be looked up: "),
        "{error}"
    );

    let error = failure(connect_to("postgresql://tester@/?host=/nonexistent"));
    assert_eq!(
        error,
        "/nonexistent: No such file or directory (os error 2)"
    );
}

#[test]
fn a_statement_on_a_silent_link_ends_with_its_deadline() {
    let Some(server) = server() else { return };
    for mode in ["disable", "require"] {
        let proxy = Proxy::before(server.port);
        let address = format!(
            "postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/postgres?sslmode={mode}",
            proxy.port
        );
        let mut connection = connect_to(&address).unwrap();
        let statement = connection.client.prepare("SELECT 1").unwrap();

        // A deadline that was met has no effect later.
        for _ in 0..3 {
            connection
                .deadline
                .set(Instant::now() + Duration::from_millis(150));
            connection.client.query(&statement, &[]).unwrap();
            connection.deadline.clear();
        }
        assert_eq!(
            show(&mut connection, "SELECT 'there'::text FROM pg_sleep(0.3)"),
            "there"
        );

        proxy.fall_silent();
        let (start, limit) = (Instant::now(), Duration::from_millis(300));
        connection.deadline.set(start + limit);
        let error = connection.client.query(&statement, &[]).unwrap_err();
        assert_ended_with_the_deadline(start, limit, &error);
        assert!(connection.client.is_closed(), "{mode}");

        connection.deadline.clear();
        let start = Instant::now();
        assert!(connection.client.query(&statement, &[]).is_err(), "{mode}");
        drop(connection);
        assert!(
            start.elapsed() < Duration::from_millis(100),
            "{mode}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_deadline_may_be_shorter_than_the_one_before_it() {
    let Some(server) = server() else { return };
    let mut connection = server.connect("sslmode=disable").unwrap();
    connection
        .deadline
        .set(Instant::now() + Duration::from_secs(60));
    assert_eq!(
        show(&mut connection, "SELECT 'there'::text FROM pg_sleep(0.05)"),
        "there"
    );
    let (start, limit) = (Instant::now(), Duration::from_millis(200));
    connection.deadline.set(start + limit);
    let error = connection
        .client
        .query("SELECT pg_sleep(2)", &[])
        .unwrap_err();
    assert_ended_with_the_deadline(start, limit, &error);
}

#[test]
fn a_transaction_dropped_on_a_silent_link_does_not_block_its_thread() {
    let Some(server) = server() else { return };
    let proxy = Proxy::before(server.port);
    let address = format!(
        "postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/postgres",
        proxy.port
    );
    let mut connection = connect_to(&address).unwrap();
    let (start, limit) = (Instant::now(), Duration::from_millis(300));
    connection.deadline.set(start + limit);
    let mut transaction = connection.client.transaction().unwrap();
    transaction
        .execute("CREATE TEMPORARY TABLE t (a int)", &[])
        .unwrap();
    proxy.fall_silent();
    let error = transaction.commit().unwrap_err();
    assert_ended_with_the_deadline(start, limit, &error);
    drop(connection);
    assert!(start.elapsed() < limit + Duration::from_millis(500));
}

#[test]
fn dropping_a_connection_never_waits_for_the_server() {
    let Some(server) = server() else { return };
    for mode in ["disable", "require"] {
        let proxy = Proxy::before(server.port);
        let address = format!(
            "postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/postgres?sslmode={mode}",
            proxy.port
        );
        let idle = connect_to(&address).unwrap();
        let mut reading = connect_to(&address).unwrap();
        // Rows that are never fetched: answers are still on the way to the client.
        let rows = reading.client.query_raw(
            "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
            NO_PARAMETERS,
        );
        drop(rows);
        proxy.fall_silent();

        let start = Instant::now();
        drop(idle);
        assert!(
            start.elapsed() < Duration::from_millis(100),
            "{mode}: {:?}",
            start.elapsed()
        );
        let start = Instant::now();
        drop(reading);
        assert!(
            start.elapsed() < Duration::from_millis(1_500),
            "{mode}: {:?}",
            start.elapsed()
        );
    }
}

const NO_PARAMETERS: [&str; 0] = [];

#[test]
fn a_large_write_into_a_silent_link_ends_with_its_deadline() {
    let Some(server) = server() else { return };
    let mut connection = server.connect("sslmode=require").unwrap();
    let backend: i32 = connection
        .client
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let statement = connection
        .client
        .prepare("SELECT length($1::text)")
        .unwrap();
    // More than fits into the buffers of the sockets.
    let text = "x".repeat(32 * 1024 * 1024);
    signal("-STOP", &backend.to_string());
    let (start, limit) = (Instant::now(), Duration::from_millis(700));
    connection.deadline.set(start + limit);
    let error = connection.client.query(&statement, &[&text]).unwrap_err();
    let took = start.elapsed();
    drop(connection);
    signal("-CONT", &backend.to_string());
    assert!(took < limit + Duration::from_secs(1), "{took:?} {error:?}");
    assert!(start.elapsed() < limit + Duration::from_secs(1));
}

#[test]
fn a_statement_on_a_frozen_server_ends_with_its_deadline() {
    let Some(server) = server() else { return };
    for address in server.addresses() {
        let mut connection = connect_to(&address).unwrap();
        let backend: i32 = connection
            .client
            .query_one("SELECT pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        let backend = backend.to_string();
        signal("-STOP", &backend);
        let (start, limit) = (Instant::now(), Duration::from_millis(300));
        connection.deadline.set(start + limit);
        let error = connection.client.query("SELECT 1", &[]).unwrap_err();
        let dropping = Instant::now();
        drop(connection);
        let dropped = dropping.elapsed();
        signal("-CONT", &backend);
        assert_ended_with_the_deadline(start, limit, &error);
        assert!(dropped < Duration::from_millis(100), "{dropped:?}");
    }
}

/// It uses a server of its own, because no other test can connect during it.
#[test]
fn connecting_to_a_frozen_postmaster_ends_with_its_deadline() {
    let Some(bin) = programs() else { return };
    let server = Server::start(&bin);
    let postmaster = server.postmaster();
    signal("-STOP", &postmaster);
    let mut outcomes = Vec::new();
    for address in server.addresses() {
        let start = Instant::now();
        let session = DatabaseSettings {
            connect_timeout: Duration::from_millis(300),
            ..session()
        };
        let error = failure(connect(&Target::parse(&address).unwrap(), &session));
        outcomes.push((start.elapsed(), error));
    }
    signal("-CONT", &postmaster);
    for (took, error) in outcomes {
        assert!(error.contains("did not answer in time"), "{error}");
        assert!(took < Duration::from_millis(800), "{took:?}");
    }
}
