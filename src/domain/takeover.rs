//! The plan of an import from the database of another back end: which table and columns hold what is kept here.
//!
//! Names that are common are found. Where two columns or two tables could be meant, or a value has no clear meaning, the plan fails and
//! names the options that decide.

use serde_json::{Map, Value};

use super::shape::Shape;
use super::task::TASK_FIELDS;

/// Names of tables that hold tasks.
pub const TASK_TABLES: &[&str] = &["tasks", "task", "todos", "todo"];
const USER_TABLES: &[&str] = &["users", "user"];

/// Columns that hold a field of a task, besides those with the field's own names.
const OTHER_COLUMNS: &[(&str, &[&str])] = &[
    ("id", &["uuid", "task_id", "todo_id"]),
    ("user_id", &["owner_id", "owner"]),
    ("title", &["name", "task"]),
    ("description", &["details", "notes", "body", "content"]),
    ("completed", &["done", "is_done", "complete", "status"]),
    ("completed_at", &["done_at", "finished_at"]),
    ("due_date", &["due_at", "due", "deadline"]),
    ("tags", &["labels"]),
    ("created_at", &["created", "date_created"]),
    ("updated_at", &["updated", "date_updated", "modified_at"]),
];

/// Fields of a user, and the columns that hold them.
const USER_FIELDS: &[(&str, &[&str])] = &[
    ("id", &["uuid", "user_id"]),
    ("email", &["email_address"]),
    ("name", &["full_name", "display_name"]),
    ("password_hash", &["hashed_password", "password"]),
    ("active", &["is_active", "enabled"]),
    ("disabled", &["is_disabled", "banned"]),
    ("created_at", &["created", "date_created", "date_joined"]),
];

/// Words for yes and no, as states of a task too.
const YES: &[&str] = &["true", "yes", "1", "done", "completed", "complete"];
#[rustfmt::skip]
const NO: &[&str] = &[
    "false", "no", "0", "open", "pending", "todo", "to_do", "new", "not_started", "in_progress", "incomplete",
];

/// A column with more values than this does not hold a field that has few.
pub const VALUES_MAX: usize = 50;

/// A table of the other database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A column of such a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL writes it.
    pub kind: String,
}

impl Table {
    /// Its name with its schema.
    pub fn title(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// What the command line decides.
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As it is.
    Text,
    /// Each value means one of these.
    Choice(&'static [&'static str]),
    /// A list in JSON, or words separated by commas.
    List,
}

/// A field, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'t> {
    /// The field's name.
    pub field: &'static str,
    /// How it is read.
    pub reading: Reading,
    /// Its column; `None` where there is none.
    pub column: Option<&'t Column>,
    /// The values of a choice, how many rows have each, and what they mean.
    pub meanings: Vec<(String, i64, &'static str)>,
}

/// A table, and what is read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan<'t> {
    /// The table.
    pub table: &'t Table,
    /// The fields that it may have.
    pub sources: Vec<Source<'t>>,
}

/// What is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'t> {
    /// The tasks.
    pub tasks: TablePlan<'t>,
    /// The users; `None` if there is no table of users.
    pub users: Option<TablePlan<'t>>,
}

/// A field that is looked for.
struct Wanted {
    name: &'static str,
    columns: Vec<&'static str>,
    reading: Reading,
    required: bool,
}

/// Makes the plan for a database with these tables.
///
/// # Errors
/// All that is missing or ambiguous, each in a sentence that names the options to add.
pub fn plan<'t>(tables: &'t [Table], choices: &Choices) -> Result<Plan<'t>, Vec<String>> {
    let mut problems = Vec::new();
    let (task_fields, user_fields) = (task_fields(), user_fields());
    for text in &choices.columns {
        let field = text.split_once('=').map(|(field, _)| field);
        let known = field.is_some_and(|field| match field.strip_prefix("users.") {
            Some(field) => user_fields.iter().any(|wanted| wanted.name == field),
            None => task_fields.iter().any(|wanted| wanted.name == field),
        });
        if !known {
            problems.push(format!(
                "--map {text} must be FIELD=COLUMN: {}",
                names(&task_fields, &user_fields)
            ));
        }
    }
    let tasks = find_table(
        tables,
        "tasks",
        TASK_TABLES,
        choices.tasks.as_deref(),
        &mut problems,
    );
    if tasks.is_none() && problems.is_empty() {
        let names = TASK_TABLES.join(", ");
        problems.push(format!("no table is named {names}: add --tasks TABLE"));
    }
    let users = find_table(
        tables,
        "users",
        USER_TABLES,
        choices.users.as_deref(),
        &mut problems,
    );
    let tasks = tasks.map(|table| plan_table(table, "", &task_fields, choices, &mut problems));
    let users =
        users.map(|table| plan_table(table, "users.", &user_fields, choices, &mut problems));
    match tasks {
        Some(tasks) if problems.is_empty() => Ok(Plan { tasks, users }),
        _ => Err(problems),
    }
}

