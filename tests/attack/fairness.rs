//! One user, or one address, takes as much as it can of a global budget while another user works.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::attacked::{AttackedServer, Kind, QUIET};
use crate::load::seconds;
use crate::support::hold::large_list;
use crate::support::wire::{Endpoint, Wire, bearer, request};

const P99: Duration = Duration::from_millis(200);
const ATTACKER: (&str, &str) = ("X-Forwarded-For", "192.0.2.1");
const OTHER: (&str, &str) = ("X-Forwarded-For", "192.0.2.2");

/// Without rate limits, so that only the budgets are tested.
const UNLIMITED: [(&str, &str); 5] = [
    QUIET,
    ("RATE_LIMIT_PER_HOUR", "0"),
    ("RATE_LIMIT_ANON_PER_HOUR", "0"),
    ("LOGIN_FAILURES_PER_IP", "0"),
    ("LOGIN_FAILURES_PER_ACCOUNT", "0"),
];

/// The addresses of the server and its database.
struct Place {
    endpoint: Endpoint,
    database: String,
}

/// Runs the attack on this many threads for [`seconds`], and asserts that another user is served quickly.
fn expect_fair(what: &str, threads: usize, attack: impl Fn(&Place, &AtomicBool) + Sync) {
    let mut attacked = AttackedServer::start(Kind::Tcp, &UNLIMITED);
    for user in ["attacker", "other"] {
        large_list(&attacked.database, user);
    }
    let place = Place {
        endpoint: attacked.endpoint.clone(),
        database: attacked.database.clone(),
    };
    let stop = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| attack(&place, &stop));
        }
        let served = scope.spawn(|| serve_other(&place));
        let times = served.join();
        stop.store(true, Ordering::Relaxed);
        times.unwrap()
    });
    println!("{what}: {}", attacked.expect_memory_within(450));
    for (what, mut times) in ["lists", "new tasks"].into_iter().zip(times) {
        times.sort_unstable();
        let (number, p99) = (times.len(), times[times.len() * 99 / 100]);
        let longest = times[number - 1];
        println!("{number} {what} of another user, p99 {p99:?}, longest {longest:?}");
        assert!(p99 < P99, "{what}: {p99:?}");
    }
}

/// Lists and makes tasks for [`seconds`]; each request must succeed. Returns the latencies of both. Answers and bodies are larger than
/// 16 KiB: smaller ones do not count for the budgets of memory.
fn serve_other(place: &Place) -> [Vec<Duration>; 2] {
    let token = bearer("other");
    let headers = [
        ("Authorization", token.as_str()),
        ("Content-Type", "application/json"),
        OTHER,
    ];
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

/// Sends the request again and again until the attack is over. Ignores the answers.
fn ask_on(place: &Place, stop: &AtomicBool, bytes: &[u8], pause: Duration) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut wire) = place.endpoint.open() else {
            continue;
        };
        while !stop.load(Ordering::Relaxed)
            && wire.write(bytes).is_ok()
            && matches!(wire.answer(), Ok(Some(_)))
        {
            thread::sleep(pause);
        }
    }
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
    expect_fair("9 slow readers of 7 MB", 9, |place, stop| {
        let mut buffer = [0; 3_200];
        while !stop.load(Ordering::Relaxed) {
            let mut wire = place.endpoint.open_narrow().unwrap();
            wire.write(&list).unwrap();
            // 32 KB a second, until the server closes the connection.
            while !stop.load(Ordering::Relaxed) && matches!(wire.stream.read(&mut buffer), Ok(1..))
            {
                thread::sleep(Duration::from_millis(100));
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
    expect_fair("slow bodies of 1 MB", 4, |place, stop| {
        let mut held: Vec<Wire> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let mut wire = place.endpoint.open().unwrap();
            if wire.write(&start).is_ok() {
                held.push(wire);
            }
            if held.len() > 25 {
                thread::sleep(Duration::from_millis(500));
                held.remove(0);
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
    expect_fair(
        "continuous searches on 64 connections",
        64,
        |place, stop| {
            ask_on(place, stop, &search, Duration::ZERO);
        },
    );
}

#[test]
fn requests_of_one_user_that_wait_in_the_database_delay_no_other_user() {
    let token = bearer("attacker");
    expect_fair("64 connections that wait for a lock", 65, |place, stop| {
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
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        drop(lock);
        drop(sql);
        let headers = [
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
            ATTACKER,
        ];
        let patch = request(
            "PATCH",
            &format!("/api/tasks/{id}"),
            &headers,
            b"{\"title\":\"x\"}",
        );
        ask_on(place, stop, &patch, Duration::ZERO);
    });
}

#[test]
fn logins_from_one_address_delay_no_other_address() {
    let login = |address: (&str, &str), number: usize| {
        let body =
            format!("{{\"email\":\"n{number}@example.com\",\"password\":\"not the password\"}}");
        let headers = [address, ("Content-Type", "application/json")];
        request("POST", "/api/auth/login", &headers, body.as_bytes())
    };
    let flood = login(ATTACKER, 1);
    let longest = std::sync::Mutex::new(Duration::ZERO);
    expect_fair(
        "continuous logins on 200 connections",
        201,
        |place, stop| {
            // One client is not part of the flood.
            let Ok(mut longest) = longest.try_lock() else {
                return ask_on(place, stop, &flood, Duration::ZERO);
            };
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = place.endpoint.ask(&login(OTHER, 2));
                assert_eq!(answer.status, 401, "{answer:?}");
                *longest = began.elapsed().max(*longest);
                thread::sleep(Duration::from_millis(100));
            }
        },
    );
    let longest = longest.into_inner().unwrap();
    println!("the longest login from another address took {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
