//! One user, or one address, takes as much as it can of a global budget while another user works.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::attacked::{AttackedServer, Kind, QUIET};
use crate::load::seconds;
use crate::support::hold::{large_list, long_list};
use crate::support::login::{Login, PASSWORD};
use crate::support::wire::{Endpoint, Wire, bearer, request};

const P99: Duration = Duration::from_millis(200);
/// The longest time that a login of another user may take.
const LOGIN: Duration = Duration::from_secs(2);
/// Pause between two logins of another user.
const BETWEEN_LOGINS: Duration = Duration::from_secs(1);
const EMAIL: &str = "other@example.com";
const ATTACKER: (&str, &str) = ("X-Forwarded-For", "192.0.2.1");
const OTHER: (&str, &str) = ("X-Forwarded-For", "192.0.2.2");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Without rate limits, so that only the budgets are tested.
const UNLIMITED: [(&str, &str); 5] = [
    QUIET,
    ("RATE_LIMIT_PER_HOUR", "0"),
    ("RATE_LIMIT_ANON_PER_HOUR", "0"),
    ("LOGIN_FAILURES_PER_IP", "0"),
    ("LOGIN_FAILURES_PER_ACCOUNT", "0"),
];

/// The answers that show that a budget was short.
#[derive(Clone, Copy)]
enum Shortage {
    /// The attacker's requests waited for a worker until they were refused.
    Workers,
    /// The attacker's requests or answers were refused at once or dropped.
    Refused,
}

/// The attacked server and its database, and the state of the attack.
struct Place {
    endpoint: Endpoint,
    database: String,
    stopped: AtomicBool,
    /// Requests of the attacker that were refused, and answers that were dropped.
    refused: AtomicUsize,
}

impl Place {
    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the request again and again until the attack is over.
    fn ask_on(&self, bytes: &[u8]) {
        while self.goes_on() {
            let Ok(mut wire) = self.endpoint.open() else {
                continue;
            };
            while self.goes_on() && wire.write(bytes).is_ok() {
                match wire.answer() {
                    Ok(Some(answer)) if answer.status == 503 => self.count_refusal(),
                    Ok(Some(_)) => {}
                    _ => break,
                }
            }
        }
    }
}

/// One attack, and the state of the server before it.
struct Attack<'a> {
    what: &'a str,
    threads: usize,
    shortage: Shortage,
    settings: &'a [(&'a str, &'a str)],
    /// Tasks of the attacker.
    tasks: i32,
}

impl Attack<'_> {
    const fn new(what: &str, threads: usize, shortage: Shortage) -> Attack<'_> {
        Attack {
            what,
            threads,
            shortage,
            settings: &[],
            tasks: 1_000,
        }
    }
}

/// Runs the attack for [`seconds`]. Asserts that another user is served quickly, and that the budget was short.
fn expect_fair(attack: &Attack, on_each_thread: impl Fn(&Place) + Sync) {
    let settings = [&UNLIMITED, attack.settings].concat();
    let mut attacked = AttackedServer::start(Kind::Tcp, &settings);
    Login::register(attacked.server.address, EMAIL);
    long_list(&attacked.database, "attacker", attack.tasks);
    large_list(&attacked.database, "other");
    let place = Place {
        endpoint: attacked.endpoint.clone(),
        database: attacked.database.clone(),
        stopped: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
    };
    let [lists, tasks, logins] = thread::scope(|scope| {
        for _ in 0..attack.threads {
            scope.spawn(|| on_each_thread(&place));
        }
        let served = scope.spawn(|| serve_other(&place));
        let logins = scope.spawn(|| log_in_other(&place));
        let (served, logins) = (served.join(), logins.join());
        place.stopped.store(true, Ordering::Relaxed);
        let [lists, tasks] = served.unwrap();
        [lists, tasks, logins.unwrap()]
    });
    println!("{}: {}", attack.what, attacked.expect_memory_within(450));
    let expected = [
        ("lists", lists, P99),
        ("new tasks", tasks, P99),
        // There are fewer than 100 of them: the longest.
        ("logins", logins, LOGIN),
    ];
    for (kind, mut times, limit) in expected {
        times.sort_unstable();
        let (number, p99) = (times.len(), times[times.len() * 99 / 100]);
        let longest = times[number - 1];
        println!("{number} {kind} of another user, p99 {p99:?}, longest {longest:?}");
        assert!(p99 < limit, "{kind}: {p99:?}");
    }
    let timeouts = attacked
        .server
        .metric("todo_api_rejections_total{reason=\"QUEUE_TIMEOUT\"}");
    let refused = place.refused.into_inner();
    println!(
        "the attacker was refused {refused} times, {timeouts} of the requests found no worker in time"
    );
    let short = match attack.shortage {
        Shortage::Workers => timeouts,
        Shortage::Refused => refused as u64,
    };
    assert!(short > 0, "the budget was not short");
}

/// Logs in again and again for [`seconds`]; each login must succeed. Returns the latencies.
fn log_in_other(place: &Place) -> Vec<Duration> {
    let body = json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let login = request("POST", "/api/auth/login", &[OTHER, JSON], body.as_bytes());
    let until = Instant::now() + Duration::from_secs(seconds());
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        place.endpoint.ask(&login).expect(200);
        times.push(began.elapsed());
        thread::sleep(BETWEEN_LOGINS);
    }
    times
}

