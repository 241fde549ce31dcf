//! `todo-api import --from`: another back end's tasks and users.

use std::process::Output;

use serde_json::{Value, json};
use todo_api::auth::jwks::Timing;
use todo_api::auth::token::TokenVerifier;

use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::jwt::{Key, claims, key_set};
use crate::support::key_server::{KeyServer, Publishes};
use crate::support::login::{Login, try_log_in};
use crate::support::postgres::{empty_database, fresh_database, sql};
use crate::support::process::Process;
use crate::support::{Actor, TestApp};
use crate::user_command::run;

/// Of "correct horse" and of 72 times "x", made by Python's bcrypt 5.0.0.
const BCRYPT: &str = "$2b$04$kvuLU2O0rLbglJS5Ozfli.YJ56NjKLUpognEgi./XCUdymk6hLIga";
const BCRYPT_LONG: &str = "$2b$04$.ve9TA8cM1svJIDAFWZXbulF8luSuaMSS/21utF5/hN8TGuQtb1VW";

fn add_account(app: &TestApp, id: &str, email: &str, hash: &str) {
    let insert = "INSERT INTO todo.users (id, email, password_hash) VALUES ($1, $2, $3)";
    app.sql().execute(insert, &[&id, &email, &hash]).unwrap();
}

/// Asserts that a task has these fields, and null in every other one.
#[track_caller]
fn expect_fields(task: &Value, expected: &Value) {
    for (name, value) in task.as_object().unwrap() {
        assert_eq!(*value, expected[name], "{name}");
    }
    for name in expected.as_object().unwrap().keys() {
        assert!(task.get(name).is_some(), "{name} is missing");
    }
}

fn hash_of(app: &TestApp, id: &str) -> String {
    let select = "SELECT password_hash FROM todo.users WHERE id = $1";
    app.sql().query_one(select, &[&id]).unwrap().get(0)
}

#[test]
fn a_login_replaces_a_bcrypt_hash_by_argon2id() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT);
    let log_in = |password| try_log_in(app.address, "old@example.org", password);
    log_in("correct horsf").expect(401);
    assert_eq!(hash_of(&app, "7"), BCRYPT);
    for _ in 0..2 {
        let login = Login::of(app.address, &log_in("correct horse").expect(200));
        assert_eq!(login.id(), "7");
        let hash = hash_of(&app, "7");
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
    }
    log_in("correct horsf").expect(401);
}

#[test]
fn a_password_that_bcrypt_did_not_read_to_its_end_keeps_working() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT_LONG);
    let log_in = |length| try_log_in(app.address, "old@example.org", &"x".repeat(length));
    for length in [73, 74, 73] {
        log_in(length).expect(200);
        assert_eq!(hash_of(&app, "7"), BCRYPT_LONG);
    }
    log_in(71).expect(401);
    log_in(72).expect(200);
    assert!(hash_of(&app, "7").starts_with("$argon2id$"));
    log_in(73).expect(401);
}

#[test]
fn a_password_is_changed_from_a_bcrypt_hash() {
    let app = TestApp::start();
    add_account(&app, "7", "old@example.org", BCRYPT_LONG);
    let password = "x".repeat(100);
    let login = try_log_in(app.address, "old@example.org", &password);
    let actor = Login::of(app.address, &login.expect(200)).actor();
    let body = json!({"current_password": password, "new_password": "another password"});
    actor.put("/api/auth/password", body).expect(204);
    try_log_in(app.address, "old@example.org", &password).expect(401);
    try_log_in(app.address, "old@example.org", "another password").expect(200);
}

#[test]
fn a_token_of_another_issuer_does_not_act_as_an_account_whatever_the_form_of_its_id() {
    let key = Key::p256("k");
    let keys = KeyServer::start(Publishes::Body(key_set(&[&key])));
    let keys = keys.keys(Timing::default());
    let app = TestApp::with_verifier(TokenVerifier::new(SECRET, None).trusting(keys));
    let ask = |user: &str| {
        let token = format!("Bearer {}", key.token(&claims(user)));
        Actor::with_authorization(app.address, &token).get("/api/tasks")
    };
    wait_until(|| ask("outsider").status == 200);
    let uuid = "6f1d0c3b-9a8e-4f5d-8c2b-1a0918273645";
    for (id, email, hash) in [
        ("7", "a@example.org", BCRYPT),
        (uuid, "b@example.org", "!"),
        ("Zm9vYmFyYmF6", "c@example.org", "$argon2id$"),
    ] {
        ask(id).expect(200);
        add_account(&app, id, email, hash);
        wait_until(|| ask(id).status == 401);
        let problem = ask(id).expect_error(401, "UNAUTHORIZED");
        assert!(problem.contains("has an account here"), "{problem}");
    }
    ask("outsider").expect(200);
}

