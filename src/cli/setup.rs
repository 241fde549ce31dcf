//! What several commands need: the log, the database, the secret.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Instant;

use super::Failure;
use crate::auth::secret;
use crate::config::Config;
use crate::config::env_file::EnvFile;
use crate::config::source::Source;
use crate::local_postgres::{self, LocalPostgres};
use crate::logging;
use crate::store::connector::{Session, Target};
use crate::store::{Settings, Store};

/// Descriptors beside connections: the pool's, listening sockets, log, event loops.
const SPARE_DESCRIPTORS: u64 = 64;

/// Logs as `RUST_LOG` says, else as `LOG_LEVEL` does.
pub fn logging(config: &Config) {
    let filters = std::env::var("RUST_LOG").ok();
    let filters = filters.as_deref().filter(|filters| !filters.is_empty());
    logging::init(filters, config.log_level, config.log_format);
}

/// The store as a running server has it, open, for a command that looks after what is in it; and the private PostgreSQL behind it,
/// where one had to be started for that.
pub fn open_store(config: &Config) -> Result<(Store, Option<LocalPostgres>), Failure> {
    logging(config);
    let running = match &config.database {
        Some(_) => None,
        None => LocalPostgres::url_of_running(&config.data_dir)
            .map_err(|error| Failure::Failed(error.to_string()))?,
    };
    let config = Config {
        database: match running {
            Some(url) => Some(Target::parse(&url).map_err(Failure::Failed)?),
            None => config.database.clone(),
        },
        // One for the command, one for a retry.
        pool_size: 2,
        ..config.clone()
    };
    let (store, private) = store(&config)?;
    store
        .open(Instant::now() + config.startup_timeout)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    Ok((store, private))
}

/// Reads the file with settings again, where there is one, and logs as much as it says now. The environment of a process never
/// changes, and all other settings are read at the start only.
pub fn read_log_level_again(config: &Config) {
    let Some(path) = &config.env_file else {
        return;
    };
    let again =
        EnvFile::read(path).and_then(|file| Config::load(&Source::of_process().with_file(file)));
    match again {
        Ok(config) => {
            logging(&config);
            log::info!(
                "LOG_LEVEL is read again from {}: {}",
                path.display(),
                config.log_level.as_str().to_lowercase()
            );
        }
        Err(error) => {
            log::error!("LOG_LEVEL stays as it is, and the next start would fail: {error}");
        }
    }
}

/// A store that is not open yet and, where none was named, the private PostgreSQL behind it, running.
pub fn store(config: &Config) -> Result<(Store, Option<LocalPostgres>), Failure> {
    let (target, private) = match &config.database {
        Some(target) => (target.clone(), None),
        None => {
            let options = local_postgres::Options {
                durable: true,
                max_connections: config.pool_size + 10,
            };
            let private = LocalPostgres::start(&config.data_dir, options)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            let target = Target::parse(&private.url()).map_err(Failure::Failed)?;
            (target, Some(private))
        }
    };
    Ok((Store::new(store_settings(config, target)), private))
}

/// What a store on this database needs to know.
pub fn store_settings(config: &Config, target: Target) -> Settings {
    let session = Session {
        statement_timeout: config.statement_timeout,
        lock_timeout: config.lock_timeout,
        // No statement of ours leaves a transaction open; should one, its locks go with it.
        idle_in_transaction_timeout: config.statement_timeout,
        connect_timeout: config.connect_timeout,
        application_name: "todo-api".to_owned(),
    };
    Settings {
        direct_target: config
            .database_unpooled
            .clone()
            .or_else(|| target.unpooled()),
        target,
        schema: config.schema.clone(),
        pool_size: config.pool_size,
        pool_timeout: config.pool_timeout,
        session,
        migrate: config.migrate,
    }
}

/// Descriptors that are allowed (`None`: no limit), once raised as far as they may be, and those the settings need. A connection
/// is a descriptor, and the limit a shell gives is mostly lower than the one it may give.
pub fn descriptors(config: &Config) -> (Option<u64>, u64) {
    let limit = getrlimit(Resource::Nofile);
    // It fails only where the system forbids what it says is allowed; what is allowed then tells.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let wanted = config.limits.connections as u64 + u64::from(config.pool_size) + SPARE_DESCRIPTORS;
    (getrlimit(Resource::Nofile).current, wanted)
}

/// The key that tokens are signed with: the one that was set, else the one kept under the data directory.
pub fn signing_secret(config: &Config) -> Result<String, Failure> {
    match &config.secret {
        Some(secret) => Ok(secret.expose().to_owned()),
        None => secret::load_or_create(&config.data_dir).map_err(Failure::Failed),
    }
}
