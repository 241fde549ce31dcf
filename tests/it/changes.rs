//! The feed of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_api::api::Handler;
use todo_api::api::routes::ROUTES;
use todo_api::domain::feed::{FeedCursor, Round};
use todo_api::http::request::Method;

use crate::support::postgres::{fresh_database, sql};
use crate::support::process::run;
use crate::support::{Actor, TestApp};

/// A copy of a user's tasks that is kept up to date from the feed.
#[derive(Default)]
struct Replica {
    tasks: BTreeMap<String, Value>,
    cursor: Option<String>,
    /// Every version that has come: id, `created_at` and version.
    seen: BTreeSet<(String, String, i64)>,
    /// Answers with 410.
    restarts: usize,
}

impl Replica {
    /// Reads one page; says whether there are more.
    #[track_caller]
    fn read(&mut self, user: &Actor, limit: usize) -> bool {
        let since = match &self.cursor {
            Some(cursor) => format!("&since={cursor}"),
            None => String::new(),
        };
        let answer = user.get(&format!("/api/tasks/changes?limit={limit}{since}"));
        if answer.status == 410 {
            answer.expect_error(410, "GONE");
            *self = Replica {
                restarts: self.restarts + 1,
                ..Replica::default()
            };
            return true;
        }
        let page = answer.expect(200).json();
        let (tasks, deleted) = (&page["tasks"], &page["deleted"]);
        let (tasks, deleted) = (tasks.as_array().unwrap(), deleted.as_array().unwrap());
        assert!(tasks.len() + deleted.len() <= limit, "{page}");
        for task in tasks {
            let id = task["id"].as_str().unwrap().to_owned();
            let made = task["created_at"].as_str().unwrap().to_owned();
            let version = (id.clone(), made, task["version"].as_i64().unwrap());
            assert!(self.seen.insert(version), "came twice: {task}");
            self.tasks.insert(id, task.clone());
        }
        for id in deleted {
            self.tasks.remove(id.as_str().unwrap());
        }
        self.cursor = Some(page["next_cursor"].as_str().unwrap().to_owned());
        page["has_more"].as_bool().unwrap()
    }

    /// Reads all there is.
    #[track_caller]
    fn catch_up(&mut self, user: &Actor, limit: usize) {
        while self.read(user, limit) {}
    }

    /// The replica is what the server has.
    #[track_caller]
    fn is_equal(&self, user: &Actor) {
        let list = user.get("/api/tasks").expect(200).json();
        let tasks = list["tasks"].as_array().unwrap().iter();
        let tasks: BTreeMap<String, Value> = tasks
            .map(|task| (task["id"].as_str().unwrap().to_owned(), task.clone()))
            .collect();
        assert_eq!(self.tasks, tasks);
    }
}

