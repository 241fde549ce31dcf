//! The plan of an import from the database of another back end: which table and columns hold what is kept here.
//!
//! Usual names are found. Where two columns or two tables could be meant, or a value has no clear meaning, there is no plan, and a
//! sentence names the options that decide.

use serde_json::{Map, Value};

use super::shape::Shape;
use super::task::TASK_FIELDS;

const TASK_TABLES: &str = "tasks task todos todo";
const USER_TABLES: &str = "users user";

/// Fields of a task, each with columns that may hold it besides those with its own names.
const TASK_COLUMNS: &[&str] = &[
    "id uuid task_id todo_id",
    "user_id owner_id owner",
    "title name task",
    "description details notes body content",
    "completed done is_done complete status",
    "completed_at done_at finished_at",
    "due_date due_at due deadline",
    "tags labels",
    "created_at created date_created",
    "updated_at updated date_updated modified_at",
];

/// Fields of a user, each with other columns that may hold it.
const USER_COLUMNS: &[&str] = &[
    "id uuid user_id",
    "email email_address",
    "name full_name display_name",
    "password_hash hashed_password password",
    "active is_active enabled",
    "disabled is_disabled banned",
    "created_at created date_created date_joined",
];

/// Fields that every row needs.
const REQUIRED: [&str; 4] = ["id", "user_id", "title", "users.id"];

/// Usual words for true and false, also as states of a task.
const YES: &str = "true t yes 1 done completed complete";
const NO: &str = "false f no 0 open pending todo to_do new not_started in_progress incomplete";

/// A column with more values than this does not hold a field that has few.
pub const VALUES_MAX: usize = 50;

/// A row of the other database: the text of each column, or null.
pub type Cells = Vec<Option<String>>;

/// A table of the other database.
#[derive(Debug, PartialEq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A column of such a table.
#[derive(Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL writes it.
    pub kind: String,
}

/// The decisions of the command line.
#[derive(Debug, Default)]
pub struct Choices {
    /// The table with tasks.
    pub tasks: Option<String>,
    /// The table with users.
    pub users: Option<String>,
    /// `FIELD=COLUMN` or `users.FIELD=COLUMN`. Without a column the field is not read.
    pub columns: Vec<String>,
    /// `FIELD:VALUE=MEANING`
    pub values: Vec<String>,
}

/// How a field is read from the text of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// As it is.
    Text,
    /// Each value means one of these.
    Choice(&'static [&'static str]),
    /// A list in JSON, or words separated by commas.
    List,
}

/// A field, and where it is.
#[derive(Debug, PartialEq)]
pub struct Source<'t> {
    /// The field's name; of a user's field with `users.` before it.
    pub field: String,
    /// How it is read.
    pub reading: Reading,
    /// Its column, if there is one.
    pub column: Option<&'t Column>,
    /// The values of a choice, how many rows have each, and what each means.
    pub meanings: Vec<(String, String, &'static str)>,
    /// Columns with these names may hold it.
    usual: Vec<String>,
}

/// A table, and the fields that it may have.
#[derive(Debug, PartialEq)]
pub struct TablePlan<'t> {
    /// The table.
    pub table: &'t Table,
    /// The fields.
    pub sources: Vec<Source<'t>>,
}

impl Table {
    /// Its name with its schema.
    pub fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether it has a usual name of a table of tasks.
    pub fn has_tasks(&self) -> bool {
        has(TASK_TABLES, &self.name.to_lowercase())
    }
}

