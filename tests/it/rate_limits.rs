//! Rate limits: per user, and per address without an accepted token.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::login::Login;
use crate::support::postgres::{fresh_database, socket_file, sql};
use crate::support::process::{Process, free_address};
use crate::support::proxy::Proxy;
use crate::support::{Actor, Answer};

/// A server with the default limits and these settings. An empty setting means the default.
fn limited(settings: &[(&str, &str)]) -> Process {
    let mut all = vec![
        ("RATE_LIMIT_PER_HOUR", ""),
        ("RATE_LIMIT_ANON_PER_HOUR", ""),
    ];
    all.extend_from_slice(settings);
    Process::serve(&fresh_database(), &all)
}

/// Asserts the fields of the limit, and returns the seconds until more requests are left.
#[track_caller]
fn expect_limit(answer: &Answer, limit: u64, remaining: u64) -> u64 {
    let field = |name: &str| -> Option<u64> { answer.header(name)?.parse().ok() };
    assert_eq!(field("X-RateLimit-Limit"), Some(limit), "{answer:?}");
    assert_eq!(
        field("X-RateLimit-Remaining"),
        Some(remaining),
        "{answer:?}"
    );
    assert_eq!(answer.header("RateLimit-Limit"), None, "{answer:?}");
    field("X-RateLimit-Reset").unwrap()
}

#[track_caller]
fn expect_no_limit(answer: &Answer) {
    let named = |(name, _): &&(String, String)| name.to_lowercase().contains("ratelimit");
    assert_eq!(answer.headers.iter().find(named), None, "{answer:?}");
}

#[test]
fn the_1001st_request_of_an_hour_is_refused_and_another_user_is_not_affected() {
    let server = limited(&[]);
    let (busy, other) = (server.user("busy"), server.user("other"));
    for left in (0..1000).rev() {
        let reset = expect_limit(&busy.get("/api/tasks").expect(200), 1000, left);
        assert!((3590..=3660).contains(&reset), "{reset}");
    }
    let refused = busy.get("/api/tasks");
    let message = refused.expect_error(429, "RATE_LIMITED");
    let seconds = expect_limit(&refused, 1000, 0);
    assert_eq!(
        refused.header("Retry-After"),
        Some(seconds.to_string().as_str())
    );
    assert_eq!(
        message,
        format!("at most 1000 requests an hour are allowed; try again in {seconds} s")
    );
    // Writes are refused too, and requests with a user id in the path.
    busy.post("/api/tasks", json!({"title": "x"}))
        .expect_error(429, "RATE_LIMITED");
    busy.get(&busy.own("/tasks"))
        .expect_error(429, "RATE_LIMITED");
    busy.get("/api/other/tasks")
        .expect_error(429, "RATE_LIMITED");

    expect_limit(&other.get("/api/tasks").expect(200), 1000, 999);
    server.wait_for("status=429");
}

#[test]
fn every_answer_to_a_user_names_the_limit() {
    let server = limited(&[("RATE_LIMIT_PER_HOUR", "10")]);
    let user = server.user("u");
    let unknown = "/api/tasks/0190b7c6-0000-7000-8000-000000000000";
    let answers = [
        user.get("/api/tasks").expect(200),
        user.post("/api/tasks", json!({"title": "x"})).expect(201),
        user.post("/api/tasks", json!({})).expect(422),
        user.get(unknown).expect(404),
        user.get("/api/another/tasks").expect(403),
        user.get("/api/tasks?limit=x").expect(400),
        user.send(
            "POST",
            "/api/tasks",
            &[("Content-Type", "text/plain")],
            Some(b"x"),
        )
        .expect(415),
        user.send("HEAD", "/api/tasks", &[], None).expect(200),
    ];
    for (before, answer) in answers.iter().enumerate() {
        expect_limit(answer, 10, 9 - before as u64);
    }
    // Requests that are answered before the user is known do not count.
    expect_no_limit(&user.get("/nowhere").expect(404));
    expect_no_limit(&user.put("/api/tasks", json!({})).expect(405));
    expect_limit(&user.get("/api/tasks").expect(200), 10, 1);
}

#[test]
fn requests_of_a_user_count_together_from_every_address() {
    let server = limited(&[("RATE_LIMIT_PER_HOUR", "2")]);
    let user = server.user("u");
    let from = |address| user.send("GET", "/api/tasks", &[("X-Forwarded-For", address)], None);
    from("192.0.2.1").expect(200);
    from("192.0.2.2").expect(200);
    from("192.0.2.3").expect(429);
}

