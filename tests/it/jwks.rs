//! Key sets of other issuers, at an address or in a file: keys are added, withdrawn, or cannot be fetched.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_api::auth::jwks::Timing;
use todo_api::auth::token::{Expected, TokenVerifier};

use crate::support::app::SECRET;
use crate::support::hold::wait_until;
use crate::support::jwt::{Key, base64url, claims, key_set, now};
use crate::support::key_server::{KeyServer, Publishes};
use crate::support::postgres::fresh_database;
use crate::support::process::Process;
use crate::support::tls::Certificate;
use crate::support::{Actor, Answer, TestApp};

const UNKNOWN: &str = "Invalid token: its key is not known here";

/// Fetches without pauses, and allows each client more fetches than any test causes.
const QUICK: Timing = Timing {
    refill: Duration::from_millis(1),
    spacing: Duration::ZERO,
    max_age: Duration::from_secs(600),
    wait: Duration::from_secs(5),
    retry: (Duration::from_millis(20), Duration::from_millis(20)),
};
/// Allows each client five fetches.
const FIVE: Timing = Timing {
    refill: Duration::from_secs(600),
    ..QUICK
};

fn ask(app: &TestApp, token: &str) -> Answer {
    ask_at(app.address, token)
}

fn ask_at(address: SocketAddr, token: &str) -> Answer {
    Actor::with_token(address, token).get("/api/tasks")
}

/// A server that fetches this key set.
fn server(keys: &KeyServer, timing: Timing) -> TestApp {
    TestApp::with_verifier(TokenVerifier::new(SECRET, None).trusting(keys.keys(timing)))
}

fn publishing(keys: &[&Key]) -> Publishes {
    Publishes::Body(key_set(keys))
}

/// Waits until a token is accepted. Until then the answer is 503.
#[track_caller]
fn wait_until_accepted(app: &TestApp, token: &str) {
    wait_until_accepted_at(app.address, token);
}

#[track_caller]
fn wait_until_accepted_at(address: SocketAddr, token: &str) {
    wait_until(|| {
        let answer = ask_at(address, token);
        if answer.status != 200 {
            unavailable(&answer);
        }
        answer.status == 200
    });
}

/// After 503 a client keeps its token.
#[track_caller]
fn unavailable(answer: &Answer) {
    answer.expect_error(503, "SERVICE_UNAVAILABLE");
    assert_eq!(answer.header("Retry-After"), Some("1"));
}

#[test]
fn a_token_signed_with_a_published_key_is_accepted() {
    let keys = [Key::ed25519("ed"), Key::p256("ec"), Key::rsa("rsa")];
    let published = KeyServer::start(publishing(&[&keys[0], &keys[1], &keys[2]]));
    let app = server(&published, FIVE);
    wait_until_accepted(&app, &keys[0].token(&claims("u1")));
    for key in &keys {
        let token = key.token(&claims("u1"));
        let actor = Actor::with_token(app.address, token);
        let task = actor.task(key.algorithm());
        assert_eq!(task["user_id"], "u1");
        actor.get("/api/u1/tasks").expect(200);
        actor.get("/api/u2/tasks").expect(403);
    }
    assert_eq!(app.user("u1").get("/api/tasks").json()["count"], 3);
    assert_eq!(published.asked(), 1);
}

#[test]
fn new_keys_are_accepted_and_withdrawn_ones_refused() {
    let (old, new) = (Key::ed25519("old"), Key::p256("new"));
    let published = KeyServer::start(publishing(&[&old]));
    let app = server(&published, QUICK);
    let (with_old, with_new) = (old.token(&claims("u1")), new.token(&claims("u1")));
    wait_until_accepted(&app, &with_old);
    let sentence = ask(&app, &with_new).expect_error(401, "UNAUTHORIZED");
    assert_eq!(sentence, UNKNOWN);

    // During a rotation both keys are published.
    published.publish(publishing(&[&old, &new]));
    ask(&app, &with_new).expect(200);
    ask(&app, &with_old).expect(200);

    published.publish(publishing(&[&new]));
    let unknown = Key::ed25519("unknown").token(&claims("u1"));
    ask(&app, &unknown).expect_error(401, "UNAUTHORIZED");
    let sentence = ask(&app, &with_old).expect_error(401, "UNAUTHORIZED");
    assert_eq!(sentence, UNKNOWN);
    ask(&app, &with_new).expect(200);
}

