//! The command line, one file per command or group of commands.
//!
//! - [`command`]: what a command is; reads a command line; help
//! - `serve`: the server itself, with `build` (its parts), `opening` (its database), `signals`, `supervisor` (systemd), `upkeep`, `first_steps`
//! - `setup`: what several commands need: the log, the database, the secret
//! - `backups`: a check of `doctor`

mod api_token;
mod backups;
mod build;
mod command;
mod config;
mod doctor;
mod first_steps;
mod healthcheck;
mod maintenance;
mod migrate;
mod openapi;
mod opening;
mod serve;
mod setup;
mod signals;
mod supervisor;
mod token;
mod upkeep;
mod user;

use std::io::Write;
use std::process::ExitCode;

use command::{Call, Command, Request};

use crate::config::ConfigError;
use crate::log_writer::{self, Class};
use crate::store;

/// Every command, in the order of the help.
const COMMANDS: &[&[Command]] = &[
    &[serve::COMMAND, migrate::COMMAND],
    user::COMMANDS,
    api_token::COMMANDS,
    &[
        token::COMMAND,
        openapi::COMMAND,
        maintenance::COMMAND,
        healthcheck::COMMAND,
        config::COMMAND,
        doctor::COMMAND,
    ],
];

/// Why a command ended without having done its work.
pub enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
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

impl From<String> for Failure {
    fn from(problem: String) -> Failure {
        Failure::Failed(problem)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let outcome = match command::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(command, call)) => (command.run)(&call),
        Ok(Request::Print(text)) => print(&text),
        Err(failure) => Err(failure),
    };
    let (code, line) = match outcome {
        Ok(()) => {
            log_writer::finish();
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(problem)) => (2, format!("{problem}; see `todo-api --help`")),
        Err(Failure::Failed(problem)) => (1, problem),
    };
    complain(&line);
    log_writer::finish();
    ExitCode::from(code)
}

/// Writes a line to standard error. It goes through the queue, because the process must end also when standard error blocks.
fn complain(line: &str) {
    log_writer::write(Class::Error, format!("todo-api: {line}\n").as_bytes());
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Failed(format!("cannot print: {error}")))
}
