//! Export and import of tasks.

use std::borrow::Cow;

use serde::Serialize;

use super::body::{check_encoding, is_json};
use super::lists::{UNKNOWN_ZONE, link_to_next};
use super::{App, Call};
use crate::domain::fields::{BodyError, FieldError};
use crate::domain::list;
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{FileTasks, Format, ImportCount, LineError, read_tasks};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::{Response, constant_fields};

/// Most tasks that one request imports.
const IMPORT_MAX: usize = 5_000;

const JSONL: &str = constant_fields!("application/jsonl", "no-store", "");
const CSV: &str = constant_fields!("text/csv; charset=utf-8", "no-store", "");

/// `GET /tasks/export`
pub fn export(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let parameters = call.parameters()?;
    let list::PartialQuery { query, format, .. } = list::export(&parameters).map_err(bad)?;
    let format = format.unwrap_or(Format::Jsonl);
    let page = app.store.export_page(user, &query, format)?;
    let (file, next) = page.ok_or(Error::BadRequest(UNKNOWN_ZONE.into()))?;
    let (fields, disposition) = match format {
        Format::Jsonl => (JSONL, "attachment; filename=\"tasks.jsonl\""),
        Format::Csv => (CSV, "attachment; filename=\"tasks.csv\""),
    };
    let response = Response::new(200, fields, file).header("Content-Disposition", disposition);
    let next = next.map(|cursor| cursor.encode(&query.filters, query.order));
    Ok(match next {
        Some(next) => response.header("Link", link_to_next(call, &parameters, &next)),
        None => response,
    })
}

fn bad(text: String) -> Error {
    Error::BadRequest(text.into())
}

/// What an import has done.
#[derive(Serialize)]
pub struct ImportResult {
    #[serde(flatten)]
    count: ImportCount,
    /// What is wrong with the tasks that were left out (`skip_errors`); the first 100.
    errors: Vec<LineError>,
    /// Whether nothing was written.
    dry_run: bool,
}

/// `POST /tasks/import`
pub fn import(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let parameters = call.parameters()?;
    let asked = list::import(&parameters).map_err(bad)?;
    check_encoding(call.request)?;
    let format = asked.format.map_or_else(|| format_of(call.request), Ok)?;
    let mut read = FileTasks::default();
    for task in read_tasks(&*call.request.body, format, user, Timestamp::now()) {
        read.add(task.map_err(|error| bad(error.to_string()))?);
        if read.count() > IMPORT_MAX {
            let message = "must have at most 5000 tasks; send the rest in another request";
            return Err(BodyError::in_field("body", message).into());
        }
    }
    let errors = read.errors;
    if read.wrong > 0 && !asked.skip_errors {
        return Err(Error::Validation(errors.into_iter().map(in_line).collect()));
    }
    let (dry_run, rule) = (asked.dry_run, asked.on_conflict);
    let mut count = app.store.import_tasks(user, &read.tasks, rule, dry_run)?;
    count.skipped += read.wrong;
    Ok(Response::json(
        200,
        &ImportResult {
            count,
            errors,
            dry_run,
        },
    ))
}

/// The format that the Content-Type names. A missing one is read as JSON.
fn format_of(request: &Request) -> Result<Format, Error> {
    let content_type = request.headers.get("Content-Type");
    let content_type = content_type.unwrap_or("application/json");
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Ok(Format::Csv),
        "application/jsonl" | "application/x-ndjson" => Ok(Format::Jsonl),
        _ if is_json(content_type) => Ok(Format::Jsonl),
        _ => Err(Error::UnsupportedMediaType(
            "the body must be JSON Lines or CSV; send the header Content-Type: application/jsonl or text/csv, or the parameter format",
        )),
    }
}

/// The error as one of a body: `lines[3].title`.
fn in_line(error: LineError) -> FieldError {
    FieldError {
        field: Cow::Owned(format!("lines[{}].{}", error.line, error.field)),
        message: error.message,
    }
}
