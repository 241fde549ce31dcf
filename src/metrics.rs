//! Metrics for Prometheus (text format 0.0.4).
//!
//! Any module may count, as any may log. There is one set for the process. Every label has a bounded set of values: our own route
//! patterns, methods and statuses, never text from a client.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result, TextEncoder,
};

/// Seconds, from the fastest answers with one task to answers 503.
const DURATIONS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// A round of the event loop that takes longer is counted.
const SLOW_ROUND: Duration = Duration::from_millis(10);

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The connections of the pool at the time when the metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolState {
    /// Maximum of open connections.
    pub size: u32,
    /// Connections that are open.
    pub open: u32,
    /// Open connections that are not in use.
    pub idle: u32,
}

/// Makes the struct and its constructor from one row per metric: field, type, and the function that makes it with name and help.
macro_rules! metrics {
    ($($field:ident: $type:ty = $make:ident($name:literal, $help:literal $(, $more:expr)*);)*) => {
        struct Metrics {
            registry: Registry,
            $($field: $type,)*
        }

        impl Metrics {
            fn new() -> Metrics {
                let registry = Registry::new();
                Metrics {
                    $($field: register(&registry, $make($name, $help $(, $more)*)),)*
                    registry,
                }
            }
        }
    };
}

metrics! {
    _build: IntGaugeVec = build_info("todo_api_build_info", "The program; always 1");
    requests: HistogramVec = durations_by(
        "todo_api_http_request_duration_seconds", "From a whole request to its answer", &["method", "route", "status"]
    );
    in_flight: IntGauge = gauge("todo_api_http_requests_in_flight", "Requests that are not answered yet");
    workers: IntGauge = gauge("todo_api_workers", "Threads that answer requests");
    workers_busy: IntGauge = gauge("todo_api_workers_busy", "Workers that answer a request now");
    hashing_waits: Histogram = durations("todo_api_hashing_wait_seconds", "Waits of passwords for a hashing thread");
    connections: IntGauge = gauge("todo_api_connections", "Connections of clients");
    connections_accepted: IntCounter = counter("todo_api_connections_accepted_total", "Connections of clients that were accepted");
    slow_rounds: IntCounter = counter(
        "todo_api_edge_slow_rounds_total", "Rounds of the event loop that took longer than 10 ms"
    );
    rejections: IntCounterVec = counter_by(
        "todo_api_rejections_total", "Requests and connections refused before they reached the router",
        "reason", &["CONNECTIONS", "CONNECTIONS_PER_IP", "QUEUE_TIMEOUT"]
    );
    rate_limited: IntCounterVec = counter_by(
        "todo_api_rate_limited_total", "Requests answered 429", "by", &["user", "address", "tries"]
    );
    login_failures: IntCounter = counter("todo_api_login_failures_total", "Wrong passwords, also of unknown addresses");
    pool_waits: Histogram = durations("todo_api_db_pool_wait_seconds", "Waits for a database connection when none was free");
    database_errors: IntCounterVec = counter_by(
        "todo_api_db_errors_total", "Failed statements", "kind", &["unavailable", "internal", "user_gone"]
    );
    database_connections: IntGaugeVec = gauge_by("todo_api_db_connections", "Connections to the database", "state");
    database_connections_max: IntGauge = gauge("todo_api_db_connections_max", "Maximum of connections to the database");
    resident_memory: IntGauge = gauge("process_resident_memory_bytes", "Memory in use");
    virtual_memory: IntGauge = gauge("process_virtual_memory_bytes", "Address space in use");
    descriptors: IntGauge = gauge("process_open_fds", "Open descriptors");
    descriptors_max: IntGauge = gauge("process_max_fds", "Maximum of open descriptors");
    threads: IntGauge = gauge("process_threads", "Threads");
    log_lines_dropped: IntCounter = counter(
        "todo_api_log_lines_dropped_total", "Log lines lost because standard error did not take them in time"
    );
}

fn gauge(name: &str, help: &str) -> Result<IntGauge> {
    IntGauge::new(name, help)
}

fn gauge_by(name: &str, help: &str, label: &str) -> Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), &[label])
}

fn counter(name: &str, help: &str) -> Result<IntCounter> {
    IntCounter::new(name, help)
}

/// A counter with the values of its label that alerts use. A counter that starts at 1 shows no increase, so these start at 0.
fn counter_by(name: &str, help: &str, label: &str, values: &[&str]) -> Result<IntCounterVec> {
    let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
    for value in values {
        counter.with_label_values(&[value]).inc_by(0);
    }
    Ok(counter)
}

