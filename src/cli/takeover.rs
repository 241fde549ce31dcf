//! `todo-api import --from`: takes over the tasks and users of another back end.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};

use serde_json::Value;

use super::{CommandLine, Failure, print, setup};
use crate::auth::password::is_readable;
use crate::domain::account::{Email, Name};
use crate::domain::takeover::{Choices, Plan, Reading, Source, TablePlan, plan};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::store::Store;
use crate::store::takeover::{ForeignDatabase, ImportedUser};

/// Rows of which the plan shows values.
const SAMPLES: usize = 3;
/// Characters of a value that the plan shows.
const SAMPLE_MAX: usize = 30;

/// The password hash of an account whose own cannot be read here. It matches no password.
const NO_PASSWORD: &str = "!";

const HELP: &str = "
  --dry-run                  print the plan and change nothing
  --yes                      import without asking
  --tasks TABLE              the table with the tasks, if its name is not a usual one
  --users TABLE              the table with the users
  --map FIELD=COLUMN         the column of a field, of users as users.FIELD; with an empty
                             COLUMN the field is not read
  --value FIELD:VALUE=OURS   the meaning of a value: priority:1=high, completed:closed=true
  --source NAME              goes into the ids of tasks that have no UUID; the name of the
                             other database unless given

The other database is read in one snapshot, and nothing in it is changed. The plan is printed
first. Tasks and users that are here already stay as they are, so the command can be run again.
";

commands! {
    "import --from URL [--dry-run] [--yes] [--source NAME] [--tasks TABLE] [--users TABLE]\n           [--map FIELD=COLUMN] [--value FIELD:VALUE=OURS]",
        "Take over tasks and users from the database of another back end", HELP, run;
}

/// The sentence about a table with tasks that nobody has imported.
pub fn offer(table: &str) -> String {
    format!(
        "import: the database has tasks of another program in {table}, and none here; `todo-api import --from URL --dry-run` shows how they would be taken over"
    )
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let config = line.config()?;
    setup::logging(&config);
    let choices = Choices {
        tasks: line.value("tasks").map(str::to_owned),
        users: line.value("users").map(str::to_owned),
        columns: line.values("map"),
        values: line.values("value"),
    };
    let url = line.value("from").unwrap_or_default();
    let mut other = ForeignDatabase::open(url, &config.database)
        .map_err(|problem| Failure::usage(format!("--from: {problem}")))?;
    let tables = other.tables()?;
    let mut plan = plan(&tables, &choices).map_err(unclear)?;
    settle(&mut other, &mut plan, &choices)?;
    let source = line.value("source").unwrap_or(other.name()).to_owned();
    let mut takeover = Takeover {
        other,
        plan,
        source,
    };
    takeover.describe()?;
    print("To be imported:\n")?;
    takeover.run(None)?;
    if line.has("dry-run") || !(line.has("yes") || confirmed()?) {
        return print("Nothing was changed.\n");
    }
    let open = setup::open_store(&config)?;
    print("Imported:\n")?;
    takeover.run(Some(&open.store))
}

fn unclear(problems: Vec<String>) -> Failure {
    Failure::usage(problems.join("\n"))
}

/// Finds out what the values of columns mean that have few.
fn settle(other: &mut ForeignDatabase, plan: &mut Plan, choices: &Choices) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for table in [Some(&mut plan.tasks), plan.users.as_mut()]
        .into_iter()
        .flatten()
    {
        for source in &mut table.sources {
            if let (Reading::Choice(_), Some(column)) = (source.reading, source.column) {
                let found = other.values(table.table, column)?;
                problems.extend(source.settle(&found, choices).err());
            }
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(unclear(problems)),
    }
}

fn confirmed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("add --yes to import this, or --dry-run"));
    }
    print("Import this? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

struct Takeover<'t> {
    other: ForeignDatabase,
    plan: Plan<'t>,
    source: String,
}