/// Makes the plan for a database with these tables: of the tasks and, if there is a table with them, of the users.
///
/// # Errors
/// All that is missing or ambiguous, each in a sentence.
pub fn plan<'t>(tables: &'t [Table], choices: &Choices) -> Result<Vec<TablePlan<'t>>, Vec<String>> {
    let (mut plans, mut problems, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    for (flag, usual, chosen, mut sources) in [
        ("tasks", TASK_TABLES, &choices.tasks, task_sources()),
        ("users", USER_TABLES, &choices.users, user_sources()),
    ] {
        fields.extend(sources.iter().map(|source| source.field.clone()));
        match find_table(tables, flag, usual, chosen.as_deref()) {
            Ok(Some(table)) => {
                for source in &mut sources {
                    let found = source.find(table, &choices.columns);
                    source.column = found
                        .map_err(|problem| problems.push(problem))
                        .ok()
                        .flatten();
                }
                plans.push(TablePlan { table, sources });
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    for text in &choices.columns {
        let (field, _) = text.split_once('=').unwrap_or_default();
        if !fields.iter().any(|known| known == field) {
            let fields = fields.join(", ");
            problems.push(format!(
                "--map {text} must be FIELD=COLUMN; the fields are {fields}"
            ));
        }
    }
    if problems.is_empty() {
        Ok(plans)
    } else {
        Err(problems)
    }
}

fn task_sources<'t>() -> Vec<Source<'t>> {
    // The version counts changes here, and that of another program may count something else.
    let fields = TASK_FIELDS.iter().filter(|field| field.name != "version");
    let sources = fields.map(|field| {
        let usual = TASK_COLUMNS
            .iter()
            .find(|words| words.split(' ').next() == Some(field.name));
        let usual = usual.unwrap_or(&field.name).split(' ');
        Source::new(
            field.name.to_owned(),
            usual.chain(field.aliases.iter().copied()),
            reading(&field.shape),
        )
    });
    sources.collect()
}

fn user_sources<'t>() -> Vec<Source<'t>> {
    let sources = USER_COLUMNS.iter().map(|words| {
        let field = words.split(' ').next().unwrap_or_default();
        let reading = match field {
            "active" | "disabled" => reading(&Shape::Boolean),
            _ => Reading::Text,
        };
        Source::new(format!("users.{field}"), words.split(' '), reading)
    });
    sources.collect()
}

fn reading(shape: &Shape) -> Reading {
    match shape {
        Shape::Named { shape, .. } => reading(shape),
        Shape::Boolean => Reading::Choice(&["true", "false"]),
        Shape::OneOf(names) => Reading::Choice(names),
        Shape::List { .. } => Reading::List,
        _ => Reading::Text,
    }
}

fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// A name without what differs between styles: `createdAt` is `created_at`.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

/// What follows `KEY=` in the last option that begins so.
fn chosen<'c>(options: &'c [String], key: &str) -> Option<&'c str> {
    let mut options = options.iter().rev();
    options.find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
}

/// The only one that was found, if there is one.
fn only<'t, T>(
    found: &[&'t T],
    what: &str,
    option: impl Fn(&T) -> String,
) -> Result<Option<&'t T>, String> {
    if found.len() < 2 {
        return Ok(found.first().copied());
    }
    let options: Vec<String> = found.iter().map(|found| option(found)).collect();
    Err(format!(
        "more than one {what}: add {}",
        options.join(" or ")
    ))
}

fn find_table<'t>(
    tables: &'t [Table],
    flag: &str,
    usual: &str,
    chosen: Option<&str>,
) -> Result<Option<&'t Table>, String> {
    let is_meant = |table: &&Table| match chosen {
        Some(chosen) => table.name == chosen || table.title() == chosen,
        None => has(usual, &table.name.to_lowercase()),
    };
    let found: Vec<&Table> = tables.iter().filter(is_meant).collect();
    match chosen {
        Some(chosen) if found.is_empty() => {
            Err(format!("--{flag} {chosen}: there is no such table"))
        }
        None if found.is_empty() && flag == "tasks" => Err(format!(
            "no table has one of the names {usual}: add --tasks TABLE"
        )),
        _ => only(&found, &format!("table may hold the {flag}"), |table| {
            format!("--{flag} {}", table.title())
        }),
    }
}

