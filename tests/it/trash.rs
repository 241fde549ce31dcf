//! The trash.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::hold::Lock;
use crate::support::login::{Login, PASSWORD};
use crate::support::postgres::{empty_database, fresh_database};
use crate::support::process::{Process, run};
use crate::support::{Actor, TestApp};

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// The tasks of the trash.
#[track_caller]
fn trash(user: &Actor) -> Vec<Value> {
    let list = user.get("/api/tasks/trash").expect(200).json();
    list["tasks"].as_array().unwrap().clone()
}

fn count(app: &TestApp, of: &str) -> i64 {
    let question = format!("SELECT count(*) FROM todo.{of}");
    app.sql().query_one(&question, &[]).unwrap().get(0)
}

/// What maintenance says, with these settings.
#[track_caller]
fn maintain(app: &TestApp, settings: &[(&str, &str)]) -> String {
    let mut environment = vec![("DATABASE_URL", app.database.as_str())];
    environment.extend_from_slice(settings);
    let output = run(&["maintenance"], &environment);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An application without a trash.
fn without_trash(database: &str) -> TestApp {
    TestApp::on(
        database,
        |settings| settings.database.trash = Duration::ZERO,
        Vec::new(),
    )
}

#[test]
fn a_deleted_task_is_in_the_trash_and_comes_back_as_it_was() {
    let app = TestApp::start();
    for collection in ["/api/tasks", "/api/u1/tasks"] {
        let user = app.user("u1");
        let body = json!({
            "title": "Ünïcode", "description": "d", "completed": true, "priority": "high", "due_date": "2030-01-31",
            "tags": ["b", "a"]
        });
        let task = user.post(collection, body).expect(201).json();
        let one = format!("{collection}/{}", task["id"].as_str().unwrap());
        assert_eq!(user.delete(&one).expect(204).body, "");
        user.get(&one).expect_error(404, "NOT_FOUND");
        assert_eq!(user.get("/api/tasks").expect(200).json()["count"], 0);
        assert_eq!(user.get("/api/tags").expect(200).json()["count"], 0);
        assert_eq!(user.get("/api/tasks/stats").expect(200).json()["total"], 0);

        let list = user.get(&format!("{collection}/trash")).expect(200).json();
        assert_eq!(
            (&list["count"], &list["has_more"]),
            (&json!(1), &json!(false))
        );
        let mut shown = list["tasks"][0].as_object().unwrap().clone();
        let moment =
            |value: Value| OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap();
        let deleted_at = moment(shown.remove("deleted_at").unwrap());
        let purge_at = moment(shown.remove("purge_at").unwrap());
        assert!((OffsetDateTime::now_utc() - deleted_at).abs() < time::Duration::minutes(1));
        assert_eq!(purge_at - deleted_at, time::Duration::days(30));
        assert_eq!(Value::from(shown), task);

        let answer = user.post(&format!("{one}/restore"), json!({})).expect(200);
        let mut restored = answer.json();
        assert_eq!(
            user.get(&one).expect(200).header("ETag"),
            answer.header("ETag")
        );
        assert_eq!(restored["version"], 2);
        assert!(restored["updated_at"].as_str() > task["updated_at"].as_str());
        for field in ["version", "updated_at"] {
            restored[field] = task[field].clone();
        }
        assert_eq!(restored, task);
        assert!(trash(&user).is_empty());
        // The search finds it: the folded text came back too.
        assert_eq!(
            user.get("/api/tasks?q=unicode").expect(200).json()["count"],
            1
        );
        user.post(&format!("{one}/restore"), json!({}))
            .expect_error(404, "NOT_FOUND");
        user.delete(&format!("{one}?permanent=true")).expect(204);
    }
}

#[test]
fn the_trash_has_pages_with_the_last_deleted_first() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks: Vec<Value> = (0..5)
        .map(|number| user.task(&number.to_string()))
        .collect();
    for number in [3, 0, 4, 1, 2] {
        user.delete(&path(&tasks[number])).expect(204);
    }
    let mut titles = Vec::new();
    let mut target = "/api/tasks/trash?limit=2".to_owned();
    loop {
        let answer = user.get(&target).expect(200);
        let page = answer.json();
        let tasks = page["tasks"].as_array().unwrap();
        titles.extend(
            tasks
                .iter()
                .map(|task| task["title"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(answer.header("Link").is_none());
            break;
        };
        let link = answer.header("Link").unwrap().to_owned();
        target = link[1..link.find('>').unwrap()].to_owned();
        assert!(
            target.contains(cursor) && target.contains("limit=2"),
            "{target}"
        );
    }
    assert_eq!(titles.concat(), "21403");
    for bad in [
        "limit=0",
        "cursor=x",
        "completed=true",
        "sort=title",
        "limit=1&limit=2",
    ] {
        user.get(&format!("/api/tasks/trash?{bad}"))
            .expect_error(400, "BAD_REQUEST");
    }
    // A cursor of another list.
    let cursor = user.get("/api/tasks/trash?limit=1").expect(200).json()["next_cursor"].clone();
    user.get(&format!("/api/tasks?cursor={}", cursor.as_str().unwrap()))
        .expect_error(400, "BAD_REQUEST");
}

#[test]
fn a_task_of_another_user_is_neither_restored_nor_removed() {
    let app = TestApp::start();
    let (me, other) = (app.user("u1"), app.user("u2"));
    let task = me.task("mine");
    me.delete(&path(&task)).expect(204);
    let id = task["id"].as_str().unwrap();
    assert!(trash(&other).is_empty());
    for target in [
        format!("/api/tasks/{id}/restore"),
        "/api/tasks/no-uuid/restore".to_owned(),
    ] {
        other
            .post(&target, json!({}))
            .expect_error(404, "NOT_FOUND");
    }
    other
        .delete(&format!("/api/tasks/trash/{id}"))
        .expect_error(404, "NOT_FOUND");
    assert_eq!(
        other.delete("/api/tasks/trash").expect(200).json(),
        json!({"count": 0})
    );
    other
        .post(&format!("/api/u1/tasks/{id}/restore"), json!({}))
        .expect_error(403, "FORBIDDEN");
    other
        .get("/api/u1/tasks/trash")
        .expect_error(403, "FORBIDDEN");
    assert_eq!(trash(&me).len(), 1);
    // HEAD, and a method that the path does not have.
    assert_eq!(
        me.send("HEAD", "/api/tasks/trash", &[], None)
            .expect(200)
            .body,
        ""
    );
    me.put("/api/tasks/trash", json!({}))
        .expect_error(405, "METHOD_NOT_ALLOWED");
}

#[test]
fn a_task_that_is_removed_for_good_leaves_only_its_id() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks: Vec<Value> = (0..6).map(|_| user.task("secret")).collect();
    user.delete(&format!("{}?permanent=true", path(&tasks[0])))
        .expect(204);
    user.delete(&format!("{}?permanent=true", path(&tasks[0])))
        .expect_error(404, "NOT_FOUND");
    assert!(trash(&user).is_empty());
    for task in &tasks[1..] {
        user.delete(&format!("{}?permanent=false", path(task)))
            .expect(204);
    }
    let one = format!("/api/tasks/trash/{}", tasks[1]["id"].as_str().unwrap());
    user.delete(&one).expect(204);
    user.delete(&one).expect_error(404, "NOT_FOUND");
    user.post(&format!("{}/restore", path(&tasks[1])), json!({}))
        .expect_error(404, "NOT_FOUND");
    assert_eq!(trash(&user).len(), 4);
    assert_eq!(
        user.delete("/api/tasks/trash").expect(200).json(),
        json!({"count": 4})
    );
    assert!(trash(&user).is_empty());
    assert_eq!(count(&app, "deleted_tasks"), 6);
    assert_eq!(
        count(
            &app,
            "deleted_tasks WHERE num_nonnulls(title, description, priority, tags, created_at, version) > 0"
        ),
        0
    );
    for bad in [
        "permanent=yes",
        "permanent",
        "permanent=true&permanent=true",
        "forever=true",
    ] {
        user.delete(&format!("{}?{bad}", path(&tasks[0])))
            .expect_error(400, "BAD_REQUEST");
    }
    let task = user.task("t");
    user.delete(&format!("{}?_=1", path(&task))).expect(204);
}

#[test]
fn without_a_trash_no_content_is_kept() {
    let app = without_trash(&fresh_database());
    let user = app.user("u1");
    let task = user.task("secret");
    user.delete(&path(&task)).expect(204);
    assert!(trash(&user).is_empty());
    user.post(&format!("{}/restore", path(&task)), json!({}))
        .expect_error(404, "NOT_FOUND");
    assert_eq!(count(&app, "deleted_tasks WHERE title IS NULL"), 1);
    // What was deleted while there was a trash is not shown, and the next maintenance removes it.
    let with = TestApp::on(&app.database, |_| {}, Vec::new());
    let task = with.user("u1").task("secret too");
    with.user("u1").delete(&path(&task)).expect(204);
    assert_eq!((trash(&with.user("u1")).len(), trash(&user).len()), (1, 0));
    user.post(&format!("{}/restore", path(&task)), json!({}))
        .expect_error(404, "NOT_FOUND");
    let said = maintain(&app, &[("TRASH_DAYS", "0")]);
    assert!(said.contains("1 tasks from the trash"), "{said}");
    assert_eq!(count(&app, "deleted_tasks WHERE title IS NULL"), 2);
}

#[test]
fn an_id_in_the_trash_may_be_used_again() {
    let app = TestApp::start();
    let user = app.user("u1");
    let old = user.task("old");
    user.delete(&path(&old)).expect(204);
    let new = json!({"id": old["id"], "title": "new"});
    user.post("/api/tasks", new).expect(201);
    user.post(&format!("{}/restore", path(&old)), json!({}))
        .expect_error(409, "CONFLICT");
    assert_eq!(user.get(&path(&old)).expect(200).json()["title"], "new");
    assert_eq!(trash(&user)[0]["title"], "old");
    // The new one takes the other's place in the trash.
    user.delete(&path(&old)).expect(204);
    assert_eq!(trash(&user).len(), 1);
    let restored = user
        .post(&format!("{}/restore", path(&old)), json!({}))
        .expect(200)
        .json();
    assert_eq!(
        (&restored["title"], &restored["version"]),
        (&json!("new"), &json!(2))
    );
    // For good where an earlier one is in the trash.
    user.delete(&path(&old)).expect(204);
    user.post("/api/tasks", json!({"id": old["id"], "title": "third"}))
        .expect(201);
    user.delete(&format!("{}?permanent=true", path(&old)))
        .expect(204);
    assert!(trash(&user).is_empty());
}

#[test]
fn a_stale_precondition_keeps_a_task_out_of_the_trash() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let tag = user
        .get(&path(&task))
        .expect(200)
        .header("ETag")
        .unwrap()
        .to_owned();
    user.put(&path(&task), json!({"title": "t2"})).expect(200);
    for target in [path(&task), format!("{}?permanent=true", path(&task))] {
        user.send("DELETE", &target, &[("If-Match", &tag)], None)
            .expect_error(412, "PRECONDITION_FAILED");
    }
    assert!(trash(&user).is_empty());
    let tag = user
        .get(&path(&task))
        .expect(200)
        .header("ETag")
        .unwrap()
        .to_owned();
    user.send("DELETE", &path(&task), &[("If-Match", &tag)], None)
        .expect(204);
    user.send("DELETE", &path(&task), &[("If-Match", &tag)], None)
        .expect_error(404, "NOT_FOUND");
    assert_eq!(trash(&user)[0]["title"], "t2");
    // The tag of a restored task is a new one.
    let restored = user
        .post(&format!("{}/restore", path(&task)), json!({}))
        .expect(200);
    assert_ne!(restored.header("ETag"), Some(tag.as_str()));
}

