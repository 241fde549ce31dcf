//! The line on a terminal that says how far a command is.

use std::io::{IsTerminal, Write, stderr};

/// Counts tasks, and shows the count on standard error if that is a terminal. The line goes away at the end.
pub struct Progress {
    verb: &'static str,
    tasks: usize,
}

impl Progress {
    /// `verb` says what is done with the tasks.
    pub fn new(verb: &'static str) -> Progress {
        Progress { verb, tasks: 0 }
    }

    /// So many tasks more are done: a thousand, as a rule.
    pub fn add(&mut self, tasks: usize) {
        self.tasks += tasks;
        show(&format!("\r{} {} tasks", self.verb, self.tasks));
    }

    /// Tasks done so far.
    pub fn tasks(&self) -> usize {
        self.tasks
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // ECMA-48, EL: erases the line from the cursor on.
        show("\r\x1b[K");
    }
}

/// Progress that cannot be shown is no reason to fail.
fn show(text: &str) {
    if stderr().is_terminal() {
        let _ = stderr().write_all(text.as_bytes());
    }
}
