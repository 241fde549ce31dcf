//! `todo-api doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::{Duration, SystemTime};

use serde_json::json;
use todo_api::domain::tag::{TAG_MAX, TAGS_MAX};
use todo_api::domain::task::{DESCRIPTION_MAX, TITLE_MAX};
use todo_api::domain::user::USER_ID_MAX;

use crate::support::TestApp;
use crate::support::postgres::{Cluster, empty_database, fresh_database, socket_file, sql};
use crate::support::process::{free_address, run};
use crate::support::proxy::Proxy;
use crate::support::tls::Certificate;

const SECRET: &str = "6f1d0c3b9a8e7f5d4c2b1a0918273645a1b2c3d4e5f60718";

fn doctor(environment: &[(&str, &str)]) -> Output {
    let mut all = vec![("BETTER_AUTH_SECRET", SECRET)];
    all.extend_from_slice(environment);
    run(&["doctor"], &all)
}

/// The program with a database without problems.
fn with_database(environment: &[(&str, &str)]) -> Output {
    let database = fresh_database();
    let mut all = vec![("DATABASE_URL", database.as_str())];
    all.extend_from_slice(environment);
    doctor(&all)
}

/// Asserts that no problem was found, and returns the output.
#[track_caller]
fn healthy(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text.lines().all(|line| line.starts_with("OK ")), "{text}");
    text
}

/// Asserts that this is the only problem, and returns its line.
#[track_caller]
fn only_wrong(output: &Output, what: &str) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let wrong: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("OK "))
        .collect();
    assert_eq!(wrong.len(), 1, "{text}");
    assert!(wrong[0].starts_with(&format!("WRONG  {what}")), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    wrong[0].to_owned()
}

#[test]
fn a_good_installation_has_no_problems() {
    let before = healthy(&doctor(&[("DATABASE_URL", &empty_database())]));
    assert!(before.contains("the server brings it to"), "{before}");
    let after = healthy(&doctor(&[("DATABASE_URL", &fresh_database())]));
    assert!(after.contains("can be read and written"), "{after}");
    let line = only_wrong(&doctor(&[]), "database: no data in ./data");
    assert!(line.contains("todo-api serve"), "{line}");
}

#[test]
fn the_doctor_changes_nothing() {
    let database = empty_database();
    healthy(&doctor(&[("DATABASE_URL", &database)]));
    let mut client = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'todo'";
    let made: i64 = client.query_one(schemas, &[]).unwrap().get(0);
    assert_eq!(made, 0);
}

#[test]
fn problems_of_the_database_are_named() {
    let unreachable = format!("postgresql://todo@{}/todo", free_address());
    let line = only_wrong(&doctor(&[("DATABASE_URL", &unreachable)]), "database: ");
    assert!(!line.contains("todo@"), "{line}");

    let silent = Proxy::to(&socket_file());
    silent.fall_silent();
    let url = silent.url(&fresh_database());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("DB_CONNECT_TIMEOUT", "0.3"),
    ];
    only_wrong(&doctor(&environment), "database: ");

    let newer = fresh_database();
    sql(
        &newer,
        "INSERT INTO todo.schema_migrations VALUES (9999, 'later', '')",
    );
    let line = only_wrong(&doctor(&[("DATABASE_URL", &newer)]), "schema todo ");
    assert!(line.contains("install a newer todo-api"), "{line}");

    let environment = [("DATABASE_URL", &*empty_database()), ("MIGRATE", "off")];
    let line = only_wrong(&doctor(&environment), "schema todo ");
    assert!(line.contains("todo-api migrate"), "{line}");

    let read_only = fresh_database();
    let name = read_only.rsplit_once('/').unwrap().1;
    let name = name.split('?').next().unwrap();
    sql(
        &read_only,
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
    );
    let line = only_wrong(&doctor(&[("DATABASE_URL", &read_only)]), "database: ");
    assert!(line.contains("primary"), "{line}");

    let environment = [
        ("DATABASE_URL", &*fresh_database()),
        ("DB_POOL_SIZE", "900"),
    ];
    let line = only_wrong(&doctor(&environment), "connections: ");
    assert!(line.contains("max_connections"), "{line}");
}