#[test]
fn a_client_copies_all_tasks_and_then_asks_for_changes() {
    let app = TestApp::start();
    let user = app.user("u1");
    let ids: Vec<String> = (0..5)
        .map(|number| {
            user.task(&number.to_string())["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    app.user("u2").task("not mine");
    let mut replica = Replica::default();
    assert!(replica.read(&user, 2) && replica.tasks.len() == 2);
    // They change during the first copy: one that came and one that is to come.
    user.patch(
        &format!("/api/tasks/{}", ids[0]),
        json!({"title": "changed"}),
    )
    .expect(200);
    user.delete(&format!("/api/tasks/{}", ids[4])).expect(204);
    replica.catch_up(&user, 2);
    replica.catch_up(&user, 2);
    replica.is_equal(&user);
    let seen = replica.seen.len();
    replica.catch_up(&user, 1000);
    assert_eq!(replica.seen.len(), seen, "nothing has changed");
    // A change that changes nothing is no news.
    user.patch(&format!("/api/tasks/{}", ids[1]), json!({"title": "1"}))
        .expect(200);
    replica.catch_up(&user, 1000);
    assert_eq!(replica.seen.len(), seen);
    replica.is_equal(&user);
}

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

/// A page of changes, from the beginning or since a cursor.
#[track_caller]
/// The cursor after a first copy that fits one page.
fn cursor_of(user: &Actor) -> String {
    let page = changes(user, None);
    page["next_cursor"].as_str().unwrap().to_owned()
}

fn changes(user: &Actor, since: Option<&Value>) -> Value {
    let since = since.map_or(String::new(), |since| {
        format!("?since={}", since.as_str().unwrap())
    });
    user.get(&format!("/api/tasks/changes{since}"))
        .expect(200)
        .json()
}

#[test]
fn deleted_tasks_come_as_ids_until_the_id_is_in_use_again() {
    let app = TestApp::start();
    let user = app.user("u1");
    let (kept, gone) = (user.task("kept"), user.task("gone"));
    let start = changes(&user, None)["next_cursor"].clone();
    user.delete(&path(&gone)).expect(204);
    let page = changes(&user, Some(&start));
    assert_eq!(
        (&page["tasks"], &page["deleted"]),
        (&json!([]), &json!([gone["id"]]))
    );
    // Removal from the trash is no news.
    let next = page["next_cursor"].clone();
    user.delete("/api/tasks/trash").expect(200);
    assert_eq!(changes(&user, Some(&next))["deleted"], json!([]));
    let new = user
        .post("/api/tasks", json!({"id": gone["id"], "title": "new"}))
        .expect(201)
        .json();
    for since in [&start, &next] {
        let page = changes(&user, Some(since));
        assert_eq!(
            (&page["tasks"], &page["deleted"]),
            (&json!([new]), &json!([]))
        );
    }
    user.delete(&format!("{}?permanent=true", path(&kept)))
        .expect(204);
    assert_eq!(changes(&user, Some(&start))["deleted"], json!([kept["id"]]));
    // The first copy has no ids of deleted tasks.
    assert_eq!(changes(&user, None)["deleted"], json!([]));
}

#[test]
fn a_transaction_that_commits_late_is_not_missed_and_a_long_one_delays_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    let (late, deleted) = (user.task("late"), user.task("deleted late"));
    let (mut writer, mut other) = (app.sql(), app.sql());
    // An unrelated transaction that has written and stays open for the whole test.
    let mut long = other.transaction().unwrap();
    long.execute("INSERT INTO todo.users (id) VALUES ('somebody')", &[])
        .unwrap();
    let mut open = writer.transaction().unwrap();
    open.batch_execute(&format!(
        "UPDATE todo.tasks SET title = 'changed', version = 2, written_by = pg_current_xact_id() WHERE id = '{}';
         DELETE FROM todo.tasks WHERE id = '{1}';
         INSERT INTO todo.deleted_tasks (user_id, id) VALUES ('u1', '{1}')",
        late["id"].as_str().unwrap(),
        deleted["id"].as_str().unwrap()
    ))
    .unwrap();
    let mut replica = Replica::default();
    replica.catch_up(&user, 1);
    let early = user.task("early");
    replica.catch_up(&user, 1);
    assert_eq!(replica.tasks.len(), 3);
    assert_eq!(replica.tasks[early["id"].as_str().unwrap()], early);
    open.commit().unwrap();
    user.task("another");
    replica.catch_up(&user, 1);
    replica.is_equal(&user);
    assert_eq!((replica.tasks.len(), replica.restarts), (3, 0));
    drop(long);
}

#[test]
fn bad_parameters_are_named_and_a_cursor_of_another_user_gives_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("t");
    let cursor = cursor_of(&user);
    let damaged = format!("since={}A", &cursor[..cursor.len() - 2]);
    for bad in [
        "limit=0",
        "limit=1001",
        "since=",
        "since=x",
        "cursor=x",
        "completed=true",
        &damaged,
        "since=x&since=y",
    ] {
        let sentence = user
            .get(&format!("/api/tasks/changes?{bad}"))
            .expect_error(400, "BAD_REQUEST");
        assert!(
            sentence.contains(bad.split('=').next().unwrap()),
            "{sentence}"
        );
    }
    let other = app.user("u2");
    other
        .get("/api/u1/tasks/changes")
        .expect_error(403, "FORBIDDEN");
    other.task("mine");
    other
        .get(&format!("/api/tasks/changes?since={cursor}"))
        .expect_error(410, "GONE");
    assert_eq!(
        user.get(&format!("/api/u1/tasks/changes?since={cursor}&_=1"))
            .expect(200)
            .json()["tasks"],
        json!([])
    );
    assert_eq!(
        user.send("HEAD", "/api/tasks/changes", &[], None)
            .expect(200)
            .body,
        ""
    );
}

#[test]
fn a_forged_cursor_gives_nothing() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("t");
    let cursor = cursor_of(&user);
    let good = FeedCursor::decode(&cursor).unwrap();
    let known = |text: &str| FeedCursor {
        known: Some(text.to_owned()),
        ..good.clone()
    };
    let round = |snapshot: &str, after| FeedCursor {
        round: Some(Round {
            snapshot: snapshot.to_owned(),
            after: (after, uuid::Uuid::nil()),
        }),
        ..good.clone()
    };
    let feed = FeedCursor {
        feed: "\0'; DROP".to_owned(),
        ..good.clone()
    };
    let mut forged = vec![feed, round("x", 1), round("\0", 1)];
    forged.extend(
        [
            "",
            "x",
            "0:0:",
            "5:1:",
            "1:2:7",
            "1:1:'",
            "1:2:\0",
            "1:9223372036854775807:",
        ]
        .map(known),
    );
    for cursor in forged {
        let target = format!("/api/tasks/changes?since={}", cursor.encode());
        user.get(&target).expect_error(410, "GONE");
    }
    let nothing = FeedCursor {
        known: None,
        ..good.clone()
    };
    for cursor in [
        good.clone(),
        nothing,
        round("1:1:", -1),
        round("1:1:", i64::MAX),
        known("1:1:"),
    ] {
        user.get(&format!("/api/tasks/changes?since={}", cursor.encode()))
            .expect(200);
    }
}