/// A database of another back end with what these statements make.
fn other(statements: &str) -> String {
    let url = empty_database();
    sql(&url, statements);
    url
}

fn import(app: &TestApp, from: &str, options: &[&str]) -> Output {
    let arguments = [&["import", "--from", from][..], options].concat();
    run(&app.database, &arguments, "")
}

#[track_caller]
fn imported(app: &TestApp, from: &str, options: &[&str]) -> String {
    let output = import(app, from, &[options, &["--yes"]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a command line that must be completed, after which nothing has changed.
#[track_caller]
fn unclear(app: &TestApp, from: &str, options: &[&str]) -> String {
    let output = import(app, from, &[options, &["--yes"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(rows(app).is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// Asserts what was done with the rows of a table.
#[track_caller]
fn done(report: &str, table: &str, lines: &[&str]) {
    let (_, report) = report.split_once("Imported:\n").unwrap();
    let mut found = report.lines().skip_while(|line| *line != table).skip(1);
    let found: Vec<&str> = found
        .by_ref()
        .map_while(|line| line.strip_prefix("  "))
        .collect();
    let mut lines = lines.to_vec();
    lines.sort_unstable_by_key(|line| line.split_once(' ').unwrap().1);
    assert_eq!(found, lines, "{report}");
}

/// Every row of a user and of a task, as text.
fn rows(app: &TestApp) -> Vec<String> {
    let select = "SELECT users::text FROM todo.users UNION ALL SELECT tasks::text FROM todo.tasks ORDER BY 1";
    let rows = app.sql().query(select, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A user's tasks, oldest first.
fn tasks_of(app: &TestApp, user: &str) -> Vec<Value> {
    let answer = app.user(user).get("/api/tasks?sort=created_at&order=asc");
    answer.expect(200).json()["tasks"]
        .as_array()
        .unwrap()
        .clone()
}

/// What a usual FastAPI back end with SQLModel has.
const USUAL: &str = "
    CREATE TABLE \"user\" (id serial PRIMARY KEY, email varchar NOT NULL, full_name varchar, hashed_password varchar NOT NULL,
        is_active boolean NOT NULL DEFAULT true, created_at timestamp NOT NULL DEFAULT '2024-01-01');
    CREATE TABLE task (id serial PRIMARY KEY, owner_id int NOT NULL REFERENCES \"user\", title varchar NOT NULL,
        description varchar, is_completed boolean NOT NULL DEFAULT false, priority varchar, due_date date, tags json,
        category varchar, created_at timestamp NOT NULL DEFAULT '2024-01-01', updated_at timestamp NOT NULL DEFAULT '2024-01-02');
    INSERT INTO \"user\" (email, full_name, hashed_password) VALUES
        ('A@Example.org', 'Ann', '$2b$04$kvuLU2O0rLbglJS5Ozfli.YJ56NjKLUpognEgi./XCUdymk6hLIga'),
        ('b@example.org', NULL, 'pbkdf2:sha256:600000$salt$00');
    INSERT INTO task (owner_id, title, description, is_completed, priority, due_date, tags, created_at, updated_at) VALUES
        (1, ' Buy milk ', E'2 litres\\r\\nfresh', true, 'HIGH', '2030-01-31', '[\"errands\", \"a,b\"]',
         '2024-03-01 10:00:00.123456', '2024-03-02 11:00'),
        (2, 'Other', NULL, false, NULL, NULL, NULL, '2024-03-03', '2024-03-03');";

#[test]
fn a_usual_back_end_is_taken_over_with_one_command() {
    let (app, from) = (TestApp::start(), other(USUAL));
    let plan = import(&app, &from, &["--dry-run"]);
    assert!(plan.status.success() && rows(&app).is_empty(), "{plan:?}");
    let plan = String::from_utf8(plan.stdout).unwrap();
    for line in [
        "tasks: task",
        "  user_id              owner_id             \"1\", \"2\"",
        "  completed            is_completed         false = false (1), true = true (1)",
        "  priority             priority             HIGH = high (1)",
        "  due_date             due_date             \"2030-01-31\"",
        "  completed_at         -",
        "  not read: category",
        "users: user",
        "  users.email          email                \"A@Example.org\", \"b@example.org\"",
        "  1 keep their password",
        "  1 need a password",
        "  2 to import",
        "  2 get a new id",
    ] {
        assert!(plan.lines().any(|found| found == line), "{line}\n{plan}");
    }
    assert!(!plan.contains("$2b$"), "{plan}");

    let report = imported(&app, &from, &[]);
    assert!(
        report.contains("need a password: \"2\" \"b@example.org\""),
        "{report}"
    );
    done(&report, "users: user", &["2 imported"]);
    done(&report, "tasks: task", &["2 get a new id", "2 imported"]);
    let tasks = tasks_of(&app, "1");
    assert_eq!(tasks.len(), 1);
    let expected = json!({
        "id": tasks[0]["id"], "user_id": "1", "title": "Buy milk", "description": "2 litres\nfresh", "completed": true,
        "completed_at": "2024-03-02T11:00:00.000000Z", "priority": "high", "due_date": "2030-01-31",
        "created_at": "2024-03-01T10:00:00.123456Z", "updated_at": "2024-03-02T11:00:00.000000Z", "version": 1,
        "tags": ["errands", "a,b"],
    });
    expect_fields(&tasks[0], &expected);
    let log_in = |email: &str, password: &str| try_log_in(app.address, email, password);
    let login = Login::of(
        app.address,
        &log_in("a@example.org", "correct horse").expect(200),
    );
    assert_eq!(
        (login.id(), &login.answer["user"]["name"]),
        ("1", &json!("Ann"))
    );
    log_in("b@example.org", "correct horse").expect(401);
    let set = run(
        &app.database,
        &["user", "password", "2", "--id"],
        "another password\n",
    );
    assert!(set.status.success(), "{set:?}");
    log_in("b@example.org", "another password").expect(200);

    let before = rows(&app);
    let report = imported(&app, &from, &[]);
    done(&report, "users: user", &["2 here already"]);
    done(
        &report,
        "tasks: task",
        &["2 get a new id", "2 here already"],
    );
    assert_eq!(rows(&app), before);
    // Another source has other ids.
    imported(&app, &from, &["--source", "another"]);
    assert_eq!(tasks_of(&app, "1").len(), 2);
}

#[test]
fn uuids_and_moments_stay_and_states_are_understood() {
    let from = other(
        "CREATE TYPE state AS ENUM ('TODO', 'in-progress', 'Done');
         CREATE SCHEMA app;
         CREATE TABLE app.\"Todos\" (id uuid PRIMARY KEY, \"userId\" text NOT NULL, name text, notes text, status state,
             \"completedAt\" timestamptz, deadline timestamptz, labels text[], \"createdAt\" timestamptz, \"we\"\"ird\" int);
         INSERT INTO app.\"Todos\" VALUES
             ('6f1d0c3b-9a8e-4f5d-8c2b-1a0918273645', 'Zm9v|bar', 'One', '', 'Done', '2024-05-01 12:00+02', '2030-01-01 09:00-05',
              '{a,\"b c\"}', '2024-04-01 00:00:00.000001+00'),
             ('7f1d0c3b-9a8e-4f5d-8c2b-1a0918273645', 'Zm9v|bar', 'Two', NULL, 'in-progress', '2024-05-01 12:00+02', NULL, NULL,
              '2024-04-02'),
             ('8f1d0c3b-9a8e-4f5d-8c2b-1a0918273645', 'Zm9v|bar', 'Three', NULL, NULL, NULL, NULL, '{}', '2024-04-03'),
             ('9f1d0c3b-9a8e-4f5d-8c2b-1a0918273645', 'Zm9v|bar', 'Four', NULL, 'TODO', NULL, NULL, '{}', '2024-04-04');",
    );
    let app = TestApp::start();
    let report = imported(&app, &from, &[]);
    done(&report, "tasks: app.Todos", &["4 imported"]);
    let tasks = tasks_of(&app, "Zm9v|bar");
    let expected = json!({
        "id": "6f1d0c3b-9a8e-4f5d-8c2b-1a0918273645", "user_id": "Zm9v|bar", "title": "One", "description": "",
        "completed": true, "completed_at": "2024-05-01T10:00:00.000000Z", "priority": "medium",
        "due_date": "2030-01-01T14:00:00.000000Z", "tags": ["a", "b c"], "version": 1,
        "created_at": "2024-04-01T00:00:00.000001Z", "updated_at": "2024-04-01T00:00:00.000001Z",
    });
    expect_fields(&tasks[0], &expected);
    for task in &tasks[1..] {
        assert_eq!(
            (&task["completed"], &task["completed_at"]),
            (&json!(false), &Value::Null),
            "{task}"
        );
    }
}

#[test]
fn what_is_ambiguous_stops_with_the_options_to_add() {
    let app = TestApp::start();
    let from = other(
        "CREATE TABLE tasks (id int, user_id int, title text, done bool, status text, due_date date, deadline date, priority int);
         CREATE SCHEMA old; CREATE TABLE old.todos (id int, title text); CREATE TABLE old.\"Users\" (id int, mail text);
         CREATE TABLE \"user\" (id int);
         INSERT INTO tasks VALUES (1, 7, 't', true, 'closed', NULL, NULL, 3), (2, 7, 't', true, 'closed', NULL, NULL, 1);",
    );
    let problem = unclear(&app, &from, &[]);
    for part in [
        "add --tasks old.todos or --tasks tasks",
        "add --users old.Users or --users user",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    let problem = unclear(
        &app,
        &from,
        &["--tasks", "old.todos", "--users", "old.Users"],
    );
    assert!(problem.contains("add --map user_id=NAME"), "{problem}");
    let mut options = vec![
        "--tasks",
        "tasks",
        "--users",
        "old.Users",
        "--map",
        "users.email=mail",
    ];
    let problem = unclear(&app, &from, &options);
    for part in [
        "--map completed=done or --map completed=status",
        "--map due_date=due_date or --map due_date=deadline",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    options.extend(["--map", "completed=status", "--map", "due_date="]);
    let problem = unclear(&app, &from, &options);
    for part in [
        "--value 'completed:closed=…' (2 rows), each with one of true, false",
        "--value 'priority:1=…' (1 rows) --value 'priority:3=…' (1 rows), each with one of low, medium, high",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    options.extend([
        "--value",
        "completed:closed=true",
        "--value",
        "priority:1=high",
        "--value",
        "priority:3=low",
    ]);
    for (wrong, word) in [
        (
            ["--map", "colour=done"],
            "must be FIELD=COLUMN with one of the fields id, user_id, title",
        ),
        (["--map", "title"], "must be FIELD=COLUMN"),
        (["--map", "title=name"], "--map title=name: there is none"),
        (["--tasks", "task"], "--tasks task: there is none"),
        (["--value", "priority:3=lowest"], "priority:3"),
    ] {
        let problem = unclear(&app, &from, &[&options[..], &wrong].concat());
        assert!(problem.contains(word), "{problem}");
    }
    imported(&app, &from, &options);
    let tasks = tasks_of(&app, "7");
    let shown = |task: &Value| (task["completed"].clone(), task["priority"].clone());
    let mut shown: Vec<_> = tasks.iter().map(shown).collect();
    shown.sort_by_key(|(_, priority)| priority.to_string());
    assert_eq!(
        shown,
        [(json!(true), json!("high")), (json!(true), json!("low"))]
    );
}

#[test]
fn without_a_table_of_tasks_nothing_is_imported() {
    let app = TestApp::start();
    let from = other("CREATE TABLE notes (id int); CREATE TABLE users (id int)");
    let problem = unclear(&app, &from, &[]);
    assert!(
        problem.contains("nothing with a usual name is there: add --tasks NAME"),
        "{problem}"
    );
    // The tables of this program are not those of another.
    let problem = unclear(&app, &app.database, &[]);
    assert!(problem.contains("add --tasks NAME"), "{problem}");
    for (url, word) in [
        ("postgresql://u:hunter2@127.0.0.1:1/x", "127.0.0.1:1"),
        ("mysql://u:hunter2@h/x", "--from"),
    ] {
        let problem = unclear(&app, url, &[]);
        assert!(
            problem.contains(word) && !problem.contains("hunter2"),
            "{problem}"
        );
    }
    let from = other(USUAL);
    let output = import(&app, &from, &[]);
    assert!(
        output.status.success() && rows(&app).is_empty(),
        "{output:?}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("With --yes"));
}

#[test]
fn rows_that_break_a_rule_are_left_out_and_counted() {
    let from = other(
        "CREATE TABLE tasks (id text, user_id text, title text, description text, due_date text, tags text);
         INSERT INTO tasks VALUES ('1', 'u', 'kept', NULL, 'infinity', ''), ('2', 'u', '', NULL, NULL, NULL),
             ('3', 'u', repeat('x', 201), NULL, NULL, NULL), ('4', NULL, 't', NULL, NULL, NULL),
             ('5', 'u', 't', repeat('x', 3000), NULL, NULL), (NULL, 'u', 'without id', NULL, '2030-01-01', 'a, b,,c'),
             ('6', E'a\nb', 't', NULL, NULL, NULL), ('7', 'u', NULL, repeat('x', 10000000), NULL, NULL),
             ('8', repeat('u', 256), 't', NULL, NULL, NULL), ('9', 'u', repeat('é', 200), repeat('é', 2000), NULL, '[1]');",
    );
    let app = TestApp::start();
    let report = imported(&app, &from, &[]);
    for line in [
        "  1 left out: due_date must be a date (2026-01-31) or a timestamp with offset (2026-01-31T09:30:00Z) (first: 1)",
        "  2 left out: title must have 1 to 200 characters (first: 2)",
        "  1 left out: description must have at most 2000 characters (first: 5)",
        "  3 left out: user_id must have 1 to 255 characters (first: 6)",
    ] {
        assert_eq!(
            report.lines().filter(|found| *found == line).count(),
            2,
            "{line}\n{report}"
        );
    }
    assert!(
        report.lines().any(|line| line == "  1 imported"),
        "{report}"
    );
    assert_eq!(tasks_of(&app, "u")[0]["tags"], json!(["a", "b", "c"]));
}

#[test]
fn what_has_happened_here_since_an_import_stays() {
    let (app, from) = (TestApp::start(), other(USUAL));
    sql(
        &from,
        "INSERT INTO task (owner_id, title) VALUES (1, 'Deleted here'), (1, 'Changed here')",
    );
    imported(&app, &from, &[]);
    let user = app.user("1");
    for task in tasks_of(&app, "1") {
        let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
        match task["title"].as_str().unwrap() {
            "Deleted here" => drop(user.delete(&path).expect(204)),
            "Changed here" => drop(user.patch(&path, json!({"title": "New title"})).expect(200)),
            _ => {}
        }
    }
    let login = |email| {
        Login::of(
            app.address,
            &try_log_in(app.address, email, "correct horse").expect(200),
        )
    };
    let changes =
        json!({"email": "new@example.org", "current_password": "correct horse", "name": null});
    login("a@example.org")
        .actor()
        .patch("/api/auth/me", changes)
        .expect(200);
    let before = rows(&app);
    let report = imported(&app, &from, &[]);
    done(
        &report,
        "tasks: task",
        &["1 deleted here", "4 get a new id", "3 here already"],
    );
    assert_eq!(rows(&app), before);

    login("new@example.org")
        .actor()
        .send_json(
            "DELETE",
            "/api/auth/me",
            json!({"password": "correct horse"}),
        )
        .expect(204);
    let report = imported(&app, &from, &[]);
    assert!(
        report.contains("4 of users deleted here") || report.contains("3 of users deleted here"),
        "{report}"
    );
    assert!(has_no_row(&app, "1"), "{:?}", rows(&app));
}

/// Whether this user has no row left.
fn has_no_row(app: &TestApp, user: &str) -> bool {
    let select =
        "SELECT FROM todo.tasks WHERE user_id = $1 UNION ALL SELECT FROM todo.users WHERE id = $1";
    app.sql().query(select, &[&user]).unwrap().is_empty()
}

#[test]
fn a_disabled_user_stays_disabled() {
    let (app, from) = (TestApp::start(), other(USUAL));
    sql(&from, "UPDATE \"user\" SET is_active = false WHERE id = 1");
    for _ in 0..2 {
        imported(&app, &from, &[]);
        try_log_in(app.address, "a@example.org", "correct horse").expect(403);
    }
    wait_until(|| app.user("1").get("/api/tasks").status == 401);
    let enabled = run(&app.database, &["user", "enable", "1"], "");
    assert!(enabled.status.success(), "{enabled:?}");
    imported(&app, &from, &[]);
    try_log_in(app.address, "a@example.org", "correct horse").expect(200);
    sql(
        &from,
        "ALTER TABLE \"user\" DROP is_active, ADD disabled int DEFAULT 1",
    );
    let app = TestApp::start();
    imported(&app, &from, &[]);
    try_log_in(app.address, "a@example.org", "correct horse").expect(403);
}

#[test]
fn an_address_belongs_to_one_account() {
    let (app, from) = (TestApp::start(), other(USUAL));
    Login::register(app.address, "b@example.org");
    sql(
        &from,
        "INSERT INTO \"user\" (email, hashed_password) SELECT emails.email, hashed_password FROM (VALUES
             ('a@example.ORG'), ('not an address'), ('')) AS emails (email), \"user\" WHERE id = 1",
    );
    let report = imported(&app, &from, &[]);
    for line in [
        "need a password: \"2\" null",
        "need an address: \"3\" null",
        "need an address: \"4\" null",
        "need an address: \"5\" null",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    let login = try_log_in(app.address, "a@example.org", "correct horse");
    assert_eq!(Login::of(app.address, &login.expect(200)).id(), "1");
    let set = run(
        &app.database,
        &["user", "email", "3", "c@example.org", "--id"],
        "",
    );
    assert!(set.status.success(), "{set:?}");
    try_log_in(app.address, "c@example.org", "correct horse").expect(200);
    let before = rows(&app);
    imported(&app, &from, &[]);
    assert_eq!(rows(&app), before);
}

#[test]
fn a_user_known_from_tokens_gets_the_imported_account() {
    let (app, from) = (TestApp::start(), other(USUAL));
    app.user("1").task("made here");
    app.user("2").task("made here");
    sql(
        &from,
        "UPDATE \"user\" SET hashed_password = '' WHERE id = 2",
    );
    let report = imported(&app, &from, &[]);
    done(&report, "users: user", &["1 here already", "1 imported"]);
    try_log_in(app.address, "a@example.org", "correct horse").expect(200);
    assert_eq!(tasks_of(&app, "1").len(), 2);
    assert!(hash_is_null(&app, "2"));
}

fn hash_is_null(app: &TestApp, id: &str) -> bool {
    let select = "SELECT password_hash IS NULL AND email IS NULL FROM todo.users WHERE id = $1";
    app.sql().query_one(select, &[&id]).unwrap().get(0)
}

#[test]
fn the_server_and_doctor_name_the_command_until_there_are_users() {
    let database = other(USUAL);
    let offer =
        "task has tasks of another program, and there are none here; `todo-api import --from";
    let doctor = || String::from_utf8(run(&database, &["doctor"], "").stdout).unwrap();
    assert!(doctor().contains(offer), "{}", doctor());
    let server = Process::start(&database, &[]);
    assert!(server.wait_for("ready: ").contains(offer));
    assert!(doctor().contains(offer), "{}", doctor());
    server.user("u").task("t");
    drop(server);
    assert!(!doctor().contains(offer), "{}", doctor());
    let server = Process::start(&database, &[]);
    assert!(!server.wait_for("ready: ").contains(offer));
    let server = Process::start(&fresh_database(), &[]);
    assert!(!server.wait_for("ready: ").contains("import"));
    // The same database can be both.
    let report = run(&database, &["import", "--from", &database, "--yes"], "");
    assert!(report.status.success(), "{report:?}");
}