/// Rows that no request can write: the message of `doctor`, the columns, their values.
const BAD_ROWS: &[(&str, &str, &str)] = &[
    ("title is one line", "title", "repeat('x', 300)"),
    ("title is one line", "title", "E'two\\nlines'"),
    (
        "description has at most",
        "title, description",
        "'t', repeat('y', 3000)",
    ),
    ("priority is", "title, priority", "'t', 7"),
    ("due_on lies in", "title, due_on", "'t', 'infinity'"),
    (
        "due_on lies in",
        "title, due_on, due_at",
        "'t', '2030-01-01', '2031-01-01'",
    ),
    (
        "all moments lie in",
        "title, created_at, updated_at, completed_at, due_at",
        "'t', '-infinity', 'infinity', '20000-01-01', 'infinity'",
    ),
    ("version is at least", "title, version", "'t', -1"),
    ("tags are at most", "title, tags", "'t', '{a,NULL,a}'"),
    ("tags are at most", "title, tags", "'t', '{{a,b},{c,d}}'"),
    ("title_folded and", "title", "'Crème'"),
];

#[test]
fn rows_that_break_a_rule_fail_no_list_and_are_named() {
    let database = fresh_database();
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let user = app.user("u1");
    user.task("a good one");
    healthy(&doctor(&[("DATABASE_URL", &database)]));
    let mut sql = app.sql();
    let mut expected = std::collections::BTreeSet::new();
    for (says, columns, values) in BAD_ROWS {
        let id = uuid::Uuid::now_v7();
        let row = format!(
            "INSERT INTO todo.tasks (user_id, id, {columns}) VALUES ('u1', '{id}', {values})"
        );
        sql.batch_execute(&row).unwrap();
        let path = format!("/api/tasks/{id}");
        let task = user.get(&path).expect(200).json();
        assert_eq!(task["id"], id.to_string());
        expected.insert(*says);
    }
    for query in [
        "order=asc",
        "sort=title",
        "sort=-updated_at",
        "sort=due_date&tz=Europe/Berlin",
        "sort=-priority",
        "sort=completed",
        "overdue=false",
        "include_total=true",
    ] {
        let all = user.get(&format!("/api/tasks?{query}")).expect(200).json();
        assert_eq!(all["count"], BAD_ROWS.len() + 1, "{query}");
        // Each row is on exactly one of the pages.
        let mut seen = Vec::new();
        let mut cursor = String::new();
        while seen.len() <= BAD_ROWS.len() {
            let target = format!("/api/tasks?{query}&limit=1{cursor}");
            let page = user.get(&target).expect(200).json();
            seen.push(page["tasks"][0]["id"].to_string());
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), BAD_ROWS.len() + 1, "{query}");
    }
    for path in ["/api/tasks?q=t", "/api/tags", "/api/tasks/stats"] {
        user.get(path).expect(200);
    }
    let output = doctor(&[("DATABASE_URL", &database)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let wrong: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("WRONG"))
        .collect();
    assert_eq!(wrong.len(), expected.len(), "{text}");
    for says in expected {
        assert!(
            wrong
                .iter()
                .any(|line| line.contains(says) && line.contains("for example u1 ")),
            "{says}: {text}"
        );
    }
}

