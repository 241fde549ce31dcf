//! Filters, order and pages of the list of tasks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use todo_api::domain::fold::fold;

use crate::support::{Actor, TestApp, postgres};

fn list(user: &Actor, query: &str) -> Value {
    user.get(&format!("/api/tasks?{query}")).expect(200).json()
}

fn tasks(list: &Value) -> Vec<Value> {
    list["tasks"].as_array().unwrap().clone()
}

fn titles(list: &Value) -> Vec<String> {
    let title = |task: &Value| task["title"].as_str().unwrap().to_owned();
    tasks(list).iter().map(title).collect()
}

fn make(user: &Actor, bodies: &[Value]) {
    for body in bodies {
        user.post("/api/tasks", body.clone()).expect(201);
    }
}

/// Requests all pages by cursor and returns the tasks in order.
fn walk(user: &Actor, query: &str, limit: u64) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(user, &format!("{query}&limit={limit}{cursor}"));
        let count = page["count"].as_u64().unwrap();
        assert_eq!(count, tasks(&page).len() as u64);
        all.extend(tasks(&page));
        match page["next_cursor"].as_str() {
            None => {
                assert_eq!(page["has_more"], false);
                return all;
            }
            Some(next) => {
                assert_eq!((&page["has_more"], count), (&json!(true), limit));
                cursor = format!("&cursor={next}");
            }
        }
    }
}

#[test]
fn states_and_priorities_are_filtered() {
    let app = TestApp::start();
    let user = app.user("u1");
    for priority in ["low", "medium", "high"] {
        for completed in [true, false] {
            let title = format!("{priority} {completed}");
            make(
                &user,
                &[json!({ "title": title, "priority": priority, "completed": completed })],
            );
        }
    }
    let open = ["high false", "medium false", "low false"];
    let done = ["high true", "medium true", "low true"];
    for (query, expected) in [
        ("completed=false", &open[..]),
        ("status=pending", &open),
        ("status=active", &open),
        ("status=incomplete", &open),
        ("completed=true", &done),
        ("status=completed", &done),
        ("status=complete", &done),
        ("status=pending&priority=high", &open[..1]),
        ("priority=medium", &["medium false", "medium true"]),
        (
            "priority=low,high&completed=true",
            &["high true", "low true"],
        ),
        (
            "priority=low&priority=high&completed=false&order=asc",
            &["low false", "high false"],
        ),
    ] {
        assert_eq!(titles(&list(&user, query)), expected, "{query}");
    }
    for query in [
        "status=all",
        "priority=low,medium,high",
        "priority=high,low&priority=medium",
    ] {
        assert_eq!(
            titles(&list(&user, query)),
            titles(&list(&user, "")),
            "{query}"
        );
    }
}

#[test]
fn a_search_ignores_case_and_accents_and_takes_signs_literally() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &[
            json!({ "title": "Crème brûlée", "description": "für STRAßE 7" }),
            json!({ "title": "100% done_deal", "description": "back\\slash" }),
            json!({ "title": "1000 donexdeal" }),
            json!({ "title": "日本語のタスク" }),
            json!({ "title": "milk", "description": "two\nlines" }),
        ],
    );
    make(&app.user("u2"), &[json!({ "title": "creme of another" })]);
    for (search, expected) in [
        ("creme", &["Crème brûlée"][..]),
        ("BR%C3%9BL%C3%89E strasse", &["Crème brûlée"]),
        ("strasse+creme", &["Crème brûlée"]),
        ("creme milk", &[]),
        ("rem", &["Crème brûlée"]),
        ("100%25", &["100% done_deal"]),
        ("done_deal", &["100% done_deal"]),
        ("back%5Cs", &["100% done_deal"]),
        ("_", &["100% done_deal"]),
        ("%25", &["100% done_deal"]),
        ("%5C", &["100% done_deal"]),
        ("'", &[]),
        ("%E6%9C%AC%E8%AA%9E", &["日本語のタスク"]),
        ("two lines", &["milk"]),
        ("milk two", &["milk"]),
        (
            "+",
            &[
                "milk",
                "日本語のタスク",
                "1000 donexdeal",
                "100% done_deal",
                "Crème brûlée",
            ],
        ),
    ] {
        for name in ["search", "q"] {
            let search = search.replace(' ', "%20");
            assert_eq!(
                titles(&list(&user, &format!("{name}={search}"))),
                expected,
                "{search}"
            );
        }
    }
    let milk = tasks(&list(&user, "q=milk"))[0].clone();
    let path = format!("/api/tasks/{}", milk["id"].as_str().unwrap());
    for (changes, found, gone) in [
        (json!({ "title": "Bread" }), "bread lines", "milk"),
        (json!({ "description": "Ümläut" }), "bread umlaut", "lines"),
        (json!({ "description": null }), "bread", "umlaut"),
        (json!({ "completed": true }), "bread", "umlaut"),
        (
            json!({ "title": "Milk", "description": "Fat" }),
            "milk fat",
            "bread",
        ),
    ] {
        user.patch(&path, changes).expect(200);
        assert_eq!(
            list(&user, &format!("q={}", found.replace(' ', "+")))["count"],
            1,
            "{found}"
        );
        assert_eq!(list(&user, &format!("q={gone}"))["count"], 0, "{gone}");
    }
}

