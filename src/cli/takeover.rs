//! `todo-api import --from`: takes over the tasks and users of another back end.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::mem;

use serde_json::{Map, Value, json};

use super::{CommandLine, Failure, print, setup};
use crate::auth::password::is_readable;
use crate::domain::account::{Email, Name};
use crate::domain::takeover::{Cells, Choices, Reading, Source, Table, TablePlan, plan};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{Ids, ImportedTask, OnConflict};
use crate::domain::user::UserId;
use crate::store::takeover::ForeignDatabase;
use crate::store::{Error, Store};

/// Tasks that are written at once.
const TASKS_AT_ONCE: usize = 1_000;

/// Rows of which the plan shows values, and the length to which it cuts them.
const SAMPLES: usize = 3;
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
    let opened = ForeignDatabase::open(url, &config.database);
    let mut other = opened.map_err(|problem| Failure::usage(format!("--from: {problem}")))?;
    let tables = other.tables()?;
    let plans = settled_plan(&mut other, &tables, &choices)?;
    let source = line.value("source").unwrap_or(&other.name).to_owned();
    let mut import = |store| {
        // Users first: their tasks would make them known without an account.
        for plan in plans.iter().rev() {
            let report = import_table(&mut other, plan, &source, store)?;
            if store.is_none() {
                describe(plan, &report)?;
            }
            report.print()?;
        }
        Ok::<_, Failure>(())
    };
    import(None)?;
    if line.has("dry-run") || !(line.has("yes") || confirmed()?) {
        return print("Nothing was changed.\n");
    }
    let open = setup::open_store(&config)?;
    print("Imported:\n")?;
    import(Some(&open.store))
}

fn settled_plan<'t>(
    other: &mut ForeignDatabase,
    tables: &'t [Table],
    choices: &Choices,
) -> Result<Vec<TablePlan<'t>>, Failure> {
    let unclear = |problems: Vec<String>| Failure::usage(problems.join("\n"));
    let mut plans = plan(tables, choices).map_err(unclear)?;
    let mut problems = Vec::new();
    for TablePlan { table, sources } in &mut plans {
        for source in sources {
            if let (Reading::Choice(_), Some(column)) = (source.reading, source.column) {
                let found = other.values(table, column)?;
                problems.extend(source.settle(found, choices).err());
            }
        }
    }
    if problems.is_empty() {
        Ok(plans)
    } else {
        Err(unclear(problems))
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

/// Prints what is read from a table.
fn describe(plan: &TablePlan, report: &Report) -> Result<(), Failure> {
    print(&format!("{} from {}\n", report.what, plan.table.title()))?;
    for (at, source) in plan.sources.iter().enumerate() {
        let column = source.column.map_or("-", |column| &column.name);
        let values = report
            .samples
            .iter()
            .filter_map(|row| row.get(at)?.as_deref());
        let line = format!(
            "  {:20} {column:20} {}",
            source.field,
            shown(source, values)
        );
        print(&format!("{}\n", line.trim_end()))?;
    }
    let unread = plan.unread().join(", ");
    print(&format!(
        "  not read: {}\n",
        if unread.is_empty() { "-" } else { &unread }
    ))
}

/// What a field holds: the meanings of a choice, else the first values.
fn shown<'v>(source: &Source, values: impl Iterator<Item = &'v str>) -> String {
    let meanings = source.meanings.iter();
    let meanings = meanings.map(|(value, rows, meaning)| format!("{value} = {meaning} ({rows})"));
    let samples =
        values.map(|value| format!("{:?}", value.chars().take(SAMPLE_MAX).collect::<String>()));
    let texts: Vec<String> = match (source.field.as_str(), source.reading) {
        ("users.password_hash", _) => Vec::new(),
        (_, Reading::Choice(_)) => meanings.collect(),
        _ => samples.collect(),
    };
    texts.join(", ")
}

/// What was counted, and why rows were left out.
struct Report {
    what: &'static str,
    counts: BTreeMap<&'static str, usize>,
    /// By the reason: how many, and the id of the first.
    refused: BTreeMap<String, (usize, String)>,
    /// The first rows.
    samples: Vec<Cells>,
}

impl Report {
    fn count(&mut self, what: &'static str, more: usize) {
        if more > 0 {
            *self.counts.entry(what).or_default() += more;
        }
    }

    fn refuse(&mut self, reason: String, id: &str) {
        self.refused
            .entry(reason)
            .or_insert_with(|| (0, id.to_owned()))
            .0 += 1;
    }

    fn print(&self) -> Result<(), Failure> {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        print(&format!(
            "  {}: {}\n",
            self.what,
            if counts.is_empty() {
                "none".to_owned()
            } else {
                counts.join(", ")
            }
        ))?;
        for (reason, (rows, example)) in &self.refused {
            print(&format!(
                "  left out: {rows}, because {reason} (the first has the id {example})\n"
            ))?;
        }
        Ok(())
    }
}