#[test]
fn tasks_of_users_that_do_not_exist_are_named() {
    let database = fresh_database();
    let app = TestApp::on(&database, |_| {}, Vec::new());
    app.user("u1").task("left behind");
    let mut client = app.sql();
    client
        .batch_execute("DELETE FROM todo.users WHERE id = 'u1'")
        .unwrap();
    let line = only_wrong(&doctor(&[("DATABASE_URL", &database)]), "rows: ");
    let expected = "user_id is the id of a user, for example u1 ";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn the_longest_valid_values_break_no_rule() {
    let database = fresh_database();
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let tags: Vec<String> = (0..TAGS_MAX).map(|n| format!("{n:0>TAG_MAX$}")).collect();
    let task = json!({
        "title": "é".repeat(TITLE_MAX),
        "description": "é".repeat(DESCRIPTION_MAX),
        "due_date": "9999-12-31",
        "tags": tags,
    });
    let user = app.user(&"u".repeat(USER_ID_MAX));
    user.post("/api/tasks", task).expect(201);
    healthy(&doctor(&[("DATABASE_URL", &database)]));
}

#[test]
fn missing_rights_are_named() {
    // Roles exist in the whole cluster, so the test uses one of its own.
    let cluster = Cluster::start(false);
    let owner = cluster.url("todo");
    sql(&owner, "CREATE ROLE restricted LOGIN");
    let restricted = owner.replacen("todo@", "restricted@", 1);
    let environment = [("DATABASE_URL", restricted.as_str())];
    let line = only_wrong(&doctor(&environment), "schema todo ");
    assert!(line.contains("may not make it"), "{line}");

    assert!(
        run(&["migrate"], &[("DATABASE_URL", &owner)])
            .status
            .success()
    );
    sql(
        &owner,
        "GRANT USAGE ON SCHEMA todo TO restricted;
         GRANT SELECT ON ALL TABLES IN SCHEMA todo TO restricted;
         GRANT INSERT, UPDATE, DELETE ON todo.users TO restricted",
    );
    let line = only_wrong(&doctor(&environment), "schema todo");
    assert!(line.contains("tasks") && line.contains("GRANT"), "{line}");
    assert!(!line.contains("users"), "{line}");
    sql(
        &owner,
        "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA todo TO restricted",
    );
    healthy(&doctor(&environment));
}

#[test]
fn problems_of_this_machine_are_named() {
    let environment = [(
        "BETTER_AUTH_SECRET",
        "change-me-change-me-change-me-change-me",
    )];
    let line = only_wrong(&with_database(&environment), "BETTER_AUTH_SECRET ");
    assert!(line.contains("openssl rand"), "{line}");
    let line = only_wrong(&doctor(&[("WORKERS", "many")]), "settings: WORKERS ");
    assert!(!line.contains("many"), "{line}");

    let misspelt = with_database(&[("WROKERS", "3")]);
    let line = only_wrong(&misspelt, "settings: the environment variable WROKERS");
    assert!(line.contains("WORKERS is"), "{line}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let name = file.to_str().unwrap();
    let environment = [
        ("BETTER_AUTH_SECRET", ""),
        ("BETTER_AUTH_SECRET_FILE", name),
    ];
    mode(0o644);
    let line = only_wrong(&with_database(&environment), "a file with secrets: ");
    assert!(line.ends_with(&format!("chmod o= {name}")), "{line}");
    mode(0o640);
    healthy(&with_database(&environment));

    let certificate = Certificate::make();
    let settings = certificate.settings();
    let environment: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let line = only_wrong(&with_database(&environment), "the certificate's key: ");
    assert!(line.contains("chmod o="), "{line}");
    fs::set_permissions(certificate.key_file(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(healthy(&with_database(&environment)).contains("certificate: good for"));

    let key = rcgen::KeyPair::generate().unwrap();
    let mut ended = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    ended.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let ended = ended.self_signed(&key).unwrap();
    fs::write(certificate.file(), ended.pem()).unwrap();
    fs::write(certificate.key_file(), key.serialize_pem()).unwrap();
    let line = only_wrong(&with_database(&environment), "certificate: ");
    assert!(line.contains("ended"), "{line}");
}

#[test]
fn too_few_descriptors_are_named() {
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 500; exec \"$0\" doctor"])
        .arg(env!("CARGO_BIN_EXE_todo-api"))
        .env_clear()
        .env("BETTER_AUTH_SECRET", SECRET)
        .env("DATABASE_URL", fresh_database())
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    let line = only_wrong(&output, "descriptors: ");
    assert!(line.contains("LimitNOFILE"), "{line}");
}

#[test]
fn failed_and_old_backups_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let environment = [("BACKUP_DIR", directory.path().to_str().unwrap())];
    let none = healthy(&with_database(&environment));
    assert!(
        none.contains("enable --now todo-api-backup.timer"),
        "{none}"
    );

    let dump = fs::File::create(directory.path().join("todo-api-20300101T000000Z.dump")).unwrap();
    let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(3600 * hours);
    dump.set_modified(hours_ago(30)).unwrap();
    let new = healthy(&with_database(&environment));
    assert!(new.contains("is 30 hours old"), "{new}");
    dump.set_modified(hours_ago(49)).unwrap();
    let line = only_wrong(&with_database(&environment), "backup: the newest in ");
    assert!(line.contains("is 2 days old"), "{line}");

    fs::write(
        directory.path().join("last-failure"),
        "2030-01-01: no disk\n",
    )
    .unwrap();
    let line = only_wrong(&with_database(&environment), "backup: the last one failed ");
    assert!(line.ends_with("no disk"), "{line}");
}
