//! Steps that several commands share: the log, the database, the secret, progress.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failure;
use crate::auth::jwks::KeySetUrl;
use crate::auth::secret;
use crate::config::env_file::EnvFile;
use crate::config::source::Source;
use crate::config::{Config, ModuleChecks};
use crate::local_postgres::{ClusterOptions, LocalPostgres};
use crate::logging;
use crate::store::connector::Target;
use crate::store::opening::Opened;
use crate::store::{Store, StoreSettings};

/// Descriptors that are not clients' or the pool's connections: listening sockets, the log, event loops.
const SPARE_DESCRIPTORS: u64 = 64;
/// Clients' connections that are accepted even if the descriptor limit is lower.
const FEWEST_CONNECTIONS: u64 = 16;

/// How to run commands with the settings of the installed service.
pub const FOR_THE_SERVICE: &str = "for the installed service run: sudo todo-apictl …";

/// Checks of settings by the modules that own their types.
pub const CHECKS: ModuleChecks = ModuleChecks {
    database_is_local: |url| Target::parse(url).map(|target| target.is_on_this_machine()),
    key_set_url: |url| KeySetUrl::parse(url).map(drop).map_err(str::to_owned),
};

/// An open store, and the private PostgreSQL if it had to be started.
pub struct OpenStore {
    /// The store. It is dropped first, which closes its connections.
    pub store: Store,
    /// The result of opening it.
    pub opened: Opened,
    _private: Option<LocalPostgres>,
}

/// Starts the log, and warns about misspelt settings.
pub fn logging(config: &Config) {
    logging::init(config.process.log_level, config.process.log_as_json);
    for warning in &config.origin.misspelt {
        log::warn!("{warning}");
    }
}

/// Opens the store of the configured database. It starts a private PostgreSQL that exists, and creates none.
pub fn open_store(config: &Config) -> Result<OpenStore, Failure> {
    logging(config);
    let mut config = config.clone();
    // One for the command, one for a retry.
    config.database.pool_size = 2;
    let data_dir = &config.process.data_dir;
    let private = match &config.database.url {
        Some(_) => None,
        None if !LocalPostgres::exists(data_dir) => return Err(no_data(&config).into()),
        None if LocalPostgres::is_running(data_dir)? => None,
        None => Some(start_private(&config)?),
    };
    let store = Store::new(store_settings(&config)?);
    let opened = store.open(Instant::now() + config.process.startup_timeout)?;
    Ok(OpenStore {
        store,
        opened,
        _private: private,
    })
}

/// Shows on a terminal how far a command is. The next text overwrites it.
pub fn show_progress(done: &str, tasks: usize) {
    if stderr().is_terminal() {
        // Progress that cannot be shown is no reason to fail.
        let _ = write!(stderr(), "{done} {tasks} tasks\r");
    }
}

/// The message of commands that need data and create none.
pub fn no_data(config: &Config) -> String {
    let data_dir = config.process.data_dir.display();
    format!("no data in {data_dir}; `todo-api serve` creates it; {FOR_THE_SERVICE}")
}

/// Starts the private PostgreSQL, and creates it if it does not exist.
pub fn start_private(config: &Config) -> Result<LocalPostgres, String> {
    let options = ClusterOptions {
        durable: true,
        max_connections: config.database.pool_size + 10,
    };
    LocalPostgres::start(&config.process.data_dir, options)
}

/// The configured database, or the private one.
pub fn store_settings(config: &Config) -> Result<StoreSettings, String> {
    let url = match &config.database.url {
        Some(url) => url.expose().to_owned(),
        None => LocalPostgres::url_in(&config.process.data_dir)?,
    };
    StoreSettings::new(&url, &config.database)
}

/// Reads the file with settings again, and sets the level of the log. The environment of a process never changes, and all other
/// settings are read at the start only.
pub fn read_log_level_again(config: &Config) {
    let Some(path) = &config.origin.env_file else {
        return;
    };
    let again = EnvFile::read(path)
        .and_then(|file| Config::load(&Source::of_process().with_file(file), &CHECKS));
    match again {
        Ok(config) => {
            logging(&config);
            let level = config.process.log_level.as_str().to_lowercase();
            log::info!("LOG_LEVEL is read again from {}: {level}", path.display());
        }
        Err(error) => {
            log::error!("LOG_LEVEL stays as it is, and the next start would fail: {error}");
        }
    }
}

/// Raises the limit of descriptors to the maximum of this process. A connection is a descriptor.
///
/// # Errors
/// The settings need more than the maximum.
pub fn raise_descriptor_limit(config: &Config) -> Result<(), String> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // If it fails, the check below reports it.
    let current = maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    let needed =
        config.edge.connections as u64 + u64::from(config.database.pool_size) + SPARE_DESCRIPTORS;
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(format!(
            "{allowed} descriptors are allowed, and MAX_CONNECTIONS needs {needed}: raise the limit (ulimit -n, LimitNOFILE=), or lower MAX_CONNECTIONS"
        )),
        _ => Ok(()),
    }
}

/// `MAX_CONNECTIONS`, or as many connections of clients as the descriptor limit allows if those are fewer.
pub fn connections(config: &Config) -> usize {
    let others = u64::from(config.database.pool_size) + SPARE_DESCRIPTORS;
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = allowed.saturating_sub(others).max(FEWEST_CONNECTIONS);
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    config.edge.connections.min(allowed)
}

/// The key that signs tokens: the configured one, or the one in the data directory, which is created if it is missing.
pub fn signing_secret(config: &Config) -> Result<String, String> {
    match &config.tokens.secret {
        Some(secret) => Ok(secret.expose().to_owned()),
        None => secret::load_or_create(&config.process.data_dir),
    }
}

/// Like [`signing_secret`], but creates none.
pub fn existing_secret(config: &Config) -> Result<String, String> {
    if config.tokens.secret.is_none() && !secret::exists(&config.process.data_dir) {
        return Err(no_data(config));
    }
    signing_secret(config)
}
