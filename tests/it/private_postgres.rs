//! The private PostgreSQL is killed or cannot start while the server runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::process::{Process, signal};

/// A server with a private PostgreSQL.
struct Private {
    server: Process,
    data: PathBuf,
    _directory: TempDir,
}

impl Private {
    fn start(environment: &[(&str, &str)]) -> Private {
        let directory = tempfile::tempdir().unwrap();
        // If the test runs as root, PostgreSQL runs as another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        let mut all = vec![("BETTER_AUTH_SECRET", SECRET)];
        all.extend_from_slice(environment);
        let server = Process::with_private_postgres(&data, &all);
        server.wait_for("ready: ");
        Private {
            server,
            data,
            _directory: directory,
        }
    }

    fn postmaster(&self) -> i32 {
        let file = fs::read_to_string(self.data.join("postgres/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    fn kill_postgres(&self) {
        signal(self.postmaster(), "KILL");
    }

    fn is_ready(&self) -> bool {
        self.server.anonymous().get("/health/ready").status == 200
    }
}

#[test]
fn a_killed_postgres_is_started_again_within_15_seconds_with_its_data() {
    let private = Private::start(&[]);
    let user = private.server.user("u1");
    let task = user.task("kept");
    private.kill_postgres();
    let killed = Instant::now();
    wait_until(|| !private.is_ready());
    wait_until(|| private.is_ready());
    assert!(killed.elapsed() < Duration::from_secs(15));
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(user.get(&path).expect(200).json()["title"], json!("kept"));
    user.task("after it");
    private.server.wait_for("it is started again");
    let postmaster = private.postmaster();
    private.server.signal("TERM");
    let (status, log) = private.server.wait_at_most(Duration::from_secs(20));
    assert!(status.success(), "{log}");
    assert!(!Path::new(&format!("/proc/{postmaster}/cwd")).exists());
}

#[test]
fn a_stopped_postgres_is_replaced_with_its_data() {
    let private = Private::start(&[]);
    let user = private.server.user("u1");
    let task = user.task("kept");
    let stopped = private.postmaster();
    signal(stopped, "STOP");
    private.server.wait_for("PostgreSQL is stopped by a signal");
    private.server.wait_for("private PostgreSQL");
    wait_until(|| private.is_ready());
    assert_ne!(private.postmaster(), stopped);
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(user.get(&path).expect(200).json()["title"], json!("kept"));
}

#[test]
fn a_postgres_that_cannot_start_again_ends_the_server_with_the_reason() {
    let private = Private::start(&[]);
    let control = private.data.join("postgres/global/pg_control");
    fs::write(control, "damaged").unwrap();
    private.kill_postgres();
    let (status, log) = private.server.wait_at_most(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1), "{log}");
    let sentence = "todo-api: the private PostgreSQL failed 3 times within 60 s: ";
    assert!(log.contains(sentence), "{log}");
    assert!(log.contains("pg_control"), "{log}");
}

#[test]
fn each_restart_is_one_log_line_and_waits_longer_and_the_third_end_in_a_minute_ends_the_server() {
    let private = Private::start(&[]);
    let mut log = String::new();
    let restarts = [(); 2].map(|()| {
        private.kill_postgres();
        wait_until(|| !private.is_ready());
        log.push_str(&private.server.wait_for("it is started again"));
        let noticed = Instant::now();
        wait_until(|| private.is_ready());
        noticed.elapsed()
    });
    let [first, second] = restarts;
    assert!(second > first, "{restarts:?}");
    assert!(second >= Duration::from_secs(2), "{restarts:?}");
    private.kill_postgres();
    let (status, rest) = private.server.wait_at_most(Duration::from_secs(20));
    log.push_str(&rest);
    assert_eq!(status.code(), Some(1), "{log}");
    let lines = log.matches("it is started again").count();
    assert_eq!(lines, 2, "{log}");
}

#[test]
fn a_stop_does_not_wait_for_a_slow_start_of_postgres() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let slow = directory.path().join("slow");
    let programs = programs();
    for name in ["initdb", "postgres"] {
        symlink(programs.join(name), directory.path().join(name)).unwrap();
    }
    let script = format!(
        "#!/bin/sh\nif [ -e '{}' ]; then exec sleep 30; fi\nexec '{}' \"$@\"\n",
        slow.display(),
        programs.join("pg_ctl").display()
    );
    let pg_ctl = directory.path().join("pg_ctl");
    fs::write(&pg_ctl, script).unwrap();
    fs::set_permissions(&pg_ctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());

    let private = Private::start(&[("PATH", &path), ("SHUTDOWN_TIMEOUT", "2")]);
    fs::write(slow, "").unwrap();
    private.kill_postgres();
    private.server.wait_for("it is started again");
    private.server.signal("TERM");
    let (status, log) = private.server.wait_at_most(Duration::from_secs(5));
    assert!(status.success(), "{log}");
}

/// The directory of PostgreSQL's programs, on `PATH` or where Debian installs them.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|version| version.unwrap().path().join("bin")))
        .find(|directory| directory.join("pg_ctl").exists() && directory.join("initdb").exists())
        .unwrap()
}
