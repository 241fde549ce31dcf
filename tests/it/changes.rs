//! The feed of changes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Actor, TestApp};

/// A copy of a user's tasks that is kept up to date from the feed.
#[derive(Default)]
struct Replica {
    tasks: BTreeMap<String, Value>,
    cursor: Option<String>,
    /// Every version that has come: id, `created_at` and version.
    seen: std::collections::BTreeSet<(String, String, i64)>,
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