/// Imports a table, or without a store counts what would be imported.
fn import_table(
    other: &mut ForeignDatabase,
    plan: &TablePlan,
    source: &str,
    store: Option<&Store>,
) -> Result<Report, Failure> {
    let has_tasks = plan.sources.iter().any(|source| source.field == "user_id");
    let mut import = Import {
        store,
        space: format!("{source}\n{}", plan.table.title()),
        owner: None,
        batch: Vec::new(),
        report: Report {
            what: if has_tasks { "tasks" } else { "users" },
            counts: BTreeMap::new(),
            refused: BTreeMap::new(),
            samples: Vec::new(),
        },
    };
    // A statement writes tasks of one user.
    let order = if has_tasks { "user_id" } else { "users.id" };
    other.read(plan, order, |rows| {
        let missing = SAMPLES.saturating_sub(import.report.samples.len());
        import
            .report
            .samples
            .extend(rows.iter().take(missing).cloned());
        let mut rows = rows.iter().map(|row| plan.object(row));
        if has_tasks {
            rows.try_for_each(|row| import.task(row))
        } else {
            import.users(rows)
        }
    })?;
    import.write()?;
    Ok(import.report)
}

struct Import<'s> {
    store: Option<&'s Store>,
    /// The source of ids that are made from those of the other back end.
    space: String,
    /// The owner of the batch.
    owner: Option<(UserId, Ids)>,
    batch: Vec<ImportedTask>,
    report: Report,
}

impl Import<'_> {
    fn task(&mut self, mut row: Map<String, Value>) -> Result<(), Failure> {
        let id = text(&row, "id").to_owned();
        let owner = row.remove("user_id");
        let owner = owner.as_ref().and_then(Value::as_str).unwrap_or_default();
        let is_another = self
            .owner
            .as_ref()
            .is_none_or(|(user, _)| user.as_str() != owner);
        if is_another || self.batch.len() >= TASKS_AT_ONCE {
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
                let is_new = id.parse() != Ok(task.task.id);
                self.report.count("with a new id", usize::from(is_new));
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

    /// Writes the batch, except tasks that were deleted here.
    fn write(&mut self) -> Result<(), Failure> {
        let mut tasks = mem::take(&mut self.batch);
        let (Some((user, _)), Some(store)) = (&self.owner, self.store) else {
            self.report.count("to import", tasks.len());
            return Ok(());
        };
        let ids = tasks.iter().map(|task| task.task.id).collect();
        let deleted = store.deleted_tasks(user, ids)?;
        self.report.count("deleted here", deleted.len());
        tasks.retain(|task| !deleted.contains(&task.task.id));
        match store.import_tasks(user, &tasks, OnConflict::Skip, false) {
            Ok(count) => {
                self.report.count("imported", count.created);
                self.report
                    .count("here already", count.unchanged + count.skipped);
            }
            Err(Error::UserGone) => self.report.count("of users deleted here", tasks.len()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn users(&mut self, rows: impl Iterator<Item = Map<String, Value>>) -> Result<(), Failure> {
        let mut users = Vec::new();
        for row in rows {
            match read_user(&row) {
                Ok(user) => users.push(user),
                Err(reason) => self.report.refuse(reason, text(&row, "users.id")),
            }
        }
        let Some(store) = self.store else {
            for user in &users {
                let kind = if user["password_hash"].is_null() {
                    "without an account"
                } else {
                    "with an account"
                };
                self.report.count(kind, 1);
                self.report
                    .count("who cannot log in yet", usize::from(needs(user).is_some()));
                self.report
                    .count("disabled", usize::from(user["active"] == false));
            }
            return Ok(());
        };
        let added = store.add_imported_users(&json!(users).to_string())?;
        self.report.count("imported", added.len());
        self.report.count("here already", users.len() - added.len());
        for user in added {
            let user = serde_json::from_str(&user)?;
            if let Some(needs) = needs(&user) {
                let (id, email) = (&user["id"], &user["email"]);
                print(&format!("  the account {id} ({email}) needs {needs}\n"))?;
            }
        }
        Ok(())
    }
}

fn text<'r>(row: &'r Map<String, Value>, field: &str) -> &'r str {
    row.get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .trim()
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

fn read_user(row: &Map<String, Value>) -> Result<Value, String> {
    let text = |field| Some(text(row, field)).filter(|text| !text.is_empty());
    let id = UserId::parse(text("users.id").unwrap_or_default());
    let id = id.map_err(|problem| format!("the id {problem}"))?;
    let hash = text("users.password_hash");
    let hash = hash.map(|hash| if is_readable(hash) { hash } else { NO_PASSWORD });
    // Without an account here, the address is of no use.
    let email = text("users.email").filter(|_| hash.is_some());
    let is = |field: &str, flag: bool| row.get(field) == Some(&Value::Bool(flag));
    Ok(json!({
        "id": id.as_str(),
        "email": email.and_then(|email| Email::parse(email).ok()),
        "name": text("users.name").filter(|name| Name::parse(name).is_ok()),
        "password_hash": hash,
        "active": !is("users.active", false) && !is("users.disabled", true),
        "created_at": text("users.created_at").and_then(Timestamp::parse),
    }))
}

/// What an account needs before its user can log in. A user without a hash has no account here.
fn needs(user: &Value) -> Option<&'static str> {
    match (user["password_hash"].as_str()?, user["email"].is_null()) {
        (NO_PASSWORD, true) => Some("a password and an address"),
        (NO_PASSWORD, _) => Some("a password"),
        (_, true) => Some("an address"),
        _ => None,
    }
}