impl<'t> Source<'t> {
    fn new<'n>(
        field: String,
        usual: impl Iterator<Item = &'n str>,
        reading: Reading,
    ) -> Source<'t> {
        Source {
            field,
            reading,
            column: None,
            meanings: Vec::new(),
            usual: usual.map(plain).collect(),
        }
    }

    fn find(&self, table: &'t Table, choices: &[String]) -> Result<Option<&'t Column>, String> {
        let (field, title) = (&self.field, table.title());
        let chosen = chosen(choices, field);
        let is_meant = |column: &&Column| match chosen {
            Some(chosen) => column.name == chosen,
            None => self.usual.contains(&plain(&column.name)),
        };
        let found: Vec<&Column> = table.columns.iter().filter(is_meant).collect();
        match chosen {
            Some(chosen) if found.is_empty() && !chosen.is_empty() => Err(format!(
                "--map {field}={chosen}: {title} has no such column"
            )),
            _ if found.is_empty() && REQUIRED.contains(&field.as_str()) => Err(format!(
                "no column of {title} is known to hold {field}: add --map {field}=COLUMN"
            )),
            _ => only(
                &found,
                &format!("column of {title} may hold {field}"),
                |column| format!("--map {field}={}", column.name),
            ),
        }
    }

    /// Notes what the values of a choice mean. `found` has them with the number of their rows.
    ///
    /// # Errors
    /// The meaning of a value is not clear: a sentence with the options to add.
    pub fn settle(
        &mut self,
        found: Vec<(String, String)>,
        choices: &Choices,
    ) -> Result<(), String> {
        let (Reading::Choice(ours), Some(column)) = (self.reading, self.column) else {
            return Ok(());
        };
        let (field, column) = (&self.field, &column.name);
        if found.len() > VALUES_MAX {
            return Err(format!(
                "{column} has too many values to be {field}: add --map {field}=COLUMN"
            ));
        }
        let mut unclear = String::new();
        for (value, rows) in found {
            let key = format!("{field}:{value}");
            let meaning =
                chosen(&choices.values, &key).map_or_else(|| usual_meaning(&value), str::to_owned);
            match ours.iter().find(|name| **name == meaning) {
                Some(meaning) => self.meanings.push((value, rows, meaning)),
                None => unclear += &format!(" --value '{key}=…' ({rows} rows)"),
            }
        }
        if unclear.is_empty() {
            return Ok(());
        }
        let ours = ours.join(", ");
        Err(format!(
            "values of {column} have no clear meaning: add{unclear}, each with one of {ours}"
        ))
    }

    fn value(&self, cell: &str) -> Option<Value> {
        let words = || {
            cell.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
        };
        match self.reading {
            Reading::Text => Some(Value::from(cell)),
            Reading::Choice(_) => {
                let (.., meaning) = self.meanings.iter().find(|(value, ..)| value == cell)?;
                let flag = meaning.parse::<bool>().map(Value::from);
                Some(flag.unwrap_or_else(|_| Value::from(*meaning)))
            }
            Reading::List => {
                let list = serde_json::from_str(cell).ok().filter(Value::is_array);
                Some(list.unwrap_or_else(|| words().map(Value::from).collect()))
            }
        }
    }
}

/// The meaning of a word that has a usual one, else the word in lower case.
fn usual_meaning(value: &str) -> String {
    let word = value.to_lowercase().replace(['-', ' '], "_");
    match (has(YES, &word), has(NO, &word)) {
        (true, _) => "true".to_owned(),
        (_, true) => "false".to_owned(),
        _ => word,
    }
}

impl TablePlan<'_> {
    /// The names of columns that are not read.
    pub fn unread(&self) -> Vec<&str> {
        let is_read = |column| {
            self.sources
                .iter()
                .any(|source| source.column == Some(column))
        };
        let unread = self.table.columns.iter().filter(|column| !is_read(*column));
        unread.map(|column| column.name.as_str()).collect()
    }

    /// A row as a JSON object of the fields that are not null.
    pub fn object(&self, cells: &Cells) -> Map<String, Value> {
        let mut object = Map::new();
        for (source, cell) in self.sources.iter().zip(cells) {
            if let Some(value) = cell.as_deref().and_then(|cell| source.value(cell)) {
                object.insert(source.field.clone(), value);
            }
        }
        // A task that was opened again may still have it.
        if object.get("completed") == Some(&Value::Bool(false)) {
            object.remove("completed_at");
        }
        object
    }
}
