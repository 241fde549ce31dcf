//! Folds what was written before there was a column for it.

use postgres::Client;
use uuid::Uuid;

use crate::domain::fold::search_text;
use crate::store::Schema;

/// Tasks that are folded in one transaction.
const BATCH: i64 = 1_000;

/// Fills the column `search` of some tasks where it is null; says of how many, none when there is nothing left to do. An index
/// holds just these tasks, so that asking costs nothing where there are none.
///
/// # Errors
/// What PostgreSQL says.
pub fn fold_some(client: &mut Client, schema: &Schema) -> Result<u64, postgres::Error> {
    let schema = schema.quoted();
    let read = format!(
        "SELECT user_id, id, title, description FROM {schema}.tasks WHERE search IS NULL LIMIT {BATCH}"
    );
    // A task that was changed meanwhile was folded then.
    let write = format!(
        "UPDATE {schema}.tasks AS task SET search = folded.search
         FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[])
              AS folded (user_id, id, title, description, search)
         WHERE task.user_id = folded.user_id AND task.id = folded.id AND task.search IS NULL
               AND task.title = folded.title AND task.description IS NOT DISTINCT FROM folded.description"
    );
    let rows = client.query(&read, &[])?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (mut users, mut ids) = (Vec::new(), Vec::new());
    let (mut titles, mut descriptions, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        users.push(row.try_get::<_, &str>(0)?);
        ids.push(row.try_get::<_, Uuid>(1)?);
        let (title, description) = (row.try_get(2)?, row.try_get(3)?);
        texts.push(search_text(title, description));
        titles.push(title);
        descriptions.push(description);
    }
    client.execute(&write, &[&users, &ids, &titles, &descriptions, &texts])?;
    Ok(u64::try_from(rows.len()).unwrap_or(0))
}