#[test]
fn a_withdrawn_key_is_refused_without_a_request_for_another() {
    let key = Key::ed25519("a");
    let published = KeyServer::start(publishing(&[&key]));
    let aging = Timing {
        max_age: Duration::from_millis(200),
        ..QUICK
    };
    let app = server(&published, aging);
    let token = key.token(&claims("u1"));
    wait_until_accepted(&app, &token);
    published.publish(Publishes::Body(json!({ "keys": [] }).to_string()));
    wait_until(|| ask(&app, &token).status == 401);

    // A server without requests does not fetch.
    let asked = published.asked();
    thread::sleep(3 * aging.max_age);
    assert_eq!(published.asked(), asked);
}

#[test]
fn a_client_may_cause_five_fetches_and_then_has_to_wait() {
    let (key, new) = (Key::ed25519("a"), Key::ed25519("b"));
    let published = KeyServer::start(publishing(&[&key]));
    let app = server(&published, FIVE);
    let good = key.token(&claims("u1"));
    wait_until_accepted(&app, &good);
    for number in 0..5 {
        let token = Key::ed25519(&format!("unknown-{number}")).token(&claims("u1"));
        let sentence = ask(&app, &token).expect_error(401, "UNAUTHORIZED");
        assert_eq!(sentence, UNKNOWN);
    }
    assert_eq!(published.asked(), 6);
    published.publish(publishing(&[&key, &new]));
    // Without a fetch the server cannot know that the key is published now.
    let with_new = new.token(&claims("u1"));
    unavailable(&ask(&app, &with_new));
    ask(&app, &good).expect(200);
    assert_eq!(published.asked(), 6);
}

#[test]
fn each_client_has_its_own_limit_of_fetches() {
    let (key, new) = (Key::ed25519("a"), Key::ed25519("b"));
    let published = KeyServer::start(publishing(&[&key]));
    let url = format!("http://{}/api/auth/jwks", published.address);
    let settings = [
        ("AUTH_JWKS_URL", url.as_str()),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    let ask = |client: &str, token: &str| {
        Actor::with_token(server.address, token).send(
            "GET",
            "/api/tasks",
            &[("X-Forwarded-For", client)],
            None,
        )
    };
    let unknown = Key::ed25519("unknown").token(&claims("u1"));
    wait_until(|| {
        // While fetches are held back, the answer is not 401.
        let answer = ask("192.0.2.1", &unknown);
        published.asked() == 6 && answer.status == 503
    });
    published.publish(publishing(&[&key, &new]));
    let with_new = new.token(&claims("u1"));
    unavailable(&ask("192.0.2.1", &with_new));
    wait_until(|| ask("192.0.2.2", &with_new).status == 200);
    ask("192.0.2.1", &with_new).expect(200);
}

#[test]
fn requests_with_unknown_keys_count_against_their_address() {
    let key = Key::ed25519("a");
    let published = KeyServer::start(publishing(&[&key]));
    let url = format!("http://{}/api/auth/jwks", published.address);
    let settings = [
        ("AUTH_JWKS_URL", url.as_str()),
        ("RATE_LIMIT_ANON_PER_HOUR", "8"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    let good = key.token(&claims("u1"));
    wait_until(|| ask_at(server.address, &good).status == 200);
    published.publish(Publishes::Nothing);
    let unknown = Key::ed25519("unknown").token(&claims("u1"));
    wait_until(|| ask_at(server.address, &unknown).status == 429);
    let asked = published.asked();
    ask_at(server.address, &unknown).expect_error(429, "RATE_LIMITED");
    ask_at(server.address, &good).expect(200);
    assert!(
        published.asked() <= asked + 1,
        "only the server's own attempts"
    );
}

#[test]
fn a_key_published_during_a_fetch_is_never_refused() {
    let (key, new) = (Key::ed25519("a"), Key::ed25519("b"));
    let published = KeyServer::start(publishing(&[&key]));
    let app = server(&published, QUICK);
    wait_until_accepted(&app, &key.token(&claims("u1")));
    // The answer to this fetch is the old set, but it comes after the new key is published.
    published.publish(Publishes::Late(
        Duration::from_millis(500),
        key_set(&[&key]),
    ));
    let address = app.address;
    let unknown = Key::ed25519("unknown").token(&claims("u1"));
    let asking = thread::spawn(move || ask_at(address, &unknown));
    published.wait_until_asked(2);
    published.publish(publishing(&[&key, &new]));
    let with_new = new.token(&claims("u1"));
    wait_until_accepted(&app, &with_new);
    asking.join().unwrap().expect_error(401, "UNAUTHORIZED");
}

#[test]
fn valid_tokens_are_never_refused_while_keys_rotate() {
    let first = Key::ed25519("0");
    let published = KeyServer::start(publishing(&[&first]));
    let timing = Timing {
        spacing: Duration::from_millis(50),
        ..QUICK
    };
    let app = server(&published, timing);
    wait_until_accepted(&app, &first.token(&claims("u1")));
    for number in 1..20 {
        let key = Key::ed25519(&number.to_string());
        published.publish(publishing(&[&key]));
        let token = key.token(&claims("u1"));
        let address = app.address;
        thread::scope(|scope| {
            for _ in 0..6 {
                // During a slow fetch on a busy machine the answer is 503.
                scope.spawn(|| wait_until_accepted_at(address, &token));
            }
        });
    }
    assert_eq!(published.asked(), 20);
}

#[test]
fn a_slow_key_set_delays_one_request_and_no_other_token() {
    let (key, new) = (Key::ed25519("a"), Key::ed25519("b"));
    let published = KeyServer::start(publishing(&[&key]));
    let timing = Timing {
        wait: Duration::from_secs(2),
        ..QUICK
    };
    let app = server(&published, timing);
    let (good, with_new) = (key.token(&claims("u1")), new.token(&claims("u1")));
    wait_until_accepted(&app, &good);
    published.publish(Publishes::Silence(Duration::from_secs(4)));
    // More requests than workers.
    let address = app.address;
    let took = thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let begun = Instant::now();
                    unavailable(&ask_at(address, &with_new));
                    begun.elapsed()
                })
            })
            .collect();
        published.wait_until_asked(2);
        let begun = Instant::now();
        ask(&app, &good).expect(200);
        assert!(
            begun.elapsed() < timing.wait,
            "tokens with known keys do not wait"
        );
        asking
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let waited = took.iter().filter(|took| **took >= timing.wait).count();
    assert_eq!(waited, 1, "{took:?}");

    published.publish(publishing(&[&key, &new]));
    wait_until_accepted(&app, &with_new);
}

