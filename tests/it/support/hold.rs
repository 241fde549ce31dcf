//! Blocking requests in the database, and waiting for conditions.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

/// A lock on a table or on rows, until this is dropped.
pub struct Lock {
    client: Client,
}

impl Lock {
    pub fn tasks(database: &str) -> Lock {
        Lock::table(database, "tasks")
    }

    pub fn table(database: &str, table: &str) -> Lock {
        let mut client = Client::connect(database, NoTls).unwrap();
        client
            .batch_execute(&format!(
                "BEGIN; LOCK TABLE todo.{table} IN ACCESS EXCLUSIVE MODE"
            ))
            .unwrap();
        Lock { client }
    }

    /// A lock on some rows, as an UPDATE of their keys takes it.
    pub fn rows(database: &str, table: &str, condition: &str) -> Lock {
        let mut client = Client::connect(database, NoTls).unwrap();
        client.batch_execute("BEGIN").unwrap();
        let mut lock = Lock { client };
        lock.rows_too(table, condition);
        lock
    }

    /// Locks some more rows.
    #[track_caller]
    pub fn rows_too(&mut self, table: &str, condition: &str) {
        let sql = format!("SELECT FROM todo.{table} WHERE {condition} FOR UPDATE");
        self.client.batch_execute(&sql).unwrap();
    }

    /// Waits until this many statements wait for the lock.
    #[track_caller]
    pub fn wait_for_waiting(&mut self, number: i64) {
        wait_until(|| self.waiting() >= number);
    }

    /// Statements that wait for a lock.
    pub fn waiting(&mut self) -> i64 {
        // Within a transaction the view is read only once.
        self.client
            .batch_execute("SELECT pg_stat_clear_snapshot()")
            .unwrap();
        let count = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()";
        self.client.query_one(count, &[]).unwrap().get(0)
    }

    /// Changes something that takes effect when the lock is released.
    pub fn change(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap();
    }

    /// Releases the lock.
    pub fn release(mut self) {
        self.client.batch_execute("COMMIT").unwrap();
    }
}

/// Settings that let statements wait a minute for a lock.
pub const PATIENT: [(&str, &str); 2] = [("DB_LOCK_TIMEOUT", "60"), ("DB_STATEMENT_TIMEOUT", "60")];

/// Waits for a condition, 20 s at most.
#[track_caller]
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Fills a user's list with the most tasks of one answer, 8 MB of descriptions, directly in the database.
pub fn large_list(database: &str, user: &str) {
    long_list(database, user, 1_000);
}

/// Adds this many tasks with descriptions of 8 KB to a user's list, directly in the database.
pub fn long_list(database: &str, user: &str, tasks: i32) {
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
             SELECT $1, gen_random_uuid(), 'task ' || number, repeat(U&'\\+01F404', 2000) FROM generate_series(1, $2) number",
            &[&user, &tasks],
        )
        .unwrap();
}