#[test]
fn requests_without_an_accepted_token_count_by_address() {
    let server = limited(&[("RATE_LIMIT_ANON_PER_HOUR", "3")]);
    let anonymous = server.anonymous();
    let forger = Actor::with_authorization(server.address, "Bearer no.good.token");
    let ask = |who: &Actor, address: &str| {
        who.send("GET", "/api/tasks", &[("X-Forwarded-For", address)], None)
    };
    expect_limit(&ask(&anonymous, "192.0.2.1").expect(401), 3, 2);
    expect_limit(&ask(&forger, "192.0.2.1").expect(401), 3, 1);
    expect_limit(&ask(&anonymous, "192.0.2.1").expect(401), 3, 0);
    let refused = ask(&forger, "192.0.2.1");
    refused.expect_error(429, "RATE_LIMITED");
    assert_eq!(refused.header("WWW-Authenticate"), None);
    expect_limit(&refused, 3, 0);
    expect_limit(&ask(&anonymous, "192.0.2.2").expect(401), 3, 2);

    // A user with a token at the same address has a separate limit.
    let user = server.user("u");
    expect_limit(&ask(&user, "192.0.2.1").expect(200), 1000, 999);

    // An IPv6 /64 counts as one address.
    for (address, status) in [
        ("2001:db8::1", 401),
        ("2001:db8::2", 401),
        ("2001:db8:0:0:ffff::", 401),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::", 401),
    ] {
        ask(&anonymous, address).expect(status);
    }
}

#[test]
fn monitoring_does_not_count() {
    let server = limited(&[("RATE_LIMIT_ANON_PER_HOUR", "1")]);
    let anonymous = server.anonymous();
    anonymous.get("/api/tasks").expect(401);
    anonymous.get("/api/tasks").expect(429);
    for target in ["/", "/health", "/health/ready"] {
        for _ in 0..3 {
            expect_no_limit(&anonymous.get(target).expect(200));
        }
    }
    expect_no_limit(
        &anonymous
            .send("OPTIONS", "/api/tasks", &[], None)
            .expect(204),
    );
}

#[test]
fn zero_means_no_limit() {
    let server = limited(&[
        ("RATE_LIMIT_PER_HOUR", "0"),
        ("RATE_LIMIT_ANON_PER_HOUR", "0"),
    ]);
    expect_no_limit(&server.user("u").get("/api/tasks").expect(200));
    expect_no_limit(&server.anonymous().get("/api/tasks").expect(401));
}

#[test]
fn on_a_direct_address_a_trusted_proxy_names_the_client() {
    let direct = free_address();
    let listen = format!("{},direct:{direct}", free_address());
    let _server = limited(&[("LISTEN", &listen), ("RATE_LIMIT_ANON_PER_HOUR", "1")]);
    let anonymous = Actor::anonymous(direct);
    for (address, status) in [("192.0.2.1", 401), ("192.0.2.1", 429), ("192.0.2.2", 401)] {
        let says = [("X-Forwarded-For", address)];
        anonymous
            .send("GET", "/api/tasks", &says, None)
            .expect(status);
    }
}

#[test]
fn a_refused_request_costs_no_transaction() {
    let database = fresh_database();
    let proxy = Proxy::to(&socket_file());
    let settings = [
        ("RATE_LIMIT_ANON_PER_HOUR", "5"),
        ("RATE_LIMIT_PER_HOUR", "20"),
    ];
    let server = Process::serve(&proxy.url(&database), &settings);
    let login = Login::register(server.address, "me@example.org");
    let script = || Actor::with_token(server.address, login.api_token());
    let (known, unknown) = (script(), script());
    known.get("/api/tasks").expect(200);
    let invented = |number: usize| {
        Actor::with_token(server.address, format!("todo_{number:043}")).get("/api/tasks")
    };
    for number in 0..4 {
        invented(number).expect(401);
    }
    let refused = |what: &str, ask: &dyn Fn(usize) -> Answer| {
        // The server reads revocations once a second, and looks up a known API token as often. The first request does both.
        thread::sleep(Duration::from_millis(1_100));
        let began = Instant::now();
        ask(0).expect_error(429, "RATE_LIMITED");
        let (before, mut refusals) = (proxy.sent(), 0);
        while began.elapsed() < Duration::from_millis(500) {
            refusals += 1;
            ask(refusals).expect_error(429, "RATE_LIMITED");
        }
        let sent = proxy.sent() - before;
        assert!(
            sent == 0 && refusals >= 50,
            "{what}: {refusals} refusals, {sent} messages to PostgreSQL"
        );
    };
    refused("invented token", &invented);
    refused("good token that is not in the cache", &|_| {
        unknown.get("/api/tasks")
    });
    // The cached token is valid, even after its second.
    thread::sleep(Duration::from_millis(1_100));
    while known.get("/api/tasks").status == 200 {}
    let uses = "UPDATE todo.api_tokens SET last_used_at = '2020-01-01Z'";
    sql(&database, uses);
    refused("user", &|_| known.get("/api/tasks"));
    let list = || login.actor().get("/api/auth/tokens");
    list().expect_error(429, "RATE_LIMITED");
    let mut client = ::postgres::Client::connect(&database, ::postgres::NoTls).unwrap();
    let noted = "SELECT count(*) FROM todo.api_tokens WHERE last_used_at > '2020-01-02Z'";
    let noted: i64 = client.query_one(noted, &[]).unwrap().get(0);
    assert_eq!(noted, 0, "the use of a refused token is not noted");
}
