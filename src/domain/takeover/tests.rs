//! Tests of plans.

use super::*;

fn item(name: &str, columns: &[&str]) -> Item {
    Item {
        name: name.to_owned(),
        sql: String::new(),
        columns: columns.iter().map(|column| item(column, &[])).collect(),
    }
}

/// The field and the column of all that is read, or the problems.
fn planned(tables: &[Item], options: &[&str]) -> Result<Vec<String>, Vec<String>> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mut problems = Vec::new();
    let plans = plan(tables, &options, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let sources = plans.iter().flat_map(|plan| &plan.sources);
    let read = sources.filter_map(|source| Some((source.field, &source.column?.name)));
    Ok(read
        .map(|(field, column)| format!("{field}={column}"))
        .collect())
}

#[test]
fn usual_names_in_any_style_are_found() {
    let tables = [
        item(
            "Todo",
            &[
                "ID",
                "ownerId",
                "name",
                "isCompleted",
                "dueAt",
                "Priority",
                "colour",
            ],
        ),
        item("users", &["id", "Email", "hashedPassword", "is_active"]),
        item("sessions", &["id", "user_id", "title"]),
    ];
    let expected = [
        "id=ID",
        "user_id=ownerId",
        "title=name",
        "completed=isCompleted",
        "priority=Priority",
        "due_date=dueAt",
        "users.id=id",
        "users.email=Email",
        "users.password_hash=hashedPassword",
        "users.active=is_active",
    ];
    assert_eq!(planned(&tables, &[]).unwrap(), expected);
    let without = planned(
        &tables,
        &["map=priority=", "map=completed=colour", "map=priority="],
    )
    .unwrap();
    assert!(without.contains(&"completed=colour".to_owned()));
    assert!(!without.iter().any(|read| read.starts_with("priority")));
}

#[test]
fn every_field_has_a_name_of_its_own() {
    let names: Vec<Vec<String>> = (task_fields().iter())
        .map(|(field, aliases, _)| usual_columns(field, aliases))
        .collect();
    let all: Vec<&String> = names.iter().flatten().collect();
    let different: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(
        different.len(),
        all.len(),
        "a column could hold two fields: {all:?}"
    );
    for words in COLUMNS.iter().filter(|words| !words.starts_with("users.")) {
        let field = words.split(' ').next();
        assert!(
            task_fields().iter().any(|(name, ..)| Some(*name) == field),
            "{words}"
        );
    }
}

#[test]
fn whatever_is_missing_or_ambiguous_is_named_with_its_option() {
    let tables = [
        item(
            "tasks",
            &["id", "title", "due_date", "deadline", "done", "status"],
        ),
        item("old.users", &["id"]),
        item("user", &["email"]),
    ];
    let problems = planned(&tables, &["map=tag=x"]).unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:?}");
    for (problem, option) in problems.iter().zip([
        "add --map user_id=NAME",
        "add --map completed=done or --map completed=status",
        "add --map due_date=due_date or --map due_date=deadline",
        "add --users old.users or --users user",
        "--map tag=x must be FIELD=COLUMN with one of the fields id, user_id",
    ]) {
        assert!(problem.contains(option), "{option}: {problem}");
    }
    for (options, problem) in [
        (&["tasks=todo"][..], "--tasks todo: there is none"),
        (&["tasks=tasks", "map=title="], "add --map title=NAME"),
    ] {
        let problems = planned(&tables, options).unwrap_err();
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{problems:?}"
        );
    }
    assert!(planned(&[], &[]).unwrap_err()[0].contains("add --tasks NAME"));
}

#[test]
fn values_mean_what_they_say_and_no_other_is_guessed() {
    let table = item(
        "tasks",
        &[
            "id", "user_id", "title", "status", "priority", "tags", "done_at",
        ],
    );
    let settled = |field: &str, values: &[&str], options: &[&str]| {
        let mut plans = plan(std::slice::from_ref(&table), &[], &mut Vec::new());
        let sources = &mut plans[0].sources;
        let source = sources
            .iter_mut()
            .find(|source| source.field == field)
            .unwrap();
        let found = values
            .iter()
            .map(|value| vec![Some((*value).to_owned()), Some("3".to_owned())]);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let problem = source.settle(found.collect(), &options);
        problem.map_or_else(
            || {
                Ok(source
                    .meanings
                    .iter()
                    .map(|(.., meaning)| *meaning)
                    .collect::<Vec<_>>())
            },
            Err,
        )
    };
    let words = ["Done", "in-progress", "To Do", "t", "0", "COMPLETED"];
    let meanings = ["true", "false", "false", "true", "false", "true"];
    assert_eq!(settled("completed", &words, &[]).unwrap(), meanings);
    assert_eq!(
        settled("priority", &["LOW", "Medium", "high"], &[]).unwrap(),
        ["low", "medium", "high"]
    );
    let problem = settled("priority", &["1", "high", "a=b"], &[]).unwrap_err();
    assert!(problem.contains("add --value 'priority:1=…' (3 rows) --value 'priority:a=b=…' (3 rows), each with one of low, medium, high"), "{problem}");
    let chosen = [
        "value=priority:1=low",
        "value=priority:a=b=high",
        "value=priority:1=high",
    ];
    assert_eq!(
        settled("priority", &["1", "high", "a=b"], &chosen).unwrap(),
        ["high", "high", "high"]
    );
    assert!(settled("priority", &["1"], &["value=priority:1=urgent"]).is_err());
    let many: Vec<String> = (0..=VALUES_MAX).map(|value| value.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(
        settled("completed", &many, &[])
            .unwrap_err()
            .contains("too many values")
    );
}

#[test]
fn a_row_becomes_an_object_without_what_is_null() {
    let table = item(
        "tasks",
        &["id", "user_id", "title", "status", "tags", "done_at"],
    );
    let mut plans = plan(std::slice::from_ref(&table), &[], &mut Vec::new());
    let plan = &mut plans[0];
    for source in &mut plan.sources {
        let found =
            ["open", "done"].map(|value| vec![Some(value.to_owned()), Some("1".to_owned())]);
        assert_eq!(
            source.settle(
                found.to_vec(),
                &[
                    "value=priority:open=low".to_owned(),
                    "value=priority:done=low".to_owned()
                ]
            ),
            None
        );
    }
    let object = |cells: &[(&str, &str)]| {
        let cell = |source: &FieldSource| {
            cells
                .iter()
                .find(|(field, _)| *field == source.field)
                .map(|(_, cell)| (*cell).to_owned())
        };
        let cells: Cells = plan.sources.iter().map(cell).collect();
        Value::Object(plan.object(&cells))
    };
    let cells = [
        ("id", "7"),
        ("completed", "done"),
        ("completed_at", "x"),
        ("tags", "a, b,,"),
    ];
    let expected =
        serde_json::json!({"id": "7", "completed": true, "completed_at": "x", "tags": ["a", "b"]});
    assert_eq!(object(&cells), expected);
    let cells = [
        ("completed", "open"),
        ("completed_at", "x"),
        ("tags", "[\"a,b\"]"),
    ];
    assert_eq!(
        object(&cells),
        serde_json::json!({"completed": false, "tags": ["a,b"]})
    );
}