#[test]
fn a_user_known_only_from_a_token_has_an_empty_feed_until_the_first_write() {
    let app = TestApp::start();
    let user = app.user("u1");
    let mut replica = Replica::default();
    replica.catch_up(&user, 10);
    replica.catch_up(&user, 10);
    assert_eq!((replica.tasks.len(), replica.restarts), (0, 0));
    // The first write makes the account, and with it another feed.
    let tasks = [user.task("a"), user.task("b"), user.task("c")];
    user.delete(&path(&tasks[0])).expect(204);
    replica.catch_up(&user, 1);
    replica.is_equal(&user);
    assert_eq!((replica.tasks.len(), replica.restarts), (2, 1));
}

#[test]
fn a_cursor_ends_with_the_tombstones_that_it_needs() {
    let app = TestApp::start();
    let user = app.user("u1");
    let tasks: Vec<Value> = (0..4).map(|_| user.task("t")).collect();
    let maintain = || {
        let environment = [
            ("DATABASE_URL", app.database.as_str()),
            ("TRASH_DAYS", "0"),
            ("CHANGES_DAYS", "10"),
        ];
        assert!(run(&["maintenance"], &environment).status.success());
    };
    let old = changes(&user, None)["next_cursor"].clone();
    user.delete(&path(&tasks[0])).expect(204);
    // Until no transaction of that time is running any more, also in other tests, a cursor needs the tombstone.
    let over = "SELECT bool_and(written_by < pg_snapshot_xmin(pg_current_snapshot())) FROM todo.deleted_tasks";
    while !app.sql().query_one(over, &[]).unwrap().get::<_, bool>(0) {
        thread::sleep(Duration::from_millis(10));
    }
    let new = changes(&user, Some(&old))["next_cursor"].clone();
    app.sql()
        .execute(
            "UPDATE todo.deleted_tasks SET deleted_at = now() - interval '11 days'",
            &[],
        )
        .unwrap();
    user.delete(&path(&tasks[1])).expect(204);
    maintain();
    maintain();
    let left: i64 = app
        .sql()
        .query_one("SELECT count(*) FROM todo.deleted_tasks", &[])
        .unwrap()
        .get(0);
    assert_eq!(left, 1);
    let asked = |since: &Value| {
        user.get(&format!(
            "/api/tasks/changes?since={}",
            since.as_str().unwrap()
        ))
    };
    asked(&old).expect_error(410, "GONE");
    assert_eq!(
        asked(&new).expect(200).json()["deleted"],
        json!([tasks[1]["id"]])
    );
    // A first copy of several pages that began before is good: it has no tasks that were deleted since.
    assert_eq!(changes(&user, None)["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn an_account_that_was_deleted_and_made_again_is_copied_again() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("old");
    let mut replica = Replica::default();
    replica.catch_up(&user, 10);
    let environment = [("DATABASE_URL", app.database.as_str())];
    assert!(
        run(&["user", "delete", "u1", "--yes"], &environment)
            .status
            .success()
    );
    replica.catch_up(&user, 10);
    assert_eq!((replica.tasks.len(), replica.restarts), (0, 1));
    user.task("new");
    replica.catch_up(&user, 10);
    replica.is_equal(&user);
    assert_eq!((replica.tasks.len(), replica.restarts), (1, 2));
}

#[test]
fn another_timeline_or_a_restored_database_is_another_feed() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("t");
    let mut replica = Replica::default();
    replica.catch_up(&user, 10);
    let mut sql = app.sql();
    sql.batch_execute("CREATE OR REPLACE FUNCTION todo.timeline() RETURNS text LANGUAGE sql AS $$ SELECT '00000002' $$")
        .unwrap();
    replica.catch_up(&user, 10);
    assert_eq!(replica.restarts, 1);
    // Restored to a cluster that has counted fewer transactions: rows name transactions that do not exist yet.
    sql.batch_execute(
        "UPDATE todo.feed SET noted = '1000000000';
         UPDATE todo.tasks SET written_by = '999999999';
         INSERT INTO todo.deleted_tasks (user_id, id, written_by) VALUES ('u1', gen_random_uuid(), '999999998')",
    )
    .unwrap();
    let another = TestApp::on(&app.database, |_| {}, Vec::new());
    let user = another.user("u1");
    replica.catch_up(&user, 10);
    assert_eq!(replica.restarts, 2);
    let seen = replica.seen.len();
    replica.catch_up(&user, 10);
    assert_eq!(replica.seen.len(), seen, "nothing comes again");
    user.task("new");
    replica.catch_up(&user, 1);
    replica.is_equal(&user);
}

#[test]
fn a_service_that_does_not_show_its_timeline_has_a_feed() {
    let database = fresh_database();
    sql(
        &database,
        "REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC;
         DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT USAGE ON SCHEMA todo TO plain;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA todo TO plain",
    );
    let plain = database.replacen("//todo@", "//plain@", 1);
    assert_ne!(plain, database);
    let app = TestApp::on(&plain, |_| {}, Vec::new());
    let user = app.user("u1");
    user.task("t");
    let mut replica = Replica::default();
    replica.catch_up(&user, 10);
    user.task("u");
    replica.catch_up(&user, 10);
    replica.is_equal(&user);
    assert_eq!(replica.restarts, 0);
}

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// Ids that are used again and again.
fn ids() -> Vec<String> {
    (0..12)
        .map(|number| uuid::Uuid::from_u128(number).to_string())
        .collect()
}

/// One write of any kind to one of these tasks.
fn write(random: &mut Random, user: &Actor, ids: &[String]) {
    let id = random.one(ids);
    let task = format!("/api/tasks/{id}");
    let title = random.below(1_000_000).to_string();
    let tag = *random.one(&["a", "b", "c"]);
    let answer = match random.below(17) {
        0..=2 => user.post(
            "/api/tasks",
            json!({"id": id, "title": title, "tags": [tag]}),
        ),
        3 => user.post("/api/tasks", json!({"title": title})),
        4..=5 => user.patch(&task, json!({"title": title, "tags": [tag]})),
        6 => user.patch(&format!("{task}/complete"), json!({})),
        7 => user.patch(&format!("{task}/complete"), json!({"completed": true})),
        8..=9 => user.delete(&task),
        10 => user.delete(&format!("{task}?permanent=true")),
        11..=12 => user.post(&format!("{task}/restore"), json!({})),
        13 => user.patch(
            &format!("/api/tasks?tag={tag}"),
            json!({"description": title}),
        ),
        14 => user.delete(&format!("/api/tasks?tag={tag}&completed=true")),
        15 => {
            // An id may be there once, and one that fails undoes all.
            let other = ids.iter().find(|other| *other != id);
            user.post(
                "/api/tasks/bulk",
                json!({"operations": [
                    {"op": *random.one(&["delete", "restore"]), "id": id},
                    {"op": "update", "id": other, "changes": {"title": title}},
                    {"op": "create", "task": {"title": title, "tags": [tag]}},
                ]}),
            )
        }
        _ => match random.below(4) {
            0 => user.delete("/api/tasks/trash"),
            1 => user.delete(&format!("/api/tasks/trash/{id}")),
            2 => user.delete(&format!("/api/tags/{tag}")),
            _ => user.put(
                &format!("/api/tags/{tag}"),
                json!({"name": *random.one(&["a", "b", "c"])}),
            ),
        },
    };
    // 503: two requests waited for each other, or for a transaction that was held open.
    assert!(
        [200, 201, 204, 404, 409, 503].contains(&answer.status),
        "{answer:?}"
    );
}

/// A transaction that writes, stays open for a moment, and ends in either way.
fn hold_open(random: &mut Random, client: &mut postgres::Client, user: &str, ids: &[String]) {
    let id = random.one(ids).parse::<uuid::Uuid>().unwrap();
    let mut open = client.transaction().unwrap();
    let statement = match random.below(3) {
        0 => "UPDATE todo.tasks SET title = 'held', version = version + 1, written_by = pg_current_xact_id() WHERE user_id = $1 AND id = $2",
        1 => "WITH moved AS (DELETE FROM todo.tasks WHERE user_id = $1 AND id = $2 RETURNING user_id, id)
              INSERT INTO todo.deleted_tasks (user_id, id) SELECT * FROM moved
              ON CONFLICT (user_id, id) DO UPDATE SET written_by = excluded.written_by, deleted_at = excluded.deleted_at, title = NULL, version = NULL",
        _ => "INSERT INTO todo.tasks (user_id, id, title) VALUES ($1, $2, 'held') ON CONFLICT DO NOTHING",
    };
    if open.execute(statement, &[&user, &id]).is_err() {
        // A deadlock.
        return;
    }
    thread::sleep(Duration::from_millis(random.below(150)));
    if random.below(4) > 0 {
        open.commit().unwrap();
    }
}

/// Writers, transactions that are held open, and readers, for a moment; then every replica is what the server has.
fn a_round(seed: u64) {
    let database = fresh_database();
    let apps = [
        TestApp::on(&database, |_| {}, Vec::new()),
        TestApp::on(&database, |_| {}, Vec::new()),
    ];
    let addresses = apps.each_ref().map(|app| app.address);
    let (ids, stop) = (ids(), AtomicBool::new(false));
    let sql = || postgres::Client::connect(&database, postgres::NoTls).unwrap();
    let users = ["u1", "u2"];
    for user in users {
        apps[0].user(user).task("first");
    }
    let mut replicas: Vec<(&str, Replica)> = Vec::new();
    // Readers that have not read enough yet.
    let busy = AtomicUsize::new(4);
    thread::scope(|scope| {
        let (ids, stop, sql, busy) = (&ids, &stop, &sql, &busy);
        for number in 0..6 {
            scope.spawn(move || {
                let mut random = Random(seed * 100 + number + 1);
                let user = *random.one(&users);
                while !stop.load(Ordering::Relaxed) {
                    let user = Actor::user(*random.one(&addresses), user);
                    write(&mut random, &user, ids);
                }
            });
        }
        for number in 0..3 {
            scope.spawn(move || {
                let mut random = Random(seed * 100 + number + 51);
                let mut client = sql();
                while !stop.load(Ordering::Relaxed) {
                    let user = *random.one(&users);
                    hold_open(&mut random, &mut client, user, ids);
                }
            });
        }
        let readers: Vec<_> = (0..4)
            .map(|number| {
                let user = users[number % 2];
                scope.spawn(move || {
                    let mut random = Random(seed * 100 + number as u64 + 71);
                    let mut replica = Replica::default();
                    let mut enough = false;
                    while !stop.load(Ordering::Relaxed) {
                        if !enough && replica.seen.len() + replica.restarts > 10 {
                            enough = true;
                            busy.fetch_sub(1, Ordering::Relaxed);
                        }
                        let actor = Actor::user(*random.one(&addresses), user);
                        let limit = 1 + random.below(5);
                        replica.read(&actor, usize::try_from(limit).unwrap());
                        if random.below(200) == 0 {
                            let renew = "UPDATE todo.feed SET id = gen_random_uuid()";
                            sql().execute(renew, &[]).unwrap();
                        }
                    }
                    (user, replica)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(1_500));
        let until = Instant::now() + Duration::from_secs(20);
        while busy.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        replicas.extend(readers.into_iter().map(|reader| reader.join().unwrap()));
    });
    for (user, mut replica) in replicas {
        let user = apps[1].user(user);
        // The round that is being read, and what came since.
        replica.catch_up(&user, 7);
        replica.catch_up(&user, 7);
        replica.is_equal(&user);
        assert!(
            replica.seen.len() + replica.restarts > 10,
            "seed {seed}: too little was read"
        );
    }
}

#[test]
fn a_replica_built_from_the_feed_always_equals_the_table() {
    let rounds = std::env::var("FEED_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    for seed in 1..=rounds {
        a_round(seed);
    }
}

/// What a write route does to the feed of a user who has the task `id` with the tag `errands`, and the task `deleted` in the trash.
struct Shows {
    body: Option<Value>,
    /// Ids of tasks that come; `new` is one that was not there.
    tasks: &'static [&'static str],
    deleted: &'static [&'static str],
}

/// For every write route of tasks and tags, by the operation's id. A new route needs a row here.
fn shows(operation: &str) -> Shows {
    let show = |body, tasks, deleted| Shows {
        body,
        tasks,
        deleted,
    };
    match operation {
        "createTask" | "importTasks" => show(Some(json!({"title": "t"})), &["new"], &[]),
        "updateTask" | "patchTask" => show(Some(json!({"title": "t2"})), &["id"], &[]),
        "completeTask" => show(None, &["id"], &[]),
        "deleteTask" | "deleteMatchingTasks" => show(None, &[], &["id"]),
        "patchMatchingTasks" => show(Some(json!({"priority": "high"})), &["id"], &[]),
        "bulkTasks" => {
            let create = json!({"op": "create", "task": {"title": "t"}});
            show(Some(json!({"operations": [create]})), &["new"], &[])
        }
        "restoreTask" => show(None, &["deleted"], &[]),
        "renameTag" => show(Some(json!({"name": "home"})), &["id"], &[]),
        "deleteTag" => show(None, &["id"], &[]),
        // It was in the feed when it was deleted.
        "purgeTask" | "emptyTrash" => show(None, &[], &[]),
        other => panic!("{other}: what does it show in the feed of changes?"),
    }
}

#[test]
fn every_write_route_appears_in_the_feed() {
    let app = TestApp::start();
    let mut asked = 0;
    for (number, route) in ROUTES.iter().enumerate() {
        let reads = matches!(route.method, Method::Get);
        if reads || !matches!(route.handler, Handler::User(..)) {
            continue;
        }
        asked += 1;
        let user = app.user(&format!("u{number}"));
        let body = json!({"title": "t", "tags": ["errands"]});
        let task = user.post("/api/tasks", body).expect(201).json();
        let deleted = user.task("deleted");
        user.delete(&path(&deleted)).expect(204);
        let start = changes(&user, None);
        let Shows {
            body,
            tasks,
            deleted: gone,
        } = shows(route.id);
        let of_trash = route.id == "restoreTask" || route.id == "purgeTask";
        let id = if of_trash {
            &deleted["id"]
        } else {
            &task["id"]
        };
        let target = route
            .pattern
            .replace("[{user_id}/]", "")
            .replace("{id}", id.as_str().unwrap())
            .replace("{name}", "errands");
        let filter = if route.id.contains("Matching") {
            "?tag=errands"
        } else {
            ""
        };
        let target = target + filter;
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = user.send(route.method.as_str(), &target, &[], body.as_deref());
        assert!(answer.status < 300, "{}: {answer:?}", route.id);
        let page = changes(&user, Some(&start["next_cursor"]));
        let named = |id: &Value| match id {
            id if *id == task["id"] => "id",
            id if *id == deleted["id"] => "deleted",
            _ => "new",
        };
        let came = page["tasks"].as_array().unwrap().iter();
        let came: Vec<&str> = came.map(|task| named(&task["id"])).collect();
        let went: Vec<&str> = page["deleted"]
            .as_array()
            .unwrap()
            .iter()
            .map(named)
            .collect();
        assert_eq!(
            (came.as_slice(), went.as_slice()),
            (tasks, gone),
            "{}",
            route.id
        );
    }
    assert!(asked >= 9);
}