#[test]
fn a_search_reaches_beyond_the_newest_tasks() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    app.sql()
        .batch_execute(
            "INSERT INTO todo.tasks (user_id, id, title, created_at)
             SELECT 'u1', gen_random_uuid(), title, now() - n * interval '1 minute'
             FROM (SELECT n, CASE WHEN n % 1500 = 0 THEN 'rare ' || n WHEN n = 5990 THEN 'oldest' ELSE 'often ' || n END AS title
                   FROM generate_series(1, 6000) AS n) AS new",
        )
        .unwrap();
    let rare = ["rare 1500", "rare 3000", "rare 4500", "rare 6000"];
    assert_eq!(titles(&list(&user, "q=rare")), rare);
    assert_eq!(titles(&list(&user, "q=oldest")), ["oldest"]);
    assert_eq!(list(&user, "q=nowhere")["count"], 0);
    for (limit, order) in [(1, "desc"), (2, "asc"), (3, "desc"), (4, "asc")] {
        let mut expected = rare.to_vec();
        if order == "asc" {
            expected.reverse();
        }
        let walked = walk(&user, &format!("q=rare&order={order}"), limit);
        let walked: Vec<&str> = walked
            .iter()
            .map(|task| task["title"].as_str().unwrap())
            .collect();
        assert_eq!(walked, expected, "{limit} {order}");
    }
    assert_eq!(titles(&list(&user, "q=rare&offset=1&limit=2")), rare[1..3]);
    assert_eq!(titles(&list(&user, "q=rare&page=2&limit=3")), rare[3..]);
    assert_eq!(walk(&user, "q=often", 700).len(), 5995);
}