#[test]
fn of_parallel_restores_and_deletions_one_succeeds_each_time() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    thread::scope(|scope| {
        for number in 0..6 {
            let (user, task) = (&user, &task);
            scope.spawn(move || {
                for _ in 0..30 {
                    let status = match number % 2 {
                        0 => user.delete(&path(task)).status,
                        _ => {
                            user.post(&format!("{}/restore", path(task)), json!({}))
                                .status
                        }
                    };
                    assert!([200, 204, 404].contains(&status), "{status}");
                }
            });
        }
    });
    assert_eq!(count(&app, "tasks") + count(&app, "deleted_tasks"), 1);
}

#[test]
fn a_restore_and_a_deletion_of_an_id_in_use_and_in_the_trash_do_not_disturb_each_other() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("t");
    let restore = || user.post(&format!("{}/restore", path(&task)), json!({}));
    for _ in 0..100 {
        user.delete(&path(&task));
        user.post("/api/tasks", json!({"title": "t", "id": task["id"]}))
            .expect(201);
        thread::scope(|scope| {
            scope.spawn(|| user.delete(&path(&task)).expect(204));
            let status = restore().status;
            assert!([200, 409].contains(&status), "{status}");
        });
    }
    assert_eq!(app.deadlocks(), 0);
}

#[test]
fn maintenance_removes_contents_first_and_tombstones_later() {
    let app = TestApp::start();
    let user = app.user("u1");
    for days in [0, 29, 31, 89, 91] {
        let task = user.task(&days.to_string());
        user.delete(&path(&task)).expect(204);
        app.sql()
            .execute(
                "UPDATE todo.deleted_tasks SET deleted_at = now() - make_interval(days => $1) WHERE title = $2",
                &[&days, &days.to_string()],
            )
            .unwrap();
    }
    assert_eq!(
        trash(&user).len(),
        2,
        "those that are too old are not shown"
    );
    let said = maintain(&app, &[]);
    assert!(said.contains("3 tasks from the trash"), "{said}");
    // The oldest is a tombstone now. The next maintenance notes it in the feed, and removes it then.
    let said = maintain(&app, &[]);
    assert!(said.contains("1 tombstones"), "{said}");
    assert_eq!(maintain(&app, &[]), "there was nothing to do\n");
    assert_eq!(count(&app, "deleted_tasks"), 4);
    assert_eq!(count(&app, "deleted_tasks WHERE title IS NOT NULL"), 2);
}

