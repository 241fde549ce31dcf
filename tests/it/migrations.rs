//! Migrations, and databases that the program refuses.

use serde_json::json;
use todo_api::store::connector::Target;

use crate::support::TestApp;
use crate::support::postgres::{empty_database, fresh_database, sql};
use crate::support::process::{Process, run};

/// Starts a server that must refuse the database, and returns its log.
fn refused(database: &str, settings: &[(&str, &str)]) -> String {
    let (status, log) = Process::start(database, settings).wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("waiting for the database"), "{log}");
    log
}

fn objects_in_the_schema(database: &str) -> Vec<String> {
    let mut client = postgres::Client::connect(database, postgres::NoTls).unwrap();
    let question = "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('todo') ORDER BY 1";
    let rows = client.query(question, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn two_instances_may_migrate_at_the_same_time() {
    let database = empty_database();
    let servers: Vec<Process> = (0..4)
        .map(|_| Process::start(&database, &[("WORKERS", "2")]))
        .collect();
    let logs: Vec<String> = servers
        .iter()
        .map(|server| server.wait_for("ready: "))
        .collect();
    assert_eq!(
        logs.iter()
            .filter(|log| log.contains("migrations applied: V1__schema"))
            .count(),
        1,
        "{logs:?}"
    );
    let task = servers[0].user("u1").task("shared");
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(servers[3].user("u1").get(&path).expect(200).json(), task);
}

#[test]
fn a_database_newer_than_the_program_is_refused() {
    let database = fresh_database();
    sql(
        &database,
        "INSERT INTO todo.schema_migrations VALUES (9999, 'later', '')",
    );
    let log = refused(&database, &[]);
    assert!(
        log.contains("schema version 9999") && log.contains("install a newer todo-api"),
        "{log}"
    );
}

#[test]
fn with_migrate_off_an_empty_database_is_refused_until_migrated() {
    let database = empty_database();
    let log = refused(&database, &[("MIGRATE", "off")]);
    assert!(log.contains("run `todo-api migrate`"), "{log}");
    let environment = [("DATABASE_URL", database.as_str()), ("MIGRATE", "off")];
    let migrated = run(&["migrate"], &environment);
    assert!(migrated.status.success(), "{migrated:?}");
    assert!(
        String::from_utf8_lossy(&migrated.stdout).contains("applied V1__schema"),
        "{migrated:?}"
    );
    let again = run(&["migrate"], &environment);
    assert!(
        String::from_utf8_lossy(&again.stdout).contains("nothing to do"),
        "{again:?}"
    );
    Process::serve(&database, &[("MIGRATE", "off")])
        .user("u1")
        .task("t");
}

#[test]
fn a_migration_that_was_edited_after_it_was_applied_is_refused() {
    for migrate in ["on", "off"] {
        let database = fresh_database();
        sql(
            &database,
            "UPDATE todo.schema_migrations SET checksum = 'another text'",
        );
        let log = refused(&database, &[("MIGRATE", migrate)]);
        assert!(
            log.contains("migration V1__schema of this program"),
            "{log}"
        );
    }
}

#[test]
fn a_failed_migration_leaves_nothing_behind() {
    let database = empty_database();
    // The last third of the migration conflicts with this table.
    sql(
        &database,
        "CREATE SCHEMA todo; CREATE TABLE todo.idempotency_keys ()",
    );
    let log = refused(&database, &[]);
    assert!(
        log.contains("migration V1__schema failed and was rolled back")
            && log.contains("already exists"),
        "{log}"
    );
    assert_eq!(objects_in_the_schema(&database), ["idempotency_keys"]);
    sql(&database, "DROP TABLE todo.idempotency_keys");
    Process::serve(&database, &[]).user("u1").task("t");
}

#[test]
fn a_schema_from_before_the_first_release_is_refused() {
    let database = empty_database();
    sql(
        &database,
        "CREATE SCHEMA todo; CREATE TABLE todo.refinery_schema_history (version int, name text, applied_on text, checksum text)",
    );
    let log = refused(&database, &[]);
    assert!(log.contains("set DB_SCHEMA to a new name"), "{log}");
    assert_eq!(
        objects_in_the_schema(&database),
        ["refinery_schema_history"]
    );
}

/// A database whose user may make only tables, and only in the schema of that user.
fn restricted_database(name: &str) -> String {
    let database = empty_database();
    sql(
        &database,
        &format!(
            "CREATE ROLE {name} LOGIN; CREATE SCHEMA todo AUTHORIZATION {name};
             REVOKE CREATE ON SCHEMA public FROM public"
        ),
    );
    database
}

fn as_role(database: &str, name: &str) -> String {
    let (scheme, rest) = database.split_once("://").unwrap();
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{name}@{rest}")
}

#[test]
fn the_only_right_needed_is_to_make_tables_in_the_schema() {
    let database = restricted_database("few_rights");
    let mine = as_role(&database, "few_rights");
    let app = TestApp::on(
        &database,
        |settings| settings.target = Target::parse(&mine).unwrap(),
        Vec::new(),
    );
    let user = app.user("u1");
    user.post(
        "/api/tasks",
        json!({ "title": "Crème brûlée", "tags": ["a"] }),
    )
    .expect(201);
    user.task("other");
    let list = user.get("/api/tasks?q=BRULEE&tag=a").expect(200).json();
    assert_eq!(list["count"], 1);
}
