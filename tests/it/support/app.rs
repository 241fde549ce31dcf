//! A server in the test's process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use todo_api::api::crew::Crew;
use todo_api::api::guessing::Guessing;
use todo_api::api::limits::RequestLimits;
use todo_api::api::metrics::MetricsAccess;
use todo_api::api::root::Installation;
use todo_api::api::routes::routes;
use todo_api::api::{App, Handler};
use todo_api::auth::guard::Guard;
use todo_api::auth::issuer::Issuer;
use todo_api::auth::token::TokenVerifier;
use todo_api::config::source::Source;
use todo_api::config::{Config, Environment, ModuleChecks};
use todo_api::domain::address::{Address, parse_list};
use todo_api::domain::origins::Origins;
use todo_api::http::policy::Policy;
use todo_api::http::router::{Route, Router};
use todo_api::server::{Parts, Server, Sockets};
use todo_api::store::{Store, StoreSettings};

use super::actors::Actor;
use super::hold::wait_until;
use super::postgres;

/// The key of the tests' tokens.
pub const SECRET: &str = "a secret for tests, 32 bytes or more";

/// The origin whose pages may call a server in this process.
pub const ORIGIN: &str = "https://app.example.com";

/// A server in this process, on a free port, with a database of its own.
pub struct TestApp {
    pub address: SocketAddr,
    /// The URL of its database.
    pub database: String,
    server: Option<Server>,
}

impl TestApp {
    pub fn start() -> TestApp {
        TestApp::on(&postgres::fresh_database(), |_| {}, Vec::new())
    }

    /// A server on this database, with settings changed by `adjust`, and with additional routes.
    pub fn on(
        database: &str,
        adjust: impl FnOnce(&mut StoreSettings),
        more: Vec<Route<Handler>>,
    ) -> TestApp {
        let app = TestApp::not_open(database, adjust, more);
        app.1
            .store
            .open(Instant::now() + Duration::from_secs(20))
            .map_err(|error| error.to_string())
            .unwrap();
        app.0
    }

    /// A server with this verifier of tokens, on a new database.
    pub fn with_verifier(verifier: TokenVerifier) -> TestApp {
        let (server, app) =
            TestApp::not_open_with(&postgres::fresh_database(), |_| {}, Vec::new(), verifier);
        app.store
            .open(Instant::now() + Duration::from_secs(20))
            .map_err(|error| error.to_string())
            .unwrap();
        server
    }

    /// As [`TestApp::on`], with a store that is not open yet.
    pub fn not_open(
        database: &str,
        adjust: impl FnOnce(&mut StoreSettings),
        more: Vec<Route<Handler>>,
    ) -> (TestApp, Arc<App>) {
        TestApp::not_open_with(database, adjust, more, TokenVerifier::new(SECRET, None))
    }

    fn not_open_with(
        database: &str,
        adjust: impl FnOnce(&mut StoreSettings),
        more: Vec<Route<Handler>>,
        verifier: TokenVerifier,
    ) -> (TestApp, Arc<App>) {
        let mut settings = settings(database);
        adjust(&mut settings);
        let app = Arc::new(app(Store::new(settings), verifier));
        let table = routes().into_iter().chain(more).collect();
        let policy = Policy::new(&Origins::parse(ORIGIN).unwrap(), None, false);
        let server = start_server(
            &server_settings("127.0.0.1:0"),
            parts(&app, Router::new(table), Arc::new(policy)),
        );
        let Some(Address::Tcp(address)) = server.addresses().next().cloned() else {
            panic!()
        };
        (
            TestApp {
                address,
                database: database.to_owned(),
                server: Some(server),
            },
            app,
        )
    }

    pub fn anonymous(&self) -> Actor {
        Actor::anonymous(self.address)
    }

    pub fn user(&self, id: &str) -> Actor {
        Actor::user(self.address, id)
    }

    /// A direct connection to its database.
    pub fn sql(&self) -> ::postgres::Client {
        ::postgres::Client::connect(&self.database, ::postgres::NoTls).unwrap()
    }

    /// The deadlocks that PostgreSQL has counted. A connection may report them only when it ends, so all others are ended first.
    pub fn deadlocks(&self) -> i64 {
        let others = "SELECT array_agg(CASE WHEN pg_terminate_backend(pid) THEN pid END) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1)";
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let mut sql = self.sql();
        let others: Option<Vec<Option<i32>>> = sql.query_one(others, &[]).unwrap().get(0);
        wait_until(|| sql.query_one(alive, &[&others]).unwrap().get::<_, i64>(0) == 0);
        sql.query_one(deadlocks, &[]).unwrap().get(0)
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Duration::from_secs(5));
        }
    }
}

/// Starts a server with these settings.
pub fn start_server(config: &Config, parts: Parts) -> Server {
    Server::start(config, Sockets::bind(config).unwrap(), parts).unwrap()
}

/// Settings of a server with this address.
pub fn server_settings(listen: &str) -> Config {
    let mut config = defaults();
    config.listening.addresses = parse_list(listen).unwrap();
    config.process.workers = 4;
    config.process.self_check = Duration::ZERO;
    config.process.environment = Environment::Production;
    config
}

/// The parts of a server without TLS.
pub fn parts(app: &Arc<App>, router: Router<Handler>, policy: Arc<Policy>) -> Parts {
    Parts {
        app: Arc::clone(app),
        router,
        tls: None,
        policy,
        on_alive: Arc::new(|| {}),
        on_failure: Box::new(|reason| eprintln!("{reason}")),
    }
}

/// The shared state of handlers. Its only limits are those on guessing.
pub fn app(store: Store, verifier: TokenVerifier) -> App {
    let mut config = defaults();
    (config.requests.per_user, config.requests.per_address) = (0, 0);
    config.requests.metrics_networks.clear();
    config.guessing.registrations_per_address = 0;
    config.guessing.refreshes_per_address = 0;
    App {
        store,
        guard: Guard::new(verifier),
        limits: RequestLimits::new(&config.requests),
        issuer: Issuer::new(SECRET, &config.tokens, &config.accounts),
        hashing: Crew::hashing().unwrap(),
        lone_writes: Crew::lone_writes().unwrap(),
        guessing: Guessing::new(&config.guessing),
        metrics: MetricsAccess::new(&config.requests),
        accounts: config.accounts,
        installation: Installation {
            command: "todo-api".to_owned(),
            tls: false,
        },
    }
}

/// The default settings.
pub fn defaults() -> Config {
    let checks = ModuleChecks {
        database_is_local: |_| Ok(true),
        key_set_url: |_| Ok(()),
    };
    Config::load(&Source::of_pairs(&[]), &checks).unwrap()
}

/// Settings for tests: small and quick.
pub fn settings(database: &str) -> StoreSettings {
    let mut settings = defaults().database;
    settings.pool_size = 6;
    StoreSettings::new(database, &settings).unwrap()
}