/// Lists and makes tasks for [`seconds`]; each request must succeed. Returns the latencies of both. Answers and bodies are larger than
/// 16 KiB: smaller ones do not count for the budgets of memory.
fn serve_other(place: &Place) -> [Vec<Duration>; 2] {
    let token = bearer("other");
    let headers = [("Authorization", token.as_str()), JSON, OTHER];
    let list = request("GET", "/api/tasks?limit=5&order=asc", &headers, b"");
    let task = [&b"{\"title\":\"fair\"}"[..], &[b' '; 40_000]].concat();
    let make = request("POST", "/api/tasks", &headers, &task);
    let mut wire = place.endpoint.open().unwrap();
    let until = Instant::now() + Duration::from_secs(seconds());
    let mut times = [Vec::new(), Vec::new()];
    while Instant::now() < until {
        for (kind, (bytes, status)) in [(&list, 200), (&make, 201)].into_iter().enumerate() {
            let began = Instant::now();
            wire.write(bytes).unwrap();
            let answer = wire.answer().unwrap().unwrap();
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(status == 201 || answer.body.len() > 16_384);
            times[kind].push(began.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
    }
    times
}

#[test]
fn slow_readers_of_one_user_delay_no_other_user() {
    let token = bearer("attacker");
    let list = request(
        "GET",
        "/api/tasks?limit=900",
        &[("Authorization", &token), ATTACKER],
        b"",
    );
    let attack = Attack::new("9 slow readers of 7 MB", 9, Shortage::Refused);
    expect_fair(&attack, |place| {
        let mut buffer = [0; 3_200];
        while place.goes_on() {
            let mut wire = place.endpoint.open_narrow().unwrap();
            wire.write(&list).unwrap();
            // 32 KB a second, until the server closes the connection or has refused.
            while place.goes_on() {
                match wire.stream.read(&mut buffer) {
                    Ok(1..) if !buffer.starts_with(b"HTTP/1.1 503") => {
                        thread::sleep(Duration::from_millis(100));
                    }
                    _ => {
                        place.count_refusal();
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn slow_bodies_of_one_address_delay_no_other_address() {
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nHost: x\r\n{}: {}\r\nContent-Length: 1000000\r\n\r\n",
        ATTACKER.0, ATTACKER.1
    );
    let start = [head.as_bytes(), &[b' '; 900_000]].concat();
    let attack = Attack::new("slow bodies of 1 MB", 4, Shortage::Refused);
    expect_fair(&attack, |place| {
        let mut held: Vec<Wire> = Vec::new();
        while place.goes_on() {
            let mut wire = place.endpoint.open().unwrap();
            if wire.write(&start).is_ok() {
                held.push(wire);
            }
            if held.len() > 25 {
                thread::sleep(Duration::from_millis(500));
                let mut oldest = held.remove(0);
                oldest.patience(Duration::from_millis(1)).unwrap();
                if matches!(oldest.answer(), Ok(Some(answer)) if answer.status == 503) {
                    place.count_refusal();
                }
            }
        }
    });
}

#[test]
fn continuous_requests_of_one_user_delay_no_other_user() {
    let token = bearer("attacker");
    let search = request(
        "GET",
        "/api/tasks?limit=20&search=nothing",
        &[("Authorization", &token), ATTACKER],
        b"",
    );
    let attack = Attack {
        tasks: 10_000,
        ..Attack::new(
            "continuous searches in 10,000 tasks on 200 connections",
            200,
            Shortage::Workers,
        )
    };
    expect_fair(&attack, |place| {
        place.ask_on(&search);
    });
}

#[test]
fn slow_statements_of_one_user_leave_database_connections_to_another() {
    let token = bearer("attacker");
    let headers = [("Authorization", token.as_str()), JSON, ATTACKER];
    let search = request("GET", "/api/tasks?limit=20&search=nothing", &headers, b"");
    let make = request("POST", "/api/tasks", &headers, b"{\"title\":\"x\"}");
    let number = AtomicUsize::new(0);
    let what =
        "64 connections search in 10,000 tasks and make tasks, 3 connections to the database";
    let attack = Attack {
        settings: &[("WORKERS", "8"), ("DB_POOL_SIZE", "3")],
        tasks: 10_000,
        ..Attack::new(what, 64, Shortage::Workers)
    };
    expect_fair(&attack, |place| {
        let searches = number.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        place.ask_on(if searches { &search } else { &make });
    });
}

#[test]
fn requests_of_one_user_that_wait_in_the_database_delay_no_other_user() {
    let token = bearer("attacker");
    let attack = Attack::new("64 connections that wait for a lock", 65, Shortage::Workers);
    expect_fair(&attack, |place| {
        let mut sql = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
        let mut lock = sql.transaction().unwrap();
        let row = lock
            .query_one(
                "SELECT min(id::text) FROM todo.tasks WHERE user_id = 'attacker'",
                &[],
            )
            .unwrap();
        let id: String = row.get(0);
        // One of the connections gets the lock and keeps it.
        let locked = lock.query_one("SELECT pg_try_advisory_xact_lock(1)", &[]);
        if locked.unwrap().get::<_, bool>(0) {
            lock.execute(
                "SELECT 1 FROM todo.tasks WHERE id = $1::text::uuid FOR UPDATE",
                &[&id],
            )
            .unwrap();
            while place.goes_on() {
                thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        drop(lock);
        drop(sql);
        let headers = [("Authorization", token.as_str()), JSON, ATTACKER];
        let patch = request(
            "PATCH",
            &format!("/api/tasks/{id}"),
            &headers,
            b"{\"title\":\"x\"}",
        );
        place.ask_on(&patch);
    });
}

#[test]
fn logins_from_one_address_delay_no_other_address() {
    let body = json!({"email": "nobody@example.com", "password": "not the password"}).to_string();
    let login = request(
        "POST",
        "/api/auth/login",
        &[ATTACKER, JSON],
        body.as_bytes(),
    );
    let attack = Attack::new(
        "continuous logins on 200 connections",
        200,
        Shortage::Refused,
    );
    expect_fair(&attack, |place| {
        place.ask_on(&login);
    });
}