#[test]
fn a_deleted_task_can_be_restored_after_a_restart() {
    let database = empty_database();
    let server = Process::serve(&database, &[]);
    let task = server.user("u1").task("t");
    server.user("u1").delete(&path(&task)).expect(204);
    server.signal("TERM");
    server.wait();
    let server = Process::serve(&database, &[]);
    let restored = server
        .user("u1")
        .post(&format!("{}/restore", path(&task)), json!({}));
    assert_eq!(restored.expect(200).json()["title"], "t");
}

#[test]
fn the_deletion_of_an_account_leaves_no_row_of_the_user_in_any_table() {
    let app = TestApp::start();
    let (me, other) = (
        Login::register(app.address, "me@example.org"),
        Login::register(app.address, "other@example.org"),
    );
    for login in [&me, &other] {
        let user = login.actor();
        let key = [
            ("Idempotency-Key", "k"),
            ("Content-Type", "application/json"),
        ];
        user.send("POST", "/api/tasks", &key, Some(b"{\"title\":\"t\"}"))
            .expect(201);
        let tasks = [user.task("a"), user.task("b")];
        user.delete(&path(&tasks[0])).expect(204);
        user.delete(&format!("{}?permanent=true", path(&tasks[1])))
            .expect(204);
        user.post(
            "/api/auth/tokens",
            json!({"name": "t", "current_password": PASSWORD}),
        )
        .expect(201);
    }
    // Every table that names a user, as the catalogue has them. Revocations outlive the user.
    let mut sql = app.sql();
    let columns = sql
        .query(
            "SELECT relname::text, attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
             WHERE relnamespace = 'todo'::regnamespace AND relkind = 'r' AND relname <> 'revocations'
               AND (attname = 'user_id' OR relname = 'users' AND attname = 'id')",
            &[],
        )
        .unwrap();
    assert!(columns.len() >= 8);
    let mut rows_of = |user: &str| -> Vec<(String, i64)> {
        let tables = columns.iter().map(|row| {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            let question = format!("SELECT count(*) FROM todo.{table} WHERE {column} = $1");
            (table, sql.query_one(&question, &[&user]).unwrap().get(0))
        });
        tables.collect()
    };
    let before = rows_of(other.id());
    assert!(
        rows_of(me.id()).iter().all(|(_, rows)| *rows > 0),
        "{before:?}"
    );
    me.actor()
        .send_json("DELETE", "/api/auth/me", json!({"password": PASSWORD}))
        .expect(204);
    let left = rows_of(me.id());
    assert!(left.iter().all(|(_, rows)| *rows == 0), "{left:?}");
    assert_eq!(rows_of(other.id()), before);
}

