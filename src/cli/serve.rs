//! `todo-api serve`: the server, from start to stop.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, setup};
use crate::api::App;
use crate::api::routes::routes;
use crate::auth::token::Verifier;
use crate::config::{Config, Environment};
use crate::http::router::Router;
use crate::logging;
use crate::server::{Options, Server};
use crate::store::Store;
use crate::store::migrations::{OpenError, Opened};

/// Between two tries to reach the database at start.
const RETRY: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    logging::init(
        environment("RUST_LOG").as_deref(),
        environment("LOG_LEVEL").as_deref(),
    )
    .map_err(Failure::Failed)?;
    logging::log_panics();
    // Registered before anything is started, so that no signal finds us half made.
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|error| failed("take signals", &error))?;

    let secret = setup::signing_secret(config)?;
    let verifier = Verifier::new(
        &secret,
        config
            .previous_secret
            .as_ref()
            .map(|secret| secret.expose()),
    );
    let (store, private) = setup::store(config)?;
    let app = Arc::new(App { store, verifier });
    let options = Options {
        listen: config.listen.clone(),
        workers: config.workers,
        max_body: config.max_body,
        reveal_causes: config.environment == Environment::Development,
    };
    let server = Server::start(options, Arc::clone(&app), Router::new(routes()))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let addresses: Vec<String> = server.addresses().map(ToString::to_string).collect();
    log::info!(
        "todo-api {} listens on {}",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", ")
    );

    let outcome = wait_for_database(&app.store, config.startup_timeout, &mut signals);
    if let Ok(Some(opened)) = &outcome {
        announce(config, opened, &addresses, private.is_some());
        let signal = signals.forever().next();
        log::info!(
            "{} received: finishing what is in flight",
            if signal == Some(SIGINT) {
                "SIGINT"
            } else {
                "SIGTERM"
            }
        );
    }
    if !server.stop(config.shutdown_timeout) {
        log::warn!(
            "some requests did not finish within {} s",
            config.shutdown_timeout.as_secs_f64()
        );
    }
    // The last owner closes the connections of the pool, and then PostgreSQL may stop.
    drop(app);
    drop(private);
    log::info!("stopped");
    outcome.map(|_| ())
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot {what}: {error}"))
}

/// Opens the store, trying again while the database is late. `None` when a signal asked to stop meanwhile.
fn wait_for_database(
    store: &Store,
    timeout: Duration,
    signals: &mut Signals,
) -> Result<Option<Opened>, Failure> {
    let until = Instant::now() + timeout;
    loop {
        match store.open() {
            Ok(opened) => return Ok(Some(opened)),
            Err(OpenError::Refused(problem)) => return Err(Failure::Failed(problem)),
            Err(OpenError::Unreachable(problem)) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Failure::Failed(format!(
                        "the database could not be reached within {} s: {problem}; check DATABASE_URL, and that PostgreSQL runs and lets this machine in",
                        timeout.as_secs_f64()
                    )));
                }
                log::warn!(
                    "waiting for the database, {:.0} s more: {problem}",
                    left.as_secs_f64()
                );
                thread::sleep(RETRY.min(left));
            }
        }
        if signals.pending().next().is_some() {
            return Ok(None);
        }
    }
}

/// Says what is there and, in development, how to try it.
fn announce(config: &Config, opened: &Opened, addresses: &[String], private: bool) {
    if !opened.applied.is_empty() {
        log::info!("migrations applied: {}", opened.applied.join(", "));
    }
    let place = match &config.database {
        Some(target) => format!("{} at {}", target.database(), target.host()),
        None => format!("private, in {}", config.data_dir.display()),
    };
    log::info!(
        "ready: PostgreSQL {} ({place}), schema {} at version {}, {} workers",
        opened.server_version,
        config.schema.as_str(),
        opened.schema_version,
        config.workers
    );
    if let (true, Some(address)) = (
        private,
        addresses.iter().find(|address| address.starts_with("http")),
    ) {
        println!(
            "\ntodo-api is at {address}; its data lies in {data}. To try it, paste in another terminal:\n\n  \
             export TOKEN=$({token} token --user me)\n  \
             curl -X POST {address}/api/tasks -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"title\": \"Buy milk\"}}'\n  \
             curl {address}/api/tasks -H \"Authorization: Bearer $TOKEN\"\n",
            data = config.data_dir.display(),
            token = this_program(config),
        );
    }
}

/// How this program is called from a shell in the same directory, with what a token depends on.
fn this_program(config: &Config) -> String {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "todo-api".to_owned());
    if std::env::var_os("DATA_DIR").is_some() {
        format!("DATA_DIR={} {program}", config.data_dir.display())
    } else {
        program
    }
}
