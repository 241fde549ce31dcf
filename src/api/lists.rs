//! The tasks, page by page.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::groups::TASKS;
use super::{App, Call};
use crate::domain::list::cursor::Cursor;
use crate::domain::list::{ListQuery, Start};
use crate::domain::tag::Tag;
use crate::domain::task::{Due, Priority, Task};
use crate::domain::user::UserId;
use crate::domain::zone::Zone;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::http::target;
use crate::store::Listed;

/// The time zone is one that PostgreSQL does not know.
pub const UNKNOWN_ZONE: &str = "query parameter tz names a time zone that is not known; it takes an IANA name (Europe/Berlin) or an offset (+02:00)";

/// What says where a page starts; a link to the next one has a cursor instead.
const STARTS: &[&str] = &["cursor", "offset", "skip", "page"];

/// Some of a user's tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskList {
    tasks: Vec<Task>,
    /// How many there are in this answer.
    #[schema(example = 1)]
    count: usize,
    /// How many fit the filters, where they were counted (`include_total`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = i64, required = false, minimum = 0, example = 1)]
    total: Option<i64>,
    /// How many there may be in this answer.
    #[schema(minimum = 1, maximum = 1000, example = 1000)]
    limit: u16,
    /// As it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32, required = false)]
    offset: Option<u32>,
    /// As it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32, required = false, minimum = 1)]
    page: Option<u32>,
    /// Whether there are more behind these.
    has_more: bool,
    /// The `cursor` of the page behind this one.
    #[schema(required, example = json!(null))]
    next_cursor: Option<String>,
}

/// What a list takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(
    dead_code,
    reason = "it is only described: ListQuery::from_parameters reads it"
)]
struct ListParameters {
    /// Done or not.
    completed: Option<bool>,
    /// The same in words: `all`, `pending`, `active`, `incomplete`, `completed` or `complete`.
    #[param(
        inline,
        pattern = "^(all|pending|active|incomplete|completed|complete)$"
    )]
    status: Option<String>,
    /// One of these; may be given several times, or several separated by commas.
    priority: Option<Vec<Priority>>,
    /// Having this tag; may be given up to 20 times, and all must be there.
    tag: Option<Vec<Tag>>,
    /// The same, separated by commas.
    #[param(
        pattern = r"^[ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]*[^\u0000-\u001F\u007F-\u009F\u2028\u2029 \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000,][^\u0000-\u001F\u007F-\u009F\u2028\u2029,]{0,49}(,[ \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]*[^\u0000-\u001F\u007F-\u009F\u2028\u2029 \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000,][^\u0000-\u001F\u007F-\u009F\u2028\u2029,]{0,49}){0,19}$"
    )]
    tags: Option<String>,
    /// Due earlier; a plain date stands for the whole day.
    due_before: Option<Due>,
    /// Due later.
    due_after: Option<Due>,
    /// Not done and past, or the contrary.
    overdue: Option<bool>,
    /// Due at some time, or at none.
    has_due_date: Option<bool>,
    /// Made earlier.
    created_before: Option<Due>,
    /// Made later.
    created_after: Option<Due>,
    /// Last changed earlier.
    updated_before: Option<Due>,
    /// Last changed later.
    updated_after: Option<Due>,
    /// Up to 16 words that all occur in title or description, whatever their case and accents; also `q`.
    search: Option<String>,
    /// The zone in which days begin and end; UTC by default. A name that PostgreSQL does not know is 400.
    tz: Option<Zone>,
    /// What comes first: `created_at`, `updated_at`, `due_date`, `priority`, `title` or `completed`; descending as `-title` or
    /// `title:desc`. Also `sort_by`.
    #[param(
        pattern = "^(-?(created|updated|created_at|updated_at|due_date|priority|title|completed)|(created|updated|created_at|updated_at|due_date|priority|title|completed):(asc|desc))$"
    )]
    sort: Option<String>,
    /// The direction of `sort`: `asc` or `desc`; also `sort_order`, `sort_direction`.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// Most tasks in the answer, 1,000 unless said otherwise; also `page_size`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next_cursor` of the answer before; the other parameters must be the same.
    cursor: Option<String>,
    /// How many to leave out first; also `skip`.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    offset: Option<u32>,
    /// Which page of `limit` tasks, from 1.
    #[param(minimum = 1, maximum = 1_000_000_000)]
    page: Option<u32>,
    /// Whether `total` is wanted.
    include_total: Option<bool>,
}

/// `GET /tasks`
#[utoipa::path(get, path = "/api/tasks", operation_id = "listTasks", tag = TASKS, summary = "List tasks",
    description = "The newest first, unless `sort` says otherwise. Of `cursor`, `offset` and `page` only one can be used.",
    params(ListParameters),
    responses((status = 200, description = "The tasks", body = TaskList, headers(("Link", description = "The page behind this one, where there is one (RFC 8288)")))))]
pub fn list(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let parameters =
        target::parameters(call.query).map_err(|text| Error::BadRequest(text.into()))?;
    let query =
        ListQuery::from_parameters(&parameters).map_err(|text| Error::BadRequest(text.into()))?;
    let page = match app.store.list_tasks(user, &query)? {
        Listed::Page(page) => page,
        Listed::UnknownZone => return Err(Error::BadRequest(UNKNOWN_ZONE.into())),
    };
    let next_cursor = page
        .tasks
        .last()
        .filter(|_| page.has_more)
        .map(|last| Cursor::behind(last, query.order).encode(&query.filters, query.order));
    let link = next_cursor.as_deref().map(|next| {
        let kept = parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !STARTS.contains(name));
        let query = target::query(kept.chain([("cursor", next)]));
        format!("<{}?{query}>; rel=\"next\"", path(call))
    });
    let list = TaskList {
        count: page.tasks.len(),
        total: page.total,
        limit: query.limit.get(),
        offset: match query.start {
            Start::Offset(offset) => Some(offset),
            _ => None,
        },
        page: match query.start {
            Start::Page(page) => Some(page),
            _ => None,
        },
        has_more: page.has_more,
        next_cursor,
        tasks: page.tasks,
    };
    let response = Response::json(200, &list);
    Ok(match link {
        Some(link) => response.header("Link", link),
        None => response,
    })
}

/// The path as the client wrote it. A target in absolute form (RFC 9112, section 3.2.2) has become a path before it came here.
fn path<'c>(call: &Call<'c>) -> &'c str {
    let target = &call.request.target;
    target.split_once('?').map_or(target, |(path, _)| path)
}
