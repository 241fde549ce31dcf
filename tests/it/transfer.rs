//! Export and import of tasks.

use std::io::BufRead;

use serde_json::{Value, json};
use todo_api::domain::task::TASK_FIELDS;

use crate::support::TestApp;
use crate::support::actors::Actor;
use crate::support::http::Answer;
use crate::support::process::command as program;
use crate::user_command::run;

fn import(user: &Actor, query: &str, body: &str) -> Answer {
    user.send(
        "POST",
        &format!("/api/tasks/import?{query}"),
        &[],
        Some(body.as_bytes()),
    )
}

/// What an import has done: created, updated, unchanged, skipped.
#[track_caller]
fn counts(answer: Answer) -> [u64; 4] {
    let done = answer.expect(200).json();
    ["created", "updated", "unchanged", "skipped"].map(|name| done[name].as_u64().unwrap())
}

/// All tasks of a user, as a list returns them.
fn tasks(user: &Actor) -> Vec<Value> {
    let list = user
        .get("/api/tasks?limit=1000&sort=title")
        .expect(200)
        .json();
    list["tasks"].as_array().unwrap().clone()
}

fn line(task: Value) -> String {
    task.to_string() + "\n"
}

/// A task with the example of every field.
fn examples() -> Value {
    let example = |text| serde_json::from_str::<Value>(text).unwrap();
    let fields = TASK_FIELDS.iter();
    let fields = fields.map(|field| (field.name.to_owned(), example(field.example)));
    Value::Object(fields.collect())
}

const ID: &str = "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55";

#[test]
fn an_imported_task_has_the_values_of_the_file() {
    let app = TestApp::start();
    let user = app.user("u1");
    let mut task = examples();
    let values = json!({
        "id": ID, "user_id": "u2", "title": "Crème", "description": "a\nb", "completed": true,
        "completed_at": "2026-01-31T10:00:00.000001Z", "priority": "high", "due_date": "2030-01-31",
        "created_at": "2025-01-31T09:30:00.000000Z", "updated_at": "2026-02-01T09:30:00.000000Z",
        "version": 7, "tags": ["a", "b,c"]
    });
    for (name, value) in values.as_object().unwrap() {
        task[name] = value.clone();
    }
    assert_eq!(counts(import(&user, "", &line(task.clone()))), [1, 0, 0, 0]);
    let mut wanted = task.clone();
    wanted["user_id"] = json!("u1");
    assert_eq!(
        user.get(&format!("/api/tasks/{ID}")).expect(200).json(),
        wanted
    );
    assert_eq!(user.get("/api/tasks?q=creme").json()["count"], 1);
    app.user("u2").get(&format!("/api/tasks/{ID}")).expect(404);
    // The same id of another user is another task.
    assert_eq!(
        counts(import(&app.user("u2"), "", &line(task))),
        [1, 0, 0, 0]
    );
}

#[test]
fn a_second_import_changes_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    // A cursor from before the first write belongs to a user that is not there yet.
    let known = "INSERT INTO todo.users (id) VALUES ('u1')";
    app.sql().execute(known, &[]).unwrap();
    let text = line(json!({"title": "a"}))
        + &line(json!({"title": "b", "id": 7, "completed": true}))
        + &line(json!({"title": "a"}))
        + &line(json!({"title": "c", "id": ID, "due_date": "2030-01-31T09:00:00+02:00"}));
    let changes = |since: &str| {
        user.get(&format!("/api/tasks/changes{since}"))
            .expect(200)
            .json()
    };
    let start = changes("");
    assert_eq!(counts(import(&user, "", &text)), [4, 0, 0, 0]);
    let since = format!("?since={}", start["next_cursor"].as_str().unwrap());
    let imported = changes(&since);
    assert_eq!(imported["tasks"].as_array().unwrap().len(), 4);
    let before = tasks(&user);
    let written: Vec<String> = written_by(&app);
    for query in ["", "on_conflict=update", "on_conflict=skip&dry_run=true"] {
        assert_eq!(counts(import(&user, query, &text)), [0, 0, 4, 0], "{query}");
    }
    assert_eq!(tasks(&user), before);
    assert_eq!(written_by(&app), written);
    let since = format!("?since={}", imported["next_cursor"].as_str().unwrap());
    assert_eq!(changes(&since)["tasks"], json!([]));
    // The order of the file is the order of a list.
    let list = user.get("/api/tasks").json();
    let titles: Vec<&Value> = list["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["title"])
        .collect();
    assert_eq!(titles, ["a", "b", "a", "c"]);
}

