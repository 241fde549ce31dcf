//! The `todo-api` program.

fn main() {}
