//! Holding a server up, and waiting for what must come.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

/// The table of tasks, locked against everybody until this is dropped.
pub struct Lock {
    client: Client,
}

impl Lock {
    pub fn tasks(database: &str) -> Lock {
        let mut client = Client::connect(database, NoTls).unwrap();
        client
            .batch_execute("BEGIN; LOCK TABLE todo.tasks IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        Lock { client }
    }

    /// Waits until so many statements wait for the lock.
    #[track_caller]
    pub fn wait_for_waiting(&mut self, number: i64) {
        let count = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()";
        wait_until(|| {
            // Within a transaction the view is read once.
            let waiting: i64 = self.client.query_one(count, &[]).unwrap().get(0);
            self.client
                .batch_execute("SELECT pg_stat_clear_snapshot()")
                .unwrap();
            waiting >= number
        });
    }

    /// Lets everybody go on.
    pub fn release(mut self) {
        self.client.batch_execute("COMMIT").unwrap();
    }
}

/// A statement may wait for a lock as long as a test likes.
pub const PATIENT: [(&str, &str); 2] = [("DB_LOCK_TIMEOUT", "60"), ("DB_STATEMENT_TIMEOUT", "60")];

/// Waits for something, 20 s at most.
#[track_caller]
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Fills a user's list with as many tasks as one answer holds, 8 MB of descriptions, past the server.
pub fn large_list(database: &str, user: &str) {
    let mut client = Client::connect(database, NoTls).unwrap();
    client
        .execute(
            "INSERT INTO todo.users (id) VALUES ($1) ON CONFLICT DO NOTHING",
            &[&user],
        )
        .unwrap();
    client
        .execute(
            "INSERT INTO todo.tasks (user_id, id, title, description)
             SELECT $1, gen_random_uuid(), 'task ' || number, repeat(U&'\\+01F404', 2000) FROM generate_series(1, 1000) number",
            &[&user],
        )
        .unwrap();
}
