//! The command line, as a person meets it.

use std::process::Output;

use crate::support::app::SECRET;
use crate::support::http;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, run};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts that the program ended with this code and one line on standard error, and gives that line.
#[track_caller]
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stdout(output), "");
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    line
}

#[test]
fn help_and_version_are_there() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["serve", "--help"],
        &["token", "-h"],
    ] {
        let output = run(arguments, &[]);
        assert!(output.status.success());
        let text = stdout(&output);
        for word in [
            "serve",
            "migrate",
            "token",
            "healthcheck",
            "--user",
            "--hours",
            ".env.example",
        ] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100));
    }
    for argument in ["--version", "-V"] {
        assert_eq!(
            stdout(&run(&[argument], &[])),
            format!("todo-api {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn what_is_not_understood_is_said_and_exits_2() {
    for (arguments, word) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["-x"], "-x"),
        (&["dance"], "dance"),
        (&["serve", "now"], "now"),
        (&["serve", "--user", "x"], "--user"),
        (&["token"], "--user"),
        (&["token", "--user"], "--user"),
        (&["token", "--user", ""], "--user"),
        (&["token", "--user", "u", "--hours", "soon"], "--hours"),
        (&["token", "--user", "u", "--hours", "-1"], "--hours"),
        (&["token", "--user", "u", "--hours", "NaN"], "--hours"),
    ] {
        let line = complaint(&run(arguments, &[("BETTER_AUTH_SECRET", SECRET)]), 2);
        assert!(line.contains(word) && line.contains("--help"), "{line}");
    }
}

#[test]
fn a_bad_setting_stops_the_start_with_one_line() {
    for (variable, value) in [
        ("BETTER_AUTH_SECRET", "too short"),
        ("DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("WORKERS", "many"),
        ("LISTEN", "everywhere"),
        ("LOG_LEVEL", "loud"),
    ] {
        let mut environment = vec![
            ("BETTER_AUTH_SECRET", SECRET),
            ("DATABASE_URL", "postgresql://u@127.0.0.1:1/x"),
        ];
        environment.retain(|(name, _)| *name != variable);
        environment.push((variable, value));
        let line = complaint(&run(&["serve"], &environment), 1);
        assert!(line.contains(variable) && !line.contains(value), "{line}");
    }
    let line = complaint(&run(&[], &[("LISTEN", "0.0.0.0:0")]), 1);
    assert!(line.contains("ENVIRONMENT"), "{line}");
}

#[test]
fn a_printed_token_opens_the_door() {
    let server = Process::serve(&fresh_database(), &[]);
    let ask = |arguments: &[&str]| {
        let output = run(arguments, &[("BETTER_AUTH_SECRET", SECRET)]);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        let authorization = format!("Bearer {}", stdout(&output).trim_end());
        http::send(
            server.address,
            "GET",
            "/api/me/tasks",
            &[("Authorization", &authorization)],
            None,
        )
    };
    ask(&["token", "--user", "me"]).expect(200);
    ask(&[
        "token",
        "--user=me",
        "--email",
        "me@example.org",
        "--hours",
        "0.5",
    ])
    .expect(200);
    ask(&["token", "--user", "you"]).expect(403);
}

#[test]
fn a_secret_is_made_and_kept_where_none_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let environment = [("DATA_DIR", data.to_str().unwrap())];
    assert!(
        run(&["token", "--user", "me"], &environment)
            .status
            .success()
    );
    let made = std::fs::read_to_string(data.join("secret")).unwrap();
    assert!(
        run(&["token", "--user", "me"], &environment)
            .status
            .success()
    );
    assert_eq!(std::fs::read_to_string(data.join("secret")).unwrap(), made);
}

#[test]
fn an_empty_secret_file_is_not_taken_for_none_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (empty, data) = (path("empty"), path("data"));
    std::fs::write(&empty, "\n").unwrap();
    let environment = [
        ("BETTER_AUTH_SECRET_FILE", empty.as_str()),
        ("DATA_DIR", &data),
    ];
    let line = complaint(&run(&["token", "--user", "me"], &environment), 1);
    assert!(
        line.contains("BETTER_AUTH_SECRET_FILE names a file that is empty"),
        "{line}"
    );
    assert!(!std::path::Path::new(&data).exists(), "nothing is made up");
}

#[test]
fn the_healthcheck_answers_by_exit_code() {
    let server = Process::serve(&fresh_database(), &[]);
    let listen = server.address.to_string();
    let alive = run(&["healthcheck"], &[("LISTEN", &listen)]);
    assert!(
        alive.status.success() && stdout(&alive).contains("healthy"),
        "{alive:?}"
    );
    drop(server);
    let line = complaint(&run(&["healthcheck"], &[("LISTEN", &listen)]), 1);
    assert!(line.contains("does not answer"), "{line}");
}
