//! `todo-api user` and `todo-api api-token`.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::support::actors::Actor;
use crate::support::app::SECRET;
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, command};

/// Runs a command on this database with this standard input.
pub fn run(database: &str, arguments: &[&str], input: &str) -> Output {
    let settings = [("DATABASE_URL", database), ("BETTER_AUTH_SECRET", SECRET)];
    run_with(&settings, arguments, input)
}

/// Runs a command with these settings and this on standard input.
pub fn run_with(settings: &[(&str, &str)], arguments: &[&str], input: &str) -> Output {
    let mut child = command(settings)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn output_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, word: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(word), "{text}");
}

#[test]
fn an_operator_manages_users() {
    let database = fresh_database();
    let server = Process::serve(&database, &[("REGISTRATION", "closed")]);
    let run = |arguments: &[&str], input: &str| run(&database, arguments, input);
    let added = output_of(&run(
        &["user", "add", "Me@Example.org", "--name", "Me"],
        &format!("{PASSWORD}\n"),
    ));
    assert!(added.contains("me@example.org"), "{added}");
    let login = Login::again(server.address, "me@example.org");
    assert!(added.contains(login.id()));
    refused(
        &run(&["user", "add", "me@example.org"], PASSWORD),
        1,
        "already",
    );
    refused(
        &run(&["user", "add", "other@example.org"], "short"),
        1,
        "8 to 128",
    );
    refused(&run(&["user", "add", "no-address"], PASSWORD), 2, "email");
    server.user("outsider").task("t");
    let list = output_of(&run(&["user", "list"], ""));
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(
        lines[0].contains("active") && lines[0].contains("me@example.org"),
        "{list}"
    );
    assert!(lines[1].starts_with("outsider\toutside\t"), "{list}");

    output_of(&run(
        &["user", "password", "me@example.org"],
        "another password\n",
    ));
    try_log_in(server.address, "me@example.org", PASSWORD).expect(401);
    try_log_in(server.address, "me@example.org", "another password").expect(200);
    login.try_refresh().expect(401);
    refused(
        &run(&["user", "password", "outsider"], PASSWORD),
        1,
        "no password here",
    );
    refused(
        &run(&["user", "password", "who@example.org"], PASSWORD),
        1,
        "no user",
    );

    let changed = output_of(&run(
        &["user", "email", "me@example.org", "New@example.org"],
        "",
    ));
    assert!(changed.contains("new@example.org"), "{changed}");
    try_log_in(server.address, "me@example.org", "another password").expect(401);
    try_log_in(server.address, "new@example.org", "another password").expect(200);
    output_of(&run(&["user", "add", "other@example.org"], PASSWORD));
    let email = |user: &str, email: &str| run(&["user", "email", user, email], "");
    refused(&email(login.id(), "OTHER@example.org"), 1, "already");
    refused(&email(login.id(), "no-address"), 2, "address");
    refused(&email("who@example.org", "a@example.org"), 1, "no user");
    refused(&email("outsider", "a@example.org"), 1, "no password here");
    output_of(&run(&["user", "delete", "other@example.org", "--yes"], ""));
    output_of(&email(login.id(), "me@example.org"));

    output_of(&run(&["user", "disable", login.id()], ""));
    try_log_in(server.address, "me@example.org", "another password").expect(403);
    assert!(output_of(&run(&["user", "list"], "")).contains("disabled"));
    output_of(&run(&["user", "enable", "me@example.org"], ""));
    try_log_in(server.address, "me@example.org", "another password").expect(200);
    refused(&run(&["user", "delete", "me@example.org"], ""), 2, "--yes");
    output_of(&run(&["user", "delete", "me@example.org", "--yes"], ""));
    try_log_in(server.address, "me@example.org", "another password").expect(401);
    for (words, problem) in [
        (&["user"][..], "user needs one of: add, list"),
        (&["user", "add"], "user add needs EMAIL"),
        (&["user", "list", "all"], "unexpected argument"),
        (&["user", "dance"], "no command"),
        (&["user", "add", "a@b.c", "hunter2"], "unexpected argument"),
        (&["user", "list", "--yes"], "--yes"),
    ] {
        refused(&run(words, ""), 2, problem);
    }
}

