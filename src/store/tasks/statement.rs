//! A statement that is composed of parts.

use std::error::Error;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Error as PgError, Row};

use crate::domain::value::Value;
use crate::store::pool::PooledClient;

/// Rows of one batch.
const BATCH: i32 = 1_000;

/// A composed statement, and the values of its parameters.
#[derive(Default)]
pub(super) struct Statement {
    /// Its SQL.
    pub(super) text: String,
    values: Vec<(Box<dyn ToSql + Sync>, Type)>,
    /// Whether one plan is right for all values. Otherwise PostgreSQL plans it for the values.
    pub(super) prepare: bool,
    /// Whether it has too many rows to hold in memory at once.
    pub(super) large: bool,
}

impl Statement {
    /// Runs it, and calls a function with each row.
    pub(super) fn each_row(
        &self,
        client: &mut PooledClient,
        mut with: impl FnMut(&Row) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let mut rows = if self.prepare {
            let prepared = client.prepared_built(&self.text)?;
            let values: Vec<&(dyn ToSql + Sync)> = self
                .values
                .iter()
                .map(|(value, _)| value.as_ref())
                .collect();
            if !self.large {
                let rows = client.query(&prepared, &values)?;
                return rows.iter().try_for_each(with);
            }
            client.query_raw(&prepared, values)?
        } else {
            let values = self.values.iter();
            let values = values.map(|(value, kind)| (value.as_ref(), kind.clone()));
            client.query_planned(&self.text, values)?
        };
        while let Some(row) = rows.next()? {
            with(&row)?;
        }
        Ok(())
    }

    /// Runs it, and does something with one batch of rows after the other, until that returns false. All rows are of one snapshot, and
    /// few are in memory at once. Each batch may take PostgreSQL this long.
    pub(super) fn each_batch(
        &self,
        client: &mut PooledClient,
        limit: Duration,
        mut with: impl FnMut(&[Row]) -> Result<bool, PgError>,
    ) -> Result<(), PgError> {
        let (text, deadline) = (client.with_schema(&self.text), client.deadline());
        let mut transaction = client.build_transaction().read_only(true).start()?;
        // The receiver of a batch may take its time.
        transaction.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")?;
        let types: Vec<Type> = self.values.iter().map(|(_, kind)| kind.clone()).collect();
        let values: Vec<&(dyn ToSql + Sync)> = self
            .values
            .iter()
            .map(|(value, _)| value.as_ref())
            .collect();
        let statement = transaction.prepare_typed(&text, &types)?;
        let portal = transaction.bind(&statement, &values)?;
        loop {
            deadline.set(Instant::now() + limit);
            let rows = transaction.query_portal(&portal, BATCH)?;
            let is_last = i32::try_from(rows.len()).is_ok_and(|read| read < BATCH);
            if !with(&rows)? || is_last {
                deadline.set(Instant::now() + limit);
                return transaction.commit();
            }
        }
    }

    /// Adds a value and returns its parameter.
    pub(super) fn bind(&mut self, value: impl ToSql + Sync + 'static, kind: Type) -> String {
        self.values.push((Box::new(value), kind));
        format!("${}", self.values.len())
    }

    /// As [`Statement::bind`].
    pub(super) fn bind_value(&mut self, value: Value) -> String {
        let kind = match value {
            Value::Null | Value::Text(_) => Type::TEXT,
            Value::Bool(_) => Type::BOOL,
            Value::Number(_) => Type::INT8,
            Value::Texts(_) => Type::TEXT_ARRAY,
            Value::Moment(_) | Value::Micros(_) => Type::TIMESTAMPTZ,
            Value::Date(_) => Type::DATE,
        };
        self.bind(value, kind)
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Bool(value) => value.to_sql(kind, out),
            Value::Number(number) => match *kind {
                Type::INT2 => i16::try_from(*number)?.to_sql(kind, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
                _ => number.to_sql(kind, out),
            },
            Value::Text(text) => text.to_sql(kind, out),
            Value::Texts(texts) => texts.to_sql(kind, out),
            Value::Moment(moment) => moment.as_utc().to_sql(kind, out),
            Value::Micros(micros) => micros.to_sql(&Type::INT8, out),
            Value::Date(date) => date.to_sql(kind, out),
        }
    }

    // Each column has the type of its values.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
