//! Lists of tasks.

use serde::Serialize;

use super::{App, Call};
use crate::domain::list::{ListQuery, Start};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;
use crate::store::ListedTasks;

/// The error if PostgreSQL does not know the time zone.
pub const UNKNOWN_ZONE: &str = "query parameter tz names a time zone that is not known; it takes an IANA name (Europe/Berlin) or an offset (+02:00)";

/// Parameters for the start of a page. The link to the next page has a cursor in their place.
const STARTS: &[&str] = &["cursor", "offset", "skip", "page"];

/// Stands for the tasks, which the store writes.
pub(super) struct TaskArray;

/// Some of a user's tasks.
// The store writes the first field.
#[derive(Serialize)]
pub struct TaskList {
    #[serde(skip)]
    #[expect(dead_code, reason = "the API's description is made from this type")]
    tasks: TaskArray,
    /// How many tasks are in this answer.
    count: usize,
    /// How many tasks match the filters, if they were counted: with `page`, `offset` or `include_total`, or if all fit the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    /// How many tasks an answer may have.
    limit: u16,
    /// As requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    /// As requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    /// Whether more tasks follow.
    has_more: bool,
    /// The `cursor` of the next page.
    next_cursor: Option<String>,
}

/// Reads the parameters of a query string.
type ReadQuery = fn(&[(String, String)]) -> Result<ListQuery, String>;

/// `GET /tasks`
pub fn list(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    page(app, call, user, ListQuery::from_parameters)
}

/// A page of the list that `read` finds in the query string.
pub(super) fn page(
    app: &App,
    call: &Call,
    user: &UserId,
    read: ReadQuery,
) -> Result<Response, Error> {
    let parameters = call.parameters()?;
    let query = read(&parameters).map_err(|text| Error::BadRequest(text.into()))?;
    let page = match app.store.list_tasks(user, &query, "{\"tasks\":")? {
        ListedTasks::Page(page) => page,
        ListedTasks::UnknownZone => return Err(Error::BadRequest(UNKNOWN_ZONE.into())),
    };
    let next_cursor = page
        .next()
        .map(|cursor| cursor.encode(&query.filters, query.order));
    let next = next_cursor.as_deref();
    let link = next.map(|next| link_to_next(call, &parameters, next));
    let (offset, page_number) = match query.start {
        Start::Offset(offset) => (Some(offset), None),
        Start::Page(page) => (None, Some(page)),
        Start::Beginning | Start::Behind(_) => (None, None),
    };
    let list = TaskList {
        count: page.count,
        total: page.total,
        limit: query.limit.get(),
        offset,
        page: page_number,
        has_more: page.has_more,
        next_cursor,
        tasks: TaskArray,
    };
    let response = Response::json_text(200, whole(page.json, &list)?);
    Ok(match link {
        Some(link) => response.header("Link", link),
        None => response,
    })
}

/// The value of `Link` that leads to the next page: the same request with another cursor.
pub fn link_to_next(call: &Call, parameters: &[(String, String)], cursor: &str) -> String {
    let kept = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !STARTS.contains(name));
    let query = target::query(kept.chain([("cursor", cursor)]));
    format!("<{}?{query}>; rel=\"next\"", path(call))
}

/// A JSON object of which the first field is written, with its other fields.
pub(super) fn whole(mut body: Vec<u8>, others: &impl Serialize) -> Result<Vec<u8>, Error> {
    let others = serde_json::to_vec(others).map_err(|error| Error::Internal(error.to_string()))?;
    body.push(b',');
    body.extend_from_slice(others.get(1..).unwrap_or_default());
    Ok(body)
}

/// The path as the client wrote it. The edge has reduced a target in absolute form (RFC 9112, section 3.2.2) to its path.
fn path<'c>(call: &Call<'c>) -> &'c str {
    let target = &call.request.target;
    target.split_once('?').map_or(target, |(path, _)| path)
}