#[test]
fn an_unknown_user_is_disabled_by_id_only() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let run = |arguments: &[&str]| run(&database, arguments, "");
    for unknown in ["outsider", "who@example.org"] {
        refused(&run(&["user", "disable", unknown]), 1, "--id");
        refused(&run(&["user", "enable", unknown]), 1, "--id");
    }
    assert_eq!(output_of(&run(&["user", "list"])), "");
    output_of(&run(&["user", "disable", "outsider", "--id"]));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.user("outsider").get("/api/tasks").status == 200 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_token_for_an_address_is_that_of_its_account() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let login = Login::register(server.address, "me@example.org");
    let run = |arguments: &[&str]| run(&database, arguments, "");
    let me = |arguments: &[&str]| {
        let token = output_of(&run(arguments));
        let script = Actor::with_token(server.address, token.trim_end());
        let task = script.post("/api/tasks", serde_json::json!({"title": "t"}));
        task.expect(201).json()["user_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(me(&["token", "--user", "me@example.org"]), login.id());
    assert_eq!(me(&["token", "--user", login.id()]), login.id());
    assert_eq!(me(&["token", "--user", "outsider"]), "outsider");
    let odd = ["token", "--user", "who@example.org", "--id"];
    assert_eq!(me(&odd), "who@example.org");
    refused(&run(&["token", "--user", "no@example.org"]), 1, "no user");
    let by_id = ["api-token", "list", "--user", "me@example.org", "--id"];
    refused(&run(&by_id), 1, "no user");
    output_of(&run(&["api-token", "list", "--id", "--user", login.id()]));
}

#[test]
fn an_operator_manages_api_tokens() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let login = Login::register(server.address, "me@example.org");
    let run = |arguments: &[&str]| run(&database, arguments, "");
    let user = ["--user", "me@example.org"];
    let with = |words: &[&'static str]| [words, &user].concat();
    let token = output_of(&run(&with(&[
        "api-token",
        "create",
        "--name",
        "backup",
        "--scopes",
        "tasks:read",
        "--expires-at",
        "2999-01-01T00:00:00Z",
    ])));
    let script = Actor::with_token(server.address, token.trim_end());
    script.get("/api/tasks").expect(200);
    script
        .post("/api/tasks", serde_json::json!({"title": "t"}))
        .expect(403);
    let list = output_of(&run(&with(&["api-token", "list"])));
    assert!(
        list.contains("backup")
            && list.contains("tasks:read")
            && list.contains("2999")
            && !list.contains(token.trim_end()),
        "{list}"
    );
    let of_user = login.actor().get("/api/auth/tokens").expect(200).json();
    assert!(list.starts_with(of_user["tokens"][0]["id"].as_str().unwrap()));
    let id = list.split('\t').next().unwrap().to_owned();
    output_of(&run(&["api-token", "revoke", &id, "--user", login.id()]));
    std::thread::sleep(std::time::Duration::from_secs(2));
    script.get("/api/tasks").expect(401);
    refused(
        &run(&["api-token", "revoke", &id, "--user", login.id()]),
        1,
        "no API token",
    );
    refused(&run(&with(&["api-token", "create"])), 2, "--name");
    refused(
        &run(&with(&[
            "api-token",
            "create",
            "--name",
            "x",
            "--scopes",
            "admin",
        ])),
        2,
        "--scopes",
    );
    refused(
        &run(&with(&[
            "api-token",
            "create",
            "--name",
            "x",
            "--expires-at",
            "2001-01-01",
        ])),
        2,
        "--expires-at",
    );
    refused(&run(&["api-token", "list"]), 2, "--user");
    refused(
        &run(&["api-token", "list", "--user", "who@example.org"]),
        1,
        "no user",
    );
}
