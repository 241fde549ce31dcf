//! Databases that an older program, or somebody else, has left.

use serde_json::json;
use todo_api::store::connector::Target;

use crate::support::{TestApp, postgres};

fn has_index(app: &TestApp, name: &str) -> bool {
    let question = "SELECT to_regclass('todo.' || $1) IS NOT NULL";
    app.sql().query_one(question, &[&name]).unwrap().get(0)
}

#[test]
fn tasks_of_an_older_program_are_found_after_a_start() {
    let database = postgres::fresh_database();
    // As a program wrote them that knew no folded text.
    postgres::sql(
        &database,
        "INSERT INTO todo.users (id) VALUES ('u1');
         INSERT INTO todo.tasks (user_id, id, title, description)
         SELECT 'u1', gen_random_uuid(), 'Crème ' || n, CASE WHEN n % 2 = 0 THEN 'BRÛLÉE' END FROM generate_series(1, 2500) AS n",
    );
    let app = TestApp::on(&database, |_| {}, Vec::new());
    let user = app.user("u1");
    for (search, total) in [("creme", 2500), ("creme+brulee", 1250), ("creme+2500", 1)] {
        let list = user
            .get(&format!("/api/tasks?limit=1&include_total=true&q={search}"))
            .expect(200)
            .json();
        assert_eq!(list["total"], total, "{search}");
    }
    let first = user.get("/api/tasks?limit=1&sort=title").json();
    assert_eq!(first["tasks"][0]["title"], "Crème 1");
    assert_eq!(first["tasks"][0]["version"], 1);
}

/// A database of a user who may make nothing in it but tables in the schema that was made for them.
fn restricted_database(name: &str) -> String {
    let database = postgres::empty_database();
    postgres::sql(
        &database,
        &format!(
            "CREATE ROLE {name} LOGIN; CREATE SCHEMA todo AUTHORIZATION {name};
             REVOKE CREATE ON SCHEMA public FROM public"
        ),
    );
    database
}

fn as_role(database: &str, name: &str) -> String {
    let (scheme, rest) = database.split_once("://").unwrap();
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{name}@{rest}")
}

#[test]
fn searches_work_where_no_extension_may_be_made() {
    let database = restricted_database("no_extensions");
    let mine = as_role(&database, "no_extensions");
    let app = TestApp::on(
        &database,
        |settings| settings.target = Target::parse(&mine).unwrap(),
        Vec::new(),
    );
    assert!(has_index(&app, "tasks_newest_first") && !has_index(&app, "tasks_search"));
    let user = app.user("u1");
    user.post(
        "/api/tasks",
        json!({ "title": "Crème brûlée", "tags": ["a"] }),
    )
    .expect(201);
    user.task("other");
    let list = user.get("/api/tasks?q=BRULEE&tag=a").expect(200).json();
    assert_eq!(list["count"], 1);
}

#[test]
fn extensions_that_are_there_are_used_wherever_they_are() {
    let database = restricted_database("finds_extensions");
    postgres::sql(
        &database,
        "CREATE SCHEMA elsewhere; CREATE EXTENSION pg_trgm SCHEMA elsewhere; CREATE EXTENSION btree_gin SCHEMA elsewhere;
         GRANT USAGE ON SCHEMA elsewhere TO public",
    );
    let mine = as_role(&database, "finds_extensions");
    let app = TestApp::on(
        &database,
        |settings| settings.target = Target::parse(&mine).unwrap(),
        Vec::new(),
    );
    assert!(has_index(&app, "tasks_search"));
    let user = app.user("u1");
    user.task("Crème brûlée");
    assert_eq!(user.get("/api/tasks?q=brulee").json()["count"], 1);
}
