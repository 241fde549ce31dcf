//! Audit lines: one for each event, with user, client and request id, and without secrets.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::actors::Actor;
use crate::support::app::SECRET;
use crate::support::jwt::{Key, now};
use crate::support::login::PASSWORD;
use crate::support::postgres::{fresh_database, sql};
use crate::support::process::{Process, command};

const NEW_PASSWORD: &str = "a better password";

/// The last audit line of a log, and what every one must say.
#[track_caller]
fn check(log: &str, event: &str, user: &str, client: &str, request_id: &str) -> Value {
    let line = log.lines().last().unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["logger"], "audit", "{line}");
    assert_eq!(line["level"], "INFO", "{line}");
    assert_eq!(line["event"], event, "{line}");
    assert_eq!(line["user"], user, "{line}");
    assert_eq!(line["client"], client, "{line}");
    assert_eq!(line["request_id"], request_id, "{line}");
    line
}

#[test]
fn every_event_is_one_line_with_user_client_and_request_id_and_no_secret() {
    let database = fresh_database();
    let server = Process::serve(&database, &[("LOG_FORMAT", "json")]);
    let mut whole = String::new();
    // Sends a request from an address of its own, and returns the answer's body and the audit line.
    let mut act =
        |who: &Actor, request: (&str, &str, Value, u16), event: &str, user: Option<&str>| {
            let (method, target, body, status) = request;
            let headers = [
                ("Content-Type", "application/json"),
                ("X-Forwarded-For", "192.0.2.7"),
                ("X-Request-ID", event),
            ];
            let body = (!body.is_null()).then(|| body.to_string());
            let answer = who
                .send(method, target, &headers, body.as_deref().map(str::as_bytes))
                .expect(status);
            let log = server.wait_for(&format!("\"event\":\"{event}\""));
            let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let user = user.or(answer["user"]["id"].as_str()).unwrap_or_default();
            let line = check(&log, event, user, "192.0.2.7", event);
            whole.push_str(&log);
            (answer, line)
        };
    let anonymous = server.anonymous();
    let bearer = |answer: &Value| {
        let value = format!("Bearer {}", answer["access_token"].as_str().unwrap());
        Actor::with_authorization(server.address, &value)
    };
    let account = json!({"email": "me@example.org", "password": PASSWORD});
    let register = ("POST", "/api/auth/register", account.clone(), 201);
    let (first, _) = act(&anonymous, register, "account_created", None);
    let id = first["user"]["id"].as_str().unwrap().to_owned();
    let login = || ("POST", "/api/auth/login", account.clone(), 200);
    let (second, _) = act(&anonymous, login(), "login", Some(&id));
    let me = bearer(&second);
    let user = Some(id.as_str());

    let name = ("PATCH", "/api/auth/me", json!({"name": "Me"}), 200);
    act(&me, name, "name_changed", user);
    let email = json!({"email": "new@example.org", "current_password": PASSWORD});
    act(
        &me,
        ("PATCH", "/api/auth/me", email, 200),
        "email_changed",
        user,
    );
    let token = json!({"name": "script", "current_password": PASSWORD});
    let create = ("POST", "/api/auth/tokens", token, 201);
    let (token, line) = act(&me, create, "api_token_created", user);
    assert_eq!(line["api_token"], token["id"]);
    let target = format!("/api/auth/tokens/{}", token["id"].as_str().unwrap());
    let delete = ("DELETE", target.as_str(), Value::Null, 204);
    let (_, line) = act(&me, delete, "api_token_deleted", user);
    assert_eq!(line["api_token"], token["id"]);
    let foreign = ("GET", "/api/somebody/tasks", Value::Null, 403);
    let (_, line) = act(&me, foreign, "foreign_path", user);
    assert_eq!(line["other_user"], "somebody");

    let refresh = json!({"refresh_token": first["refresh_token"]});
    anonymous
        .post("/api/auth/refresh", refresh.clone())
        .expect(200);
    sql(
        &database,
        "UPDATE todo.refresh_tokens SET used_at = used_at - interval '1 hour' WHERE used_at IS NOT NULL",
    );
    let reuse = ("POST", "/api/auth/refresh", refresh, 401);
    act(&anonymous, reuse, "refresh_token_reused", user);
    let passwords = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let change = ("PUT", "/api/auth/password", passwords, 204);
    act(&me, change, "password_changed", user);
    act(
        &me,
        ("POST", "/api/auth/logout", Value::Null, 204),
        "logout",
        user,
    );
    let tasks = || ("GET", "/api/tasks", Value::Null, 401);
    act(&me, tasks(), "revoked_token_refused", user);
    let expired = Key::secret(SECRET).token(&json!({"sub": "u1", "exp": now() - 60}));
    let late = Actor::with_authorization(server.address, &format!("Bearer {expired}"));
    act(&late, tasks(), "expired_token_refused", Some("u1"));

    let account = json!({"email": "new@example.org", "password": NEW_PASSWORD});
    let login = || ("POST", "/api/auth/login", account.clone(), 200);
    let (third, _) = act(&anonymous, login(), "login", user);
    let all = ("POST", "/api/auth/logout-all", Value::Null, 204);
    act(&bearer(&third), all, "logout_all", user);
    let (fourth, _) = act(&anonymous, login(), "login", user);
    let confirm = json!({"password": NEW_PASSWORD});
    let delete = ("DELETE", "/api/auth/me", confirm, 204);
    act(&bearer(&fourth), delete, "account_deleted", user);

    for (arguments, event) in [
        (["disable", "--id", "u1"], "account_disabled"),
        (["enable", "--id", "u1"], "account_enabled"),
    ] {
        let output = command(&[("DATABASE_URL", &database), ("LOG_FORMAT", "json")])
            .arg("user")
            .args(arguments)
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let line = log
            .lines()
            .find(|line| line.contains("\"audit\""))
            .unwrap_or_default();
        check(line, event, "u1", "command", "");
        whole.push_str(&log);
    }

    let mut secrets = vec![
        PASSWORD,
        NEW_PASSWORD,
        SECRET,
        &expired,
        "$argon2",
        "example.org",
    ];
    for answer in [&first, &second, &third, &fourth, &token] {
        secrets.extend(
            ["access_token", "refresh_token", "token"]
                .map(|name| answer[name].as_str().unwrap_or(SECRET)),
        );
    }
    for secret in secrets {
        assert!(!whole.contains(secret), "{secret} is in {whole}");
    }
}
