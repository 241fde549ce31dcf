//! The command line, one file per subcommand.
//!
//! - `serve`: the server itself
//! - `migrate`: brings the database's schema up to date
//! - `token`: prints a bearer token
//! - `healthcheck`: answers by exit code
//! - `config`: prints the settings
//! - `doctor`: says what is wrong around the server
//! - `setup`: what several of them need: the log, the database, the secret
//! - `signals`, `supervisor`, `first_steps`: what `serve` hears, what it tells systemd, and somebody who tries it

mod config;
mod doctor;
mod first_steps;
mod healthcheck;
mod migrate;
mod serve;
mod setup;
mod signals;
mod supervisor;
mod token;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::Arg::{Long, Short, Value};

use crate::config::env_file::{DOT_ENV, EnvFile};
use crate::config::source::Source;
use crate::config::{Config, ConfigError};
use crate::log_writer;

const HELP: &str = "\
todo-api: a task server on PostgreSQL

Usage: todo-api [COMMAND] [OPTIONS]

Commands:
  serve         Answer requests (what happens without a command)
  migrate       Bring the database's schema up to date, and end
  token         Print a bearer token for a user
                  --user ID     whose token it is
                  --email E     an address to name in it
                  --hours N     how long it is good for (default: JWT_EXPIRATION_HOURS)
  healthcheck   Ask the server of this configuration whether it is alive; exit 0 or 1
                  --ready       ask whether it can serve tasks, too
  config        Print every setting, its value, and where it came from; secrets are hidden
  doctor        Look at settings, database, clock, certificate and limits; say what to do

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
    log_writer::finish();
    let (code, line) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(problem)) => (
            2,
            format!("{problem}; `todo-api --help` shows what there is"),
        ),
        Err(Failure::Failed(problem)) => (1, problem),
    };
    // Nothing can be told of a standard error that is closed.
    let _ = writeln!(std::io::stderr(), "todo-api: {line}");
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