#[test]
fn maintenance_removes_deleted_tasks_of_deleted_users() {
    let app = TestApp::start();
    for user in ["u1", "u2", "u3"] {
        let user = app.user(user);
        let task = user.task("t");
        user.delete(&path(&task)).expect(204);
    }
    let mut sql = app.sql();
    sql.execute("DELETE FROM todo.users WHERE id = 'u2'", &[])
        .unwrap();
    let said = maintain(&app, &[]);
    assert!(
        said.contains("1 deleted tasks of deleted accounts"),
        "{said}"
    );
    assert_eq!(count(&app, "deleted_tasks"), 2);
    assert_eq!(maintain(&app, &[]), "there was nothing to do\n");
}

#[test]
fn deleted_tasks_have_the_columns_of_tasks() {
    let app = TestApp::start();
    let mut sql = app.sql();
    let mut columns = |table: &str| -> Vec<(String, String)> {
        let question = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
                        WHERE attrelid = ('todo.' || $1)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'deleted_at'
                        ORDER BY 1";
        let rows = sql.query(question, &[&table]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    assert_eq!(columns("deleted_tasks"), columns("tasks"));
}

#[test]
fn a_restore_locks_the_user_before_the_deleted_task_as_the_deletion_of_the_account_does() {
    let app = TestApp::start();
    let user = app.user("u1");
    let task = user.task("deleted");
    user.delete(&path(&task)).expect(204);
    let mut lock = Lock::rows(&app.database, "users", "id = 'u1'");
    thread::scope(|scope| {
        let restore = scope.spawn(|| user.post(&format!("{}/restore", path(&task)), json!({})));
        lock.wait_for_waiting(1);
        lock.rows_too("deleted_tasks", "user_id = 'u1'");
        lock.release();
        restore.join().unwrap().expect(200);
    });
    assert_eq!(app.deadlocks(), 0);
}
