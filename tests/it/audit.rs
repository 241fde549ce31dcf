//! Audit lines: one for each event, with user, client and request id, and without secrets.

use serde_json::{Value, json};

use crate::support::actors::Actor;
use crate::support::app::SECRET;
use crate::support::jwt::{Key, now};
use crate::support::login::PASSWORD;
use crate::support::postgres::{fresh_database, sql};
use crate::support::process::Process;
use crate::user_command::run_with;

const NEW_PASSWORD: &str = "a better password";
const EMAIL: &str = "me@example.org";
const NEW_EMAIL: &str = "new@example.org";
const CLIENT: &str = "192.0.2.7";

/// Method, target, body (`Value::Null` for none), and the expected status.
type Request<'r> = (&'r str, &'r str, Value, u16);

/// A server, and the log of it and of the commands.
struct Scene {
    database: String,
    server: Process,
    log: String,
    /// Secrets that the log must not contain.
    secrets: Vec<String>,
}

impl Scene {
    fn open() -> Scene {
        let database = fresh_database();
        let server = Process::serve(&database, &[("LOG_FORMAT", "json")]);
        Scene {
            database,
            server,
            log: String::new(),
            secrets: [PASSWORD, NEW_PASSWORD, SECRET, "$argon2", "example.org"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    /// Sends a request and checks its audit lines. Returns the body and the last line. Without `user`, the lines must name the
    /// user in the answer.
    #[track_caller]
    fn act(
        &mut self,
        who: &Actor,
        (method, target, body, status): Request,
        events: &[&str],
        user: Option<&str>,
    ) -> (Value, Value) {
        let request_id = events.join("-");
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Forwarded-For", CLIENT),
            ("X-Request-ID", &request_id),
        ];
        let body = (!body.is_null()).then(|| body.to_string());
        let answer = who
            .send(method, target, &headers, body.as_deref().map(str::as_bytes))
            .expect(status);
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        for name in ["access_token", "refresh_token", "token"] {
            let secret = answer[name].as_str().map(str::to_owned);
            self.secrets.extend(secret);
        }
        let user = user.or(answer["user"]["id"].as_str()).unwrap_or_default();
        let mut line = Value::Null;
        for event in events {
            // An unexpected line of an earlier request is part of this log and fails the check.
            let log = self.server.wait_for(&format!("\"event\":\"{event}\""));
            line = check(&log, event, user, CLIENT, &request_id);
            self.log.push_str(&log);
        }
        (answer, line)
    }

    /// Runs a command, and checks and returns its audit line. Without `user`, the line must name the user whose id the command
    /// prints last.
    #[track_caller]
    fn command(&mut self, arguments: &[&str], event: &str, user: Option<&str>) -> Value {
        let settings = [
            ("DATABASE_URL", self.database.as_str()),
            ("LOG_FORMAT", "json"),
        ];
        // Some commands read a password.
        let output = run_with(&settings, arguments, PASSWORD);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let user = user.or(said.split_whitespace().last()).unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        self.log.push_str(&log);
        check(&log, event, user, "command", "")
    }

    fn bearer(&self, token: &str) -> Actor {
        Actor::with_token(self.server.address, token)
    }

    /// A token of a front end that shares the secret.
    fn front_end(&mut self, claims: &Value) -> Actor {
        let token = Key::secret(SECRET).token(claims);
        let actor = self.bearer(&token);
        self.secrets.push(token);
        actor
    }

    #[track_caller]
    fn log_in(&mut self, email: &str, password: &str, user: &str) -> Actor {
        let body = json!({"email": email, "password": password});
        let login = ("POST", "/api/auth/login", body, 200);
        let anonymous = self.server.anonymous();
        let (answer, _) = self.act(&anonymous, login, &["login"], Some(user));
        self.bearer(answer["access_token"].as_str().unwrap())
    }
}

/// Checks and returns the only audit line of a log.
#[track_caller]
fn check(log: &str, event: &str, user: &str, client: &str, request_id: &str) -> Value {
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["logger"] == "audit")
        .collect();
    let [line] = lines.as_slice() else {
        panic!("not one audit line: {log}");
    };
    assert_eq!(line["level"], "INFO", "{line}");
    assert_eq!(line["event"], event, "{line}");
    assert_eq!(line["user"], user, "{line}");
    assert_eq!(line["client"], client, "{line}");
    assert_eq!(line["request_id"], request_id, "{line}");
    line.clone()
}

#[test]
fn every_event_is_one_line_with_user_client_and_request_id_and_no_secret() {
    let mut scene = Scene::open();
    let id = change_an_account(&mut scene);
    refuse_tokens(&mut scene);
    log_out_without_a_session(&mut scene);
    end_everything(&mut scene, &id);
    run_commands(&mut scene);
    for secret in &scene.secrets {
        assert!(!scene.log.contains(secret), "{secret} is in {}", scene.log);
    }
}

/// Registers an account, changes it, and returns its id.
fn change_an_account(scene: &mut Scene) -> String {
    let anonymous = scene.server.anonymous();
    let account = json!({"email": EMAIL, "password": PASSWORD});
    let register = ("POST", "/api/auth/register", account, 201);
    let (first, _) = scene.act(&anonymous, register, &["account_created"], None);
    let id = first["user"]["id"].as_str().unwrap().to_owned();
    let me = scene.log_in(EMAIL, PASSWORD, &id);
    let user = Some(id.as_str());

    let name = ("PATCH", "/api/auth/me", json!({"name": "Me"}), 200);
    scene.act(&me, name, &["name_changed"], user);
    let email = |email: &str| json!({"email": email, "current_password": PASSWORD});
    let change = ("PATCH", "/api/auth/me", email("other@example.org"), 200);
    scene.act(&me, change, &["email_changed"], user);
    let mut both = email(NEW_EMAIL);
    both["name"] = "I".into();
    let both = ("PATCH", "/api/auth/me", both, 200);
    scene.act(&me, both, &["name_changed", "email_changed"], user);
    // A wrong password has an ordinary log line and no audit line.
    let wrong = json!({"email": EMAIL, "current_password": "a wrong password"});
    me.patch("/api/auth/me", wrong).expect(403);

    let token = json!({"name": "script", "current_password": PASSWORD});
    let create = ("POST", "/api/auth/tokens", token, 201);
    let (token, line) = scene.act(&me, create, &["api_token_created"], user);
    assert_eq!(line["api_token"], token["id"]);
    let target = format!("/api/auth/tokens/{}", token["id"].as_str().unwrap());
    let delete = ("DELETE", target.as_str(), Value::Null, 204);
    let (_, line) = scene.act(&me, delete, &["api_token_deleted"], user);
    assert_eq!(line["api_token"], token["id"]);
    let foreign = ("GET", "/api/somebody/tasks", Value::Null, 403);
    let (_, line) = scene.act(&me, foreign, &["foreign_path"], user);
    assert_eq!(line["other_user"], "somebody");

    let refresh = json!({"refresh_token": first["refresh_token"]});
    let refreshed = anonymous.post("/api/auth/refresh", refresh.clone());
    refreshed.expect(200);
    sql(
        &scene.database,
        "UPDATE todo.refresh_tokens SET used_at = used_at - interval '1 hour' WHERE used_at IS NOT NULL",
    );
    let reuse = ("POST", "/api/auth/refresh", refresh, 401);
    scene.act(&anonymous, reuse, &["refresh_token_reused"], user);
    let passwords = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let change = ("PUT", "/api/auth/password", passwords, 204);
    scene.act(&me, change, &["password_changed"], user);
    let logout = ("POST", "/api/auth/logout", Value::Null, 204);
    scene.act(&me, logout, &["logout"], user);
    let tasks = ("GET", "/api/tasks", Value::Null, 401);
    scene.act(&me, tasks, &["revoked_token_refused"], user);
    id
}

fn refuse_tokens(scene: &mut Scene) {
    let expired = scene.front_end(&json!({"sub": "u1", "exp": now() - 60}));
    let tasks = ("GET", "/api/tasks", Value::Null, 401);
    scene.act(&expired, tasks, &["expired_token_refused"], Some("u1"));
}

/// Logs out tokens without a session: one alone, and two that cannot be stored, so that all tokens issued before are refused.
fn log_out_without_a_session(scene: &mut Scene) {
    let mut token = |id: &str, issued_at: Option<u64>| {
        let mut claims = json!({"sub": "u1", "exp": now() + 600, "jti": id});
        if let Some(issued_at) = issued_at {
            claims["iat"] = issued_at.into();
        }
        scene.front_end(&claims)
    };
    let alone = token("alone", Some(now() - 30));
    let dated = token("dated", Some(now() - 30));
    let undated = token("undated", None);
    let logout = |status| ("POST", "/api/auth/logout", Value::Null, status);
    scene.act(&alone, logout(204), &["logout"], Some("u1"));
    let fill = |issued: &str| {
        format!(
            "INSERT INTO todo.revocations (kind, id, token, issued, until)
             SELECT 'token', 'u1', sha256(number::text::bytea), {issued}, now() + interval '1 hour'
             FROM generate_series(1, 1000) AS number"
        )
    };
    sql(&scene.database, &fill(&(now() - 100).to_string()));
    scene.act(&dated, logout(204), &["logout_all"], Some("u1"));
    // It has no `iat`, so it is still accepted.
    sql(&scene.database, &fill("NULL"));
    scene.act(&undated, logout(409), &["logout_all"], Some("u1"));
}

/// Ends all sessions, deletes the API tokens, and deletes the account.
fn end_everything(scene: &mut Scene, id: &str) {
    let api_tokens = json!({"api_tokens": true});
    let me = scene.log_in(NEW_EMAIL, NEW_PASSWORD, id);
    let plain = ("POST", "/api/auth/logout-all", Value::Null, 204);
    scene.act(&me, plain, &["logout_all"], Some(id));
    let me = scene.log_in(NEW_EMAIL, NEW_PASSWORD, id);
    let all = ("POST", "/api/auth/logout-all", api_tokens, 204);
    scene.act(&me, all, &["logout_all", "api_tokens_deleted"], Some(id));
    let me = scene.log_in(NEW_EMAIL, NEW_PASSWORD, id);
    let passwords = json!({
        "current_password": NEW_PASSWORD,
        "new_password": PASSWORD,
        "api_tokens": true,
    });
    let change = ("PUT", "/api/auth/password", passwords, 204);
    let events = ["password_changed", "api_tokens_deleted"];
    scene.act(&me, change, &events, Some(id));
    replace_a_session(scene, id);
    scene.command(
        &["user", "email", id, EMAIL, "--id"],
        "email_changed",
        Some(id),
    );
    let me = scene.log_in(EMAIL, PASSWORD, id);
    let confirm = json!({"password": PASSWORD});
    let delete = ("DELETE", "/api/auth/me", confirm, 204);
    scene.act(&me, delete, &["account_deleted"], Some(id));
}

/// Logs in to an account that has 100 sessions.
fn replace_a_session(scene: &mut Scene, id: &str) {
    const OLDEST: &str = "00000000-0000-4000-8000-000000000100";
    sql(
        &scene.database,
        &format!(
            "DELETE FROM todo.sessions WHERE user_id = '{id}';
             INSERT INTO todo.sessions (user_id, id, expires_at, access_expires_at, address, last_used_at)
             SELECT '{id}', ('00000000-0000-4000-8000-' || lpad(number::text, 12, '0'))::uuid, now() + interval '1 day',
                    now() + interval '1 hour', 'local', now() - number * interval '1 minute'
             FROM generate_series(1, 100) AS number"
        ),
    );
    let body = json!({"email": NEW_EMAIL, "password": PASSWORD});
    let login = ("POST", "/api/auth/login", body, 200);
    let anonymous = scene.server.anonymous();
    let request_id = "session_replaced-login";
    scene.act(&anonymous, login, &["session_replaced", "login"], Some(id));
    let line = scene
        .log
        .lines()
        .find(|line| line.contains(request_id) && line.contains("\"session_replaced\""))
        .unwrap();
    assert!(line.contains(OLDEST), "{line}");
    let end = format!("DELETE FROM todo.sessions WHERE user_id = '{id}'");
    sql(&scene.database, &end);
}

fn run_commands(scene: &mut Scene) {
    let add = ["user", "add", "added@example.org"];
    let line = scene.command(&add, "account_created", None);
    let id = line["user"].as_str().unwrap();
    let password = ["user", "password", "--id", id];
    scene.command(&password, "password_changed", Some(id));
    scene.command(
        &["user", "disable", "--id", "u1"],
        "account_disabled",
        Some("u1"),
    );
    scene.command(
        &["user", "enable", "--id", "u1"],
        "account_enabled",
        Some("u1"),
    );
    let create = ["api-token", "create", "--user", "u1", "--name", "script"];
    let line = scene.command(&create, "api_token_created", Some("u1"));
    let token = line["api_token"].as_str().unwrap();
    let revoke = ["api-token", "revoke", token, "--user", "u1"];
    let line = scene.command(&revoke, "api_token_deleted", Some("u1"));
    assert_eq!(line["api_token"], token);
    scene.command(
        &["user", "delete", "u1", "--yes"],
        "account_deleted",
        Some("u1"),
    );
}

#[test]
fn a_refused_token_is_a_line_with_its_user_only_if_its_signature_is_valid() {
    let settings = [
        ("LOG_FORMAT", "json"),
        ("JWT_ISSUER", "https://app.example"),
        ("JWT_AUDIENCE", "todo"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    let refuse = |key: &str, claim: &str, value: &Value| {
        let mut claims = json!({
            "sub": "u1", "exp": now() + 60, "iss": "https://app.example", "aud": "todo",
        });
        claims[claim] = value.clone();
        let token = Key::secret(key).token(&claims);
        let headers = [("X-Request-ID", claim), ("X-Forwarded-For", CLIENT)];
        Actor::with_token(server.address, token)
            .send("GET", "/api/tasks", &headers, None)
            .expect(401);
        // The access line is the last one of a request.
        server.wait_for("\"status\":401")
    };
    for (claim, value, event, reason) in [
        ("exp", json!(now() - 60), "expired_token_refused", None),
        (
            "exp",
            json!("tomorrow"),
            "invalid_token_refused",
            Some("the claim exp must be a time in seconds"),
        ),
        (
            "nbf",
            json!(now() + 60),
            "invalid_token_refused",
            Some("it is not valid yet"),
        ),
        (
            "iss",
            json!("https://other.example"),
            "invalid_token_refused",
            Some("the claim iss does not name an issuer that is accepted here"),
        ),
        (
            "aud",
            json!("other"),
            "invalid_token_refused",
            Some("the claim aud does not name an audience that is accepted here"),
        ),
    ] {
        let line = check(&refuse(SECRET, claim, &value), event, "u1", CLIENT, claim);
        assert_eq!(line["reason"].as_str(), reason, "{line}");
        let log = refuse(&"f".repeat(32), claim, &value);
        assert!(!log.contains("\"audit\"") && !log.contains("u1"), "{log}");
    }
}
