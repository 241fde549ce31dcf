//! What is counted, for Prometheus (text format 0.0.4).
//!
//! Counted from anywhere, like the log; one set for the process. Every label has a bounded set of values: route patterns, methods and
//! statuses of ours, never what a client wrote.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// Seconds, from the fastest single-task answers to what is answered 503.
const DURATIONS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    in_flight: IntGauge,
    workers: IntGauge,
    workers_busy: IntGauge,
    hashing_waits: Histogram,
    connections: IntGauge,
    connections_accepted: IntCounter,
    rejections: IntCounterVec,
    rate_limited: IntCounterVec,
    login_failures: IntCounter,
    pool_waits: Histogram,
    database_errors: IntCounterVec,
    log_lines_dropped: IntCounter,
}

/// What is only known when it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolState {
    /// Connections that may be open.
    pub size: u32,
    /// Connections that are open.
    pub open: u32,
    /// Of these, those nobody uses.
    pub idle: u32,
}

impl Metrics {
    fn new() -> Metrics {
        let registry = Registry::new();
        // With the values that alerts look at there from the start: of a counter that begins at 1 no increase is seen.
        let counter = |name: &str, help: &str, label: &str, values: &[&str]| {
            let opts = Opts::new(name, help);
            let counter = register(&registry, IntCounterVec::new(opts, &[label]));
            for value in values {
                counter.with_label_values(&[value]).inc_by(0);
            }
            counter
        };
        let one = |name: &str, help: &str| {
            register(&registry, IntCounter::with_opts(Opts::new(name, help)))
        };
        let gauge = |name: &str, help: &str| {
            register(&registry, IntGauge::with_opts(Opts::new(name, help)))
        };
        let durations =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
        let requests = register(
            &registry,
            HistogramVec::new(
                durations(
                    "todo_api_http_request_duration_seconds",
                    "From a whole request to its answer",
                ),
                &["method", "route", "status"],
            ),
        );
        let hashing_waits = register(
            &registry,
            Histogram::with_opts(durations(
                "todo_api_hashing_wait_seconds",
                "Waits of passwords for their turn to be hashed",
            )),
        );
        let pool_waits = register(
            &registry,
            Histogram::with_opts(durations(
                "todo_api_db_pool_wait_seconds",
                "Waits for a database connection where none was free at once",
            )),
        );
        let build = register(
            &registry,
            prometheus::IntGaugeVec::new(
                Opts::new("todo_api_build_info", "The program; always 1"),
                &["version"],
            ),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics {
            requests,
            in_flight: gauge(
                "todo_api_http_requests_in_flight",
                "Requests that are not answered yet",
            ),
            workers: gauge("todo_api_workers", "Threads that answer requests"),
            workers_busy: gauge("todo_api_workers_busy", "Of these, those that answer one"),
            hashing_waits,
            connections: gauge("todo_api_connections", "Connections of clients"),
            connections_accepted: one(
                "todo_api_connections_accepted_total",
                "Connections of clients that were let in",
            ),
            rejections: counter(
                "todo_api_rejections_total",
                "Requests and connections refused before they reached the router",
                "reason",
                &[
                    "CONNECTIONS",
                    "CONNECTIONS_PER_IP",
                    "QUEUE_TIMEOUT",
                    "NO_THREAD",
                ],
            ),
            rate_limited: counter(
                "todo_api_rate_limited_total",
                "Requests answered 429",
                "by",
                &["user", "address", "tries"],
            ),
            login_failures: one(
                "todo_api_login_failures_total",
                "Wrong passwords, also of addresses nobody has",
            ),
            pool_waits,
            database_errors: counter(
                "todo_api_db_errors_total",
                "What failed of the database, or could not be asked of it",
                "kind",
                &["unavailable", "internal", "user_gone"],
            ),
            log_lines_dropped: one(
                "todo_api_log_lines_dropped_total",
                "Log lines lost because standard error did not take them in time",
            ),
            registry,
        }
    }
}

/// Names and labels are constants of this file, and a test makes them all.
#[allow(clippy::expect_used)]
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let metric = metric.expect("a metric's name and labels are well-formed");
    registry
        .register(Box::new(metric.clone()))
        .expect("a metric's name is there once");
    metric
}

/// A request has arrived.
pub fn request_arrived() {
    METRICS.in_flight.inc();
}

/// A request has been answered. `route` is a pattern; `None` where none was found.
pub fn request_answered(method: &str, route: Option<&str>, status: u16, took: Duration) {
    METRICS.in_flight.dec();
    let mut buffer = [0; 3];
    METRICS
        .requests
        .with_label_values(&[method, route.unwrap_or("none"), digits(status, &mut buffer)])
        .observe(took.as_secs_f64());
}

