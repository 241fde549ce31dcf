//! Metrics for Prometheus.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::actors::Actor;
use crate::support::hold::wait_until;
use crate::support::http::{Answer, send};
use crate::support::login::{Login, try_log_in};
use crate::support::postgres::{Cluster, fresh_database};
use crate::support::process::Process;

/// A line of the text format that is not a comment.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    /// Reads a line by the grammar of the text format, version 0.0.4; our labels hold no escapes.
    fn parse(line: &str) -> Sample {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
        let mut labels = Vec::new();
        while rest != "}" {
            let (label, quoted) = rest.split_once("=\"").unwrap();
            let (value, behind) = quoted.split_once('"').unwrap();
            assert!(!value.contains('\\'), "{line}");
            labels.push((label.to_owned(), value.to_owned()));
            rest = behind.strip_prefix(',').unwrap_or(behind);
        }
        let value = value.parse().unwrap();
        Sample {
            name: name.to_owned(),
            labels,
            value,
        }
    }
}

fn scrape(server: &Process) -> (Vec<Sample>, String) {
    let answer = server.anonymous().get("/metrics").expect(200);
    assert_eq!(
        answer.header("Content-Type"),
        Some("text/plain; version=0.0.4")
    );
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    (lines.map(Sample::parse).collect(), answer.body)
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &Sample, (label, value): &(&str, &str)| {
        sample.labels.iter().any(|(l, v)| l == label && v == value)
    };
    samples
        .iter()
        .filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn events_are_counted() {
    let server = Process::serve(
        &fresh_database(),
        &[("WORKERS", "3"), ("RATE_LIMIT_PER_HOUR", "5")],
    );
    let login = Login::register(server.address, "me@example.org");
    let task = login.actor().task("t");
    login
        .actor()
        .get(&format!("/api/tasks/{}", task["id"].as_str().unwrap()))
        .expect(200);
    try_log_in(server.address, "me@example.org", "a wrong password").expect(401);
    for _ in 0..4 {
        login.actor().get("/api/tasks");
    }
    send(server.address, "GET", "/", &[("Host", "twice")], None).expect(400);
    let (samples, _) = scrape(&server);
    let value = |name: &str, labels: &[(&str, &str)]| value(&samples, name, labels);
    let requests = "todo_api_http_request_duration_seconds_count";
    assert_eq!(
        value(
            requests,
            &[
                ("method", "POST"),
                ("route", "/api/tasks"),
                ("status", "201")
            ]
        ),
        1.0
    );
    assert_eq!(
        value(requests, &[("route", "/api/tasks/{id}"), ("status", "200")]),
        1.0
    );
    assert_eq!(
        value(requests, &[("route", "/api/auth/login"), ("status", "401")]),
        1.0
    );
    assert_eq!(
        value(requests, &[("route", "/api/tasks"), ("status", "429")]),
        1.0
    );
    assert_eq!(value("todo_api_rate_limited_total", &[("by", "user")]), 1.0);
    assert_eq!(value("todo_api_login_failures_total", &[]), 1.0);
    assert_eq!(
        value("todo_api_rejections_total", &[("reason", "BAD_REQUEST")]),
        1.0
    );
    assert_eq!(
        value("todo_api_http_requests_in_flight", &[]),
        1.0,
        "this one"
    );
    // Three workers, and one reserved for other users.
    assert_eq!(value("todo_api_workers", &[]), 4.0);
    // The worker that answers this request. Others may be busy until shortly after their last answer.
    wait_until(|| self::value(&scrape(&server).0, "todo_api_workers_busy", &[]) == 1.0);
    assert_eq!(value("todo_api_db_connections_max", &[]), 5.0);
    assert_eq!(
        value(
            "todo_api_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))]
        ),
        1.0
    );
    assert!(value("todo_api_db_connections", &[("state", "idle")]) >= 1.0);
    assert!(value("todo_api_connections", &[]) >= 1.0);
    assert!(value("todo_api_connections_accepted_total", &[]) >= 9.0);
    assert!(value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(value("process_open_fds", &[]) > 10.0);
}

#[test]
fn names_types_and_units_follow_the_conventions() {
    let server = Process::serve(&fresh_database(), &[]);
    try_log_in(server.address, "me@example.org", "x").expect(401);
    let (samples, text) = scrape(&server);
    let mut families = HashSet::new();
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} appears twice");
            assert!(
                text.contains(&format!("# HELP {name} ")),
                "{name} has a help text"
            );
            assert!(
                name.starts_with("todo_api_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            // https://prometheus.io/docs/practices/naming: counters end in `_total`, and names end in their base unit.
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(kind == "histogram", name.ends_with("_seconds"), "{name}");
            for unit in ["_ms", "_milliseconds", "_kb", "_mb", "_minutes"] {
                assert!(!name.ends_with(unit), "{name}");
            }
        }
    }
    for sample in &samples {
        // A histogram has three series.
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| sample.name.strip_suffix(end))
            .unwrap_or(&sample.name);
        assert!(families.contains(name), "{} has no type", sample.name);
    }
}