fn durations(name: &str, help: &str) -> Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(DURATIONS.to_vec()))
}

fn durations_by(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
    HistogramVec::new(options, labels)
}

fn build_info(name: &str, help: &str) -> Result<IntGaugeVec> {
    let build = gauge_by(name, help, "version")?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(build)
}

/// Names and labels are constants of this file, and a test makes all metrics.
#[allow(clippy::expect_used)]
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are well-formed");
    let registered = registry.register(Box::new(metric.clone()));
    registered.expect("every metric has its own name");
    metric
}

/// Counts a request that has arrived.
pub fn request_arrived() {
    METRICS.in_flight.inc();
}

/// Counts an answer. `route` is a pattern; `None` if the request has no route.
pub fn request_answered(method: &str, route: Option<&str>, status: u16, took: Duration) {
    METRICS.in_flight.dec();
    let mut buffer = [0; 3];
    let labels = [method, route.unwrap_or("none"), digits(status, &mut buffer)];
    let histogram = METRICS.requests.with_label_values(&labels);
    histogram.observe(took.as_secs_f64());
}

/// A status as text, without an allocation.
fn digits(status: u16, buffer: &mut [u8; 3]) -> &str {
    let digit = |place: u16| b'0' + u8::try_from(status / place % 10).unwrap_or(0);
    *buffer = [digit(100), digit(10), digit(1)];
    std::str::from_utf8(buffer).unwrap_or_default()
}

/// Counts workers that were started.
pub fn workers_started(number: usize) {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    METRICS.workers.add(number);
}

/// Counts a worker as busy until it is dropped.
pub struct Busy(());

impl Busy {
    /// Starts to count.
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

/// Records how long a password waited for a hashing thread.
pub fn hashing_waited(time: Duration) {
    METRICS.hashing_waits.observe(time.as_secs_f64());
}

/// Counts a client's connection that was accepted.
pub fn connection_opened() {
    METRICS.connections.inc();
    METRICS.connections_accepted.inc();
}

/// Counts a client's connection that has ended.
pub fn connection_closed() {
    METRICS.connections.dec();
}

/// Counts a round of the event loop that took too long.
pub fn edge_round(time: Duration) {
    if time > SLOW_ROUND {
        METRICS.slow_rounds.inc();
    }
}

/// Counts a refusal before the router; the reason is an error's code, or the limit of connections that was reached.
pub fn rejected(reason: &'static str) {
    METRICS.rejections.with_label_values(&[reason]).inc();
}

/// Counts a request answered 429; `by` is the kind of limit.
pub fn rate_limited(by: &'static str) {
    METRICS.rate_limited.with_label_values(&[by]).inc();
}

/// Counts a wrong password.
pub fn login_failed() {
    METRICS.login_failures.inc();
}

/// Records how long a request waited for a database connection.
pub fn pool_waited(time: Duration) {
    METRICS.pool_waits.observe(time.as_secs_f64());
}

/// Counts a failed statement: `unavailable`, `internal` or `user_gone`.
pub fn database_failed(kind: &'static str) {
    METRICS.database_errors.with_label_values(&[kind]).inc();
}

/// Counts dropped log lines.
pub fn log_lines_dropped(number: u64) {
    METRICS.log_lines_dropped.inc_by(number);
}

/// All metrics in the format of Prometheus.
///
/// # Errors
/// The library's sentence; not known to happen.
pub fn render(pool: PoolState) -> Result<Vec<u8>> {
    let in_use = pool.open.saturating_sub(pool.idle);
    for (state, number) in [("idle", pool.idle), ("in_use", in_use)] {
        let gauge = METRICS.database_connections.with_label_values(&[state]);
        gauge.set(number.into());
    }
    METRICS.database_connections_max.set(pool.size.into());
    measure_process();
    let mut out = Vec::with_capacity(16 * 1024);
    TextEncoder::new().encode(&METRICS.registry.gather(), &mut out)?;
    Ok(out)
}

/// Measures the process, under the names of Prometheus's client libraries. A value that cannot be read is 0; a missing limit is the largest number.
fn measure_process() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> i64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or(0)
    };
    METRICS.resident_memory.set(field("VmRSS:") * 1024);
    METRICS.virtual_memory.set(field("VmSize:") * 1024);
    METRICS.threads.set(field("Threads:"));
    // One of them is the directory that is being read.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    METRICS.descriptors.set(i64::try_from(open).unwrap_or(0));
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.and_then(|most| i64::try_from(most).ok());
    METRICS.descriptors_max.set(most.unwrap_or(i64::MAX));
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