fn task_fields() -> Vec<Wanted> {
    // The version counts changes here; that of another program may count something else.
    let fields = TASK_FIELDS.iter().filter(|field| field.name != "version");
    let wanted = fields.map(|field| {
        let others = OTHER_COLUMNS.iter().filter(|(name, _)| *name == field.name);
        let others = others.flat_map(|(_, columns)| *columns);
        let columns = field.aliases.iter().chain(others).copied();
        Wanted {
            name: field.name,
            columns: std::iter::once(field.name).chain(columns).collect(),
            reading: reading(&field.shape),
            required: matches!(field.name, "id" | "user_id" | "title"),
        }
    });
    wanted.collect()
}

fn user_fields() -> Vec<Wanted> {
    let wanted = USER_FIELDS.iter().map(|(name, others)| Wanted {
        name,
        columns: std::iter::once(name).chain(*others).copied().collect(),
        reading: match *name {
            "active" | "disabled" => reading(&Shape::Boolean),
            _ => Reading::Text,
        },
        required: *name == "id",
    });
    wanted.collect()
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

fn names(tasks: &[Wanted], users: &[Wanted]) -> String {
    let tasks = tasks.iter().map(|wanted| wanted.name.to_owned());
    let users = users.iter().map(|wanted| format!("users.{}", wanted.name));
    format!(
        "the fields are {}",
        tasks.chain(users).collect::<Vec<_>>().join(", ")
    )
}

/// A name by which columns and tables are compared: `createdAt` is `created_at`.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

fn find_table<'t>(
    tables: &'t [Table],
    flag: &str,
    usual: &[&str],
    chosen: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<&'t Table> {
    let is_meant = |table: &&Table| match chosen {
        Some(chosen) => table.name == chosen || table.title() == chosen,
        None => usual.contains(&table.name.to_lowercase().as_str()),
    };
    let found: Vec<&Table> = tables.iter().filter(is_meant).collect();
    match (found.as_slice(), chosen) {
        ([], Some(chosen)) => problems.push(format!("--{flag} {chosen}: there is no such table")),
        ([] | [_], _) => {}
        _ => {
            let options = found
                .iter()
                .map(|table| format!("--{flag} {}", table.title()));
            problems.push(format!(
                "more than one table may hold the {flag}: add {}",
                either(options)
            ));
        }
    }
    found.first().copied()
}

fn either(options: impl Iterator<Item = String>) -> String {
    options.collect::<Vec<_>>().join(" or ")
}

fn plan_table<'t>(
    table: &'t Table,
    prefix: &str,
    wanted: &[Wanted],
    choices: &Choices,
    problems: &mut Vec<String>,
) -> TablePlan<'t> {
    let mut find = |wanted: &Wanted| {
        let field = format!("{prefix}{}", wanted.name);
        let chosen = choices
            .columns
            .iter()
            .filter_map(|text| text.split_once('='));
        let chosen = chosen
            .filter(|(name, _)| *name == field)
            .map(|(_, column)| column)
            .next_back();
        let usual: Vec<String> = wanted.columns.iter().map(|name| plain(name)).collect();
        let is_meant = |column: &&Column| match chosen {
            Some(chosen) => column.name == chosen,
            None => usual.contains(&plain(&column.name)),
        };
        let found: Vec<&Column> = table.columns.iter().filter(is_meant).collect();
        let title = table.title();
        match (found.as_slice(), chosen) {
            ([], Some(chosen)) if !chosen.is_empty() => {
                problems.push(format!(
                    "--map {field}={chosen}: {title} has no such column"
                ));
            }
            ([], _) if wanted.required => {
                problems.push(format!(
                    "no column of {title} is known to hold {field}: add --map {field}=COLUMN"
                ));
            }
            ([] | [_], _) => {}
            _ => {
                let options = found
                    .iter()
                    .map(|column| format!("--map {field}={}", column.name));
                problems.push(format!(
                    "more than one column of {title} may hold {field}: add {}",
                    either(options)
                ));
            }
        }
        Source {
            field: wanted.name,
            reading: wanted.reading,
            column: found.first().copied(),
            meanings: Vec::new(),
        }
    };
    let sources = wanted.iter().map(&mut find).collect();
    TablePlan { table, sources }
}

