//! The command line, one file per subcommand.
//!
//! - `serve`: the server itself
//! - `migrate`: brings the database's schema up to date
//! - `user`, `api_token`: look after users and their API tokens
//! - `token`: prints a bearer token
//! - `openapi`: prints the API's description
//! - `healthcheck`: answers by exit code
//! - `maintenance`: removes what nobody needs any more
//! - `config`: prints the settings
//! - `doctor`: says what is wrong around the server
//! - `setup`: what several of them need: the log, the database, the secret
//! - `signals`, `supervisor`, `first_steps`: what `serve` hears, what it tells systemd, and somebody who tries it

mod api_token;
mod config;
mod doctor;
mod first_steps;
mod healthcheck;
mod maintenance;
mod migrate;
mod openapi;
mod serve;
mod setup;
mod signals;
mod supervisor;
mod token;
mod upkeep;
mod user;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::Arg::{Long, Short, Value};

use crate::config::env_file::{DOT_ENV, EnvFile};
use crate::config::source::Source;
use crate::config::{Config, ConfigError};
use crate::log_writer::{self, Class};

const HELP: &str = "\
todo-api: a task server on PostgreSQL

Usage: todo-api [COMMAND] [OPTIONS]

Commands:
  serve         Answer requests (what happens without a command)
  migrate       Bring the database's schema up to date, and end
  user          Look after users; where one is asked for, an id or an email address will do
                  user add EMAIL [--name NAME]   make an account; asks for the password
                  user list                      show who there is
                  user password USER             set a password; asks for it; ends their sessions
                  user email USER EMAIL          change the address to log in with
                  user disable USER              refuse all their tokens, whoever made them
                  user enable USER               let them in again
                  user delete USER --yes         delete the user with all tasks
                    --id                           USER is an id, whatever it looks like
  api-token     Look after users' personal API tokens
                  api-token create --user USER --name NAME   print a new one
                    --scopes tasks:read                        for less than everything
                    --expires-at 2030-01-31T09:00:00Z          with an end
                  api-token list --user USER
                  api-token revoke --user USER ID
  token         Print a bearer token for a user
                  --user ID     whose token it is
                  --email E     an address to name in it
                  --hours N     how long it is good for (default: JWT_EXPIRATION_HOURS)
  openapi       Print the API's description (OpenAPI 3.1, JSON)
  maintenance   Remove expired sessions, revocations, keys and what is left of deleted accounts;
                  a running server does it every hour
  healthcheck   Ask the server of this configuration whether it is alive; exit 0 or 1
                  --ready       ask whether it can serve tasks, too
  config        Print every setting, its value, and where it came from; secrets are hidden
  doctor        Look at settings, database, clock, certificate and limits; say what to do

Passwords are read from standard input, or asked for where that is a terminal.

Options:
  --env-file FILE  Read settings from this file, too; the environment goes before it
  -h, --help       Print this
  -V, --version    Print the version

Settings are environment variables; README.md and .env.example list them. Without any,
the server listens on http://127.0.0.1:8000 and keeps a private PostgreSQL in ./data.
In development a file .env in the working directory is read like FILE.
";

