//! Statistics of tasks.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, UtcOffset};

use crate::support::{Actor, TestApp};

fn stats(user: &Actor, query: &str) -> Value {
    user.get(&format!("/api/tasks/stats{query}"))
        .expect(200)
        .json()
}

fn date(moment: OffsetDateTime) -> String {
    let date = moment.date();
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

#[test]
fn statistics_count_only_the_users_own_tasks() {
    let app = TestApp::start();
    let (user, other) = (app.user("u1"), app.user("u2"));
    other.task("not mine");
    let empty = stats(&user, "");
    let names = ["total", "open", "completed", "overdue", "due_today"];
    for name in names {
        assert_eq!(empty[name], 0, "{name}");
    }
    assert_eq!(
        empty["by_priority"],
        json!({ "low": 0, "medium": 0, "high": 0 })
    );
    let now = OffsetDateTime::now_utc();
    let (today, yesterday) = (date(now), date(now - Duration::DAY));
    for (priority, completed, due) in [
        ("low", false, Some(today.as_str())),
        ("low", true, Some(today.as_str())),
        ("medium", false, Some(yesterday.as_str())),
        ("high", false, Some("2001-01-01T00:00:00Z")),
        ("high", true, Some("2001-01-01")),
        ("high", false, None),
        ("high", false, Some("9999-12-31")),
    ] {
        let body =
            json!({ "title": "t", "priority": priority, "completed": completed, "due_date": due });
        user.post("/api/tasks", body).expect(201);
    }
    let read = stats(&user, "");
    let numbers: Vec<i64> = names
        .iter()
        .map(|name| read[name].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [7, 5, 2, 2, 1], "{read}");
    assert_eq!(
        read["by_priority"],
        json!({ "low": 2, "medium": 1, "high": 4 })
    );
    assert_eq!(read["tz"], "UTC");
    assert_eq!(user.get("/api/u1/tasks/stats").expect(200).json(), read);
    assert_eq!(user.get("/api/tasks?overdue=true").json()["count"], 2);
    app.anonymous()
        .get("/api/tasks/stats")
        .expect_error(401, "UNAUTHORIZED");
}

#[test]
fn completions_are_counted_by_day_for_thirty_days() {
    let app = TestApp::start();
    let user = app.user("u1");
    user.task("so that the user is known");
    app.sql()
        .batch_execute(
            "INSERT INTO todo.tasks (user_id, id, title, completed_at)
             SELECT 'u1', gen_random_uuid(), 't', now() - n * interval '1 day' FROM generate_series(0, 40) AS n, generate_series(1, 2)",
        )
        .unwrap();
    let now = OffsetDateTime::now_utc();
    let days = stats(&user, "")["completed_per_day"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(days.len(), 30);
    assert_eq!(days[0]["date"], date(now - Duration::days(29)));
    assert_eq!(days[29]["date"], date(now));
    assert!(days.iter().all(|day| day["count"] == 2), "{days:?}");
}

#[test]
fn days_begin_and_end_in_the_requested_zone() {
    let app = TestApp::start();
    let user = app.user("u1");
    // Two zones that always have different dates.
    let (east, west) = ("%2B14:00", "-12:00");
    let today = |hours: i8| {
        date(OffsetDateTime::now_utc().to_offset(UtcOffset::from_hms(hours, 0, 0).unwrap()))
    };
    user.post("/api/tasks", json!({ "title": "t", "due_date": today(14) }))
        .expect(201);
    assert_eq!(stats(&user, &format!("?tz={east}"))["due_today"], 1);
    assert_eq!(stats(&user, &format!("?tz={west}"))["due_today"], 0);
    user.post(
        "/api/tasks",
        json!({ "title": "t", "due_date": today(-12) }),
    )
    .expect(201);
    assert_eq!(stats(&user, &format!("?tz={west}"))["due_today"], 1);
    // In the eastern zone that day is over, in the western it is not.
    assert_eq!(stats(&user, &format!("?tz={east}"))["overdue"], 1);
    assert_eq!(stats(&user, &format!("?tz={west}"))["overdue"], 0);
    assert_eq!(stats(&user, "?tz=%2B14:00")["tz"], "+14:00");
    assert_eq!(stats(&user, "?tz=Pacific/Kiritimati")["due_today"], 1);
    assert_eq!(
        stats(&user, "?tz=Pacific/Kiritimati")["completed_per_day"][29]["date"],
        today(14)
    );
}

#[test]
fn an_unknown_zone_is_refused() {
    let app = TestApp::start();
    let user = app.user("u1");
    for zone in [
        "Mars/Olympus",
        "nowhere",
        "",
        "UTC%2B2",
        "a%00b",
        "%2B25:00",
        "x'y",
        "Europe/Berlin&tz=UTC",
    ] {
        for target in ["/api/tasks/stats", "/api/tasks"] {
            let sentence = user
                .get(&format!("{target}?tz={zone}"))
                .expect_error(400, "BAD_REQUEST");
            assert!(sentence.contains("tz"), "{sentence}");
        }
    }
    let sentence = user
        .get("/api/tasks/stats?colour=red")
        .expect_error(400, "BAD_REQUEST");
    assert!(sentence.contains("colour"), "{sentence}");
    user.send("DELETE", "/api/tasks/stats", &[], None)
        .expect_error(405, "METHOD_NOT_ALLOWED");
}