impl Takeover<'_> {
    /// Prints the plan.
    fn describe(&mut self) -> Result<(), Failure> {
        for (what, table) in [
            ("tasks", Some(&self.plan.tasks)),
            ("users", self.plan.users.as_ref()),
        ] {
            let Some(table) = table else {
                print(&format!("{what}: no table\n"))?;
                continue;
            };
            let rows = self.other.count(table.table)?;
            print(&format!("{what}: {}, {rows} rows\n", table.table.title()))?;
            let mut samples = Vec::new();
            self.other.read(table, "id", |rows| {
                samples = rows.into_iter().take(SAMPLES).collect();
                Ok::<_, Failure>(false)
            })?;
            for (at, source) in table.sources.iter().enumerate() {
                let values = samples.iter().filter_map(|row| row.get(at)?.as_deref());
                let column = source.column.map_or("-", |column| &column.name);
                let line = format!(
                    "  {:14} {column:20} {}",
                    source.field,
                    shown(source, values)
                );
                print(&format!("{}\n", line.trim_end()))?;
            }
            let unread: Vec<&str> = table.unread().collect();
            if !unread.is_empty() {
                print(&format!("  not read: {}\n", unread.join(", ")))?;
            }
        }
        Ok(())
    }

    /// Imports everything, or without a store counts what would be imported, and prints what came of it.
    fn run(&mut self, store: Option<&Store>) -> Result<(), Failure> {
        if let Some(users) = &self.plan.users {
            users_of(&mut self.other, users, store)?.print("users")?;
        }
        Ok(())
    }
}

/// What was counted, and why rows are left out.
#[derive(Default)]
struct Report {
    counts: BTreeMap<&'static str, u64>,
    /// By the reason: how many, and the id of the first.
    refused: BTreeMap<String, (u64, String)>,
}

impl Report {
    fn count(&mut self, what: &'static str, more: usize) {
        *self.counts.entry(what).or_default() += more as u64;
    }

    fn refuse(&mut self, reason: String, id: &str) {
        self.refused
            .entry(reason)
            .or_insert_with(|| (0, id.to_owned()))
            .0 += 1;
    }

    fn print(&self, what: &str) -> Result<(), Failure> {
        let counts = self
            .counts
            .iter()
            .map(|(name, count)| format!("{count} {name}"));
        let counts: Vec<String> = counts.collect();
        print(&format!("  {what}: {}\n", counts.join(", ")))?;
        for (reason, (rows, example)) in &self.refused {
            print(&format!(
                "  {what} left out: {rows}, because {reason} (the first has the id {example})\n"
            ))?;
        }
        Ok(())
    }
}

/// What a field holds: the meanings of a choice, else the first values.
fn shown<'v>(source: &Source, values: impl Iterator<Item = &'v str>) -> String {
    let meanings = source.meanings.iter();
    let meanings = meanings.map(|(value, rows, meaning)| format!("{value} = {meaning} ({rows})"));
    let samples = values.map(|value| {
        let start: String = value.chars().take(SAMPLE_MAX).collect();
        format!("{start:?}")
    });
    match (source.field, source.reading) {
        ("password_hash", _) => String::new(),
        (_, Reading::Choice(_)) => meanings.collect::<Vec<_>>().join(", "),
        _ => samples.collect::<Vec<_>>().join(", "),
    }
}

fn users_of(
    other: &mut ForeignDatabase,
    plan: &TablePlan,
    store: Option<&Store>,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    other.read(plan, "id", |rows| {
        let mut users = Vec::new();
        for row in rows {
            let row = Value::Object(plan.object(&row));
            match read_user(&row) {
                Ok(user) => users.push(user),
                Err(reason) => report.refuse(reason, row["id"].as_str().unwrap_or_default()),
            }
        }
        let has_password = |user: &&ImportedUser| user.password_hash.is_some();
        report.count("with an account", users.iter().filter(has_password).count());
        report.count(
            "without a password",
            users.iter().filter(|user| !has_password(user)).count(),
        );
        let Some(store) = store else {
            return Ok::<_, Failure>(true);
        };
        let added = store.add_imported_users(&users)?;
        report.count("added", added.len());
        Ok(true)
    })?;
    Ok(report)
}

fn read_user(row: &Value) -> Result<ImportedUser, String> {
    let text = |field: &str| {
        row[field]
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let id = UserId::parse(row["id"].as_str().unwrap_or_default());
    let password_hash = text("password_hash").map(|hash| match is_readable(hash) {
        true => hash.to_owned(),
        false => NO_PASSWORD.to_owned(),
    });
    // Without an account here, the address is of no use.
    let email = text("email").filter(|_| password_hash.is_some());
    Ok(ImportedUser {
        id: id.map_err(|problem| format!("the id {problem}"))?,
        email: email.and_then(|email| Email::parse(email).ok()),
        name: text("name").and_then(|name| Name::parse(name).ok()),
        password_hash,
        active: row["active"] != false && row["disabled"] != true,
        created_at: text("created_at").and_then(Timestamp::parse),
    })
}