/// The place of every row, which moves when the row is written or locked, and its transaction.
fn written_by(app: &TestApp) -> Vec<String> {
    let rows = app
        .sql()
        .query(
            "SELECT concat(id, ctid, xmin, xmax, written_by) FROM todo.tasks ORDER BY id",
            &[],
        )
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_conflict_is_skipped_or_updates_what_the_file_has() {
    let app = TestApp::start();
    let user = app.user("u1");
    let id = user
        .post(
            "/api/tasks",
            json!({"title": "a", "description": "d", "tags": ["x"]}),
        )
        .expect(201)
        .json()["id"]
        .clone();
    let path = format!("/api/tasks/{}", id.as_str().unwrap());
    let before = user.get(&path).json();
    let text = line(
        json!({"id": id, "title": "b", "completed": true, "version": 1, "created_at": "2020-01-01T00:00:00Z"}),
    );
    assert_eq!(counts(import(&user, "", &text)), [0, 0, 0, 1]);
    assert_eq!(
        counts(import(&user, "dry_run=true&on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    assert_eq!(user.get(&path).json(), before);
    let written = written_by(&app);
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    let after = user.get(&path).json();
    assert_eq!(
        (&after["title"], &after["completed"]),
        (&json!("b"), &json!(true))
    );
    // Fields that the file does not have stay.
    assert_eq!(
        (&after["description"], &after["tags"]),
        (&before["description"], &before["tags"])
    );
    assert_eq!(after["created_at"], before["created_at"]);
    // A version is never used twice.
    assert_eq!(after["version"], 2);
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    assert_ne!(written_by(&app), written);
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 0, 1, 0]
    );
    let text = line(
        json!({"id": id, "title": "b", "completed": false, "description": null, "version": 9}),
    );
    assert_eq!(
        counts(import(&user, "on_conflict=update", &text)),
        [0, 1, 0, 0]
    );
    let after = user.get(&path).json();
    assert_eq!(
        (
            &after["completed_at"],
            &after["description"],
            &after["version"]
        ),
        (&Value::Null, &Value::Null, &json!(3))
    );
}

#[test]
fn of_tasks_with_one_id_one_is_imported() {
    let app = TestApp::start();
    let text = ["first", "second", "last"]
        .map(|title| line(json!({"id": ID, "title": title})))
        .concat();
    for (user, query, title) in [("u1", "", "first"), ("u2", "on_conflict=update", "last")] {
        let user = app.user(user);
        assert_eq!(counts(import(&user, query, &text)), [1, 0, 0, 2]);
        assert_eq!(tasks(&user)[0]["title"], title);
    }
}

/// Tasks of all kinds, in the order of their titles.
fn fill(user: &Actor) -> Vec<Value> {
    let post = |task: Value| user.post("/api/tasks", task).expect(201).json();
    let texts = [
        "=1+1",
        "'quoted'",
        "a,b \"c\"",
        "Ünïcode 👩‍👩‍👧",
        "[x]",
        "@me",
        "+49",
        "plain",
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let due = [
            json!(null),
            json!("2030-01-31"),
            json!("2030-01-31T09:00:00.000001+02:00"),
        ][number % 3]
            .clone();
        let priority = ["low", "medium", "high"][number % 3];
        let task = post(json!({
            "title": text, "description": format!("{text}\n\ttwo\nlines"), "tags": [text, "t"], "due_date": due.clone(),
            "priority": priority, "completed": number % 2 == 0
        }));
        let path = format!("/api/tasks/{}/complete", task["id"].as_str().unwrap());
        user.send("PATCH", &path, &[], None).expect(200);
    }
    post(json!({"title": "z"}));
    tasks(user)
}

/// The tasks as the other user has them.
fn owned_by(tasks: &[Value], user: &str) -> Vec<Value> {
    let tasks = tasks.iter().cloned();
    tasks
        .map(|mut task| {
            task["user_id"] = json!(user);
            task
        })
        .collect()
}

#[test]
fn an_export_imported_into_an_empty_account_gives_equal_tasks() {
    let app = TestApp::start();
    let user = app.user("u1");
    let before = fill(&user);
    for (format, media_type) in [
        ("jsonl", "application/jsonl"),
        ("csv", "text/csv; charset=utf-8"),
    ] {
        let export = user
            .get(&format!("/api/tasks/export?format={format}"))
            .expect(200);
        assert_eq!(export.header("Content-Type"), Some(media_type));
        let disposition = format!("attachment; filename=\"tasks.{format}\"");
        assert_eq!(
            export.header("Content-Disposition"),
            Some(disposition.as_str())
        );
        assert_eq!(export.header("Link"), None);
        // The Content-Type says which format it is, and so does the parameter.
        let other = app.user(format);
        let headers = [("Content-Type", media_type)];
        let answer = other.send(
            "POST",
            "/api/tasks/import",
            &headers,
            Some(export.body.as_bytes()),
        );
        assert_eq!(counts(answer), [9, 0, 0, 0]);
        assert_eq!(tasks(&other), owned_by(&before, format));
        for query in ["on_conflict=update", "on_conflict=skip"] {
            let again = import(&other, &format!("{query}&format={format}"), &export.body);
            assert_eq!(counts(again), [0, 0, 9, 0]);
        }
    }
    // JSON as lists return it.
    let list = user.get("/api/tasks").expect(200).body;
    assert_eq!(counts(import(&app.user("list"), "", &list)), [9, 0, 0, 0]);
    assert_eq!(tasks(&app.user("list")), owned_by(&before, "list"));
    // CSV has no empty description.
    let empty = user
        .post("/api/tasks", json!({"title": "e", "description": ""}))
        .json();
    let export = user
        .get("/api/tasks/export?format=csv&q=e&has_due_date=false&created_after=2020-01-01")
        .body;
    import(&app.user("empty"), "format=csv", &export).expect(200);
    let path = format!("/api/tasks/{}", empty["id"].as_str().unwrap());
    assert_eq!(
        app.user("empty").get(&path).expect(200).json()["description"],
        Value::Null
    );
}

#[test]
fn an_export_takes_the_filters_of_lists() {
    let app = TestApp::start();
    let user = app.user("u1");
    fill(&user);
    for target in [
        user.own("/tasks/export"),
        "/api/v1/tasks/export/".to_owned(),
    ] {
        let export = user
            .get(&format!("{target}?completed=true&sort=title"))
            .expect(200);
        let exported: Vec<Value> = export
            .body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let list = user.get("/api/tasks?completed=true&sort=title").json();
        assert_eq!(list["tasks"], json!(exported));
    }
    let head = user
        .send("HEAD", "/api/tasks/export?format=csv", &[], None)
        .expect(200);
    assert_eq!(head.body, "");
    assert_eq!(user.get("/api/tasks/export?q=nothing").expect(200).body, "");
    assert_eq!(
        user.get("/api/tasks/export?q=nothing&format=csv")
            .expect(200)
            .body
            .lines()
            .count(),
        1
    );
    for (query, word) in [
        (
            "limit=1",
            "\"limit\" is unknown; this request takes completed",
        ),
        ("page=1", "\"page\""),
        ("skip=1", "\"skip\""),
        ("format=xml", "format must be jsonl or csv"),
        ("format=csv&format=csv", "format is given twice"),
        ("completed=maybe", "completed must"),
        ("cursor=x", "cursor must"),
        ("tz=Mars/Base&overdue=true", "tz"),
    ] {
        let error = user
            .get(&format!("/api/tasks/export?{query}"))
            .expect_error(400, "BAD_REQUEST");
        assert!(error.contains(word), "{error}");
    }
    user.get("/api/u2/tasks/export")
        .expect_error(403, "FORBIDDEN");
    app.anonymous()
        .get("/api/tasks/export")
        .expect_error(401, "UNAUTHORIZED");
}

/// Inserts tasks past the server.
fn insert(app: &TestApp, user: &str, count: u32, description: &str) {
    let mut sql = app.sql();
    sql.execute("INSERT INTO todo.users (id) VALUES ($1)", &[&user])
        .unwrap();
    sql.execute(
        "INSERT INTO todo.tasks (user_id, id, title, description, created_at)
         SELECT $1, gen_random_uuid(), 'task ' || number, $3, now() - make_interval(secs => number / 3)
         FROM generate_series(1, $2::int8) AS number",
        &[&user, &i64::from(count), &description],
    )
    .unwrap();
}

/// All pages of an export.
fn pages(user: &Actor, first: &str) -> Vec<String> {
    let (mut pages, mut target) = (Vec::new(), Some(first.to_owned()));
    while let Some(next) = target {
        let page = user.get(&next).expect(200);
        let link = page
            .header("Link")
            .map(|link| link.strip_prefix('<').unwrap().split_once('>').unwrap());
        target = link.map(|(target, relation)| {
            assert_eq!(relation, "; rel=\"next\"");
            target.to_owned()
        });
        pages.push(page.body);
    }
    pages
}

#[test]
fn a_large_export_comes_in_files_that_are_each_whole() {
    let app = TestApp::start();
    insert(&app, "many", 20_001, "d");
    insert(&app, "large", 2_500, &"é\n".repeat(1_000));
    let (many, large) = (app.user("many"), app.user("large"));
    for query in [
        "format=csv",
        "format=csv&sort=title",
        "format=csv&sort=-due_date",
    ] {
        let files = pages(&many, &format!("/api/tasks/export?{query}"));
        let rows: Vec<usize> = files.iter().map(|file| file.lines().count() - 1).collect();
        assert_eq!(rows, [10_000, 10_000, 1], "{query}");
        assert!(
            files
                .iter()
                .all(|file| file.starts_with("id,user_id,title,"))
        );
        let ids: std::collections::HashSet<&str> = files
            .iter()
            .flat_map(|file| file.lines().skip(1))
            .map(|row| &row[..36])
            .collect();
        assert_eq!(ids.len(), 20_001);
    }
    let files = pages(&large, "/api/tasks/export?format=jsonl");
    assert!(
        files.len() > 1
            && files
                .iter()
                .all(|file| file.len() <= 8 * 1024 * 1024 && file.ends_with("}\n"))
    );
    assert_eq!(files.concat().lines().count(), 2_500);
}

#[test]
fn one_wrong_line_refuses_all_unless_errors_are_skipped() {
    let app = TestApp::start();
    let user = app.user("u1");
    let text = "title,priority,id\na,low,1\n,urgent,2\nb,high,3\n\"c\nd\",low,4\n";
    let answer = import(&user, "format=csv", text);
    let sentence = answer.expect_error(422, "VALIDATION_ERROR");
    assert!(
        sentence.starts_with("lines[3].title is required; lines[3].priority must be low"),
        "{sentence}"
    );
    let details = answer.json()["error"]["details"].clone();
    assert_eq!(
        details[2],
        json!({"field": "lines[5].title", "message": "must be one line without control characters"})
    );
    assert!(tasks(&user).is_empty());
    let answer = import(&user, "format=csv&skip_errors=true&dry_run=true", text)
        .expect(200)
        .json();
    assert_eq!(
        (&answer["created"], &answer["skipped"], &answer["dry_run"]),
        (&json!(2), &json!(2), &json!(true))
    );
    assert!(tasks(&user).is_empty());
    let answer = import(&user, "format=csv&skip_errors=true", text)
        .expect(200)
        .json();
    assert_eq!(
        answer["errors"][0],
        json!({"line": 3, "field": "title", "message": "is required"})
    );
    assert_eq!(
        (&answer["created"], &answer["dry_run"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(tasks(&user).len(), 2);
    // The first 100 errors, and a short sentence.
    let answer = import(&user, "", &"{}\n".repeat(150));
    let sentence = answer.expect_error(422, "VALIDATION_ERROR");
    assert!(sentence.ends_with("; and 90 more"), "{sentence}");
    assert_eq!(
        answer.json()["error"]["details"].as_array().unwrap().len(),
        100
    );
    let answer = import(&user, "skip_errors=true", &"{}\n".repeat(150))
        .expect(200)
        .json();
    assert_eq!(
        (
            answer["errors"].as_array().unwrap().len(),
            &answer["skipped"]
        ),
        (100, &json!(150))
    );
}

#[test]
fn an_import_has_limits() {
    let app = TestApp::start();
    let user = app.user("u1");
    let text = |count: usize| -> String {
        (0..count)
            .map(|number| format!("{{\"title\":\"{number}\"}}\n"))
            .collect()
    };
    assert_eq!(
        counts(import(&user, "dry_run=true", &text(5_000))),
        [5_000, 0, 0, 0]
    );
    let error = import(&user, "", &text(5_001)).expect_error(422, "VALIDATION_ERROR");
    assert!(error.contains("at most 5000 tasks"), "{error}");
    import(&user, "", &" ".repeat(1024 * 1024 + 1)).expect_error(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(counts(import(&user, "", "")), [0; 4]);
    for (query, word) in [
        ("colour=red", "this request takes format, on_conflict"),
        ("format=xml", "format must"),
        ("dry_run=1", "dry_run must be true or false"),
        ("on_conflict=fail", "on_conflict must be skip or update"),
        ("skip_errors=true&skip_errors=true", "twice"),
    ] {
        let error = import(&user, query, "").expect_error(400, "BAD_REQUEST");
        assert!(error.contains(word), "{error}");
    }
    let send = |headers: &[(&str, &str)]| {
        user.send(
            "POST",
            "/api/tasks/import",
            headers,
            Some(b"{\"title\":\"a\"}"),
        )
    };
    send(&[("Content-Type", "text/plain")]).expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    send(&[("Content-Encoding", "gzip")]).expect_error(415, "UNSUPPORTED_MEDIA_TYPE");
    for kind in [
        "application/json",
        "application/x-ndjson",
        "application/jsonl; charset=utf-8",
    ] {
        send(&[("Content-Type", kind)]).expect(200);
    }
    assert_eq!(tasks(&user).len(), 1);
    user.send("POST", "/api/u2/tasks/import", &[], Some(b"{"))
        .expect_error(403, "FORBIDDEN");
    app.anonymous()
        .send("POST", "/api/tasks/import", &[], Some(b"{"))
        .expect_error(401, "UNAUTHORIZED");
}

#[test]
fn a_disabled_user_imports_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    app.sql()
        .execute(
            "INSERT INTO todo.revocations (kind, id) VALUES ('user', 'u1')",
            &[],
        )
        .unwrap();
    let answer = import(&user, "", "{\"title\":\"a\"}");
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(
        app.sql()
            .query_one("SELECT count(*) FROM todo.users", &[])
            .unwrap()
            .get::<_, i64>(0),
        0
    );
}

#[test]
fn a_deleted_task_is_created_again_by_an_import() {
    let app = TestApp::start();
    let user = app.user("u1");
    let before = fill(&user);
    let export = user.get("/api/tasks/export").expect(200).body;
    for task in &before {
        user.delete(&format!("/api/tasks/{}", task["id"].as_str().unwrap()))
            .expect(204);
    }
    assert_eq!(user.get("/api/tasks/export").expect(200).body, "");
    assert_eq!(counts(import(&user, "", &export)), [9, 0, 0, 0]);
    assert_eq!(tasks(&user), before);
}

#[test]
fn parallel_imports_of_the_same_tasks_do_not_affect_each_other() {
    let app = TestApp::start();
    let line = |number: usize, title: &str| format!("{{\"id\":{number},\"title\":\"{title}\"}}\n");
    let threads: Vec<_> = (0..8)
        .map(|thread: usize| {
            let user = app.user("u1");
            std::thread::spawn(move || {
                let numbers: Vec<usize> = match thread % 2 {
                    0 => (0..400).collect(),
                    _ => (0..400).rev().collect(),
                };
                let text: String = numbers
                    .iter()
                    .map(|number| line(*number, &format!("{thread}")))
                    .collect();
                for _ in 0..4 {
                    import(&user, "on_conflict=update", &text).expect(200);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(tasks(&app.user("u1")).len(), 400);
}

/// Runs a command that must succeed, and gives its standard output.
#[track_caller]
fn command(database: &str, arguments: &[&str]) -> String {
    let output = run(database, arguments, "");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a failed command prints on standard error.
#[track_caller]
fn refused(database: &str, arguments: &[&str], code: i32) -> String {
    let output = run(database, arguments, "");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn commands_export_and_import_a_file() {
    let app = TestApp::start();
    let database = app.database.as_str();
    let before = fill(&app.user("u1"));
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (jsonl, csv) = (file("tasks.jsonl"), file("tasks.CSV"));
    assert_eq!(command(database, &["export", "--user", "u1", &jsonl]), "");
    assert_eq!(
        command(database, &["export", &csv, "--user", "u1", "--id"]),
        ""
    );
    let by_http = |format| {
        app.user("u1")
            .get(&format!("/api/tasks/export?format={format}"))
            .body
    };
    assert_eq!(std::fs::read_to_string(&jsonl).unwrap(), by_http("jsonl"));
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), by_http("csv"));
    assert_eq!(
        command(database, &["export", "--user", "u1", "--format", "csv"]),
        by_http("csv")
    );
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        2,
        "nothing else is left"
    );

    for (user, path) in [("u2", &jsonl), ("u3", &csv)] {
        let import = |more: &[&str]| {
            command(
                database,
                &[&["import", path, "--user", user, "--id"], more].concat(),
            )
        };
        let nothing = "created 9, updated 0, unchanged 0, skipped 0; nothing is written\n";
        assert_eq!(import(&["--dry-run"]), nothing);
        assert!(tasks(&app.user(user)).is_empty());
        assert_eq!(
            import(&[]),
            "created 9, updated 0, unchanged 0, skipped 0\n"
        );
        assert_eq!(
            import(&["--on-conflict", "update"]),
            "created 0, updated 0, unchanged 9, skipped 0\n"
        );
        assert_eq!(tasks(&app.user(user)), owned_by(&before, user));
    }

    // Several lots, and errors in the last one.
    let wrong = file("wrong.jsonl");
    let lines: String = (0..2_500)
        .map(|number| format!("{{\"title\":\"{number}\"}}\n"))
        .collect();
    std::fs::write(&wrong, lines + "{\"title\":\"\"}\n{\"priority\":\"low\"}\n").unwrap();
    let problem = refused(database, &["import", &wrong, "--user", "u4", "--id"], 1);
    for word in [
        "line 2501: title must have",
        "line 2502: title is required",
        "2 tasks are wrong",
        "the import ends after 2000 tasks",
    ] {
        assert!(problem.contains(word), "{problem}");
    }
    // The tasks before the lot with errors are there, and the import goes on behind them.
    let done = command(
        database,
        &["import", &wrong, "--user", "u4", "--id", "--skip-errors"],
    );
    assert_eq!(done, "created 500, updated 0, unchanged 2000, skipped 2\n");

    let done = run(
        database,
        &["import", "-", "--user", "u1"],
        "{\"title\":\"piped\"}",
    );
    assert!(
        String::from_utf8_lossy(&done.stdout).starts_with("created 1,"),
        "{done:?}"
    );

    for (arguments, code, word) in [
        (&["import", "--user", "u1"][..], 2, "import needs FILE"),
        (&["import", &jsonl], 2, "import needs --user"),
        (
            &["import", &jsonl, "--user", "unknown"],
            1,
            "no user \"unknown\"; add --id",
        ),
        (
            &["import", &jsonl, "--user", "u1", "--format", "xml"],
            2,
            "--format must be jsonl or csv",
        ),
        (
            &["import", &jsonl, "--user", "u1", "--on-conflict", "ask"],
            2,
            "--on-conflict must be skip or update",
        ),
        (
            &["import", "/nowhere", "--user", "u1"],
            1,
            "cannot read /nowhere",
        ),
        (&["export", "--user", "unknown"], 1, "no user"),
        (
            &["export", "/nowhere/tasks.csv", "--user", "u1"],
            1,
            "cannot write /nowhere/tasks.csv",
        ),
        (
            &["export", "a", "b", "--user", "u1"],
            2,
            "unexpected argument",
        ),
    ] {
        let problem = refused(database, arguments, code);
        assert!(problem.contains(word), "{problem}");
    }
}

#[test]
fn a_command_exports_one_snapshot() {
    let app = TestApp::start();
    insert(&app, "u1", 20_000, "d");
    let mut child = program(&[("DATABASE_URL", &app.database)])
        .args(["export", "--user", "u1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    // The rest is not read yet, and does not fit the pipe. It waits for longer than a statement may take.
    app.sql().execute("DELETE FROM todo.tasks", &[]).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(output.lines().count(), 19_999);
    assert!(child.wait().unwrap().success());
}
