//! Removal of expired rows.

use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::hold::wait_until;
use crate::support::login::{Login, PASSWORD};
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, run};

#[test]
fn maintenance_removes_expired_rows_and_keeps_the_rest() {
    let app = TestApp::start();
    let kept = Login::register(app.address, "kept@example.org").refresh();
    let ended = Login::register(app.address, "ended@example.org");
    let key = [("Idempotency-Key", "k")];
    let body = json!({"title": "t"}).to_string();
    for login in [&kept, &ended] {
        let made = login
            .actor()
            .send("POST", "/api/tasks", &key, Some(body.as_bytes()));
        made.expect(201);
    }
    let gone = Login::register(app.address, "gone@example.org");
    gone.actor().task("t");
    kept.actor()
        .send_json("DELETE", "/api/auth/sessions/x", json!({}))
        .expect(404);
    let environment = [("DATABASE_URL", app.database.as_str())];
    let maintain = || {
        let output = run(&["maintenance"], &environment);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(maintain(), "there was nothing to do\n");
    let mut sql = app.sql();
    let id = ended.id();
    sql.execute(
        "UPDATE todo.sessions SET expires_at = now() - interval '1 s' WHERE user_id = $1",
        &[&id],
    )
    .unwrap();
    sql.execute(
        "UPDATE todo.idempotency_keys SET created_at = now() - interval '25 h' WHERE user_id = $1",
        &[&id],
    )
    .unwrap();
    sql.batch_execute(
        "INSERT INTO todo.revocations (kind, id, until, written_by)
         SELECT 'session', gen_random_uuid()::text, now() - interval '2 h', 1 FROM generate_series(1, 2500);
         INSERT INTO todo.revocations (kind, id, until, written_by) VALUES ('user', 'banned', NULL, 1);
         UPDATE todo.refresh_tokens SET expires_at = now() - interval '1 s' WHERE used_at IS NOT NULL",
    )
    .unwrap();
    // An account whose deletion a killed server has left unfinished.
    sql.execute(
        "UPDATE todo.users SET deleted_at = now() - interval '1 h', active = false, email = NULL, password_hash = NULL WHERE id = $1",
        &[&gone.id()],
    )
    .unwrap();
    let said = maintain();
    for part in [
        "1 expired sessions",
        "1 expired refresh tokens",
        "2500 revocations",
        "1 idempotency keys",
        "1 tasks of deleted",
        "1 deleted accounts",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(maintain(), "there was nothing to do\n");
    assert!(kept.is_in() && kept.refresh().is_in());
    ended.try_refresh().expect(401);
    assert_eq!(
        sql.query_one("SELECT count(*) FROM todo.revocations", &[])
            .unwrap()
            .get::<_, i64>(0),
        1
    );
    let again = kept
        .actor()
        .send("POST", "/api/tasks", &key, Some(body.as_bytes()));
    assert_eq!(
        again.expect(201).header("Idempotency-Replayed"),
        Some("true")
    );
    assert_eq!(
        Login::again(app.address, "ended@example.org")
            .actor()
            .get("/api/tasks")
            .expect(200)
            .json()["count"],
        1
    );
    crate::support::login::try_log_in(app.address, "gone@example.org", PASSWORD).expect(401);
    // While another instance does it, nothing is done twice.
    let mut other = app.sql();
    let mut transaction = other.transaction().unwrap();
    transaction
        .execute(
            "SELECT pg_advisory_xact_lock(1953457263, hashtext('\"todo\"'))",
            &[],
        )
        .unwrap();
    assert_eq!(maintain(), "another process is doing it now\n");
}

#[test]
fn new_tables_soon_have_statistics_so_that_a_task_is_found_by_its_key() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let user = server.user("u1");
    let create = |n| json!({ "op": "create", "task": { "title": format!("task {n}") } });
    let operations: Vec<Value> = (0..500).map(create).collect();
    user.post("/api/tasks/bulk", json!({ "operations": operations }))
        .expect(200);
    let mut sql = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let statistics = "SELECT reltuples >= 500 FROM pg_class WHERE oid = 'todo.tasks'::regclass";
    // The server looks every five seconds if it was used.
    wait_until(|| {
        user.get("/api/tags").expect(200);
        sql.query_one(statistics, &[]).unwrap().get(0)
    });
    sql.batch_execute("SET enable_seqscan = off").unwrap();
    let plan = sql
        .query(
            "EXPLAIN SELECT FROM todo.tasks WHERE user_id = 'u1' AND id = '00000000-0000-0000-0000-000000000000'",
            &[],
        )
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.concat().contains("tasks_pkey"), "{plan:?}");
}