#[test]
fn keys_stay_in_use_while_they_cannot_be_fetched() {
    let (key, new) = (Key::ed25519("a"), Key::ed25519("b"));
    let published = KeyServer::start(publishing(&[&key]));
    let app = server(&published, QUICK);
    let (good, with_new) = (key.token(&claims("u1")), new.token(&claims("u1")));
    wait_until_accepted(&app, &good);
    // An error status with the right keys in its body, as a cache may send.
    let of_status = |status, field| Publishes::Status(status, field, key_set(&[&key, &new]));
    for trouble in [
        Publishes::Nothing,
        Publishes::Body("<html>It works!</html>".to_owned()),
        Publishes::Body("{}".to_owned()),
        Publishes::Body(String::new()),
        of_status(500, "Server: x".to_owned()),
        of_status(404, "Server: x".to_owned()),
        of_status(203, "Server: x".to_owned()),
        of_status(302, format!("Location: http://{}/other", published.address)),
        Publishes::Endless(300 * 1024),
    ] {
        published.publish(trouble);
        // This request starts a fetch. After a failure the server tries again by itself.
        unavailable(&ask(&app, &with_new));
        published.wait_until_asked(published.asked() + 2);
        unavailable(&ask(&app, &with_new));
        ask(&app, &good).expect(200);
        app.user("u1").get("/api/tasks").expect(200);
    }
    published.publish(publishing(&[&key, &new]));
    wait_until_accepted(&app, &with_new);
}

#[test]
fn a_server_starts_without_the_keys_and_fetches_them_later() {
    let key = Key::ed25519("a");
    let published = KeyServer::start(Publishes::Status(
        502,
        "Server: x".to_owned(),
        String::new(),
    ));
    let app = server(&published, QUICK);
    let token = key.token(&claims("u1"));
    published.wait_until_asked(2);
    unavailable(&ask(&app, &token));
    let keys = || app.anonymous().get("/health/ready").expect(200).json()["checks"]["keys"].clone();
    assert_eq!(keys(), "missing");
    // Tokens that the secret signs need no key set.
    app.user("u1").get("/api/tasks").expect(200);
    let none = Key::secret(SECRET).token_with(&json!({ "alg": "none" }), &claims("u1"));
    ask(&app, &none).expect_error(401, "UNAUTHORIZED");
    published.publish(publishing(&[&key]));
    wait_until_accepted(&app, &token);
    assert_eq!(keys(), "ready");
}