#[test]
fn due_date_bounds_are_exclusive_and_days_follow_the_zone() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &[
            json!({ "title": "none" }),
            json!({ "title": "day", "due_date": "2030-06-15" }),
            json!({ "title": "noon", "due_date": "2030-06-15T12:00:00Z" }),
        ],
    );
    for (query, expected) in [
        ("has_due_date=true", &["noon", "day"][..]),
        ("has_due_date=false", &["none"]),
        ("due_before=2030-06-15T12:00:00Z", &[]),
        ("due_before=2030-06-15T12:00:00.000001Z", &["noon"]),
        ("due_after=2030-06-15T12:00:00Z", &["day"]),
        ("due_after=2030-06-15T11:59:59.999999Z", &["noon", "day"]),
        // A day ends with its last microsecond, in UTC or in the zone.
        ("due_before=2030-06-15T23:59:59.999999Z", &["noon"]),
        ("due_before=2030-06-16T00:00:00Z", &["noon", "day"]),
        ("due_after=2030-06-15T23:59:59.999998Z", &["day"]),
        ("due_after=2030-06-15T23:59:59.999999Z", &[]),
        (
            "due_before=2030-06-15T22:00:00Z&tz=Europe/Berlin",
            &["noon", "day"],
        ),
        (
            "due_before=2030-06-15T21:59:59Z&tz=Europe/Berlin",
            &["noon"],
        ),
        (
            "due_before=2030-06-15T22:00:00Z&tz=%2B02:00",
            &["noon", "day"],
        ),
        ("due_after=2030-06-15T22:00:00Z&tz=%2B02:00", &[]),
        ("due_after=2030-06-15T22:00:00Z&tz=-02:00", &["day"]),
        (
            "due_before=2030-06-16T02:00:00Z&tz=-02:00",
            &["noon", "day"],
        ),
        (
            "due_before=2030-06-16T01:59:59Z&tz=America/Noronha",
            &["noon"],
        ),
        (
            "due_before=2030-06-16T00:00:00+02:00&tz=%2B02:00",
            &["noon", "day"],
        ),
        // A day as a bound is the whole day.
        ("due_before=2030-06-15", &[]),
        ("due_before=2030-06-16", &["noon", "day"]),
        ("due_after=2030-06-15", &[]),
        ("due_after=2030-06-14", &["noon", "day"]),
        ("due_after=2030-06-15&tz=-12:00", &[]),
        ("due_before=2030-06-16&tz=%2B14:00", &["day"]),
        (
            "due_before=2030-06-16&due_after=2030-06-14&has_due_date=true",
            &["noon", "day"],
        ),
        (
            "due_before=9999-12-31T23:59:59.999999Z&due_after=0001-01-01T00:00:00Z",
            &["noon", "day"],
        ),
        ("due_after=9999-12-31&tz=-12:00", &[]),
        ("due_before=0001-01-01&tz=%2B14:00", &[]),
    ] {
        assert_eq!(titles(&list(&user, query)), expected, "{query}");
    }
}

#[test]
fn an_open_task_past_its_due_date_is_overdue() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &[
            json!({ "title": "none" }),
            json!({ "title": "past", "due_date": "2020-01-01" }),
            json!({ "title": "past moment", "due_date": "2020-01-01T00:00:00Z" }),
            json!({ "title": "past and done", "due_date": "2020-01-01", "completed": true }),
            json!({ "title": "to come", "due_date": "9990-01-01" }),
        ],
    );
    assert_eq!(
        titles(&list(&user, "overdue=true")),
        ["past moment", "past"]
    );
    assert_eq!(
        titles(&list(&user, "overdue=false")),
        ["to come", "past and done", "none"]
    );
    assert_eq!(list(&user, "overdue=true&completed=true")["count"], 0);
}

#[test]
fn times_of_creation_and_change_are_filtered() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &[
            json!({ "title": "1" }),
            json!({ "title": "2" }),
            json!({ "title": "3" }),
        ],
    );
    let all = tasks(&list(&user, ""));
    let at = |place: usize| all[place]["created_at"].as_str().unwrap();
    assert_eq!(
        titles(&list(&user, &format!("created_after={}", at(1)))),
        ["3"]
    );
    assert_eq!(
        titles(&list(&user, &format!("created_before={}", at(1)))),
        ["1"]
    );
    let path = format!("/api/tasks/{}", all[2]["id"].as_str().unwrap());
    let changed = user.patch(&path, json!({ "completed": true })).json();
    assert_eq!(
        titles(&list(&user, &format!("updated_after={}", at(0)))),
        ["1"]
    );
    let moved = changed["updated_at"].as_str().unwrap();
    assert_eq!(
        titles(&list(&user, &format!("updated_before={moved}"))),
        ["3", "2"]
    );
    app.sql()
        .batch_execute(
            "UPDATE todo.tasks SET created_at = '2026-03-01T11:59:59Z' WHERE title = '1'",
        )
        .unwrap();
    // A day begins at noon UTC in this zone.
    for (query, expected) in [
        ("created_before=2026-03-01", &[][..]),
        ("created_before=2026-03-01&tz=-12:00", &["1"]),
        ("created_before=2026-02-28&tz=-12:00", &[]),
    ] {
        assert_eq!(titles(&list(&user, query)), expected, "{query}");
    }
    assert_eq!(
        list(&user, "created_after=2020-01-01&created_before=9999-12-31")["count"],
        3
    );
}

