//! A statement that is put together from parts.

use postgres::types::{ToSql, Type};
use postgres::{Error as PgError, Row};

use crate::store::pool::Client;

/// A statement that is put together, and the values of its parameters.
pub(super) struct Statement {
    /// Its SQL.
    pub(super) text: String,
    values: Vec<(Box<dyn ToSql + Sync>, Type)>,
    /// Whether its plan is the same for all values.
    pub(super) prepare: bool,
}

impl Statement {
    /// One without anything in it yet, that is planned for its values.
    pub(super) fn new() -> Statement {
        Statement {
            text: String::new(),
            values: Vec::new(),
            prepare: false,
        }
    }

    /// Runs it.
    pub(super) fn run(&self, client: &mut Client) -> Result<Vec<Row>, PgError> {
        if self.prepare
            && let Some(prepared) = client.prepared_built(&self.text)?
        {
            let values: Vec<&(dyn ToSql + Sync)> = self
                .values
                .iter()
                .map(|(value, _)| value.as_ref())
                .collect();
            return client.query(&prepared, &values);
        }
        let values: Vec<(&(dyn ToSql + Sync), Type)> = self
            .values
            .iter()
            .map(|(value, kind)| (value.as_ref(), kind.clone()))
            .collect();
        client.query_planned(&self.text, &values)
    }

    /// Adds a value and gives the parameter that stands for it.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + 'static, kind: Type) -> String {
        self.values.push((Box::new(value), kind));
        format!("${}", self.values.len())
    }
}
