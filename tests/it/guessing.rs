//! How often one may try.

use std::net::SocketAddr;
use std::thread;

use serde_json::json;

use crate::support::actors::Actor;
use crate::support::http::Answer;
use crate::support::login::{Login, PASSWORD, try_log_in};
use crate::support::postgres::fresh_database;
use crate::support::process::Process;

#[track_caller]
fn expect_limited(answer: &Answer) {
    answer.expect_error(429, "RATE_LIMITED");
    let wait: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=3660).contains(&wait), "{wait}");
}

/// A login that a trusted proxy says comes from there.
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
fn an_account_is_guessed_at_ten_times() {
    let server = Process::serve(&fresh_database(), &[]);
    let address = server.address;
    Login::register(address, "me@example.org");
    // All at once: one that waits for its turn counts as well.
    let statuses: Vec<u16> = thread::scope(|scope| {
        let all: Vec<_> = (0..14)
            .map(|number| {
                let from = format!("192.0.2.{number}");
                scope.spawn(move || {
                    log_in_from(address, &from, "Me@example.org", "a wrong password").status
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 401).count(),
        10,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 429).count(),
        4,
        "{statuses:?}"
    );
    // Not even with the right one, or guessing would only be slower.
    expect_limited(&log_in_from(
        address,
        "192.0.2.99",
        "me@example.org",
        PASSWORD,
    ));
    // An unknown address is told the same.
    for _ in 0..10 {
        log_in_from(address, "198.51.100.1", "nobody@example.org", PASSWORD).expect(401);
    }
    expect_limited(&log_in_from(
        address,
        "198.51.100.2",
        "nobody@example.org",
        PASSWORD,
    ));
    Login::register(address, "another@example.org");
    try_log_in(address, "another@example.org", PASSWORD).expect(200);
}

#[test]
fn an_address_guesses_thirty_times_whatever_the_account() {
    let server = Process::serve(&fresh_database(), &[("LOGIN_FAILURES_PER_IP", "12")]);
    Login::register(server.address, "me@example.org");
    for number in 0..12 {
        // One network, many addresses of it.
        let from = format!("2001:db8:0:1::{number:x}");
        log_in_from(server.address, &from, &format!("{number}@example.org"), "x").expect(401);
        if number == 11 {
            break;
        }
        // What succeeds does not count.
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
fn many_right_logins_at_once_are_no_guessing() {
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
fn a_stolen_token_is_not_good_for_guessing_the_password() {
    let server = Process::serve(&fresh_database(), &[]);
    let login = Login::register(server.address, "me@example.org");
    // One that names no address counts no less.
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
fn strangers_do_not_lock_an_owner_out_of_their_account() {
    let server = Process::serve(&fresh_database(), &[]);
    let login = Login::register(server.address, "me@example.org");
    for number in 0..11 {
        let from = format!("192.0.2.{number}");
        log_in_from(server.address, &from, "me@example.org", "a wrong password");
    }
    expect_limited(&try_log_in(server.address, "me@example.org", PASSWORD));
    let body = json!({"current_password": PASSWORD, "new_password": "a better password"});
    login.actor().put("/api/auth/password", body).expect(204);
}

#[test]
fn whether_an_address_is_taken_is_told_no_more_often_than_registrations_tell_it() {
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
fn a_failure_is_one_line_that_names_address_and_account() {
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
    // What is no address at all cannot pass for another field of the line.
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
