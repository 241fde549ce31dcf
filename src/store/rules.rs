//! Finds rows that break a rule of this program. PostgreSQL does not check these rules (see `sql/V1__schema.sql`), and the program
//! writes no such row, but other programs may.

use std::borrow::Cow;

use super::Schema;
use super::opening::{AdminConnection, OpenError};
use crate::domain::shape::Shape;
use crate::domain::task::TASK_FIELDS;

/// A rule for the rows of a table.
struct Rule {
    table: &'static str,
    /// What a row must be.
    says: Cow<'static, str>,
    /// Whether a row breaks the rule, in SQL. `{schema}` is the schema of the tables.
    broken: Cow<'static, str>,
}

/// Rows that break a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// Their table.
    pub table: &'static str,
    /// What they must be.
    pub says: Cow<'static, str>,
    /// How many there are.
    pub rows: i64,
    /// The key of one of them.
    pub example: String,
}

/// Columns that name a row of each table.
const KEYS: &[(&str, &str)] = &[
    ("users", "id"),
    ("api_tokens", "user_id, id"),
    ("revocations", "kind, id"),
    ("tasks", "user_id, id"),
];

const RULES: &[Rule] = &[
    rule(
        "users",
        "id has 1 to 255 characters",
        "char_length(id) NOT BETWEEN 1 AND 255",
    ),
    rule(
        "users",
        "email is in lower case and has 3 to 254 characters",
        "char_length(email) NOT BETWEEN 3 AND 254 OR email <> lower(email)",
    ),
    rule(
        "users",
        "name has 1 to 100 characters",
        "char_length(name) NOT BETWEEN 1 AND 100",
    ),
    rule(
        "api_tokens",
        "name has 1 to 100 characters",
        "char_length(name) NOT BETWEEN 1 AND 100",
    ),
    rule(
        "revocations",
        "kind is session, user, token or issued_before",
        "kind NOT IN ('session', 'user', 'token', 'issued_before')",
    ),
    rule(
        "tasks",
        "user_id is the id of a user",
        "user_id NOT IN (SELECT id FROM {schema}.users)",
    ),
    rule(
        "tasks",
        "title is one line of 1 to 200 characters",
        "char_length(title) NOT BETWEEN 1 AND 200 OR title ~ '[\\x01-\\x1f\\x7f]'",
    ),
    rule(
        "tasks",
        "description has at most 2,000 characters",
        "char_length(description) > 2000",
    ),
    rule(
        "tasks",
        "priority is 0, 1 or 2",
        "priority NOT BETWEEN 0 AND 2",
    ),
    rule(
        "tasks",
        "due_on lies in the years 1 to 9999, and due_at is the end of that day in UTC",
        "CASE WHEN due_on BETWEEN '0001-01-01' AND '9999-12-31'
              THEN due_at IS DISTINCT FROM (due_on + 1)::timestamp AT TIME ZONE 'UTC' - interval '1 microsecond'
              ELSE due_on IS NOT NULL END",
    ),
    rule(
        "tasks",
        "all moments lie in the years 1 to 9999",
        "NOT (least(created_at, updated_at, completed_at, due_at) >= '0001-01-01T00:00Z'
              AND greatest(created_at, updated_at, completed_at, due_at) < '10000-01-01T00:00Z')",
    ),
    rule(
        "tasks",
        "tags are at most 20, each once and with 1 to 50 characters",
        "tags <> '{}' AND (cardinality(tags) > 20 OR array_ndims(tags) > 1
         OR (SELECT count(DISTINCT tag) FROM unnest(tags) AS tag WHERE char_length(tag) BETWEEN 1 AND 50) < cardinality(tags))",
    ),
    rule(
        "tasks",
        "title_folded and description_folded are there for text with other characters than ASCII, and only for such",
        "(octet_length(title) = char_length(title)) <> (title_folded IS NULL)
         OR (coalesce(octet_length(description) = char_length(description), true)) <> (description_folded IS NULL)",
    ),
];

const fn rule(table: &'static str, says: &'static str, broken: &'static str) -> Rule {
    Rule {
        table,
        says: Cow::Borrowed(says),
        broken: Cow::Borrowed(broken),
    }
}

/// The limits of the whole numbers of a task. The column of each is named as the field.
fn limits_of_numbers() -> impl Iterator<Item = Rule> {
    TASK_FIELDS.iter().filter_map(|field| {
        let (name, Shape::Integer { min, max }) = (field.name, &field.shape) else {
            return None;
        };
        Some(Rule {
            table: "tasks",
            says: Cow::Owned(match *max {
                i64::MAX => format!("{name} is at least {min}"),
                max => format!("{name} is {min} to {max}"),
            }),
            broken: Cow::Owned(format!("{name} NOT BETWEEN {min} AND {max}")),
        })
    })
}

/// The rules that rows break. Each table is read once, however long this takes.
pub(super) fn broken_rules(
    connection: &mut AdminConnection,
    schema: &Schema,
) -> Result<Vec<BrokenRule>, OpenError> {
    let client = connection.client();
    client.batch_execute("SET statement_timeout = 0")?;
    let mut found = Vec::new();
    let numbers: Vec<Rule> = limits_of_numbers().collect();
    for (table, key) in KEYS {
        let rules = RULES.iter().chain(&numbers);
        let rules: Vec<&Rule> = rules.filter(|rule| rule.table == *table).collect();
        let tests: Vec<String> = (rules.iter().zip(0..))
            .map(|(rule, number)| format!("({number}, {})", rule.broken))
            .collect();
        let question = format!(
            "SELECT number, count(*), min(concat_ws(' ', {key}))
             FROM {{schema}}.{table}, LATERAL (VALUES {}) AS rule (number, broken) WHERE broken GROUP BY number ORDER BY number",
            tests.join(", ")
        );
        let question = question.replace("{schema}", &schema.quoted());
        for row in client.query(&question, &[])? {
            let number: i32 = row.try_get(0)?;
            let rule = usize::try_from(number).ok().and_then(|at| rules.get(at));
            found.extend(rule.map(|rule| BrokenRule {
                table,
                says: rule.says.clone(),
                rows: row.try_get(1).unwrap_or_default(),
                example: row.try_get(2).unwrap_or_default(),
            }));
        }
    }
    Ok(found)
}
