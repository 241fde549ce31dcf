//! The plan of an import from the database of another back end: which table and columns hold what is kept here.
//!
//! Usual names are found. Where two columns or two tables could be meant, or a value has no clear meaning, there is no plan, and a
//! sentence names the options that decide.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::shape::{Shape, TEXT};
use super::task::TASK_FIELDS;

const TASK_TABLES: &str = "tasks task todos todo";
const USER_TABLES: &str = "users user";

/// Fields, and columns that may hold them besides those with the field's own names. Fields of a user have `users.` before them.
const COLUMNS: &[&str] = &[
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
    "users.id uuid user_id",
    "users.email email_address",
    "users.name full_name display_name",
    "users.password_hash hashed_password password",
    "users.active is_active enabled",
    "users.disabled is_disabled banned",
    "users.created_at created date_created date_joined",
];

/// What must be found.
const REQUIRED: &str = "tasks= map=id= map=user_id= map=title= map=users.id=";

/// Usual words for true and false, also as states of a task.
const YES: &str = "true t yes 1 done completed complete";
const NO: &str = "false f no 0 open pending todo to_do new not_started in_progress incomplete";

/// A column with more values than this does not hold a field that has few.
pub const VALUES_MAX: usize = 50;

/// A row of the other database: the text of each column, or null.
pub type Cells = Vec<Option<String>>;

/// A table of the other database, or a column of one.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Item {
    /// Its name; a table's with its schema unless that is `public`.
    pub name: String,
    /// In SQL: a table's name, or the text of a column.
    pub sql: String,
    /// A table's columns.
    #[serde(default)]
    pub columns: Vec<Item>,
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
pub struct FieldSource<'t> {
    /// The field's name.
    pub field: &'static str,
    /// How it is read.
    pub reading: Reading,
    /// Its column, if there is one.
    pub column: Option<&'t Item>,
    /// The values of a choice, how many rows have each, and what each means.
    pub meanings: Vec<(String, String, &'static str)>,
}

/// A table, and the fields that it may have.
#[derive(Debug, PartialEq)]
pub struct TablePlan<'t> {
    /// The table.
    pub table: &'t Item,
    /// The fields.
    pub sources: Vec<FieldSource<'t>>,
}

/// Makes the plan for a database with these tables: of the tasks and, if there is a table with them, of the users. The options are
/// `tasks=TABLE`, `users=TABLE`, `map=FIELD=COLUMN` and `value=FIELD:VALUE=MEANING`. A field without a column is not read.
///
/// Adds a sentence to `problems` for everything that is missing or ambiguous.
pub fn plan<'t>(
    tables: &'t [Item],
    options: &[String],
    problems: &mut Vec<String>,
) -> Vec<TablePlan<'t>> {
    let (mut plans, mut known) = (Vec::new(), Vec::new());
    let mut pick = |all, usual: &dyn Fn(&str) -> bool, key: &str| {
        let picked = pick(all, usual, key, options);
        picked.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    for (key, usual, fields) in [
        ("tasks=", TASK_TABLES, task_fields()),
        ("users=", USER_TABLES, user_fields()),
    ] {
        known.extend(fields.iter().map(|(field, ..)| *field));
        let Some(table) = pick(tables, &|name| is_table(name, usual), key) else {
            continue;
        };
        let sources = fields.into_iter().map(|(field, aliases, shape)| {
            let (usual, key) = (usual_columns(field, aliases), format!("map={field}="));
            let is_usual = |name: &str| usual.contains(&plain(name));
            FieldSource {
                field,
                reading: reading(shape),
                column: pick(&table.columns, &is_usual, &key),
                meanings: Vec::new(),
            }
        });
        let sources = sources.collect();
        plans.push(TablePlan { table, sources });
    }
    for option in options.iter().filter(|option| option.starts_with("map=")) {
        let mut keys = known.iter().map(|field| format!("map={field}="));
        if !keys.any(|key| option.starts_with(&key)) {
            let known = known.join(", ");
            let option = option.replacen('=', " ", 1);
            let rule = "must be FIELD=COLUMN with one of the fields";
            problems.push(format!("--{option} {rule} {known}"));
        }
    }
    plans
}

/// A field: its name, its other names in requests, and its shape.
type Wanted = (&'static str, &'static [&'static str], &'static Shape);

fn task_fields() -> Vec<Wanted> {
    // The version counts changes here, and that of another program may count something else.
    let fields = TASK_FIELDS.iter().filter(|field| field.name != "version");
    let fields = fields.map(|field| (field.name, field.aliases, &field.shape));
    fields.collect()
}

fn user_fields() -> Vec<Wanted> {
    let fields = COLUMNS.iter().filter_map(|words| words.split(' ').next());
    let fields = fields.filter_map(|field| match field {
        "users.active" | "users.disabled" => Some((field, &[][..], &Shape::Boolean)),
        _ => field
            .starts_with("users.")
            .then_some((field, &[][..], &TEXT)),
    });
    fields.collect()
}

fn usual_columns(field: &str, aliases: &[&str]) -> Vec<String> {
    let mut columns = COLUMNS.iter();
    let words = columns.find(|words| words.split(' ').next() == Some(field));
    let words = words.unwrap_or(&field).trim_start_matches("users.");
    words
        .split(' ')
        .chain(aliases.iter().copied())
        .map(plain)
        .collect()
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

/// A name without case and underscores: `createdAt` and `created_at` are the same.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

/// The rest of the last option that begins with this.
fn chosen<'o>(options: &'o [String], key: &str) -> Option<&'o str> {
    let mut options = options.iter().rev();
    options.find_map(|option| option.strip_prefix(key))
}

