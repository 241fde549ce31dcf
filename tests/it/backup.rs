//! `deploy/backup.sh` and `deploy/restore.sh`, under load and against what goes wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::TestApp;
use crate::support::postgres::{Cluster, empty_database, fresh_database, sql};

fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    // Where PostgreSQL's programs are that are not on everybody's path.
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
fn a_backup_under_load_is_one_moment_and_comes_back_whole() {
    // One of its own, where nobody else makes scratch databases.
    let cluster = Cluster::start(false);
    let app = TestApp::on(&cluster.url("todo"), |_| {}, Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let user = app.user("u1");
    user.task("before: 'quoted', \"twice\", with \\ and ✓");
    let stop = AtomicBool::new(false);
    let (before, after) = thread::scope(|scope| {
        for number in 0..2 {
            let (user, stop) = (app.user(&format!("writer {number}")), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    user.task("meanwhile");
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        let before = count(&app.database, "todo.tasks");
        // It compares every row with what the dump's moment held, and keeps no other file.
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
    // Another server goes on with it as if nothing had been.
    let again = TestApp::on(&empty, |_| {}, Vec::new());
    let list = again.user("u1").get("/api/tasks").expect(200).json();
    assert_eq!(list, user.get("/api/tasks").expect(200).json());
    again.user("u1").task("after");

    // Never over what is there.
    let said = refused(&script("restore.sh", &[file], &environment));
    assert!(said.contains("restore into a new database"), "{said}");
    assert_eq!(count(&empty, "todo.tasks"), there + 1);
}

#[test]
fn what_comes_out_different_is_not_kept() {
    let database = fresh_database();
    // A generated column is computed anew when it is restored; this one never comes out the same.
    sql(
        &database,
        "CREATE FUNCTION todo.fickle(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT clock_timestamp()::text';
         INSERT INTO todo.users (id) VALUES ('u1');
         ALTER TABLE todo.users ADD COLUMN odd text GENERATED ALWAYS AS (todo.fickle(id)) STORED",
    );
    let directory = tempfile::tempdir().unwrap();
    let said = refused(&backup(&database, directory.path(), &[]));
    assert!(said.contains("is not what went in"), "{said}");
    assert!(files(directory.path()).is_empty());
    let unchecked = [("BACKUP_CHECK", "off")];
    done(&backup(&database, directory.path(), &unchecked));
    assert_eq!(files(directory.path()).len(), 1);
}

#[test]
fn old_backups_make_room_and_failed_ones_leave_nothing() {
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
    // A backup that fails takes none away.
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
    assert_eq!(files(directory.path()).len(), 4);
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
fn a_password_is_not_in_the_list_of_processes() {
    let directory = tempfile::tempdir().unwrap();
    // A psql that tells how it was called.
    let psql = directory.path().join("psql");
    fs::write(
        &psql,
        "#!/bin/sh\necho \"$@\" >&2\necho \"password: $PGPASSWORD\" >&2\nexit 3\n",
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
            said.contains("--dbname=postgresql://u@db.example:6543/x?sslmode=require"),
            "{said}"
        );
        assert!(said.contains(r"password: p@ss\w"), "{said}");
    }
}