#[test]
fn a_failed_first_fetch_is_repeated_within_two_seconds() {
    let key = Key::ed25519("a");
    let published = KeyServer::start(Publishes::Nothing);
    let url = format!("http://{}/api/auth/jwks", published.address);
    let server = Process::start(&fresh_database(), &[("AUTH_JWKS_URL", url.as_str())]);
    server.wait_for("cannot be fetched");
    published.publish(publishing(&[&key]));
    let failed = Instant::now();
    published.wait_until_asked(2);
    assert!(
        failed.elapsed() < Duration::from_secs(2),
        "{:?}",
        failed.elapsed()
    );
    let token = key.token(&claims("u1"));
    wait_until(|| ask_at(server.address, &token).status == 200);
}

#[test]
fn issuer_and_audience_are_checked_in_tokens_of_other_issuers() {
    let key = Key::ed25519("a");
    let published = KeyServer::start(publishing(&[&key]));
    let expected = Expected {
        issuers: vec!["https://app.example".to_owned()],
        audiences: vec!["https://api.example".to_owned(), "todo".to_owned()],
    };
    let verifier = TokenVerifier::new(SECRET, None)
        .trusting(published.keys(FIVE))
        .expecting(expected);
    let app = TestApp::with_verifier(verifier);
    let of = |iss: Value, aud: Value| {
        let mut claims = claims("u1");
        (claims["iss"], claims["aud"]) = (iss, aud);
        claims
    };
    let good = of(json!("https://app.example"), json!("todo"));
    wait_until_accepted(&app, &key.token(&good));
    for key in [&key, &Key::secret(SECRET)] {
        ask(&app, &key.token(&good)).expect(200);
        let listed = of(
            json!("https://app.example"),
            json!(["x", "https://api.example"]),
        );
        ask(&app, &key.token(&listed)).expect(200);
        for (claims, claim) in [
            (of(json!("https://evil.example"), json!("todo")), "iss"),
            (of(json!("https://app.example/"), json!("todo")), "iss"),
            (of(json!(null), json!("todo")), "iss"),
            (
                json!({ "sub": "u1", "exp": now() + 60, "aud": "todo" }),
                "iss",
            ),
            (of(json!("https://app.example"), json!("other")), "aud"),
            (of(json!("https://app.example"), json!(["x", "y"])), "aud"),
            (of(json!("https://app.example"), json!([])), "aud"),
            (
                json!({ "sub": "u1", "exp": now() + 60, "iss": "https://app.example" }),
                "aud",
            ),
        ] {
            let sentence = ask(&app, &key.token(&claims)).expect_error(401, "UNAUTHORIZED");
            assert!(
                sentence.starts_with(&format!("Invalid token: the claim {claim} ")),
                "{claims}: {sentence}"
            );
        }
    }
    // The server's own tokens are not checked.
    app.user("u1").get("/api/tasks").expect(200);
    let ours = key.token(&of(json!("todo-api"), json!("todo")));
    ask(&app, &ours).expect_error(401, "UNAUTHORIZED");
}

