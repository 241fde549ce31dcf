//! The command line.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use todo_api::config::settings::SETTINGS;

use crate::support::app::SECRET;
use crate::support::http;
use crate::support::postgres::fresh_database;
use crate::support::process::{Process, command, run};
use crate::support::tls::Certificate;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts that the program ended with this code and one line on standard error, and returns that line.
#[track_caller]
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stdout(output), "");
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    line
}

#[test]
fn help_and_version_are_printed() {
    let page = |arguments: &[&str]| {
        let output = run(arguments, &[]);
        assert!(output.status.success(), "{output:?}");
        let text = stdout(&output);
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        text
    };
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let text = page(arguments);
        for word in ["serve", "user add", "doctor", "--env-file", "help settings"] {
            assert!(text.contains(word), "{word}");
        }
    }
    let of_token = page(&["help", "token"]);
    assert!(
        of_token.starts_with("Usage: todo-api token --user USER [--id]"),
        "{of_token}"
    );
    assert!(of_token.contains("--hours N"), "{of_token}");
    assert_eq!(page(&["token", "--help"]), of_token);
    assert_eq!(page(&["token", "-h", "--user", "me"]), of_token);
    let of_user = page(&["user", "--help"]);
    assert_eq!(page(&["help", "user"]), of_user);
    assert!(
        of_user.contains(&page(&["user", "delete", "--help"])),
        "{of_user}"
    );
    let of_settings = page(&["help", "settings"]);
    assert!(
        SETTINGS
            .iter()
            .all(|setting| of_settings.contains(setting.name))
    );
    let line = complaint(&run(&["help", "dance"], &[]), 2);
    assert!(line.contains("dance"), "{line}");
    for argument in ["--version", "-V"] {
        assert_eq!(
            stdout(&run(&[argument], &[])),
            format!("todo-api {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn a_wrong_command_line_is_explained_and_exits_2() {
    for (arguments, word) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["-x"], "-x"),
        (&["dance"], "dance"),
        (&["user", "dance"], "user needs one of: add, list"),
        (&["token", "--id"], "todo-api token --help"),
        (&["serve", "now"], "now"),
        (&["serve", "--user", "x"], "--user"),
        (&["token"], "--user"),
        (&["token", "--user"], "--user"),
        (&["token", "--user", ""], "--user"),
        (&["token", "--user", "u", "--hours", "soon"], "--hours"),
        (&["token", "--user", "u", "--hours", "-1"], "--hours"),
        (&["token", "--user", "u", "--hours", "NaN"], "--hours"),
        (&["serve", "--env-file"], "--env-file"),
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
fn a_printed_token_is_accepted() {
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
fn only_serve_creates_data() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["user", "list"][..],
        &["user", "add", "me@example.org"],
        &["api-token", "list", "--user", "me"],
        &["token", "--user", "me"],
        &["token", "--user", "me@example.org"],
        &["maintenance"],
        &["migrate"],
    ] {
        let output = command(&[])
            .args(arguments)
            .current_dir(directory.path())
            .stdin(a_password())
            .output()
            .unwrap();
        let line = complaint(&output, 1);
        assert!(
            line.contains("no data in ./data") && line.contains("for the installed service"),
            "{line}"
        );
    }
    let output = run_in(directory.path(), &["doctor"], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).contains("WRONG  database: no data in ./data"));
    assert!(run_in(directory.path(), &["config"], &[]).status.success());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Standard input with a password.
fn a_password() -> std::process::Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"correct horse battery\n").unwrap();
    reader.into()
}

#[test]
fn an_empty_secret_file_is_an_error() {
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
    assert!(!std::path::Path::new(&data).exists(), "no data was created");
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

#[test]
fn the_healthcheck_works_over_tls_and_unix_sockets() {
    let certificate = Certificate::make();
    let tls = certificate.settings();
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("socket").display());
    let database = fresh_database();
    let mut environment: Vec<(&str, &str)> = tls
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let server = Process::serve(&database, &environment);
    let listen = server.address.to_string();
    environment.push(("LISTEN", &listen));
    let over_tls = run(&["healthcheck", "--ready"], &environment);
    assert!(over_tls.status.success(), "{over_tls:?}");
    let _server = Process::serve(&database, &[("LISTEN", &socket)]);
    let over_socket = run(&["healthcheck", "--ready"], &[("LISTEN", &socket)]);
    assert!(over_socket.status.success(), "{over_socket:?}");
}

