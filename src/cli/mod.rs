//! The command line, one file per subcommand.
//!
//! - `serve`: the server itself
//! - `migrate`: brings the database's schema up to date
//! - `token`: prints a bearer token
//! - `healthcheck`: answers by exit code
//! - `setup`: what several of them need: the log, the database, the secret

mod healthcheck;
mod migrate;
mod serve;
mod setup;
mod token;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use lexopt::Arg::{Long, Short, Value};

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

Options:
  -h, --help     Print this
  -V, --version  Print the version

Settings are environment variables; README.md and .env.example list them. Without any,
the server listens on http://127.0.0.1:8000 and keeps a private PostgreSQL in ./data.
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
    Help,
    Version,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let outcome = parse(std::env::args_os().skip(1)).and_then(execute);
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

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help => print(HELP),
        Command::Version => print(concat!("todo-api ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve => serve::run(&load()?),
        Command::Migrate => migrate::run(&load()?),
        Command::Token(options) => token::run(&load()?, &options),
        Command::Healthcheck { ready } => healthcheck::run(&load()?, ready),
    }
}

fn load() -> Result<Config, Failure> {
    Ok(Config::load(&Source::of_process())?)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Failed(format!("cannot print: {error}")))
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = None;
    while let Some(argument) = parser.next()? {
        match (argument, &mut command) {
            (Short('h') | Long("help"), _) => return Ok(Command::Help),
            (Short('V') | Long("version"), _) => return Ok(Command::Version),
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
    Ok(command.unwrap_or(Command::Serve))
}

fn named(name: &OsString) -> Result<Command, Failure> {
    match name.to_str() {
        Some("serve") => Ok(Command::Serve),
        Some("migrate") => Ok(Command::Migrate),
        Some("token") => Ok(Command::Token(token::Options::default())),
        Some("healthcheck") => Ok(Command::Healthcheck { ready: false }),
        Some("help") => Ok(Command::Help),
        _ => Err(Failure::Usage(format!("there is no command {name:?}"))),
    }
}

fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| Failure::Usage(format!("{value:?} is not UTF-8")))
}