#[test]
fn a_key_set_in_a_file_is_read_again_on_sighup() {
    let (old, new) = (Key::ed25519("a"), Key::p256("b"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    fs::write(
        &file,
        key_set(&[&old, &Key::secret("not a public key, but in the set")]),
    )
    .unwrap();
    let settings = [("AUTH_JWKS_FILE", file.to_str().unwrap())];
    let server = Process::serve(&fresh_database(), &settings);
    let ask = |key: &Key| ask_at(server.address, &key.token(&claims("u1")));
    ask(&old).expect(200);
    assert_eq!(ask(&new).expect_error(401, "UNAUTHORIZED"), UNKNOWN);

    fs::write(&file, key_set(&[&new])).unwrap();
    server.signal("HUP");
    wait_until(|| ask(&new).status == 200);
    assert_eq!(ask(&old).expect_error(401, "UNAUTHORIZED"), UNKNOWN);

    // While the file is half written or missing, the keys stay in use.
    for spoiled in ["", "{\"keys\":[", "{\"keys\":[]}"] {
        fs::write(&file, spoiled).unwrap();
        server.signal("HUP");
        server.wait_for("the keys read before stay in use");
        ask(&new).expect(200);
    }
    fs::remove_file(&file).unwrap();
    server.signal("HUP");
    server.wait_for("the keys read before stay in use");
    ask(&new).expect(200);
    server.user("u1").get("/api/tasks").expect(200);
}

#[test]
fn an_unusable_key_is_logged_and_a_set_without_usable_keys_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let settings = [("AUTH_JWKS_FILE", file.to_str().unwrap())];
    let small = json!({ "kty": "RSA", "n": base64url([0xff; 128]), "e": "AQAB", "kid": "small" });
    let symmetric = json!({ "kty": "oct", "k": base64url("hunter2"), "kid": "shared" });
    let good = Key::ed25519("a");
    fs::write(
        &file,
        json!({ "keys": [small, symmetric, good.jwk()] }).to_string(),
    )
    .unwrap();
    let server = Process::start(&fresh_database(), &settings);
    let log = server.wait_for("ready: ");
    assert!(
        log.contains("keys for tokens of other issuers: 1 from"),
        "{log}"
    );
    assert!(log.contains("key 1: an RSA key must have 2048"), "{log}");
    assert!(log.contains("key 2: it is symmetric"), "{log}");
    assert!(
        !log.contains("hunter2") && !log.contains(&base64url("hunter2")),
        "{log}"
    );
    drop(server);

    for (text, reason) in [
        (
            json!({ "keys": [small, symmetric] }).to_string(),
            "no key that can be used",
        ),
        (json!({ "keys": [] }).to_string(), "no key that can be used"),
        ("<html>".to_owned(), "it is no JSON Web Key Set"),
        (" ".repeat(300 * 1024), "more than 262144 bytes"),
    ] {
        fs::write(&file, text).unwrap();
        refuses_to_start(&settings, reason);
    }
    fs::remove_file(&file).unwrap();
    refuses_to_start(&settings, "cannot be read");
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    refuses_to_start(&settings, "it is not a file");
}

/// Asserts that the program ends at once, with a line that names the setting and this reason.
#[track_caller]
fn refuses_to_start(settings: &[(&str, &str)], reason: &str) {
    let server = Process::start("postgresql://none@127.0.0.1:1/none", settings);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("AUTH_JWKS_FILE: ") && log.contains(reason),
        "{log}"
    );
}

#[test]
fn the_program_reads_the_settings_of_key_set_issuer_and_audience() {
    let key = Key::rsa("a");
    let published = KeyServer::start(publishing(&[&key]));
    let url = format!(
        "http://localhost:{}/api/auth/jwks",
        published.address.port()
    );
    let settings = [
        ("AUTH_JWKS_URL", url.as_str()),
        ("JWT_ISSUER", "https://app.example"),
        ("JWT_AUDIENCE", "https://app.example, todo"),
        // A fetch from this machine uses no proxy.
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    let server = Process::serve(&fresh_database(), &settings);
    let ask = |claims: &Value| ask_at(server.address, &key.token(claims));
    let mut good = claims("u1");
    (good["iss"], good["aud"]) = (json!("https://app.example"), json!("todo"));
    wait_until(|| ask(&good).status == 200);
    ask(&claims("u1")).expect_error(401, "UNAUTHORIZED");
    // SIGHUP starts a fetch.
    let other = Key::ed25519("b");
    published.publish(publishing(&[&other]));
    server.signal("HUP");
    published.wait_until_asked(2);
    wait_until(|| ask(&good).status == 401);
}

#[test]
fn a_key_set_behind_an_untrusted_certificate_is_refused() {
    let certificate = Certificate::make();
    let [cert, key] = certificate.settings();
    let impostor = Process::serve(&fresh_database(), &[(cert.0, &cert.1), (key.0, &key.1)]);
    let url = format!("https://localhost:{}/health", impostor.address.port());
    let server = Process::start(&fresh_database(), &[("AUTH_JWKS_URL", &url)]);
    let log = server.wait_for("cannot be fetched: ");
    assert!(log.contains("invalid peer certificate"), "{log}");
    server.wait_for("ready: ");
    unavailable(&ask_at(
        server.address,
        &Key::ed25519("a").token(&claims("u1")),
    ));
    server.user("u1").get("/api/tasks").expect(200);
}
