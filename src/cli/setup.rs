//! What several commands need: the log, the database, the secret.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failure;
use crate::auth::jwks::KeySetUrl;
use crate::auth::secret;
use crate::config::env_file::EnvFile;
use crate::config::source::Source;
use crate::config::{Config, ModuleChecks};
use crate::local_postgres::{self, LocalPostgres};
use crate::logging::{self, Format};
use crate::store::connector::{Session, Target};
use crate::store::opening::Opened;
use crate::store::{Settings, Store};

/// Descriptors beside connections: the pool's, listening sockets, log, event loops.
const SPARE_DESCRIPTORS: u64 = 64;

/// How an owner runs commands with the settings of the installed service.
pub const FOR_THE_SERVICE: &str = "for the installed service run: sudo todo-apictl …";

/// Checks of settings by the modules that own their types.
pub const CHECKS: ModuleChecks = ModuleChecks {
    database_is_local: |url| Target::parse(url).map(|target| target.is_on_this_machine()),
    key_set_url: |url| KeySetUrl::parse(url).map(drop).map_err(str::to_owned),
};

/// The store, open, for a command; and the private PostgreSQL behind it, if it had to be started.
pub struct OpenStore {
    /// The store. It is dropped first, which closes its connections.
    pub store: Store,
    /// What was found and done when it was opened.
    pub opened: Opened,
    _private: Option<LocalPostgres>,
}

/// Starts the log, with the level of `RUST_LOG`, else of `LOG_LEVEL`; warns about misspelt settings.
pub fn logging(config: &Config) {
    let filters = std::env::var("RUST_LOG").ok();
    let filters = filters.as_deref().filter(|filters| !filters.is_empty());
    let format = if config.process.log_as_json {
        Format::Json
    } else {
        Format::Text
    };
    logging::init(filters, config.process.log_level, format);
    for warning in &config.origin.misspelt {
        log::warn!("{warning}");
    }
}

/// Opens the store of the configured database. It makes no private PostgreSQL, but starts one that exists.
pub fn open_store(config: &Config) -> Result<OpenStore, Failure> {
    logging(config);
    let mut config = config.clone();
    // One for the command, one for a retry.
    config.database.pool_size = 2;
    let data_dir = &config.process.data_dir;
    let private = match &config.database.url {
        Some(_) => None,
        None if !LocalPostgres::exists(data_dir) => return Err(no_data(&config).into()),
        None if LocalPostgres::is_running(data_dir).map_err(|error| error.to_string())? => None,
        None => Some(start_private(&config)?),
    };
    let store = Store::new(store_settings(&config)?);
    let opened = store
        .open(Instant::now() + config.process.startup_timeout)
        .map_err(|error| error.to_string())?;
    Ok(OpenStore {
        store,
        opened,
        _private: private,
    })
}

/// Why a command that makes no data has none to work with.
pub fn no_data(config: &Config) -> String {
    let here = config.process.data_dir.display();
    format!("no data in {here}; `todo-api serve` makes it; {FOR_THE_SERVICE}")
}

/// Starts the private PostgreSQL, which is made if it does not exist.
pub fn start_private(config: &Config) -> Result<LocalPostgres, String> {
    let options = local_postgres::Options {
        durable: true,
        max_connections: config.database.pool_size + 10,
    };
    LocalPostgres::start(&config.process.data_dir, options).map_err(|error| error.to_string())
}

/// The database: the one that was set, else the private one.
fn target(config: &Config) -> Result<Target, String> {
    let url = match &config.database.url {
        Some(url) => url.expose().to_owned(),
        None => {
            LocalPostgres::url_in(&config.process.data_dir).map_err(|error| error.to_string())?
        }
    };
    Target::parse(&url)
}

/// Reads the file with settings again, if there is one, and sets the level of the log. The environment of a process never
/// changes, and all other settings are read at the start only.
pub fn read_log_level_again(config: &Config) {
    let Some(path) = &config.origin.env_file else {
        return;
    };
    let again = EnvFile::read(path)
        .and_then(|file| Config::load(&Source::of_process().with_file(file), &CHECKS));
    match again {
        Ok(config) => {
            logging(&config);
            log::info!(
                "LOG_LEVEL is read again from {}: {}",
                path.display(),
                config.process.log_level.as_str().to_lowercase()
            );
        }
        Err(error) => {
            log::error!("LOG_LEVEL stays as it is, and the next start would fail: {error}");
        }
    }
}

/// What a store on this database needs to know.
pub fn store_settings(config: &Config) -> Result<Settings, String> {
    let target = target(config)?;
    let session = Session {
        statement_timeout: config.database.statement_timeout,
        lock_timeout: config.database.lock_timeout,
        // No statement leaves a transaction open. If one does, this releases its locks.
        idle_in_transaction_timeout: config.database.statement_timeout,
        connect_timeout: config.database.connect_timeout,
        application_name: "todo-api".to_owned(),
    };
    let unpooled = match &config.database.url_unpooled {
        Some(url) => Some(Target::parse(url.expose())?),
        None => target.unpooled(),
    };
    Ok(Settings {
        direct_target: unpooled,
        target,
        schema: config.database.schema.clone(),
        pool_size: config.database.pool_size,
        pool_timeout: config.database.pool_timeout,
        session,
        migrate: config.database.migrate,
    })
}

/// Raises the limit of descriptors as far as the system allows. A connection is a descriptor.
///
/// # Errors
/// The settings need more than are allowed; the sentence says what to do.
pub fn raise_descriptor_limit(config: &Config) -> Result<(), String> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // If it fails, the check below tells.
    let _ = setrlimit(Resource::Nofile, raised);
    let needed =
        config.edge.connections as u64 + u64::from(config.database.pool_size) + SPARE_DESCRIPTORS;
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(format!(
            "{allowed} descriptors are allowed, and MAX_CONNECTIONS needs {needed}: raise the limit (ulimit -n, LimitNOFILE=), or lower MAX_CONNECTIONS"
        )),
        _ => Ok(()),
    }
}

/// The key that tokens are signed with: the one that was set, else the one in the data directory, which is made if it is missing.
pub fn signing_secret(config: &Config) -> Result<String, String> {
    match &config.tokens.secret {
        Some(secret) => Ok(secret.expose().to_owned()),
        None => secret::load_or_create(&config.process.data_dir),
    }
}

/// As [`signing_secret`], but makes none.
pub fn existing_secret(config: &Config) -> Result<String, Failure> {
    if config.tokens.secret.is_none() && !secret::exists(&config.process.data_dir) {
        return Err(no_data(config).into());
    }
    Ok(signing_secret(config)?)
}
