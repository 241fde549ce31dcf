//! The line on a terminal that says how far a command is.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Between two changes of the line.
const PAUSE: Duration = Duration::from_millis(200);

/// Counts tasks, and shows the count on standard error if that is a terminal. The line goes away at the end.
pub struct Progress {
    verb: &'static str,
    tasks: usize,
    next: Option<Instant>,
}

impl Progress {
    /// `verb` says what is done with the tasks.
    pub fn new(verb: &'static str) -> Progress {
        Progress {
            verb,
            tasks: 0,
            next: stderr().is_terminal().then(Instant::now),
        }
    }

    /// So many tasks more are done.
    pub fn add(&mut self, tasks: usize) {
        self.tasks += tasks;
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            self.next = Some(now + PAUSE);
            // Progress that cannot be shown is no reason to fail.
            let _ = write!(stderr(), "\r{} {} tasks", self.verb, self.tasks);
        }
    }

    /// Tasks done so far.
    pub fn tasks(&self) -> usize {
        self.tasks
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.next.is_some() {
            // ECMA-48, EL: erases the line from the cursor on.
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