#[test]
fn sorting_puts_nulls_last_and_priorities_by_rank() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &[
            json!({ "title": "b", "priority": "high", "due_date": "2030-01-02" }),
            json!({ "title": "Ä", "priority": "low", "completed": true }),
            json!({ "title": "C", "priority": "medium", "due_date": "2030-01-01T00:00:00Z" }),
        ],
    );
    for (query, expected) in [
        ("", ["C", "Ä", "b"]),
        ("sort=created_at", ["b", "Ä", "C"]),
        ("sort_by=created&sort_direction=desc", ["C", "Ä", "b"]),
        ("sort=title", ["Ä", "b", "C"]),
        ("sort=-title", ["C", "b", "Ä"]),
        ("sort=priority", ["Ä", "C", "b"]),
        ("sort=priority:desc", ["b", "C", "Ä"]),
        ("sort=due_date", ["C", "b", "Ä"]),
        ("sort=due_date&order=desc", ["b", "C", "Ä"]),
        ("sort=-completed&limit=1000", ["Ä", "C", "b"]),
    ] {
        assert_eq!(titles(&list(&user, query)), expected, "{query}");
    }
}

#[test]
fn every_answer_has_its_position_and_a_link_to_the_next_page() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &(0..5)
            .map(|n| json!({ "title": n.to_string() }))
            .collect::<Vec<_>>(),
    );
    let page = |query: &str| {
        let mut page = list(&user, query);
        let shown = titles(&page).concat();
        let cursor = page["next_cursor"].take();
        let answer = user.get(&format!("/api/tasks?{query}"));
        let link = answer.header("Link").map(str::to_owned);
        assert_eq!(page["has_more"], json!(cursor.is_string()));
        if let Some(cursor) = cursor.as_str() {
            // The link leads to the next page, as the cursor does.
            let link = link.unwrap();
            let target = link
                .strip_prefix('<')
                .unwrap()
                .strip_suffix(">; rel=\"next\"")
                .unwrap();
            assert!(
                target.starts_with("/api/tasks?") && target.contains(&format!("cursor={cursor}")),
                "{target}"
            );
            user.get(target).expect(200);
        } else {
            assert_eq!(link, None);
        }
        page.as_object_mut()
            .unwrap()
            .retain(|name, _| name != "tasks" && name != "next_cursor");
        (shown, page)
    };
    for (query, shown, rest) in [
        (
            "",
            "43210",
            json!({ "count": 5, "total": 5, "limit": 1000, "has_more": false }),
        ),
        (
            "limit=5",
            "43210",
            json!({ "count": 5, "total": 5, "limit": 5, "has_more": false }),
        ),
        (
            "limit=2",
            "43",
            json!({ "count": 2, "limit": 2, "has_more": true }),
        ),
        (
            "limit=2&include_total=true",
            "43",
            json!({ "count": 2, "total": 5, "limit": 2, "has_more": true }),
        ),
        (
            "limit=2&offset=1",
            "32",
            json!({ "count": 2, "total": 5, "limit": 2, "offset": 1, "has_more": true }),
        ),
        (
            "page_size=2&skip=3",
            "10",
            json!({ "count": 2, "total": 5, "limit": 2, "offset": 3, "has_more": false }),
        ),
        (
            "limit=2&offset=9",
            "",
            json!({ "count": 0, "total": 5, "limit": 2, "offset": 9, "has_more": false }),
        ),
        (
            "limit=2&page=1",
            "43",
            json!({ "count": 2, "total": 5, "limit": 2, "page": 1, "has_more": true }),
        ),
        (
            "page_size=2&page=3",
            "0",
            json!({ "count": 1, "total": 5, "limit": 2, "page": 3, "has_more": false }),
        ),
        (
            "page_size=2&page=9",
            "",
            json!({ "count": 0, "total": 5, "limit": 2, "page": 9, "has_more": false }),
        ),
        (
            "limit=1&page=1&q=3&completed=false&_=1769846400&_rsc=x",
            "3",
            json!({ "count": 1, "total": 1, "limit": 1, "page": 1, "has_more": false }),
        ),
        (
            "limit=1000&page=1000000000",
            "",
            json!({ "count": 0, "total": 5, "limit": 1000, "page": 1_000_000_000, "has_more": false }),
        ),
    ] {
        assert_eq!(page(query), (shown.to_owned(), rest), "{query}");
    }
    let first =
        user.get("/api/u1/tasks?limit=2&status=pending&priority=low,medium&tz=Europe%2FBerlin");
    let link = first.header("Link").unwrap();
    assert!(
        link.starts_with(
            "</api/u1/tasks?limit=2&status=pending&priority=low%2Cmedium&tz=Europe%2FBerlin&cursor="
        ),
        "{link}"
    );
}

