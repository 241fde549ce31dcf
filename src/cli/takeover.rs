//! `todo-api import --from`: takes over the tasks and users of another back end.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::mem;

use serde_json::{Map, Value};

use super::{CommandLine, Failure, print, setup};
use crate::auth::password::is_readable;
use crate::domain::account::{Email, Name};
use crate::domain::takeover::{Choices, Plan, Reading, Source, TablePlan, plan};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{Ids, ImportedTask, OnConflict};
use crate::domain::user::UserId;
use crate::store::takeover::{ForeignDatabase, ImportedUser};
use crate::store::{Error, Store};

/// Tasks that are written at once.
const TASKS_AT_ONCE: usize = 1_000;

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
An account whose password hash is not bcrypt or Argon2 needs `todo-api user password ID --id`,
and one without a valid or free address `todo-api user email ID EMAIL --id`.
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

    /// Imports everything, or without a store counts what would be imported, and prints the result.
    fn run(&mut self, store: Option<&Store>) -> Result<(), Failure> {
        if let Some(users) = &self.plan.users {
            import_users(&mut self.other, users, store)?.print("users")?;
        }
        let (plan, title) = (&self.plan.tasks, self.plan.tasks.table.title());
        let mut tasks = Tasks {
            space: format!("{}\n{title}", self.source),
            store,
            owner: None,
            batch: Vec::new(),
            report: Report::default(),
        };
        // Sorted by their owner, because a statement writes tasks of one user.
        self.other.read(plan, "user_id", |rows| {
            for row in rows {
                tasks.add(plan.object(&row))?;
            }
            Ok::<_, Failure>(true)
        })?;
        tasks.write()?;
        tasks.report.print("tasks")
    }
}

/// The tasks that have been read and not been written, and what came of the others.
struct Tasks<'s> {
    /// Ids that are made from those of the other back end differ by this.
    space: String,
    store: Option<&'s Store>,
    owner: Option<(UserId, Ids)>,
    batch: Vec<ImportedTask>,
    report: Report,
}

impl Tasks<'_> {
    fn add(&mut self, mut row: Map<String, Value>) -> Result<(), Failure> {
        let id = row
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let owner = row.remove("user_id");
        let owner = owner.as_ref().and_then(Value::as_str).unwrap_or_default();
        if self
            .owner
            .as_ref()
            .is_none_or(|(user, _)| user.as_str() != owner)
            || self.batch.len() >= TASKS_AT_ONCE
        {
            self.write()?;
            let user = UserId::parse(owner).ok();
            self.owner = user.map(|user| (user.clone(), Ids::new(&user, &self.space)));
        }
        let Some((_, ids)) = &mut self.owner else {
            self.report
                .refuse("user_id must have 1 to 255 characters".to_owned(), &id);
            return Ok(());
        };
        match ImportedTask::read(&Value::Object(row).to_string(), ids) {
            Ok(task) => {
                if id.parse() != Ok(task.task.id) {
                    self.report.count("with a new id", 1);
                }
                self.batch.push(with_moments(task));
            }
            Err(errors) => {
                let errors = errors
                    .iter()
                    .map(|error| format!("{} {}", error.field, error.message));
                self.report
                    .refuse(errors.collect::<Vec<_>>().join(" and "), &id);
            }
        }
        Ok(())
    }

    /// Writes the batch, or without a store counts it. Tasks that were deleted here do not come back.
    fn write(&mut self) -> Result<(), Failure> {
        let tasks = mem::take(&mut self.batch);
        let (Some((user, _)), false) = (&self.owner, tasks.is_empty()) else {
            return Ok(());
        };
        let Some(store) = self.store else {
            self.report.count("to import", tasks.len());
            return Ok(());
        };
        let deleted = store.deleted_tasks(user, tasks.iter().map(|task| task.task.id).collect())?;
        let kept: Vec<ImportedTask> = tasks
            .into_iter()
            .filter(|task| !deleted.contains(&task.task.id))
            .collect();
        match store.import_tasks(user, &kept, OnConflict::Skip, false) {
            Ok(count) => {
                self.report.count("imported", count.created);
                self.report
                    .count("here already", count.unchanged + count.skipped);
                self.report.count("deleted here", deleted.len());
            }
            Err(Error::UserGone) => self.report.count("of users deleted here", kept.len()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Moments that the other back end does not have follow from those that it has, not from the clock.
fn with_moments(mut task: ImportedTask) -> ImportedTask {
    let kept = &mut task.kept;
    kept.created_at = kept.created_at.or(kept.updated_at);
    kept.updated_at = kept.updated_at.or(kept.created_at);
    if task.task.completed {
        kept.completed_at = kept.completed_at.or(kept.updated_at);
    }
    task
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
        if more > 0 {
            *self.counts.entry(what).or_default() += more as u64;
        }
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
        let counts = if counts.is_empty() {
            "none".to_owned()
        } else {
            counts.join(", ")
        };
        print(&format!("  {what}: {counts}\n"))?;
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

fn import_users(
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
        let Some(store) = store else {
            for user in &users {
                let lack = lacks(
                    user.password_hash.as_deref(),
                    user.email.as_ref().map(Email::as_str),
                );
                report.count(
                    if user.password_hash.is_some() {
                        "accounts"
                    } else {
                        "without an account"
                    },
                    1,
                );
                report.count(
                    "accounts without a usable password or address",
                    usize::from(lack.is_some()),
                );
                report.count("disabled", usize::from(!user.active));
            }
            return Ok::<_, Failure>(true);
        };
        let added = store.add_imported_users(&users)?;
        report.count("imported", added.len());
        report.count("here already", users.len() - added.len());
        for user in &added {
            if let Some(lack) = lacks(user.password_hash.as_deref(), user.email.as_deref()) {
                let (id, email) = (&user.id, user.email.as_deref().unwrap_or("no address"));
                print(&format!("  the account {id} ({email}) needs {lack}\n"))?;
            }
        }
        Ok(true)
    })?;
    Ok(report)
}

/// What an account needs before its user can log in. A user without a hash has no account here.
fn lacks(hash: Option<&str>, email: Option<&str>) -> Option<&'static str> {
    match (hash?, email) {
        (NO_PASSWORD, None) => Some("a password and an address"),
        (NO_PASSWORD, _) => Some("a password"),
        (_, None) => Some("an address"),
        _ => None,
    }
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
