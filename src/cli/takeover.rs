//! `todo-api import --from`: takes over the tasks and users of another back end.

use std::collections::BTreeMap;
use std::mem;

use serde_json::{Map, Value, json};

use super::{CommandLine, Failure, print, setup};
use crate::auth::password::is_readable;
use crate::domain::account::{Email, Name};
use crate::domain::takeover::{Cells, FieldSource, Reading, TablePlan, plan};
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{Ids, ImportedTask, OnConflict};
use crate::domain::user::UserId;
use crate::store::takeover::ForeignDatabase;
use crate::store::{Error, IMPORTED_AT_ONCE, Store};

/// Rows of which the plan shows values, and the length to which it cuts them.
const SAMPLES: usize = 3;
const SAMPLE_MAX: usize = 30;

/// The password hash of an account whose own cannot be read here. It matches no password.
const NO_PASSWORD: &str = "!";

const HELP: &str = "
  --dry-run                  print the plan and change nothing
  --yes                      import; without it, only the plan is printed
  --tasks TABLE              the table with the tasks, if its name is not a usual one
  --users TABLE              the table with the users
  --map FIELD=COLUMN         the column of a field, of users as users.FIELD; with an empty
                             COLUMN the field is not read
  --value FIELD:VALUE=OURS   the meaning of a value: priority:1=high, completed:closed=true
  --source NAME              a name for ids of tasks without a UUID; default: the database's

The other database is read in one snapshot, and nothing in it is changed. The plan is printed
first. Tasks and users that exist here already are not changed, so the command can be run again.
An account that needs a password or an address gets it by `todo-api user password ID --id` and
`todo-api user email ID EMAIL --id`.
";

commands! {
    "import --from URL [--dry-run] [--yes] [--source NAME] [--tasks TABLE] [--users TABLE]\n           [--map FIELD=COLUMN] [--value FIELD:VALUE=OURS]",
        "Take over tasks and users from the database of another back end", HELP, run;
}

/// The sentence about a table whose tasks were not imported.
pub fn offer(table: &String) -> String {
    let command = "`todo-api import --from URL --dry-run` shows how to take them over";
    format!("import: {table} has tasks of another program, and there are none here; {command}")
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let config = line.config()?;
    let (url, options) = (line.value("from").unwrap_or_default(), line.options());
    let opened = ForeignDatabase::open(url, &config.database);
    let mut other = opened.map_err(|problem| Failure::usage(format!("--from: {problem}")))?;
    let (tables, mut problems) = (other.tables()?, Vec::new());
    let mut plans = plan(&tables, &options, &mut problems);
    for TablePlan { table, sources } in &mut plans {
        for source in sources {
            if let (Reading::Choice(_), Some(column)) = (source.reading, source.column) {
                problems.extend(source.settle(other.values(table, column)?, &options));
            }
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems.join("\n")));
    }
    let source = line.value("source").unwrap_or(&other.name).to_owned();
    let mut import = |store| {
        // Users first: their tasks would make them known without an account.
        let mut plans = plans.iter().rev();
        plans.try_for_each(|plan| import_table(&mut other, plan, &source, store))
    };
    import(None)?;
    if line.has("dry-run") || !line.has("yes") {
        return print("Nothing is imported. With --yes, this is.\n");
    }
    let open = setup::open_store(&config)?;
    print("Imported:\n")?;
    import(Some(&open.store))
}

/// Imports a table and prints what was done. Without a store it prints the plan, and counts what would be imported.
fn import_table(
    other: &mut ForeignDatabase,
    plan: &TablePlan,
    source: &str,
    store: Option<&Store>,
) -> Result<(), Failure> {
    let (title, mut samples) = (&plan.table.name, Vec::new());
    let mut import = Import {
        store,
        space: format!("{source}\n{title}"),
        ..Import::default()
    };
    let mut sources = plan.sources.iter();
    let owner = sources.position(|source| source.field == "user_id");
    // Tasks are sorted by their owner, because a statement writes tasks of one user.
    other.read(plan, owner.unwrap_or_default(), |rows| {
        let more = rows.iter().take(SAMPLES.saturating_sub(samples.len()));
        samples.extend(more.cloned());
        let mut rows = rows.iter().map(|row| plan.object(row));
        match owner {
            Some(_) => rows.try_for_each(|row| import.task(row)),
            None => import.users(rows),
        }
    })?;
    import.write()?;
    let what = owner.map_or("users", |_| "tasks");
    let mut text = format!("{what}: {title}\n");
    for (at, source) in plan.sources.iter().enumerate().filter(|_| store.is_none()) {
        let column = source.column.map_or("-", |column| &column.name);
        let (field, values) = (source.field, shown(source, &samples, at));
        let line = format!("  {field:20} {column:20} {values}");
        text.extend([line.trim_end(), "\n"]);
    }
    if store.is_none() {
        text += &format!("  not read: {}\n", plan.unread());
    }
    for (what, (rows, first)) in import.counts {
        text += &format!("  {rows} {what}{first}\n");
    }
    print(&text)
}

/// What a field holds: the meanings of a choice, else the first values.
fn shown(source: &FieldSource, samples: &[Cells], at: usize) -> String {
    let meanings = source.meanings.iter();
    let meanings = meanings.map(|(value, rows, meaning)| format!("{value} = {meaning} ({rows})"));
    let values = samples.iter().filter_map(|row| row.get(at)?.as_deref());
    let values = values.map(|value| value.chars().take(SAMPLE_MAX).collect::<String>());
    let texts: Vec<String> = match source.reading {
        Reading::Choice(_) => meanings.collect(),
        _ if source.field == "users.password_hash" => Vec::new(),
        _ => values.map(|value| format!("{value:?}")).collect(),
    };
    texts.join(", ")
}