/// A status as text, without asking for memory.
fn digits(status: u16, buffer: &mut [u8; 3]) -> &str {
    let digit = |place: u16| b'0' + u8::try_from(status / place % 10).unwrap_or(0);
    *buffer = [digit(100), digit(10), digit(1)];
    std::str::from_utf8(buffer).unwrap_or_default()
}

/// So many threads answer requests besides those before.
pub fn workers_started(number: usize) {
    METRICS
        .workers
        .add(i64::try_from(number).unwrap_or(i64::MAX));
}

/// A worker at work, until it is dropped.
pub struct Busy(());

impl Busy {
    /// It begins.
    pub fn begin() -> Busy {
        METRICS.workers_busy.inc();
        Busy(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        METRICS.workers_busy.dec();
    }
}

/// A password has waited this long for its turn.
pub fn hashing_waited(time: Duration) {
    METRICS.hashing_waits.observe(time.as_secs_f64());
}

/// A client's connection was let in.
pub fn connection_opened() {
    METRICS.connections.inc();
    METRICS.connections_accepted.inc();
}

/// A client's connection has ended.
pub fn connection_closed() {
    METRICS.connections.dec();
}

/// Something was refused before it reached the router; the reason is an error's code, or what of connections is full.
pub fn rejected(reason: &'static str) {
    METRICS.rejections.with_label_values(&[reason]).inc();
}

/// A request was answered 429; `by` is whose limit it was.
pub fn rate_limited(by: &'static str) {
    METRICS.rate_limited.with_label_values(&[by]).inc();
}

/// A password was wrong.
pub fn login_failed() {
    METRICS.login_failures.inc();
}

/// No database connection was free at once, and one was waited for this long.
pub fn pool_waited(time: Duration) {
    METRICS.pool_waits.observe(time.as_secs_f64());
}

/// A statement failed: `unavailable`, `internal` or `user_gone`.
pub fn database_failed(kind: &'static str) {
    METRICS.database_errors.with_label_values(&[kind]).inc();
}

/// Log lines were dropped.
pub fn log_lines_dropped(number: u64) {
    METRICS.log_lines_dropped.inc_by(number);
}

/// Everything, as Prometheus reads it.
///
/// # Errors
/// The library's sentence; not known to happen.
pub fn render(pool: PoolState) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(16 * 1024);
    TextEncoder::new()
        .encode(&METRICS.registry.gather(), &mut out)
        .map_err(|error| error.to_string())?;
    let mut gauge = |name: &str, help: &str, values: &[(&str, f64)]| {
        out.extend_from_slice(format!("# HELP {name} {help}\n# TYPE {name} gauge\n").as_bytes());
        for (labels, value) in values {
            out.extend_from_slice(format!("{name}{labels} {value}\n").as_bytes());
        }
    };
    gauge(
        "todo_api_db_connections",
        "Connections to the database",
        &[
            ("{state=\"idle\"}", f64::from(pool.idle)),
            (
                "{state=\"in_use\"}",
                f64::from(pool.open.saturating_sub(pool.idle)),
            ),
        ],
    );
    gauge(
        "todo_api_db_connections_max",
        "Connections to the database there may be",
        &[("", f64::from(pool.size))],
    );
    for (name, help, value) in process() {
        gauge(name, help, &[("", value)]);
    }
    Ok(out)
}

/// What Prometheus's client libraries tell of a process, under the same names; what cannot be read is left out.
fn process() -> Vec<(&'static str, &'static str, f64)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let number: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(number * 1024.0)
    };
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    [
        (
            "process_resident_memory_bytes",
            "Memory in use",
            kib("VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "Address space in use",
            kib("VmSize:"),
        ),
        (
            "process_open_fds",
            "Descriptors that are open",
            // One of them is the directory that is being read.
            descriptors.map(|count| count.saturating_sub(1) as f64),
        ),
        (
            "process_max_fds",
            "Descriptors that may be open",
            most.map(|most| most as f64),
        ),
        (
            "process_threads",
            "Threads",
            status
                .lines()
                .find_map(|line| line.strip_prefix("Threads:"))
                .and_then(|number| number.trim().parse().ok()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, help, value)| Some((name, help, value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_made_and_shown() {
        request_arrived();
        request_answered("GET", Some("/a"), 204, Duration::from_millis(3));
        let pool = PoolState {
            size: 6,
            open: 4,
            idle: 1,
        };
        let text = String::from_utf8(render(pool).unwrap()).unwrap();
        for line in [
            "todo_api_http_request_duration_seconds_count{method=\"GET\",route=\"/a\",status=\"204\"} 1",
            "todo_api_db_connections{state=\"in_use\"} 3",
            "todo_api_db_connections_max 6",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
