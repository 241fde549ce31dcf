//! `deploy/backup.sh` and `deploy/restore.sh`, under load and with failures.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::TestApp;
use crate::support::app::SECRET;
use crate::support::postgres::{Cluster, empty_database, fresh_database, sql};
use crate::support::process::Process;

fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let path = std::env::var("PATH").unwrap();
    Command::new(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn backup(database: &str, directory: &Path, more: &[(&str, &str)]) -> Output {
    let mut environment = vec![
        ("DATABASE_URL", database),
        ("BACKUP_DIR", directory.to_str().unwrap()),
    ];
    environment.extend_from_slice(more);
    script("backup.sh", &[], &environment)
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

fn count(database: &str, of: &str) -> i64 {
    let mut client = postgres::Client::connect(database, postgres::NoTls).unwrap();
    client
        .query_one(&format!("SELECT count(*) FROM {of}"), &[])
        .unwrap()
        .get(0)
}

#[test]
fn a_backup_under_load_is_consistent_and_restores_completely() {
    // A cluster of its own, so that no other test has scratch databases in it.
    let cluster = Cluster::start(false);
    let app = TestApp::on(&cluster.url("todo"), |_| {}, Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let user = app.user("u1");
    user.task("before: 'quoted', \"twice\", with \\ and ✓");
    let deleted = user.task("deleted before");
    let deleted = format!("/api/tasks/{}", deleted["id"].as_str().unwrap());
    user.delete(&deleted).expect(204);
    let feed = user.get("/api/tasks/changes").expect(200).json();
    let cursor = feed["next_cursor"].as_str().unwrap();
    let stop = AtomicBool::new(false);
    let (before, after) = thread::scope(|scope| {
        for number in 0..2 {
            let (user, stop) = (app.user(&format!("writer {number}")), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    user.task("during the backup");
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        let before = count(&app.database, "todo.tasks");
        let said = backup(&app.database, directory.path(), &[]);
        let after = count(&app.database, "todo.tasks");
        stop.store(true, Ordering::Relaxed);
        assert!(done(&said).contains("tasks="), "{said:?}");
        (before, after)
    });
    assert!(before < after);
    let files = files(directory.path());
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = fs::metadata(&files[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let scratch = "pg_database WHERE datname LIKE 'todo\\_backup\\_check%'";
    assert_eq!(count(&app.database, scratch), 0);

    let empty = empty_database();
    let file = files[0].to_str().unwrap();
    let environment = [("DATABASE_URL", empty.as_str())];
    done(&script("restore.sh", &[file], &environment));
    let there = count(&empty, "todo.tasks");
    assert!(
        (before..=after).contains(&there),
        "{before} {there} {after}"
    );
    // Another server serves the same tasks from the restored database.
    let again = TestApp::on(&empty, |_| {}, Vec::new());
    let list = again.user("u1").get("/api/tasks").expect(200).json();
    assert_eq!(list, user.get("/api/tasks").expect(200).json());
    again.user("u1").task("after");
    again
        .user("u1")
        .post(&format!("{deleted}/restore"), serde_json::json!({}))
        .expect(200);
    // It is another feed, also where the database and the timeline are the same.
    let feed = |database: &str| -> (String, bool) {
        let mut client = postgres::Client::connect(database, postgres::NoTls).unwrap();
        let question = "SELECT id::text, noted <= pg_current_xact_id() FROM todo.feed";
        let row = client.query_one(question, &[]).unwrap();
        (row.get(0), row.get(1))
    };
    let (new, noted) = feed(&empty);
    assert!(new != feed(&app.database).0 && noted);
    again
        .user("u1")
        .get(&format!("/api/tasks/changes?since={cursor}"))
        .expect_error(410, "GONE");

    // A restore never overwrites existing tables.
    let said = refused(&script("restore.sh", &[file], &environment));
    assert!(said.contains("restore into a new database"), "{said}");
    assert_eq!(count(&empty, "todo.tasks"), there + 2);
}

#[test]
fn a_backup_that_restores_other_rows_is_not_kept() {
    let database = fresh_database();
    // A generated column is computed again when it is restored. This one has another value each time.
    sql(
        &database,
        "CREATE FUNCTION todo.fickle(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT clock_timestamp()::text';
         INSERT INTO todo.users (id) VALUES ('u1');
         ALTER TABLE todo.users ADD COLUMN odd text GENERATED ALWAYS AS (todo.fickle(id)) STORED",
    );
    let directory = tempfile::tempdir().unwrap();
    let said = refused(&backup(&database, directory.path(), &[]));
    assert!(said.contains("differ from the rows"), "{said}");
    let failure = directory.path().join("last-failure");
    assert_eq!(files(directory.path()), [failure.as_path()]);
    let failure = fs::read_to_string(failure).unwrap();
    assert!(failure.contains("differ from the rows"), "{failure}");
    let unchecked = [("BACKUP_CHECK", "off")];
    done(&backup(&database, directory.path(), &unchecked));
    assert_eq!(files(directory.path()).len(), 1);
}

#[test]
fn old_backups_are_removed_and_a_failed_one_removes_none() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in [
        "todo-api-20200101T000000Z.dump",
        "todo-api-20200102T000000Z.dump",
        "todo-api-20200103T000000Z.dump",
        "notes.txt",
    ] {
        fs::write(at(name), "old").unwrap();
    }
    refused(&backup(
        &empty_database(),
        directory.path(),
        &[("BACKUP_KEEP", "1")],
    ));
    refused(&backup(
        "postgresql://todo@127.0.0.1:1/todo",
        directory.path(),
        &[],
    ));
    let left = files(directory.path());
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(at("last-failure").exists());
    done(&backup(
        &fresh_database(),
        directory.path(),
        &[("BACKUP_KEEP", "2")],
    ));
    let left = files(directory.path());
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(at("notes.txt").exists() && at("todo-api-20200103T000000Z.dump").exists());
}

#[test]
fn the_private_database_moves_into_another_one() {
    let directory = tempfile::tempdir().unwrap();
    // Where the test runs as root, PostgreSQL runs as another user and must reach the directory.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = directory.path().join("a trial's data");
    let backups = directory.path().join("backups");
    let environment = [
        ("DATA_DIR", data.to_str().unwrap()),
        ("BACKUP_DIR", backups.to_str().unwrap()),
    ];
    let said = refused(&script("backup.sh", &[], &environment));
    assert!(said.contains("there is no private database"), "{said}");
    let trial = Process::with_private_postgres(&data, &[("BETTER_AUTH_SECRET", SECRET)]);
    trial.wait_for("ready: ");
    let task = trial.user("u1").task("made in the trial");
    done(&script("backup.sh", &[], &environment));
    trial.signal("TERM");
    trial.wait();
    let said = refused(&script("backup.sh", &[], &environment));
    assert!(said.contains("is not running"), "{said}");

    let installed = empty_database();
    let [file] = &files(&backups)
        .into_iter()
        .filter(|file| file.extension().is_some())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one file was kept");
    };
    // From standard input, as `todo-apictl restore` does.
    let restore = Command::new(format!("{}/deploy/restore.sh", env!("CARGO_MANIFEST_DIR")))
        .arg("-")
        .env("DATABASE_URL", &installed)
        .stdin(fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert!(done(&restore).contains("with 1 tasks"), "{restore:?}");
    let service = TestApp::on(&installed, |_| {}, Vec::new());
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(service.user("u1").get(&path).expect(200).json(), task);
}

#[test]
fn a_password_is_not_in_the_list_of_processes() {
    let directory = tempfile::tempdir().unwrap();
    // A psql that prints its arguments.
    let psql = directory.path().join("psql");
    fs::write(
        &psql,
        "#!/bin/sh\necho \"$@\" >&2\necho \"password: $PGPASSWORD, database: $PGDATABASE\" >&2\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    let url = "postgresql+asyncpg://u:p%40ss%5Cw@db.example:6543/x?sslmode=require";
    let environment = [
        ("DATABASE_URL", url),
        ("PATH", &path),
        ("BACKUP_DIR", directory.path().to_str().unwrap()),
    ];
    for (name, arguments) in [("backup.sh", &[][..]), ("restore.sh", &["/etc/hostname"])] {
        let output = script(name, arguments, &environment);
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("--dbname=postgresql://u@db.example:6543/?sslmode=require"),
            "{said}"
        );
        assert!(said.contains(r"password: p@ss\w, database: x"), "{said}");
    }
}