/// The one that the option with this key names or, without the option, the only one with a usual name.
fn pick<'t>(
    all: &'t [Item],
    is_usual: &dyn Fn(&str) -> bool,
    key: &str,
    options: &[String],
) -> Result<Option<&'t Item>, String> {
    let chosen = chosen(options, key);
    let is_meant = |item: &&Item| chosen.map_or(is_usual(&item.name), |name| name == item.name);
    let found: Vec<&Item> = all.iter().filter(is_meant).collect();
    let option = format!("--{}", key.replacen('=', " ", 1));
    match (found.as_slice(), chosen) {
        ([], Some(name)) if !name.is_empty() => Err(format!("{option}{name}: there is none")),
        ([], _) if has(REQUIRED, key) => Err(format!(
            "nothing with a usual name is there: add {option}NAME"
        )),
        ([] | [_], _) => Ok(found.first().copied()),
        _ => {
            let options = found.iter().map(|item| format!("{option}{}", item.name));
            let options = options.collect::<Vec<_>>().join(" or ");
            Err(format!("more than one has a usual name: add {options}"))
        }
    }
}

/// Whether a table has one of these usual names, in any schema.
fn is_table(name: &str, usual: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or_default();
    has(usual, &name.to_lowercase())
}

/// Whether a table has a usual name of a table with tasks.
pub fn is_task_table(table: &Item) -> bool {
    is_table(&table.name, TASK_TABLES)
}

impl FieldSource<'_> {
    /// Notes what the values of a choice mean. `found` has pairs of a value and the number of its rows. Returns a sentence with the
    /// options to add if a meaning is not clear.
    pub fn settle(&mut self, found: Vec<Cells>, options: &[String]) -> Option<String> {
        let (field, mut unclear) = (self.field, String::new());
        let Reading::Choice(ours) = self.reading else {
            return None;
        };
        if found.len() > VALUES_MAX {
            return Some(format!("too many values of {field}: add --map {field}=…"));
        }
        for cells in found {
            let mut cells = cells.into_iter().flatten();
            let (value, rows) = cells.next().zip(cells.next())?;
            let chosen = chosen(options, &format!("value={field}:{value}="));
            let meaning = chosen.map_or_else(|| usual_meaning(&value), str::to_owned);
            match ours.iter().find(|name| **name == meaning) {
                Some(meaning) => self.meanings.push((value, rows, meaning)),
                None => unclear += &format!(" --value '{field}:{value}=…' ({rows} rows)"),
            }
        }
        let ours = ours.join(", ");
        let problem =
            || format!("values without a clear meaning: add{unclear}, each with one of {ours}");
        (!unclear.is_empty()).then(problem)
    }

    fn value(&self, cell: &str) -> Option<Value> {
        match self.reading {
            Reading::Text => Some(Value::from(cell)),
            Reading::Choice(_) => {
                let mut meanings = self.meanings.iter();
                let (.., meaning) = meanings.find(|(value, ..)| value == cell)?;
                let flag = meaning.parse::<bool>().map(Value::from);
                Some(flag.unwrap_or_else(|_| Value::from(*meaning)))
            }
            Reading::List => {
                let list = serde_json::from_str(cell).ok().filter(Value::is_array);
                let words = cell.split(',').map(str::trim);
                let words = words.filter(|word| !word.is_empty());
                Some(list.unwrap_or_else(|| words.map(Value::from).collect()))
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
    /// The names of columns that are not read, separated by commas.
    pub fn unread(&self) -> String {
        let read: Vec<&Item> = (self.sources.iter())
            .filter_map(|source| source.column)
            .collect();
        let unread = self
            .table
            .columns
            .iter()
            .filter(|column| !read.contains(column));
        let unread: Vec<&str> = unread.map(|column| column.name.as_str()).collect();
        unread.join(", ")
    }

    /// A row as a JSON object of the fields that are not null.
    pub fn object(&self, cells: &Cells) -> Map<String, Value> {
        let pairs = self.sources.iter().zip(cells).filter_map(|(source, cell)| {
            let value = source.value(cell.as_deref()?)?;
            Some((source.field.to_owned(), value))
        });
        let mut object: Map<String, Value> = pairs.collect();
        // A task that was opened again may still have it.
        if object.get("completed") == Some(&Value::Bool(false)) {
            object.remove("completed_at");
        }
        object
    }
}