#[test]
fn the_healthcheck_ends_in_time_at_a_server_that_accepts_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    // The backlog has room for one connection.
    let _waiting = UnixStream::connect(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    let began = Instant::now();
    let line = complaint(&run(&["healthcheck"], &[("LISTEN", &listen)]), 1);
    assert!(line.contains("does not answer"), "{line}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Runs the program in this directory.
fn run_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(environment)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// The line of `todo-api config` about a setting, with single spaces.
#[track_caller]
fn line_about(output: &Output, setting: &str) -> String {
    let lines = stdout(output);
    let line = lines
        .lines()
        .find(|line| line.split(' ').next() == Some(setting))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.join(" ")
}

#[test]
fn config_prints_the_source_of_every_setting_and_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("BETTER_AUTH_SECRET"), SECRET).unwrap();
    let file = directory.path().join("settings.env");
    std::fs::write(
        &file,
        "WORKERS=7\nLOG_LEVEL=debug\nBETTER_AUTH_SECRET_PREVIOUS='hunter2 hunter2 hunter2 hunter2 hunter2'\n",
    )
    .unwrap();
    let environment = [
        ("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap()),
        ("NEON_DB_URL", "postgresql://u:hunter2@db.example/x"),
        ("LOG_LEVEL", "warn"),
        ("DATA_DIR", "a\u{1b}[2Jb"),
    ];
    let file = file.to_str().unwrap();
    let output = run(&["config", "--env-file", file], &environment);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    assert!(
        !text.contains("hunter2") && !text.contains(SECRET),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(text.lines().count(), SETTINGS.len());
    for (setting, what) in [
        ("WORKERS", format!("7 (WORKERS in {file})")),
        ("LOG_LEVEL", "warn (the environment's LOG_LEVEL)".to_owned()),
        ("DB_POOL_SIZE", "9 (default)".to_owned()),
        ("ENVIRONMENT", "development (default)".to_owned()),
        (
            "DATABASE_URL",
            "(hidden) (the environment's NEON_DB_URL)".to_owned(),
        ),
        (
            "BETTER_AUTH_SECRET",
            "(hidden) (the systemd credential BETTER_AUTH_SECRET)".to_owned(),
        ),
        (
            "BETTER_AUTH_SECRET_PREVIOUS",
            format!("(hidden) (BETTER_AUTH_SECRET_PREVIOUS in {file})"),
        ),
    ] {
        assert_eq!(line_about(&output, setting), what);
    }

    // If a value is wrong, only that error is printed.
    let line = complaint(&run(&["config"], &[("WORKERS", "many"), ("PORT", "81")]), 1);
    assert!(line.contains("WORKERS must be"), "{line}");
}

#[test]
fn config_prints_effective_values_as_json_too() {
    let environment = [
        ("HOST", "::1"),
        ("WORKERS", "5"),
        ("BETTER_AUTH_SECRET", SECRET),
    ];
    let output = run(&["config", "--json"], &environment);
    let settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (setting, value, source) in [
        ("LISTEN", json!("[::1]:8000"), "default"),
        ("WORKERS", json!("5"), "the environment's WORKERS"),
        ("DB_POOL_SIZE", json!("7"), "default"),
        ("REGISTRATION", json!("open"), "default"),
        ("DATABASE_URL", json!(null), "default"),
        (
            "BETTER_AUTH_SECRET",
            json!(null),
            "the environment's BETTER_AUTH_SECRET",
        ),
    ] {
        assert_eq!(settings[setting]["value"], value, "{setting}");
        assert_eq!(settings[setting]["source"], source, "{setting}");
    }
    assert_eq!(settings["BETTER_AUTH_SECRET"]["secret"], true);
    assert_eq!(settings.as_object().unwrap().len(), SETTINGS.len());
    assert!(!stdout(&output).contains(SECRET));
}

#[test]
fn a_misspelt_setting_is_named_with_the_nearest_one() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("settings", "PORT=1\nFRONT_END=hunter2\n");
    let named = ["config", "--env-file", "settings"];
    let line = complaint(&run_in(directory.path(), &named, &[]), 1);
    assert!(line.contains("settings has FRONT_END in line 2"), "{line}");
    assert!(
        line.contains("the nearest is ") && !line.contains("hunter2"),
        "{line}"
    );
    write("settings", "WORKER=4\n");
    let line = complaint(&run_in(directory.path(), &named, &[]), 1);
    assert!(line.contains("the nearest is WORKERS"), "{line}");
    write(".env", "FRONT_END=hunter2\n");
    assert!(run_in(directory.path(), &["config"], &[]).status.success());
    write(".env", "DATABASE_URI=hunter2\n");
    let line = complaint(&run_in(directory.path(), &["config"], &[]), 1);
    assert!(line.contains("the nearest is DATABASE_URL"), "{line}");

    let output = run(&["config"], &[("WROKERS", "4"), ("HOSTNAME", "here")]);
    assert!(output.status.success(), "{output:?}");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        warning,
        "todo-api: the environment variable WROKERS is no setting; WORKERS is\n"
    );
}

#[test]
fn a_settings_file_is_read_in_development_or_when_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(directory.path().join(".env"), text).unwrap();
    let line_here = |arguments: &[&str], environment: &[(&str, &str)]| {
        line_about(&run_in(directory.path(), arguments, environment), "WORKERS")
    };
    write("WORKERS=7\nNEXT_PUBLIC_NAME=it's ours\n");
    assert_eq!(line_here(&["config"], &[]), "7 (WORKERS in .env)");
    // The environment overrides the file, even with an empty value.
    assert!(line_here(&["config"], &[("WORKERS", "3")]).starts_with("3 "));
    assert!(line_here(&["config"], &[("WORKERS", "")]).ends_with("(default)"));
    // `--env-file` replaces `.env`.
    std::fs::write(directory.path().join("other"), "PORT=1\n").unwrap();
    assert!(line_here(&["config", "--env-file", "other"], &[]).ends_with("(default)"));

    let production = [
        ("ENVIRONMENT", "production"),
        ("DATABASE_URL", "postgresql://u@db.example/x"),
        ("BETTER_AUTH_SECRET", SECRET),
    ];
    assert_eq!(line_here(&["config"], &production), "10 (default)");
    assert_eq!(
        line_here(&["--env-file", ".env", "config"], &production),
        "7 (WORKERS in .env)"
    );

    write("ENVIRONMENT=production\n");
    let line = complaint(&run_in(directory.path(), &["config"], &[]), 1);
    assert!(
        line.contains("ENVIRONMENT") && line.contains("--env-file"),
        "{line}"
    );
    write("WORKERS\n");
    let line = complaint(&run_in(directory.path(), &["serve"], &[]), 1);
    assert!(line.contains(".env") && line.contains("line 1"), "{line}");
    let line = complaint(&run(&["serve", "--env-file", "/nowhere/at/all"], &[]), 1);
    assert!(line.contains("/nowhere/at/all cannot be read"), "{line}");
}
