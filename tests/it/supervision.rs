//! The service under systemd: the units, and the notifications.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::support::hold::{Lock, PATIENT};
use crate::support::postgres::{fresh_database, socket_file};
use crate::support::process::{Process, run};
use crate::support::proxy::Proxy;
use crate::support::systemd::{Systemd, next_of, says, unit, wait_for};
use crate::support::wire::{Endpoint, Wire, bearer, new_task_with_id, request};

const WATCHDOG: Duration = Duration::from_secs(2);
const A_MOMENT: Duration = Duration::from_millis(700);

fn any(notifications: &[String], line: &str) -> bool {
    notifications.iter().any(|one| says(one, line))
}

#[test]
fn the_unit_is_ready_once_tasks_can_be_served() {
    let proxy = Proxy::to(&socket_file());
    let database = fresh_database();
    proxy.fall_silent();
    let systemd = Systemd::new(&proxy.url(&database), "DB_CONNECT_TIMEOUT=0.5\n");
    let mut server = systemd.start(WATCHDOG);
    systemd.wait_for("STATUS=waiting for the database");
    // A reload does not make the server ready.
    server.signal("HUP");
    let notifications = systemd.all_within(A_MOMENT);
    assert!(!any(&notifications, "READY=1"), "{notifications:?}");
    assert!(!any(&notifications, "RELOADING=1"), "{notifications:?}");

    // A request before that waits for up to two seconds.
    let mut early = Endpoint::from(server.address).open().unwrap();
    early
        .write(&request("GET", "/health/ready", &[], b""))
        .unwrap();
    proxy.speak();
    early.answer().unwrap().unwrap().expect(200);
    let ready = systemd.wait_for("READY=1").pop().unwrap();
    server.user("u1").task("at once");
    assert!(ready.contains("STATUS=ready: "), "{ready}");
    assert!(!ready.contains(&proxy.address.to_string()), "{ready}");
    assert!(server.is_alive());
}

#[test]
fn the_watchdog_is_notified_only_while_requests_are_answered() {
    let proxy = Proxy::to(&socket_file());
    let database = fresh_database();
    let mut settings = "WORKERS=2\nSELF_CHECK_SECONDS=0\nDB_POOL_TIMEOUT=0.2\n".to_owned();
    for (name, value) in PATIENT {
        settings.push_str(&format!("{name}={value}\n"));
    }
    let systemd = Systemd::new(&proxy.url(&database), &settings);
    let server = systemd.start(WATCHDOG);
    systemd.wait_for("READY=1");
    let mut last = Instant::now();
    for _ in 0..3 {
        systemd.wait_for("WATCHDOG=1");
        assert!(last.elapsed() < WATCHDOG, "{:?}", last.elapsed());
        last = Instant::now();
    }

    // All workers wait: each of three users occupies one.
    let mut lock = Lock::tasks(&database);
    let _stuck: Vec<Wire> = ["u1", "u2", "u3"]
        .into_iter()
        .map(|user| {
            let mut wire = Endpoint::from(server.address).open().unwrap();
            wire.write(&new_task_with_id(&bearer(user), "stuck"))
                .unwrap();
            wire
        })
        .collect();
    lock.wait_for_waiting(3);
    // A self-check that began earlier may still succeed.
    systemd.all_within(Duration::from_millis(100));
    let starved = systemd.all_within(WATCHDOG + A_MOMENT);
    assert!(!any(&starved, "WATCHDOG=1"), "{starved:?}");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(1), "{log}");
}

#[test]
fn the_watchdog_is_notified_while_the_database_is_unavailable() {
    let proxy = Proxy::to(&socket_file());
    let systemd = Systemd::new(&proxy.url(&fresh_database()), "");
    let server = systemd.start(WATCHDOG);
    systemd.wait_for("READY=1");
    proxy.fall_silent();
    let answer = server
        .user("u1")
        .try_send("GET", "/api/tasks", &[], None)
        .unwrap();
    answer.expect_error(503, "SERVICE_UNAVAILABLE");
    systemd.all_within(Duration::ZERO);
    systemd.wait_for("WATCHDOG=1");
    systemd.wait_for("WATCHDOG=1");
}

#[test]
fn a_supervisor_that_does_not_read_delays_nothing() {
    let systemd = Systemd::new(&fresh_database(), "LOG_LEVEL=info\n");
    systemd.fill();
    let server = systemd.start(WATCHDOG);
    server.wait_for("ready: ");
    server.user("u1").task("made");
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("NOTIFY_SOCKET"), "{log}");
}

