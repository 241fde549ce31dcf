//! A revocation holds at once on its instance, soon on others, and after a restart.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::actors::Actor;
use crate::support::hold::wait_until;
use crate::support::login::{Login, PASSWORD};
use crate::support::postgres::{Cluster, fresh_database};
use crate::support::process::{Process, run};

#[test]
fn a_revocation_holds_on_the_other_instance_within_two_seconds() {
    let database = fresh_database();
    let (one, other) = (
        Process::serve(&database, &[]),
        Process::serve(&database, &[]),
    );
    // The second time, the other instance serves requests all the time.
    for busy in [false, true] {
        let email = format!("{busy}@example.org");
        let login = Login::register(one.address, &email);
        assert!(login.is_in() && login.is_in_at(other.address));
        login
            .actor()
            .post("/api/auth/logout", json!({}))
            .expect(204);
        let began = Instant::now();
        assert!(!login.is_in(), "at once on the instance that did it");
        if busy {
            while login.is_in_at(other.address) {
                assert!(began.elapsed() < Duration::from_secs(2));
            }
        } else {
            thread::sleep(Duration::from_secs(2));
        }
        assert!(!login.is_in_at(other.address));
    }
    // The command disables a user of any issuer.
    let login = Login::register(one.address, "me@example.org");
    let outsider = |server: &Process| server.user("outsider").get("/api/tasks").status;
    assert_eq!((outsider(&one), outsider(&other)), (200, 200));
    let environment = [("DATABASE_URL", database.as_str())];
    for user in [&["me@example.org"][..], &["outsider", "--id"]] {
        let output = run(&[&["user", "disable"][..], user].concat(), &environment);
        assert!(output.status.success(), "{output:?}");
    }
    thread::sleep(Duration::from_secs(2));
    for server in [&one, &other] {
        assert!(!login.is_in_at(server.address));
        assert_eq!(outsider(server), 401);
    }
    crate::support::login::try_log_in(one.address, "me@example.org", PASSWORD)
        .expect_error(403, "FORBIDDEN");
    login.try_refresh().expect(401);
    // The revocations hold after a restart.
    drop(one);
    let one = Process::serve(&database, &[]);
    assert!(!login.is_in_at(one.address));
    assert_eq!(outsider(&one), 401);
    let output = run(&["user", "enable", "outsider", "--id"], &environment);
    assert!(output.status.success(), "{output:?}");
    thread::sleep(Duration::from_secs(2));
    assert_eq!((outsider(&one), outsider(&other)), (200, 200));
    assert!(
        !login.is_in_at(one.address),
        "the first user stays disabled"
    );
}

#[test]
fn a_revocation_that_commits_late_is_seen() {
    let database = fresh_database();
    let server = Process::serve(&database, &[]);
    let login = Login::register(server.address, "me@example.org");
    let sid: String = {
        let sessions = login.actor().get("/api/auth/sessions").expect(200).json();
        sessions["sessions"][0]["id"].as_str().unwrap().to_owned()
    };
    // Another instance ends the session and commits so late that an overlap of times would miss it.
    let mut slow = postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let mut transaction = slow.transaction().unwrap();
    transaction
        .execute("INSERT INTO todo.revocations (kind, id, until) VALUES ('session', $1, now() + interval '1 day')", &[&sid])
        .unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert!(login.is_in(), "the revocation is not committed yet");
        thread::sleep(Duration::from_millis(100));
    }
    transaction.commit().unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(!login.is_in());
}

#[test]
fn no_token_is_accepted_for_long_without_the_database() {
    let mut cluster = Cluster::start(false);
    let server = Process::serve(&cluster.url("todo"), &[]);
    let login = Login::register(server.address, "me@example.org");
    let script = Actor::with_token(server.address, login.api_token());
    script.get("/api/tasks").expect(200);
    cluster.stop();
    let began = Instant::now();
    // The path of another user is refused without the database, so its status shows whether the token is accepted.
    let trusted = |actor: &Actor| match actor.get("/api/another-user/tasks").status {
        403 => true,
        503 => false,
        other => panic!("{other}"),
    };
    while began.elapsed() < Duration::from_secs(20) {
        assert!(trusted(&login.actor()) && trusted(&script));
        thread::sleep(Duration::from_millis(500));
    }
    thread::sleep(Duration::from_secs(31).saturating_sub(began.elapsed()));
    assert!(!trusted(&login.actor()) && !trusted(&script));
    server.anonymous().get("/health").expect(200);
    cluster.restart();
    wait_until(|| trusted(&login.actor()));
    wait_until(|| script.get("/api/tasks").status == 200);
}
