//! Limits on guessing passwords.

use std::net::SocketAddr;
use std::thread;

use serde_json::json;

use crate::support::actors::Actor;
use crate::support::http::Answer;
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::{fresh_database, sql};
use crate::support::process::Process;

#[track_caller]
fn expect_limited(answer: &Answer) {
    answer.expect_error(429, "RATE_LIMITED");
    let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=3660).contains(&wait), "{wait}");
}

/// A login from this address, according to a trusted proxy.
fn log_in_from(server: SocketAddr, address: &str, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password}).to_string();
    Actor::anonymous(server).send(
        "POST",
        "/api/auth/login",
        &[("X-Forwarded-For", address)],
        Some(body.as_bytes()),
    )
}

#[test]
fn an_account_may_have_ten_failed_logins_from_one_network() {
    let server = Process::serve(&fresh_database(), &[]);
    let address = server.address;
    Login::register(address, "me@example.org");
    // All at once: a login that waits for a hashing thread counts too.
    let statuses: Vec<u16> = thread::scope(|scope| {
        let all: Vec<_> = (0..14)
            .map(|number| {
                let from = format!("2001:db8::{number:x}");
                scope.spawn(move || {
                    log_in_from(address, &from, "Me@example.org", "a wrong password").status
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (status, wanted) in [(401, 10), (429, 4)] {
        let number = statuses.iter().filter(|one| **one == status).count();
        assert_eq!(number, wanted, "{statuses:?}");
    }
    // The right password is refused too; otherwise the limit would only slow guessing down.
    let right_from = |from: &str| log_in_from(address, from, "me@example.org", PASSWORD);
    expect_limited(&right_from("2001:db8::ffff"));
    // Other networks and other accounts are not affected.
    right_from("2001:db8:0:1::").expect(200);
    try_log_in(address, "me@example.org", PASSWORD).expect(200);
    Login::register(address, "another@example.org");
    log_in_from(address, "2001:db8::1", "another@example.org", PASSWORD).expect(200);
    // An unknown address has the same limit.
    let unknown = || log_in_from(address, "198.51.100.1", "unknown@example.org", PASSWORD);
    for _ in 0..10 {
        unknown().expect(401);
    }
    expect_limited(&unknown());
}

#[test]
fn failed_logins_from_new_networks_are_limited_and_do_not_lock_out_known_networks() {
    let database = fresh_database();
    // 2 from each network, so 20 in total.
    let server = Process::serve(&database, &[("LOGIN_FAILURES_PER_ACCOUNT", "2")]);
    let address = server.address;
    let email = "me@example.org";
    let login = Login::register(address, email);
    let elsewhere = [("X-Forwarded-For", "2001:db8:1:1::1")];
    let body = json!({"refresh_token": login.refresh_token()}).to_string();
    let refresh = ("POST", "/api/auth/refresh");
    Actor::anonymous(address)
        .send(refresh.0, refresh.1, &elsewhere, Some(body.as_bytes()))
        .expect(200);
    log_in_from(address, "203.0.113.9", email, PASSWORD).expect(200);
    sql(
        &database,
        "UPDATE todo.session_networks SET last_used_at = now() - interval '31 days' WHERE network = '203.0.113.9'",
    );
    for account in [email, "unknown@example.org"] {
        for number in 0..20 {
            let from = format!("192.0.2.{number}");
            log_in_from(address, &from, account, "a wrong password").expect(401);
        }
        expect_limited(&log_in_from(address, "198.51.100.1", account, PASSWORD));
    }
    // Networks of the account's sessions of the last 30 days: by registration, and by a refresh.
    let from = |network: &str, password: &str| log_in_from(address, network, email, password);
    from("127.0.0.1", PASSWORD).expect(200);
    from("2001:db8:1:1::2", PASSWORD).expect(200);
    expect_limited(&from("203.0.113.9", PASSWORD));
    // Known networks still have their own limit.
    for _ in 0..2 {
        from("127.0.0.1", "a wrong password").expect(401);
    }
    expect_limited(&from("127.0.0.1", PASSWORD));
    from("2001:db8:1:1::3", PASSWORD).expect(200);
    // The networks are deleted with the account.
    let confirm = json!({"password": PASSWORD});
    login
        .actor()
        .send_json("DELETE", "/api/auth/me", confirm)
        .expect(204);
    let mut client = ::postgres::Client::connect(&database, ::postgres::NoTls).unwrap();
    let left = "SELECT count(*) FROM todo.session_networks";
    assert_eq!(client.query_one(left, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn one_network_has_one_limit_of_failed_logins_for_all_accounts() {
    let server = Process::serve(&fresh_database(), &[("LOGIN_FAILURES_PER_IP", "12")]);
    Login::register(server.address, "me@example.org");
    for number in 0..12 {
        // Many addresses of one network.
        let from = format!("2001:db8:0:1::{number:x}");
        log_in_from(server.address, &from, &format!("{number}@example.org"), "x").expect(401);
        if number == 11 {
            break;
        }
        // Successful logins do not count.
        log_in_from(server.address, &from, "me@example.org", PASSWORD).expect(200);
    }
    expect_limited(&log_in_from(
        server.address,
        "2001:db8:0:1:ffff::",
        "me@example.org",
        PASSWORD,
    ));
    log_in_from(server.address, "2001:db8:0:2::", "me@example.org", PASSWORD).expect(200);
}

#[test]
fn registrations_and_refreshes_are_limited_by_address() {
    let limits = [("REGISTRATIONS_PER_IP", "3"), ("REFRESHES_PER_IP", "5")];
    let server = Process::serve(&fresh_database(), &limits);
    let logins: Vec<Login> = (0..3)
        .map(|number| Login::register(server.address, &format!("{number}@example.org")))
        .collect();
    let body = json!({"email": "more@example.org", "password": PASSWORD});
    expect_limited(&server.anonymous().post("/api/auth/register", body));
    let mut login = logins[0].clone();
    for _ in 0..5 {
        login = login.refresh();
    }
    expect_limited(&login.try_refresh());
    assert!(login.is_in());
}

#[test]
fn parallel_successful_logins_do_not_count_as_guesses() {
    let server = Process::serve(
        &fresh_database(),
        &[
            ("LOGIN_FAILURES_PER_IP", "3"),
            ("LOGIN_FAILURES_PER_ACCOUNT", "2"),
        ],
    );
    let address = server.address;
    Login::register(address, "me@example.org");
    thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || try_log_in(address, "me@example.org", PASSWORD).status))
            .collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
}

#[test]
fn guesses_of_the_password_with_a_stolen_token_are_limited() {
    let server = Process::serve(&fresh_database(), &[]);
    let login = Login::register(server.address, "me@example.org");
    // A login without an email address counts too.
    let stolen = [login.actor(), server.user(login.id())];
    let guess = |number: usize| {
        let body = json!({"current_password": format!("guess number {number}"), "new_password": "my own password"});
        stolen[number % 2].put("/api/auth/password", body)
    };
    for number in 0..10 {
        guess(number).expect_error(422, "VALIDATION_ERROR");
    }
    expect_limited(&guess(10));
    let confirm = json!({"password": PASSWORD});
    expect_limited(&login.actor().send_json("DELETE", "/api/auth/me", confirm));
    let token = json!({"name": "t", "current_password": PASSWORD});
    expect_limited(&login.actor().post("/api/auth/tokens", token));
    let address = json!({"email": "new@example.org", "current_password": PASSWORD});
    expect_limited(&login.actor().patch("/api/auth/me", address));

    // The owner, on another network, can still change the password.
    let body =
        json!({"current_password": PASSWORD, "new_password": "another good password"}).to_string();
    let fields = [
        ("Content-Type", "application/json"),
        ("X-Forwarded-For", "198.51.100.7"),
    ];
    login
        .actor()
        .send("PUT", "/api/auth/password", &fields, Some(body.as_bytes()))
        .expect(204);
}

#[test]
fn wrong_passwords_for_a_new_token_or_address_count_as_guesses() {
    let server = Process::serve(&fresh_database(), &[]);
    let login = Login::register(server.address, "me@example.org");
    let guess = |number: usize| {
        let password = format!("guess number {number}");
        if number.is_multiple_of(2) {
            let body = json!({"name": "t", "current_password": password});
            login.actor().post("/api/auth/tokens", body)
        } else {
            let body = json!({"email": "new@example.org", "current_password": password});
            login.actor().patch("/api/auth/me", body)
        }
    };
    for number in 0..10 {
        guess(number).expect_error(403, "FORBIDDEN");
    }
    expect_limited(&guess(10));
    expect_limited(&guess(11));
}

#[test]
fn failed_logins_do_not_prevent_a_change_of_password() {
    let server = Process::serve(&fresh_database(), &[]);
    let login = Login::register(server.address, "me@example.org");
    for _ in 0..10 {
        try_log_in(server.address, "me@example.org", "a wrong password").expect(401);
    }
    expect_limited(&try_log_in(server.address, "me@example.org", PASSWORD));
    let body = json!({"current_password": PASSWORD, "new_password": "a better password"});
    login.actor().put("/api/auth/password", body).expect(204);
}

#[test]
fn a_password_hash_of_an_unknown_kind_matches_no_password() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let login = Login::register(server.address, "me@example.org");
    for hash in ["$2b$12$abcdefghijklmnopqrstuv", "hunter2hunter2"] {
        sql(
            &database,
            &format!("UPDATE todo.users SET password_hash = '{hash}'"),
        );
        try_log_in(server.address, "me@example.org", PASSWORD).expect(401);
        let log = server.wait_for("the stored password hash cannot be read");
        let line = log.lines().last().unwrap();
        assert!(
            line.contains("ERROR") && line.contains(login.id()),
            "{line}"
        );
        assert!(!log.contains("hunter2") && !log.contains("$2b"), "{log}");
        let body = json!({"current_password": PASSWORD, "new_password": "a better password"});
        login.actor().put("/api/auth/password", body).expect(422);
    }
}

#[test]
fn changes_of_the_address_share_the_limit_of_registrations() {
    let server = Process::serve(&fresh_database(), &[("REGISTRATIONS_PER_IP", "4")]);
    let login = Login::register(server.address, "me@example.org");
    let change = |number: usize| {
        login.actor().patch(
            "/api/auth/me",
            json!({"email": format!("{number}@example.org"), "current_password": PASSWORD}),
        )
    };
    for number in 0..3 {
        change(number).expect(200);
    }
    expect_limited(&change(3));
    login
        .actor()
        .patch("/api/auth/me", json!({"name": "N"}))
        .expect(200);
}

#[test]
fn a_failed_login_is_one_log_line_with_address_and_account() {
    let server = Process::serve(&fresh_database(), &[]);
    log_in_from(
        server.address,
        "192.0.2.7",
        "Me@example.org",
        "hunter2hunter2",
    )
    .expect(401);
    let log = server.wait_for("login failed");
    let line = log.lines().last().unwrap();
    assert!(
        line.contains("login failed: client=192.0.2.7 account=\"me@example.org\" request_id="),
        "{line}"
    );
    // Text that is not an address cannot look like another field of the line.
    log_in_from(
        server.address,
        "192.0.2.7",
        "x\" client=192.0.2.8 \n\"@example.org",
        "hunter2hunter2",
    )
    .expect(401);
    let log = server.wait_for("login failed");
    let line = log.lines().last().unwrap();
    assert!(line.contains("client=192.0.2.7 account=\"\""), "{line}");
    assert!(!log.contains("hunter2"), "{log}");
}
