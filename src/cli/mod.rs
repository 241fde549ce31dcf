//! The command line, one file per command or group of commands.
//!
//! - `command`: the description of a command, the parser of command lines, and help
//! - `serve`: the server itself, with `build` (its parts), `events`, `open_database`, `signals`, `supervisor` (systemd), `upkeep`,
//!   `first_steps`
//! - `backups`: a check of `doctor`
//! - `setup`: steps that several commands share: the log, the database, the secret

#[macro_use]
mod command;

mod api_token;
mod backups;
mod build;
mod config;
mod doctor;
mod events;
mod export;
mod first_steps;
mod healthcheck;
mod import;
mod maintenance;
mod migrate;
mod open_database;
mod openapi;
mod serve;
mod setup;
mod signals;
mod supervisor;
mod token;
mod upkeep;
mod user;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::thread;

use command::{Command, CommandLine};

use crate::log_writer::{self, Class};

/// Every command, in the order of the help.
const COMMANDS: &[&[Command]] = &[
    serve::COMMANDS,
    migrate::COMMANDS,
    user::COMMANDS,
    api_token::COMMANDS,
    token::COMMANDS,
    export::COMMANDS,
    import::COMMANDS,
    openapi::COMMANDS,
    maintenance::COMMANDS,
    healthcheck::COMMANDS,
    config::COMMANDS,
    doctor::COMMANDS,
];

/// The reason why a command failed.
pub struct Failure {
    /// 2 if the command line is wrong, else 1.
    exit_code: u8,
    problem: String,
}

impl Failure {
    /// The command line is wrong.
    fn usage(problem: impl Display) -> Failure {
        Failure {
            exit_code: 2,
            problem: problem.to_string(),
        }
    }
}

impl<E: Display> From<E> for Failure {
    fn from(problem: E) -> Failure {
        Failure {
            exit_code: 1,
            problem: problem.to_string(),
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let exit_code = match command::run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.problem);
            failure.exit_code.into()
        }
    };
    log_writer::finish();
    exit_code
}

/// Queues a line for standard error. Writing it here could block the end of the process.
fn complain(line: &str) {
    log_writer::write(Class::Error, format!("todo-api: {line}\n").as_bytes());
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot print: {error}").into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(no_thread)
}

fn no_thread(error: std::io::Error) -> Failure {
    format!("cannot start a thread: {error}").into()
}