#[test]
fn a_cursor_is_valid_for_its_own_list_only() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(
        &user,
        &(0..5)
            .map(|n| json!({ "title": n.to_string() }))
            .collect::<Vec<_>>(),
    );
    let cursor = list(&user, "limit=2&completed=false")["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    // The size of a page may change, and aliases of parameters are equal.
    assert_eq!(
        titles(&list(
            &user,
            &format!("status=pending&limit=1&cursor={cursor}")
        )),
        ["2"]
    );
    let mut damaged = cursor.clone();
    let last = damaged.pop().unwrap();
    damaged.push(if last == 'A' { 'Q' } else { 'A' });
    for query in [
        format!("cursor={cursor}"),
        format!("completed=true&cursor={cursor}"),
        format!("completed=false&sort=title&cursor={cursor}"),
        format!("completed=false&order=asc&cursor={cursor}"),
        format!("completed=false&q=x&cursor={cursor}"),
        format!("completed=false&cursor={damaged}"),
        format!("completed=false&cursor={}", &cursor[1..]),
        format!("completed=false&cursor={cursor}A"),
        "cursor=".to_owned(),
        "cursor=%00".to_owned(),
    ] {
        let sentence = user
            .get(&format!("/api/tasks?{query}"))
            .expect_error(400, "BAD_REQUEST");
        assert!(sentence.contains("cursor"), "{sentence}");
    }
    // The cursor stays valid when its task is deleted.
    let third = list(&user, "limit=3")["tasks"][2]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cursor = list(&user, "limit=3")["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    user.delete(&format!("/api/tasks/{third}")).expect(204);
    assert_eq!(
        titles(&list(&user, &format!("cursor={cursor}"))),
        ["1", "0"]
    );
}

/// A random task with few possible values of each field, so that many are equal.
fn some_task() -> impl Strategy<Value = Value> {
    let title = prop::sample::select(vec![
        "Milk", "milk", "Äpfel", "apfel 2", "zebra", "Crème", "日本", "a_b%", "ﬁsh",
    ]);
    let due = prop::option::of(prop::sample::select(vec![
        "2030-01-01",
        "2030-01-02",
        "2020-01-01",
        "2030-01-01T00:00:00Z",
        "2030-01-01T23:59:59.999999Z",
        "2030-01-01T12:00:00Z",
    ]));
    let tags = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
    let description = prop::option::of(prop::sample::select(vec!["with milk", "ÉTÉ", ""]));
    (title, due, tags, description, any::<bool>(), prop::sample::select(vec!["low", "medium", "high"])).prop_map(
        |(title, due, tags, description, completed, priority)| {
            json!({ "title": title, "due_date": due, "tags": tags, "description": description, "completed": completed,
                    "priority": priority })
        },
    )
}

/// A part of a query, and the same filter in Rust.
type Filter = (String, fn(&Value, &str) -> bool);

fn some_filters() -> impl Strategy<Value = Vec<(Filter, String)>> {
    let one = |name: &'static str, values: Vec<&'static str>, means: fn(&Value, &str) -> bool| {
        prop::option::weighted(0.25, prop::sample::select(values)).prop_map(move |value| {
            value.map(|value| ((format!("{name}={value}"), means), value.to_owned()))
        })
    };
    let filters = (
        one("completed", vec!["true", "false"], |task, value| {
            task["completed"] == (value == "true")
        }),
        one(
            "priority",
            vec!["low", "high", "low,high", "medium,high", "low,medium,high"],
            |task, value| {
                value
                    .split(',')
                    .any(|priority| task["priority"] == priority)
            },
        ),
        one("tags", vec!["a", "b", "a,b", "a,b,c"], |task, value| {
            value
                .split(',')
                .all(|tag| task["tags"].as_array().unwrap().contains(&json!(tag)))
        }),
        one(
            "q",
            vec!["milk", "MILK", "ete", "a", "%25", "milk+with", "apf"],
            |task, value| {
                let text = format!(
                    "{}\n{}",
                    task["title"].as_str().unwrap(),
                    task["description"].as_str().unwrap_or("")
                );
                value
                    .replace("%25", "%")
                    .split('+')
                    .all(|word| fold(&text).contains(&fold(word)))
            },
        ),
        one("has_due_date", vec!["true", "false"], |task, value| {
            task["due_date"].is_string().to_string() == value
        }),
        one(
            "due_before",
            vec![
                "2030-01-01T12:00:00Z",
                "2030-01-01T23:59:59.999999Z",
                "2030-01-02",
            ],
            |task, value| due(task).is_some_and(|due| due < start(value)),
        ),
        one(
            "due_after",
            vec!["2030-01-01T00:00:00Z", "2025-01-01T00:00:00Z"],
            |task, value| due(task).is_some_and(|due| due > start(value)),
        ),
        one("overdue", vec!["true", "false"], |task, value| {
            let overdue = task["completed"] == false
                && due(task).is_some_and(|due| due < start("2026-01-01"));
            overdue.to_string() == value
        }),
    );
    filters.prop_map(|(a, b, c, d, e, f, g, h)| {
        [a, b, c, d, e, f, g, h].into_iter().flatten().collect()
    })
}

/// The sort key of a due date: six digits, and a day as its last microsecond.
fn due(task: &Value) -> Option<String> {
    let text = task["due_date"].as_str()?;
    Some(if text.len() == 10 {
        format!("{text}T23:59:59.999999Z")
    } else {
        text.to_owned()
    })
}

fn start(text: &str) -> String {
    let text = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    if text.len() == 20 {
        text.replace('Z', ".000000Z")
    } else {
        text
    }
}

/// A task's sort key, as text that sorts the same way; `None` comes last.
fn sort_key(task: &Value, key: &str) -> Option<String> {
    match key {
        "due_date" => due(task),
        "title" => Some(fold(task["title"].as_str().unwrap())),
        "priority" => Some(
            ["low", "medium", "high"]
                .iter()
                .position(|name| task["priority"] == *name)
                .unwrap()
                .to_string(),
        ),
        "completed" => Some(u8::from(task["completed"] == true).to_string()),
        name => Some(task[name].as_str().unwrap().to_owned()),
    }
}

fn sorted(mut tasks: Vec<Value>, key: &str, descending: bool) -> Vec<Value> {
    tasks.sort_by(|a, b| {
        let (ka, kb) = (sort_key(a, key), sort_key(b, key));
        let nulls = ka.is_none().cmp(&kb.is_none());
        let rest = ka
            .cmp(&kb)
            .then_with(|| a["id"].as_str().cmp(&b["id"].as_str()));
        nulls.then(if descending { rest.reverse() } else { rest })
    });
    tasks
}

#[test]
fn all_pages_together_are_what_filtering_and_sorting_in_memory_gives() {
    let app = TestApp::start();
    let mut runner = TestRunner::new(Config::with_cases(12));
    let orders = prop::sample::select(vec![
        "created_at",
        "updated_at",
        "due_date",
        "priority",
        "title",
        "completed",
    ]);
    let queries = prop::collection::vec((some_filters(), orders, any::<bool>(), 1_u64..12), 12);
    let cases = (prop::collection::vec(some_task(), 0..40), queries);
    let number = std::cell::Cell::new(0);
    runner
        .run(&cases, |(bodies, queries)| {
            let user = app.user(&format!("user {}", number.replace(number.get() + 1)));
            make(&user, &bodies);
            // Equal times of creation and change, so that the id decides.
            let text = format!(
                "UPDATE todo.tasks SET created_at = date_trunc('second', created_at), updated_at = date_trunc('second', updated_at)
                 WHERE user_id = '{id}'",
                id = user.id
            );
            app.sql().batch_execute(&text).unwrap();
            let all = tasks(&list(&user, ""));
            prop_assert_eq!(all.len(), bodies.len());
            for (filters, key, descending, limit) in queries {
                let parts: Vec<String> = filters.iter().map(|((part, _), _)| part.clone()).collect();
                let direction = if descending { "-" } else { "" };
                let query = format!("sort={direction}{key}&{}", parts.join("&"));
                let matching = all
                    .iter()
                    .filter(|task| filters.iter().all(|((_, means), value)| means(task, value)))
                    .cloned()
                    .collect();
                let expected = sorted(matching, key, descending);
                let ids = |tasks: &[Value]| tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>();
                prop_assert_eq!(ids(&walk(&user, &query, limit)), ids(&expected), "{} limit {}", query, limit);
                let page = list(&user, &format!("{query}&limit={limit}&page=2"));
                let second: Vec<Value> = expected.iter().skip(limit as usize).take(limit as usize).cloned().collect();
                prop_assert_eq!(ids(&tasks(&page)), ids(&second), "{} page 2", query);
                prop_assert_eq!(page["total"].as_u64(), Some(expected.len() as u64), "{}", query);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn untouched_tasks_appear_exactly_once_while_others_write() {
    let app = TestApp::start();
    let user = app.user("u1");
    make(&user, &(0..120).map(|n| {
        let due = (n % 3 > 0).then(|| format!("2030-01-{:02}", n % 20 + 1));
        json!({ "title": format!("t{}", n % 7), "due_date": due, "priority": (["low", "medium", "high"][n % 3]), "tags": ["x"] })
    }).collect::<Vec<_>>());
    let ids: Vec<String> = tasks(&list(&user, ""))
        .iter()
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect();
    // Every other task is continuously changed, deleted or created again.
    let (touched, untouched): (Vec<_>, Vec<_>) = ids
        .iter()
        .enumerate()
        .partition(|(place, _)| place % 2 == 0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for share in 0..2 {
            let (user, touched, done) = (&user, &touched, &done);
            scope.spawn(move || {
                for (round, (_, id)) in touched.iter().skip(share).step_by(2).cycle().enumerate() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = format!("/api/tasks/{id}");
                    match round % 4 {
                        0 => drop(user.patch(&path, json!({ "title": format!("t{}", round % 9), "priority": "high" }))),
                        1 => drop(user.patch(&path, json!({ "due_date": format!("2030-01-{:02}", round % 27 + 1), "completed": true }))),
                        2 => drop(user.delete(&path)),
                        _ => drop(user.post("/api/tasks", json!({ "title": "new", "id": id, "tags": ["x"] }))),
                    }
                }
            });
        }
        for query in [
            "sort=created_at",
            "sort=-created_at",
            "sort=updated_at",
            "sort=-updated_at",
            "sort=due_date",
            "sort=-due_date",
            "sort=title",
            "sort=-priority",
            "sort=completed",
            "tag=x",
            "completed=false",
            "priority=low,medium,high&q=t",
        ] {
            let mut seen: HashMap<String, u32> = HashMap::new();
            for task in walk(&user, query, 7) {
                *seen
                    .entry(task["id"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
            for (_, id) in &untouched {
                assert_eq!(seen.get(id.as_str()), Some(&1), "{query} {id}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Reads the statements of the server and their plans from PostgreSQL's log.
#[test]
fn the_default_list_is_an_index_scan_without_a_sort() {
    let database = postgres::fresh_database();
    let name = database
        .rsplit_once('/')
        .unwrap()
        .1
        .split('?')
        .next()
        .unwrap();
    let explain = format!(
        "ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain';
         ALTER DATABASE {name} SET auto_explain.log_min_duration = 0;
         ALTER DATABASE {name} SET auto_explain.log_analyze = on;
         ALTER DATABASE {name} SET auto_explain.log_format = 'json'"
    );
    postgres::sql(&database, &explain);
    let app = TestApp::on(
        &database,
        |settings| settings.database.pool_size = 1,
        Vec::new(),
    );
    let user = app.user("u1");
    user.task("t");
    let mut sql = app.sql();
    sql.batch_execute(
        "INSERT INTO todo.users (id) SELECT 'other' || n FROM generate_series(1, 50) AS n;
         INSERT INTO todo.tasks (user_id, id, title, created_at, priority, completed_at, tags, due_at)
         SELECT owner, gen_random_uuid(), 't', now() - n * interval '1 minute', n % 3, CASE WHEN n % 2 = 0 THEN now() END,
                CASE WHEN n % 2 = 0 THEN '{x}'::text[] ELSE '{}' END, now() + n * interval '1 hour'
         FROM (SELECT 'u1' AS owner, generate_series(1, 20000) AS n
               UNION ALL SELECT 'other' || o, n FROM generate_series(1, 50) AS o, generate_series(1, 200) AS n) AS new;
         ANALYZE todo.tasks",
    )
    .unwrap();
    let cursor = |query: &str| {
        list(&user, &format!("{query}&limit=20"))["next_cursor"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (query, scans) in [
        ("", &["tasks_newest_first"][..]),
        ("order=asc", &["tasks_newest_first"]),
        ("completed=true", &["tasks_newest_first"]),
        ("completed=false", &["tasks_open_newest_first"]),
        ("status=pending&order=asc", &["tasks_open_newest_first"]),
    ] {
        let behind = format!("{query}&cursor={}", cursor(query));
        for query in [query, &behind] {
            let plan = plan_of(&app, &user, &format!("/api/tasks?limit=20&{query}"));
            let used: HashSet<&str> = plan
                .iter()
                .filter_map(|node| node["Index Name"].as_str())
                .collect();
            assert_eq!(used, scans.iter().copied().collect(), "{query}: {plan:?}");
            for node in &plan {
                let kind = node["Node Type"].as_str().unwrap();
                let fit = [
                    "Limit",
                    "Index Scan",
                    "Index Only Scan",
                    "Merge Append",
                    "Append",
                    "Nested Loop",
                    "Result",
                    "Memoize",
                    "Subquery Scan",
                ];
                // A page that is combined from several scans may be sorted.
                let small = kind.ends_with("Sort") && scans[0] != "tasks_newest_first";
                assert!(fit.contains(&kind) || small, "{query}: {kind}: {plan:?}");
                let rows = node["Actual Rows"].as_f64().unwrap();
                assert!(rows <= 50.0, "{query}: {kind} gives {rows} rows: {plan:?}");
            }
        }
    }
}

/// Every node of the plan that PostgreSQL used for a request, at the tenth execution on one connection.
fn plan_of(app: &TestApp, user: &Actor, target: &str) -> Vec<Value> {
    // Writes a marker to the log on another connection. The entries after it belong to the request.
    let marker = format!("-- {target}");
    app.sql()
        .batch_execute(&format!("DO $$ BEGIN RAISE LOG '{marker}'; END $$"))
        .unwrap();
    for _ in 0..10 {
        user.get(target).expect(200);
    }
    loop {
        let log = postgres::log();
        let (_, behind) = log.rsplit_once(&marker).unwrap();
        let plans: Vec<&str> = behind
            .split("plan:\n")
            .skip(1)
            .filter(|plan| plan.contains("FROM \\\"todo\\\".task"))
            .collect();
        if let [.., tenth] = plans.as_slice()
            && plans.len() >= 10
        {
            // The continuation lines of a log entry start with a tab.
            let json: String = tenth
                .lines()
                .take_while(|line| line.starts_with('\t'))
                .collect();
            let Ok(entry) = serde_json::from_str::<Value>(&json) else {
                continue;
            };
            let mut nodes = Vec::new();
            flatten(&entry["Plan"], &mut nodes);
            return nodes;
        }
        thread::yield_now();
    }
}

fn flatten(node: &Value, nodes: &mut Vec<Value>) {
    let mut node = node.clone();
    let below = node.as_object_mut().unwrap().remove("Plans");
    nodes.push(node);
    for child in below
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        flatten(child, nodes);
    }
}