impl<'t> TablePlan<'t> {
    /// Where a field is.
    pub fn column(&self, field: &str) -> Option<&'t Column> {
        let mut sources = self.sources.iter();
        sources.find(|source| source.field == field)?.column
    }

    /// Columns that are not read.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        let is_read = |column: &Column| {
            self.sources
                .iter()
                .any(|source| source.column == Some(column))
        };
        let unread = self
            .table
            .columns
            .iter()
            .filter(move |column| !is_read(column));
        unread.map(|column| column.name.as_str())
    }

    /// A row as a JSON object of the fields, from the texts of the columns of `sources`. Fields without a value are absent.
    pub fn object(&self, cells: &[Option<String>]) -> Map<String, Value> {
        let mut json = Map::new();
        for (source, cell) in self.sources.iter().zip(cells) {
            if let Some(value) = cell.as_deref().and_then(|cell| source.value(cell)) {
                json.insert(source.field.to_owned(), value);
            }
        }
        // A task that was opened again may still have it.
        if json.get("completed") == Some(&Value::Bool(false)) {
            json.remove("completed_at");
        }
        json
    }
}

impl Source<'_> {
    /// Notes what each value of the column means, null excepted.
    ///
    /// # Errors
    /// The meaning of a value is not clear: a sentence with the options to add.
    pub fn settle(&mut self, found: &[(String, i64)], choices: &Choices) -> Result<(), String> {
        let Reading::Choice(ours) = self.reading else {
            return Ok(());
        };
        let (field, column) = (self.field, self.column.map_or("", |column| &column.name));
        if found.len() > VALUES_MAX {
            return Err(format!(
                "{column} has more than {VALUES_MAX} values, and {field} has few: add --map {field}=COLUMN"
            ));
        }
        let mut unclear = Vec::new();
        for (value, rows) in found {
            let key = format!("{field}:{value}");
            let chosen = choices
                .values
                .iter()
                .filter_map(|text| text.rsplit_once('='));
            let chosen = chosen
                .filter(|(name, _)| *name == key)
                .map(|(_, meaning)| meaning)
                .next_back();
            let word = chosen.map_or_else(|| usual_meaning(value), str::to_owned);
            match ours.iter().find(|name| **name == word) {
                Some(meaning) => self.meanings.push((value.clone(), *rows, meaning)),
                None => unclear.push(format!("--value '{key}=…' ({rows} rows)")),
            }
        }
        match unclear.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{column} has values whose meaning is not clear: add {}, each with one of {}",
                unclear.join(" "),
                ours.join(", ")
            )),
        }
    }

    fn value(&self, cell: &str) -> Option<Value> {
        Some(match self.reading {
            Reading::Text => Value::from(cell),
            Reading::Choice(_) => {
                let mut meanings = self.meanings.iter();
                match meanings.find(|(value, ..)| value == cell)?.2 {
                    flag @ ("true" | "false") => Value::Bool(flag == "true"),
                    name => Value::from(name),
                }
            }
            Reading::List => serde_json::from_str(cell)
                .ok()
                .filter(Value::is_array)
                .unwrap_or_else(|| {
                    let words = cell.split(',').map(str::trim);
                    words
                        .filter(|word| !word.is_empty())
                        .map(Value::from)
                        .collect()
                }),
        })
    }
}

/// The meaning of a value that has a usual one, else the value in lower case.
fn usual_meaning(value: &str) -> String {
    let word = value.trim().to_lowercase().replace(['-', ' '], "_");
    match word.as_str() {
        word if YES.contains(&word) => "true".to_owned(),
        word if NO.contains(&word) => "false".to_owned(),
        _ => word,
    }
}
