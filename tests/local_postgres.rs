//! The private PostgreSQL: recovery after crashes of all kinds, and access.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, but not in the functions that tests share"
)]

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, NoTls};
use tempfile::TempDir;
use todo_api::local_postgres::{ClusterOptions, LocalPostgres};

const OPTIONS: ClusterOptions = ClusterOptions {
    durable: false,
    max_connections: 20,
};
/// Names the directory for the process that a test starts and kills.
const VICTIM_DIRECTORY: &str = "LOCAL_POSTGRES_TEST_DIRECTORY";

/// A directory for a cluster that every account can reach. Its PostgreSQL is ended after the test.
struct Place {
    parent: TempDir,
    directory: PathBuf,
}

impl Place {
    fn new() -> Place {
        Place::named("data")
    }

    fn named(name: &str) -> Place {
        let parent = tempfile::tempdir().unwrap();
        set_mode(parent.path(), 0o755);
        let directory = parent.path().join(name);
        Place { parent, directory }
    }

    fn start(&self) -> Result<LocalPostgres, String> {
        LocalPostgres::start(&self.directory, OPTIONS)
    }

    fn cluster(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// A server in another process, which the test kills. Its PostgreSQL keeps running.
    fn victim(&self) -> Victim {
        let program = env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["--exact", "the_server_that_other_tests_kill", "--nocapture"])
            .env(VICTIM_DIRECTORY, &self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Victim { child, output }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pid) = self.postmaster() else { return };
        if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.cluster()) {
            signal("KILL", pid);
            let end = Instant::now() + Duration::from_secs(5);
            while alive(pid) && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

struct Victim {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Victim {
    fn wait_until_ready(&mut self) {
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the other server did not start"
            );
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_server_that_other_tests_kill() {
    let Some(directory) = env::var_os(VICTIM_DIRECTORY) else {
        return;
    };
    let _postgres = LocalPostgres::start(Path::new(&directory), OPTIONS).unwrap();
    println!("ready");
    // Ends with the test that started it, even if that test is killed.
    let _ = io::stdin().read(&mut [0]);
}

fn signal(name: &str, pid: u32) {
    let script = format!("kill -{name} {pid}");
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
}

/// Whether a process runs. A zombie has no working directory.
fn alive(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn client(postgres: &LocalPostgres) -> Client {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match Client::connect(&postgres.url(), NoTls) {
            // With a maximum of one connection, PostgreSQL may not have noticed yet that the previous one has ended.
            Err(error)
                if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
                    && Instant::now() < until =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            connected => return connected.unwrap(),
        }
    }
}

fn setting(postgres: &LocalPostgres, name: &str) -> String {
    client(postgres)
        .query_one("SELECT current_setting($1)", &[&name])
        .unwrap()
        .get(0)
}

fn write_note(postgres: &LocalPostgres) {
    client(postgres)
        .batch_execute("CREATE TABLE note AS SELECT 'kept'::text AS words")
        .unwrap();
}

fn read_note(postgres: &LocalPostgres) -> String {
    client(postgres)
        .query_one("SELECT words FROM note", &[])
        .unwrap()
        .get(0)
}

#[test]
fn data_survives_a_stop_and_a_start() {
    let place = Place::new();
    let mut postgres = place.start().unwrap();
    write_note(&postgres);
    postgres.stop().unwrap();
    assert!(Client::connect(&postgres.url(), NoTls).is_err());
    postgres.stop().unwrap();

    let again = place.start().unwrap();
    assert_eq!(read_note(&again), "kept");
    // The stopped one does not affect the new one.
    drop(postgres);
    assert_eq!(read_note(&again), "kept");
    let pid = place.postmaster().unwrap();
    drop(again);
    // PostgreSQL removes its file `postmaster.pid`, for which a stop waits, shortly before its process ends.
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_its_own_account_has_access() {
    let place = Place::new();
    fs::create_dir(&place.directory).unwrap();
    set_mode(&place.directory, 0o700);
    let secret = place.directory.join("secret");
    fs::write(&secret, "a secret").unwrap();
    set_mode(&secret, 0o600);

    let postgres = place.start().unwrap();
    assert_eq!(setting(&postgres, "listen_addresses"), "");
    assert_eq!(mode(&place.cluster()), 0o700);
    assert_eq!(mode(&place.directory.join("postgres.socket")), 0o700);
    assert_eq!(mode(&place.directory.join("postgres.log")), 0o600);
    assert_eq!(mode(&place.directory.join("todo-api.lock")), 0o600);
    let status =
        fs::read_to_string(format!("/proc/{}/status", place.postmaster().unwrap())).unwrap();
    let owner = fs::metadata(place.cluster()).unwrap().uid();
    let user = format!("Uid:\t{owner}\t{owner}\t{owner}\t{owner}");
    assert!(owner != 0 && status.contains(&user), "{status}");
    // Other files in the directory keep their owner.
    assert_eq!(mode(&secret), 0o600);
    assert_eq!(
        fs::metadata(&secret).unwrap().uid(),
        fs::metadata("/proc/self").unwrap().uid()
    );
    assert_eq!(mode(&place.directory), if root() { 0o711 } else { 0o700 });
    // PostgreSQL does not inherit the server's environment, which may hold secrets.
    let environment = fs::read_to_string(format!("/proc/{}/environ", place.postmaster().unwrap()));
    assert!(environment.is_ok_and(|environment| !environment.contains("CARGO")));
}

#[test]
fn the_options_are_applied() {
    let place = Place::new();
    let settings = |postgres: &LocalPostgres| {
        let sql = "SELECT concat_ws(' ', current_setting('fsync'), current_setting('synchronous_commit'), \
                   current_setting('full_page_writes'), current_setting('max_connections'))";
        let row = client(postgres).query_one(sql, &[]).unwrap();
        row.get::<_, String>(0)
    };
    let mut postgres = place.start().unwrap();
    assert_eq!(settings(&postgres), "off off off 20");
    assert_eq!(setting(&postgres, "server_encoding"), "UTF8");
    postgres.stop().unwrap();
    let durable = ClusterOptions {
        durable: true,
        max_connections: 1,
    };
    let postgres = LocalPostgres::start(&place.directory, durable).unwrap();
    assert_eq!(settings(&postgres), "on on on 1");
}

#[test]
fn a_second_server_on_the_directory_is_refused_with_the_process_of_the_first() {
    let place = Place::new();
    let _first = place.start().unwrap();
    let error = place.start().unwrap_err();
    let holder = format!(
        "is in use by another todo-api (process {})",
        std::process::id()
    );
    assert!(error.contains(&holder), "{error}");
}

#[test]
fn of_two_servers_started_at_once_one_runs() {
    let place = Place::new();
    let started: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| place.start())).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(started.iter().filter(|result| result.is_ok()).count(), 1);
    for error in started.iter().filter_map(|result| result.as_ref().err()) {
        assert!(
            error.to_string().contains("is in use by another todo-api"),
            "{error}"
        );
    }
}

#[test]
fn a_postgres_that_was_killed_starts_again() {
    let place = Place::new();
    // Without durability the latest commits may be lost here.
    let options = ClusterOptions {
        durable: true,
        ..OPTIONS
    };
    let mut postgres = LocalPostgres::start(&place.directory, options).unwrap();
    write_note(&postgres);
    // A backend with a running statement survives its postmaster for a while.
    let mut session = client(&postgres);
    let query = thread::spawn(move || session.batch_execute("DO $$ BEGIN LOOP END LOOP; END $$"));
    while client(&postgres)
        .query_opt(
            "SELECT FROM pg_stat_activity WHERE query LIKE 'DO%' AND pid <> pg_backend_pid()",
            &[],
        )
        .unwrap()
        .is_none()
    {}
    signal("KILL", place.postmaster().unwrap());
    postgres.stop().unwrap();
    let again = LocalPostgres::start(&place.directory, options).unwrap();
    assert_eq!(read_note(&again), "kept");
    assert!(query.join().unwrap().is_err());
}

#[test]
fn the_postgres_of_a_killed_server_is_replaced() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.wait_until_ready();
    let error = place.start().unwrap_err();
    assert!(
        error.contains(&format!("(process {})", victim.child.id())),
        "{error}"
    );
    let pid = place.postmaster();
    victim.kill();

    let postgres = place.start().unwrap();
    assert_ne!(place.postmaster(), pid);
    write_note(&postgres);
    drop(postgres);
    assert_eq!(place.postmaster(), None);
}

#[test]
fn a_hanging_postgres_is_replaced() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.wait_until_ready();
    let pid = place.postmaster();
    victim.kill();
    signal("STOP", pid.unwrap());

    let postgres = place.start().unwrap();
    assert_ne!(place.postmaster(), pid);
    write_note(&postgres);
}

#[test]
fn a_server_may_be_killed_at_any_moment_of_its_start() {
    let place = Place::new();
    for milliseconds in [60, 200, 350, 500, 20, 40, 70, 100, 130] {
        let victim = place.victim();
        thread::sleep(Duration::from_millis(milliseconds));
        victim.kill();
        if milliseconds > 300 {
            drop(place.start().unwrap());
        }
    }
    let postgres = place.start().unwrap();
    write_note(&postgres);
    let names = fs::read_dir(&place.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let half_made = names
        .filter(|name| name.to_string_lossy().contains(".new"))
        .count();
    assert_eq!(half_made, 0);
}

#[test]
fn a_stale_pid_of_another_program_does_not_keep_it_from_starting() {
    let place = Place::new();
    let mut postgres = place.start().unwrap();
    write_note(&postgres);
    let socket = place.directory.join("postgres.socket");
    let pid_file = fs::read_to_string(place.cluster().join("postmaster.pid")).unwrap();
    let socket_lock = fs::read_to_string(socket.join(".s.PGSQL.5432.lock")).unwrap();
    let pid = place.postmaster().unwrap().to_string();
    postgres.stop().unwrap();

    let owner = fs::metadata(place.cluster()).unwrap();
    let mut command = Command::new("sleep");
    if root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let mut bystander = command.arg("60").spawn().unwrap();
    let bystanders = bystander.id().to_string();
    fs::write(
        place.cluster().join("postmaster.pid"),
        pid_file.replacen(&pid, &bystanders, 1),
    )
    .unwrap();
    fs::write(
        socket.join(".s.PGSQL.5432.lock"),
        socket_lock.replacen(&pid, &bystanders, 1),
    )
    .unwrap();
    fs::write(socket.join(".s.PGSQL.5432"), "").unwrap();

    let started = place.start();
    let survived = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert_eq!(read_note(&started.unwrap()), "kept");
    assert!(survived);
}

#[test]
fn a_directory_may_have_a_very_long_path() {
    let place = Place::named(&["a-rather-long-name"; 9].join("/"));
    let mut postgres = place.start().unwrap();
    write_note(&postgres);
    let url: postgres::Config = postgres.url().parse().unwrap();
    let Some(postgres::config::Host::Unix(socket)) = url.get_hosts().first() else {
        panic!("{url:?}")
    };
    assert_eq!(mode(socket), 0o700);
    assert!(!socket.starts_with(place.parent.path()));
    postgres.stop().unwrap();
    assert!(!socket.exists());

    // A directory of another user at the same path is refused.
    symlink(place.parent.path(), socket).unwrap();
    let error = place.start().unwrap_err();
    fs::remove_file(socket).unwrap();
    assert!(error.contains("another user may have access"), "{error}");
    assert_eq!(read_note(&place.start().unwrap()), "kept");
}

#[test]
fn a_directory_may_have_any_name() {
    for name in [
        "with space, $HOME and 100 %41",
        "it's \"so\" `odd` \\ $(exit 1), ünï",
    ] {
        let place = Place::named(name);
        let postgres = place.start().unwrap();
        write_note(&postgres);
        assert_eq!(read_note(&postgres), "kept");
    }
    // The path is a line of PostgreSQL's pid file.
    let error = Place::named("line\nbreak").start().unwrap_err();
    assert!(error.contains("a line break in the path"), "{error}");
}

#[test]
fn starting_and_stopping_without_a_pause_works() {
    let place = Place::new();
    for _ in 0..3 {
        drop(place.start().unwrap());
    }
}

#[test]
fn a_half_made_cluster_is_not_mistaken_for_one() {
    let place = Place::new();
    let half_made = place.directory.join("postgres.new.1.1");
    fs::create_dir_all(&half_made).unwrap();
    fs::write(half_made.join("PG_VERSION"), "15\n").unwrap();
    fs::create_dir(place.cluster()).unwrap();
    if root() {
        std::os::unix::fs::chown(place.cluster(), Some(65534), Some(65534)).unwrap();
    }
    write_note(&place.start().unwrap());
    assert!(!half_made.exists());
}

#[test]
fn a_directory_that_is_no_cluster_is_left_alone() {
    let place = Place::new();
    drop(place.start().unwrap());
    let version = fs::read_to_string(place.cluster().join("PG_VERSION")).unwrap();
    fs::write(place.cluster().join("PG_VERSION"), "99\n").unwrap();
    let error = place.start().unwrap_err();
    assert!(
        error.contains("was made by PostgreSQL 99, which is not installed"),
        "{error}"
    );

    fs::remove_file(place.cluster().join("PG_VERSION")).unwrap();
    let error = place.start().unwrap_err();
    assert!(error.contains("is not a PostgreSQL cluster"), "{error}");

    fs::write(place.cluster().join("PG_VERSION"), version).unwrap();
    place.start().unwrap();
}

#[test]
fn a_failed_start_shows_the_output_of_postgres() {
    let place = Place::new();
    drop(place.start().unwrap());
    let file = place.cluster().join("postgresql.conf");
    writeln!(
        File::options().append(true).open(file).unwrap(),
        "nonsense = 1"
    )
    .unwrap();
    let error = place.start().unwrap_err();
    assert!(
        error.contains("did not start")
            && error.contains("unrecognized configuration parameter \"nonsense\""),
        "{error}"
    );
    // After a failure the lock is free.
    let again = place.start().unwrap_err();
    assert!(again.contains("nonsense"), "{again}");
}

#[test]
fn a_long_log_is_renamed() {
    let place = Place::new();
    drop(place.start().unwrap());
    let log = place.directory.join("postgres.log");
    File::options()
        .append(true)
        .open(&log)
        .unwrap()
        .set_len(10 * 1024 * 1024 + 1)
        .unwrap();
    drop(place.start().unwrap());
    assert!(fs::metadata(&log).unwrap().len() < 100_000);
    assert!(place.directory.join("postgres.log.1").exists());
}

#[test]
fn a_parent_directory_that_only_root_may_enter_is_named() {
    if !root() {
        return;
    }
    let place = Place::new();
    set_mode(place.parent.path(), 0o700);
    let error = place.start().unwrap_err();
    let sentence = format!(
        "cannot enter {}: set DATA_DIR",
        place.parent.path().display()
    );
    assert!(
        error.contains(&sentence) && error.contains("/var/lib/todo-api"),
        "{error}"
    );
    assert_eq!(mode(place.parent.path()), 0o700);
}