#[test]
fn labels_stay_bounded_for_any_request() {
    let server = Process::serve(&fresh_database(), &[]);
    let token = server.user("me");
    let ask = |round: usize| {
        for (method, target) in [
            ("GET", format!("/made-up-{round}")),
            ("GET", format!("/api/tasks/{round}?x={round}")),
            ("GET", format!("/api/user-{round}/tasks")),
            ("BREW", "/api/tasks".to_owned()),
            (
                ["PURGE", "LOCK", "MOVE"][round % 3],
                format!("/api/v1/tasks/{round}"),
            ),
            ("OPTIONS", format!("/{round}")),
        ] {
            let host = format!("host-{round}");
            let headers = [
                ("X-Request-ID", host.as_str()),
                ("Origin", host.as_str()),
                ("User-Agent", host.as_str()),
            ];
            token.send(method, &target, &headers, None);
        }
        scrape(&server).0.len()
    };
    ask(0);
    let once = ask(1);
    for round in 2..20 {
        assert_eq!(ask(round), once);
    }
}

#[test]
fn only_permitted_clients_read_the_metrics() {
    let token = "a token for metrics";
    let server = Process::serve(&fresh_database(), &[("METRICS_TOKEN", token)]);
    let ask = |headers: &[(&str, &str)]| -> Answer {
        server.anonymous().send("GET", "/metrics", headers, None)
    };
    ask(&[]).expect(200);
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-IP",
        "CF-Connecting-IP",
        "Via",
    ] {
        let proxied = (name, "for=127.0.0.1");
        ask(&[proxied]).expect_error(403, "FORBIDDEN");
        ask(&[proxied, ("Authorization", "Bearer a token for metricz")]).expect(403);
        ask(&[proxied, ("Authorization", &format!("bearer {token}"))]).expect(200);
    }
    let closed = Process::serve(&fresh_database(), &[("METRICS_ALLOW", "192.0.2.0/24")]);
    closed
        .anonymous()
        .get("/metrics")
        .expect_error(403, "FORBIDDEN");
    Actor::with_authorization(closed.address, "Bearer ")
        .get("/metrics")
        .expect(403);
    closed.anonymous().post("/metrics", json!({})).expect(405);
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let server = Process::serve(&fresh_database(), &[]);
    // A metric with labels appears with its first event.
    try_log_in(server.address, "me@example.org", "x").expect(401);
    let (_, text) = scrape(&server);
    let families: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring");
    let read = |name: &str| std::fs::read_to_string(monitoring.join(name)).unwrap();
    let (dashboard, alerts) = (read("grafana-dashboard.json"), read("alerts.yml"));
    let panels: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(
        panels["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 10)
    );
    let mut asked = 0;
    for word in (dashboard + &alerts).split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        if word.starts_with("todo_api_") || word.starts_with("process_") {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .unwrap_or(word);
            assert!(families.contains(family), "{word}");
            asked += 1;
        }
    }
    assert!(asked > 30);
}

#[test]
fn an_unavailable_database_is_counted() {
    let mut cluster = Cluster::start(false);
    let server = Process::serve(&cluster.url("todo"), &[]);
    let refusals = || {
        let (samples, _) = scrape(&server);
        let kind = [("kind", "unavailable")];
        // The counter exists from the start, because an alert sees no increase of a counter that starts at 1.
        assert!(samples.iter().any(|sample| {
            sample.name == "todo_api_db_errors_total"
                && sample.labels == [("kind".to_owned(), "unavailable".to_owned())]
        }));
        value(&samples, "todo_api_db_errors_total", &kind)
    };
    let user = server.user("u1");
    user.task("while the database is available");
    assert_eq!(refusals(), 0.0);
    cluster.stop();
    for number in 1..=3 {
        user.get("/api/tasks").expect(503);
        // The server also runs statements of its own.
        assert!(refusals() >= f64::from(number));
    }
}
