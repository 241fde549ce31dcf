//! The `todo-api` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    todo_api::cli::run()
}
