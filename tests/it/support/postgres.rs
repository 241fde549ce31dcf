//! One PostgreSQL for all tests, and a database for each.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use todo_api::local_postgres::{ClusterOptions, LocalPostgres};
use todo_api::store::Store;

use super::app::settings;

const TEMPLATE: &str = "migrated";

static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
    let cluster = Cluster::start(false);
    sql(
        &cluster.url("todo"),
        &format!("CREATE DATABASE {TEMPLATE} ENCODING 'UTF8' TEMPLATE template0"),
    );
    let store = Store::new(settings(&cluster.url(TEMPLATE)));
    let until = Instant::now() + Duration::from_secs(20);
    store
        .open(until)
        .map_err(|error| error.to_string())
        .unwrap();
    drop(store);
    cluster
});

/// A PostgreSQL in a directory that is removed after this process, even if it is killed.
pub struct Cluster {
    // In the order in which they must be dropped.
    postgres: LocalPostgres,
    pub directory: PathBuf,
    _cleaner: Child,
}

impl Cluster {
    /// A new cluster, durable or not.
    pub fn start(durable: bool) -> Cluster {
        let directory = tempfile::Builder::new()
            .prefix("todo-api-test-")
            .tempdir()
            .unwrap()
            .keep();
        // If the test runs as root, PostgreSQL runs as another user, who must be able to enter the directory.
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let cleaner = cleaner(&directory);
        let postgres = LocalPostgres::start(
            &directory,
            ClusterOptions {
                durable,
                max_connections: 200,
            },
        )
        .unwrap();
        Cluster {
            postgres,
            directory,
            _cleaner: cleaner,
        }
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        self.postgres
            .url()
            .replacen("/todo?", &format!("/{database}?"), 1)
    }

    /// The path of its Unix socket.
    pub fn socket_file(&self) -> PathBuf {
        let url = self.postgres.url();
        let encoded = url
            .split_once("host=")
            .unwrap()
            .1
            .split('&')
            .next()
            .unwrap();
        PathBuf::from(encoded.replace("%2F", "/")).join(".s.PGSQL.5432")
    }

    /// The process id of its postmaster.
    pub fn pid(&self) -> i32 {
        let file = std::fs::read_to_string(self.directory.join("postgres/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    /// Sends a signal to all of its processes.
    pub fn signal_all(&self, name: &str) {
        let postmaster = self.pid();
        // The postmaster first, so that it starts no more children.
        super::process::signal(postmaster, name);
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        for child in std::fs::read_to_string(children)
            .unwrap()
            .split_whitespace()
        {
            // The child may have ended.
            let _ = Command::new("kill")
                .args([&format!("-{name}"), child])
                .status();
        }
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.postgres.stop().unwrap();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        let _ = self.postgres.stop();
        self.postgres = LocalPostgres::start(
            &self.directory,
            ClusterOptions {
                durable: true,
                max_connections: 200,
            },
        )
        .unwrap();
    }
}

/// A process that waits for this one to end, stops the PostgreSQL in the directory, and removes the directory. Statics are never
/// dropped, nor are the values of a killed test.
fn cleaner(directory: &Path) -> Child {
    let script = "cat > /dev/null
        pid=$(head -n 1 \"$1/postgres/postmaster.pid\" 2> /dev/null)
        if [ -n \"$pid\" ]; then
            kill -INT \"$pid\" 2> /dev/null
            for _ in $(seq 100); do kill -0 \"$pid\" 2> /dev/null || break; sleep 0.05; done
        fi
        rm -rf \"$1\"";
    Command::new("sh")
        .args(["-c", script, "cleaner"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The URL of a new database with the schema in it.
pub fn fresh_database() -> String {
    database_from(TEMPLATE)
}

/// The URL of a new, empty database.
pub fn empty_database() -> String {
    database_from("template0")
}

fn database_from(template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    sql(
        &SHARED.url("todo"),
        &format!("CREATE DATABASE {name} TEMPLATE {template}"),
    );
    SHARED.url(&name)
}

/// The log of the shared cluster.
pub fn log() -> String {
    let path = SHARED.directory.join("postgres.log");
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// The shared cluster's Unix socket.
pub fn socket_file() -> PathBuf {
    SHARED.socket_file()
}

/// Runs statements on a connection of its own.
pub fn sql(url: &str, statements: &str) {
    postgres::Client::connect(url, postgres::NoTls)
        .unwrap()
        .batch_execute(statements)
        .unwrap();
}