#[derive(Default)]
struct Import<'s> {
    store: Option<&'s Store>,
    /// The source of ids that are made from those of the other back end.
    space: String,
    /// The owner of the batch.
    owner: Option<(UserId, Ids)>,
    batch: Vec<ImportedTask>,
    /// What happened to rows: how often, and the id of the first.
    counts: BTreeMap<String, (usize, String)>,
}

impl Import<'_> {
    /// Counts rows; `first` names the first of them.
    fn count(&mut self, what: &str, rows: usize, first: &str) {
        if rows > 0 {
            let count = self.counts.entry(what.to_owned());
            count.or_insert_with(|| (0, first.to_owned())).0 += rows;
        }
    }

    fn left_out(&mut self, reason: &str, id: &str) {
        self.count(
            &format!("left out: {reason}"),
            1,
            &format!(" (first: {id})"),
        );
    }

    fn task(&mut self, mut row: Map<String, Value>) -> Result<(), Failure> {
        let id = text(&row, "id").to_owned();
        let owner = row.remove("user_id").unwrap_or_default();
        let owner = owner.as_str().unwrap_or_default();
        let is_same = |(user, _): &(UserId, Ids)| user.as_str() == owner;
        if !self.owner.as_ref().is_some_and(is_same) || self.batch.len() == IMPORTED_AT_ONCE {
            self.write()?;
            let user = UserId::parse(owner).ok();
            self.owner = user.map(|user| (user.clone(), Ids::new(&user, &self.space)));
        }
        let Some((_, ids)) = &mut self.owner else {
            self.left_out("user_id must have 1 to 255 characters", &id);
            return Ok(());
        };
        match ImportedTask::read(&Value::Object(row).to_string(), ids) {
            Ok(task) => {
                let is_new = id.parse() != Ok(task.task.id);
                self.count("get a new id", usize::from(is_new), "");
                self.batch.push(with_moments(task));
            }
            Err(errors) => {
                let errors = errors.iter();
                let errors = errors.map(|error| format!("{} {}", error.field, error.message));
                let errors = errors.collect::<Vec<_>>().join(", ");
                self.left_out(&errors, &id);
            }
        }
        Ok(())
    }

    /// Writes the batch, except tasks that were deleted here.
    fn write(&mut self) -> Result<(), Failure> {
        let mut tasks = mem::take(&mut self.batch);
        let (Some(store), Some((user, _))) = (self.store, &self.owner) else {
            self.count("to import", tasks.len(), "");
            return Ok(());
        };
        let deleted = store.deleted_tasks(user, tasks.iter().map(|task| task.task.id).collect())?;
        tasks.retain(|task| !deleted.contains(&task.task.id));
        match store.import_tasks(user, &tasks, OnConflict::Skip, false) {
            Ok(count) => {
                self.count("imported", count.created, "");
                self.count("here already", count.unchanged + count.skipped, "");
                self.count("deleted here", deleted.len(), "");
            }
            Err(Error::UserGone) => self.count("of users deleted here", tasks.len(), ""),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn users(&mut self, rows: impl Iterator<Item = Map<String, Value>>) -> Result<(), Failure> {
        let mut users = Vec::new();
        for row in rows {
            match read_user(&row) {
                Ok(user) => users.push(user),
                Err(reason) => self.left_out(&reason, text(&row, "users.id")),
            }
        }
        let Some(store) = self.store else {
            for user in users {
                self.count(state(&user), 1, "");
                self.count("are disabled", usize::from(user["active"] == false), "");
            }
            return Ok(());
        };
        let added = store.add_imported_users(&json!(users).to_string())?;
        self.count("imported", added.len(), "");
        self.count("here already", users.len() - added.len(), "");
        for user in added {
            let user: Value = serde_json::from_str(&user)?;
            let state = state(&user);
            if state.starts_with("need") {
                print(&format!("  {state}: {} {}\n", user["id"], user["email"]))?;
            }
        }
        Ok(())
    }
}

fn text<'r>(row: &'r Map<String, Value>, field: &str) -> &'r str {
    let text = row.get(field).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// Moments that the other back end does not have follow from those that it has, not from the clock.
fn with_moments(mut task: ImportedTask) -> ImportedTask {
    let kept = &mut task.kept;
    kept.created_at = kept.created_at.or(kept.updated_at);
    kept.updated_at = kept.updated_at.or(kept.created_at);
    let done = kept.updated_at.filter(|_| task.task.completed);
    kept.completed_at = kept.completed_at.or(done);
    task
}

fn read_user(row: &Map<String, Value>) -> Result<Value, String> {
    let id = UserId::parse(text(row, "users.id"));
    let id = id.map_err(|problem| format!("users.id {problem}"))?;
    let text = |field| Some(text(row, field).trim()).filter(|text| !text.is_empty());
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

/// Whether a user can log in here. Without a hash there is no account.
fn state(user: &Value) -> &'static str {
    match (user["password_hash"].as_str(), user["email"].is_null()) {
        (None, _) => "without an account",
        (Some(NO_PASSWORD), _) => "need a password",
        (Some(_), true) => "need an address",
        (Some(_), false) => "keep their password",
    }
}