/// Why a command ended without having done its work.
pub enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Something else is: exit code 1.
    Failed(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// A command and its options.
enum Command {
    Serve,
    Migrate,
    Token(token::Options),
    User(user::Options),
    ApiToken(api_token::Options),
    Openapi,
    Maintenance,
    Healthcheck { ready: bool },
    Config,
    Doctor,
    Help,
    Version,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let outcome = parse(std::env::args_os().skip(1))
        .and_then(|(command, env_file)| execute(command, env_file.as_deref()));
    let (code, line) = match outcome {
        Ok(()) => {
            log_writer::finish();
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(problem)) => (
            2,
            format!("{problem}; `todo-api --help` shows what there is"),
        ),
        Err(Failure::Failed(problem)) => (1, problem),
    };
    // Through the queue, because the process must end also where standard error blocks.
    log_writer::write(Class::Error, format!("todo-api: {line}\n").as_bytes());
    log_writer::finish();
    ExitCode::from(code)
}

fn execute(command: Command, env_file: Option<&Path>) -> Result<(), Failure> {
    let load = || Config::load(&source(env_file)?);
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("todo-api ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve => serve::run(&load()?),
        Command::Migrate => migrate::run(&load()?),
        Command::Token(options) => token::run(&load()?, &options),
        Command::User(options) => user::run(&load()?, &options),
        Command::ApiToken(options) => api_token::run(&load()?, &options),
        Command::Openapi => openapi::run(),
        Command::Maintenance => maintenance::run(&load()?),
        Command::Healthcheck { ready } => healthcheck::run(&load()?, ready),
        Command::Config => config::run(&source(env_file)?),
        Command::Doctor => doctor::run(&source(env_file)?),
    }
}

/// The environment, and the file that was named; where none was, `.env` in development.
fn source(env_file: Option<&Path>) -> Result<Source, ConfigError> {
    let source = Source::of_process();
    if let Some(path) = env_file {
        return Ok(source.with_file(EnvFile::read(path)?));
    }
    if source.get("ENVIRONMENT")?.as_deref() == Some("production") {
        return Ok(source);
    }
    let Some(file) = EnvFile::read_if_there(Path::new(DOT_ENV))? else {
        return Ok(source);
    };
    if file.get("ENVIRONMENT") == Some("production") {
        return Err(ConfigError {
            variable: "ENVIRONMENT".to_owned(),
            problem: format!(
                "must not be production in {DOT_ENV}, which is for development: name the file with --env-file"
            ),
        });
    }
    Ok(source.with_file(file))
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Failed(format!("cannot print: {error}")))
}

/// The command, and the file with settings.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<(Command, Option<PathBuf>), Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut command, mut env_file) = (None, None);
    while let Some(argument) = parser.next()? {
        match (argument, &mut command) {
            (Short('h') | Long("help"), _) => return Ok((Command::Help, None)),
            (Short('V') | Long("version"), _) => return Ok((Command::Version, None)),
            (Long("env-file"), _) => env_file = Some(PathBuf::from(parser.value()?)),
            (Value(name), None) => command = Some(named(&name)?),
            (Long("user"), Some(Command::Token(options))) => {
                options.user = Some(text(parser.value()?)?)
            }
            (Long("email"), Some(Command::Token(options))) => {
                options.email = Some(text(parser.value()?)?)
            }
            (Long("hours"), Some(Command::Token(options))) => {
                options.hours = Some(text(parser.value()?)?)
            }
            (Value(word), Some(Command::User(options))) => options.words.push(text(word)?),
            (Long("name"), Some(Command::User(options))) => {
                options.name = Some(text(parser.value()?)?)
            }
            (Long("id"), Some(Command::User(options))) => options.id = true,
            (Long("yes"), Some(Command::User(options))) => options.yes = true,
            (Value(word), Some(Command::ApiToken(options))) => options.words.push(text(word)?),
            (Long("user"), Some(Command::ApiToken(options))) => {
                options.user = Some(text(parser.value()?)?)
            }
            (Long("name"), Some(Command::ApiToken(options))) => {
                options.name = Some(text(parser.value()?)?)
            }
            (Long("scopes"), Some(Command::ApiToken(options))) => {
                options.scopes = Some(text(parser.value()?)?)
            }
            (Long("expires-at"), Some(Command::ApiToken(options))) => {
                options.expires_at = Some(text(parser.value()?)?)
            }
            (Long("ready"), Some(Command::Healthcheck { ready })) => *ready = true,
            (argument, _) => return Err(argument.unexpected().into()),
        }
    }
    Ok((command.unwrap_or(Command::Serve), env_file))
}

fn named(name: &OsString) -> Result<Command, Failure> {
    match name.to_str() {
        Some("serve") => Ok(Command::Serve),
        Some("migrate") => Ok(Command::Migrate),
        Some("token") => Ok(Command::Token(token::Options::default())),
        Some("user") => Ok(Command::User(user::Options::default())),
        Some("api-token") => Ok(Command::ApiToken(api_token::Options::default())),
        Some("openapi") => Ok(Command::Openapi),
        Some("maintenance") => Ok(Command::Maintenance),
        Some("healthcheck") => Ok(Command::Healthcheck { ready: false }),
        Some("config") => Ok(Command::Config),
        Some("doctor") => Ok(Command::Doctor),
        Some("help") => Ok(Command::Help),
        _ => Err(Failure::Usage(format!("there is no command {name:?}"))),
    }
}

fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| Failure::Usage(format!("{value:?} is not UTF-8")))
}