#[test]
fn a_reload_is_announced_and_reads_the_log_level_again() {
    let systemd = Systemd::new(&fresh_database(), "LOG_LEVEL=warn\n");
    let server = systemd.start(WATCHDOG);
    systemd.wait_for("READY=1");
    let now = || {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    };
    fs::write(systemd.settings_file(), "LOG_LEVEL=info\n").unwrap();
    let before = now();
    server.signal("HUP");
    let reloading = systemd.wait_for("RELOADING=1").pop().unwrap();
    let at: i64 = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .unwrap()
        .parse()
        .unwrap();
    assert!((before..=now()).contains(&at), "{before} {at}");
    systemd.wait_for("READY=1");
    // At this level every request is logged.
    let log = server.wait_for("LOG_LEVEL is read again");
    assert!(!log.contains("listens on"), "{log}");
    server.anonymous().get("/health").expect(200);
    server.anonymous().get("/nowhere").expect(404);
    server.wait_for("status=404");

    // A file with an error changes nothing and is logged.
    fs::write(systemd.settings_file(), "LOG_LEVEL=loud\n").unwrap();
    server.signal("HUP");
    let log = server.wait_for("LOG_LEVEL stays as it is");
    assert!(!log.contains("loud"), "{log}");
    systemd.wait_for("RELOADING=1");
    systemd.wait_for("READY=1");
    server.anonymous().get("/health").expect(200);
}

#[test]
fn a_stop_is_announced_before_the_last_answer() {
    let database = fresh_database();
    let systemd = Systemd::new(&database, "DB_LOCK_TIMEOUT=60\nDB_STATEMENT_TIMEOUT=60\n");
    let server = systemd.start(WATCHDOG);
    systemd.wait_for("READY=1");
    let user = server.user("u1");
    user.task("t");
    let mut lock = Lock::tasks(&database);
    let last = thread::spawn(move || user.get("/api/tasks"));
    lock.wait_for_waiting(1);
    server.signal("TERM");
    let stopping = systemd.wait_for("STOPPING=1").pop().unwrap();
    // SHUTDOWN_TIMEOUT is 10 s, and a reserve is added.
    let extended: u64 = stopping
        .lines()
        .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="))
        .unwrap()
        .parse()
        .unwrap();
    assert!(extended > 10_000_000, "{extended}");
    assert!(!last.is_finished());
    lock.release();
    last.join().unwrap().expect(200);
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!any(&systemd.all_within(Duration::ZERO), "READY=1"));
}

#[test]
fn a_private_postgres_sends_no_notifications() {
    let name = format!("todo-api-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let notifications = UnixDatagram::bind_addr(&address).unwrap();
    let directory = tempfile::tempdir().unwrap();
    // PostgreSQL does not run as root and must be able to enter the directory.
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let server = Process::with_private_postgres(
        &directory.path().join("data"),
        &[("NOTIFY_SOCKET", &format!("@{name}"))],
    );
    let seen = wait_for(&notifications, "READY=1");
    assert!(seen.last().unwrap().contains("STATUS=ready: "), "{seen:?}");
    server.signal("TERM");
    let (status, log) = server.wait_at_most(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{log}");
    let mut stopping = 0;
    while let Some(one) = next_of(&notifications, Duration::ZERO) {
        assert!(!says(&one, "READY=1"), "{one}");
        stopping += usize::from(says(&one, "STOPPING=1"));
    }
    assert_eq!(stopping, 1);
}

#[test]
fn a_watchdog_without_self_check_is_refused() {
    let environment = [
        ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
        ("BETTER_AUTH_SECRET", crate::support::app::SECRET),
        ("LISTEN", "direct:127.0.0.1:0"),
        ("WATCHDOG_USEC", "30000000"),
    ];
    let output = run(&["serve"], &environment);
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(
        line.contains("LISTEN") && line.contains("WatchdogSec"),
        "{line}"
    );
}

/// Copies of the units with the built program, for systemd-analyze.
fn units() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_todo-api");
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
    write(
        "todo-api.service",
        unit("todo-api.service").replace("/usr/local/bin/todo-api", program),
    );
    for file in fs::read_dir(format!("{}/deploy", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if [".socket", ".service", ".timer"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            // In the repository these programs have other paths.
            let text = unit(&format!("deploy/{name}")).replace(
                "/usr/local/lib/todo-api/",
                concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/"),
            );
            write(&name, text);
        }
    }
    directory
}

/// Whether systemd-analyze is installed. Without it the test is skipped on a developer's machine and fails in CI.
fn systemd_analyze() -> bool {
    let there = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok();
    if !there {
        assert!(
            std::env::var_os("CI").is_none(),
            "systemd-analyze is missing"
        );
        eprintln!("skipped: systemd-analyze is missing (on Debian: apt-get install systemd)");
    }
    there
}

#[test]
fn systemd_accepts_the_units() {
    if !systemd_analyze() {
        return;
    }
    let directory = units();
    let mut files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 2);
    let output = Command::new("systemd-analyze")
        .args(["--man=no", "verify"])
        .args(&files)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn the_unit_exposes_at_most_1_2() {
    if !systemd_analyze() {
        return;
    }
    let directory = units();
    // The threshold is in tenths: 12 means 1.2.
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=12", "--no-pager"])
        .arg(directory.path().join("todo-api.service"))
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{table}");
    assert!(table.contains("Overall exposure level"), "{table}");
}
