//! A drill: an access token is stolen, and its owner ends every access of the thief.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::actors::Actor;
use crate::support::app::SECRET;
use crate::support::http::Answer;
use crate::support::jwt::{Key, now};
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::fresh_database;
use crate::support::process::Process;

/// The new password of the owner.
const NEW_PASSWORD: &str = "staple correct horse";

/// Two instances on one database, and the tokens of the thief.
struct Scene {
    instances: [Process; 2],
    bearers: Vec<String>,
}

impl Scene {
    fn open() -> Scene {
        let database = fresh_database();
        Scene {
            instances: [0, 1].map(|_| Process::serve(&database, &[])),
            bearers: Vec::new(),
        }
    }

    fn actors(&self, bearer: &str) -> [Actor; 2] {
        self.instances
            .each_ref()
            .map(|server| Actor::with_token(server.address, bearer))
    }

    /// Steals a token, and checks that it works.
    #[track_caller]
    fn steal(&mut self, bearer: &str) {
        for actor in self.actors(bearer) {
            actor.get("/api/tasks").expect(200);
        }
        self.bearers.push(bearer.to_owned());
    }

    /// The thief tries to get longer access with each token. API tokens that the thief can make are added to the stolen ones.
    ///
    /// Every other change of the account must be refused with one of these statuses.
    fn create_what_can_be_created(&mut self, email: &str, refusals: &[u16]) -> usize {
        let mut made = 0;
        for (number, bearer) in self.bearers.clone().into_iter().enumerate() {
            let [actor, other] = self.actors(&bearer);
            // Four guesses in one network are below the limit on guesses.
            let network = format!("192.0.2.{number}");
            let send = |method, target, body: Value| {
                let headers = [
                    ("Content-Type", "application/json"),
                    ("X-Forwarded-For", network.as_str()),
                ];
                actor.send(method, target, &headers, Some(body.to_string().as_bytes()))
            };
            for body in [
                json!({"name": "thief"}),
                with_guess(json!({"name": "thief"})),
            ] {
                let answer = send("POST", "/api/auth/tokens", body);
                if answer.status == 201 {
                    self.steal(&text(&answer, "token"));
                    made += 1;
                }
            }
            let thief = json!({"email": "thief@example.org"});
            let password = json!({"new_password": "the thief's own"});
            for (method, target, body) in [
                ("PATCH", "/api/auth/me", thief.clone()),
                ("PATCH", "/api/auth/me", with_guess(thief)),
                ("PUT", "/api/auth/password", password.clone()),
                ("PUT", "/api/auth/password", with_guess(password)),
                ("DELETE", "/api/auth/me", json!({})),
                ("DELETE", "/api/auth/me", json!({"password": "a guess"})),
            ] {
                let refused = send(method, target, body);
                assert!(
                    refusals.contains(&refused.status),
                    "{method} {target}: {refused:?}"
                );
            }
            for actor in [&actor, &other] {
                let refresh = json!({"refresh_token": bearer});
                actor.post("/api/auth/refresh", refresh).expect(401);
            }
            try_log_in(self.instances[0].address, email, "a guess").expect(401);
            actor.task("of the thief");
        }
        made
    }

    /// Waits at most two seconds until every token of the thief is refused.
    #[track_caller]
    fn assert_all_refused(&self) {
        let began = Instant::now();
        let works = |bearer: &String| {
            self.actors(bearer).iter().any(|actor| {
                let status = actor.get("/api/tasks").status;
                assert!([200, 401].contains(&status), "{status}");
                status == 200
            })
        };
        while self.bearers.iter().any(works) {
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "a token of the thief still works"
            );
            thread::sleep(Duration::from_millis(50));
        }
        for bearer in &self.bearers {
            for actor in self.actors(bearer) {
                actor
                    .post("/api/auth/tokens", json!({"name": "t"}))
                    .expect(401);
                actor.get("/api/auth/me").expect(401);
            }
        }
    }
}

fn with_guess(mut body: Value) -> Value {
    body["current_password"] = "a guess".into();
    body
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap().to_owned()
}

/// A token of a front end that shares the secret.
fn front_end_token(user: &str, iat: u64) -> String {
    Key::secret(SECRET).token(&json!({"sub": user, "iat": iat, "exp": iat + 86_400}))
}

#[test]
fn nothing_made_with_a_stolen_token_outlives_a_new_password() {
    let mut scene = Scene::open();
    let address = scene.instances[0].address;
    let owner = Login::register(address, "me@example.org");
    let elsewhere = Login::again(address, "me@example.org");
    // An API token of the owner was stolen too.
    let body = json!({"name": "backup", "current_password": PASSWORD});
    let script = owner.actor().post("/api/auth/tokens", body).expect(201);
    scene.steal(&text(&script, "token"));
    let made = {
        let mut tokens = vec![
            owner.access_token().to_owned(),
            elsewhere.access_token().to_owned(),
        ];
        tokens.extend([now() - 20, now()].map(|iat| front_end_token(owner.id(), iat)));
        for token in tokens {
            scene.steal(&token);
        }
        // API tokens are accepted for tasks only.
        let script = scene.bearers.remove(0);
        let made = scene.create_what_can_be_created("me@example.org", &[403, 422]);
        scene.bearers.push(script);
        made
    };
    assert_eq!(made, 0, "every creation needs the password");
    for server in &scene.instances {
        assert!(owner.is_in_at(server.address), "the account still works");
    }
    // The thief has even used the refresh token of another session.
    let refreshed = elsewhere.refresh();
    scene.steal(refreshed.access_token());
    // `iat` counts in whole seconds.
    thread::sleep(Duration::from_millis(1_100));
    let change =
        json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD, "api_tokens": true});
    owner.actor().put("/api/auth/password", change).expect(204);
    scene.assert_all_refused();
    for login in [&owner, &elsewhere, &refreshed] {
        for server in &scene.instances {
            login.try_refresh_at(server.address).expect(401);
        }
    }
    try_log_in(address, "me@example.org", PASSWORD).expect(401);
    let back = Login::of(
        address,
        &try_log_in(address, "me@example.org", NEW_PASSWORD).expect(200),
    );
    for server in &scene.instances {
        assert!(back.is_in_at(server.address));
    }
    let left = back.actor().get("/api/auth/tokens").expect(200).json();
    assert_eq!(left["count"], 0);
}

#[test]
fn a_user_without_a_password_ends_everything_with_logout_all() {
    let mut scene = Scene::open();
    scene.steal(&front_end_token("outsider", now() - 200));
    scene.steal(&front_end_token("outsider", now() - 3_600));
    let made = scene.create_what_can_be_created("outsider@example.org", &[409, 422]);
    assert_eq!(made, 2, "only the recent token makes API tokens");
    thread::sleep(Duration::from_millis(1_100));
    let [owner, _] = scene.actors(&front_end_token("outsider", now()));
    let body = json!({"api_tokens": true});
    owner.post("/api/auth/logout-all", body).expect(204);
    scene.assert_all_refused();
    thread::sleep(Duration::from_millis(1_100));
    for actor in scene.actors(&front_end_token("outsider", now())) {
        actor.get("/api/tasks").expect(200);
    }
}
