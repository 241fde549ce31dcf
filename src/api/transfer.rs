//! Export and import of tasks.

use std::borrow::Cow;

use serde::Serialize;

use super::body::{check_encoding, is_json};
use super::lists::{UNKNOWN_ZONE, link_to_next};
use super::{App, Call};
use crate::domain::fields::{BodyError, FieldError};
use crate::domain::list::ListQuery;
use crate::domain::timestamp::Timestamp;
use crate::domain::transfer::{FileTasks, Format, ImportCount, LineError, OnConflict, TaskReader};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::request::Request;
use crate::http::response::{Response, constant_fields};
use crate::http::target;

/// Most tasks that one request imports.
const IMPORT_MAX: usize = 5_000;

const MEDIA_TYPES: Error = Error::UnsupportedMediaType(
    "the body must be JSON Lines or CSV; send the header Content-Type: application/jsonl or text/csv, or the parameter format",
);

const JSONL: &str = constant_fields!("application/jsonl", "no-store", "");
const CSV: &str = constant_fields!("text/csv; charset=utf-8", "no-store", "");

/// `GET /tasks/export`
pub fn export(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let bad = |text: String| Error::BadRequest(text.into());
    let parameters = target::parameters(call.query).map_err(|text| bad(text.to_owned()))?;
    let (formats, filters): (Vec<_>, Vec<_>) = parameters
        .iter()
        .cloned()
        .partition(|(name, _)| name == "format");
    let format = match formats.as_slice() {
        [] => Format::Jsonl,
        [(_, name)] => {
            Format::parse(name).map_err(|error| bad(format!("query parameter format {error}")))?
        }
        _ => return Err(bad("query parameter format is given twice".to_owned())),
    };
    let query = ListQuery::of_export(&filters).map_err(bad)?;
    let page = app.store.export_page(user, &query, format)?;
    let page = page.ok_or(Error::BadRequest(UNKNOWN_ZONE.into()))?;
    let (fields, name) = match format {
        Format::Jsonl => (JSONL, "tasks.jsonl"),
        Format::Csv => (CSV, "tasks.csv"),
    };
    let response = Response::new(200, fields, page.file).header(
        "Content-Disposition",
        format!("attachment; filename=\"{name}\""),
    );
    Ok(match page.next {
        Some(cursor) => {
            let next = cursor.encode(&query.filters, query.order);
            response.header("Link", link_to_next(call, &parameters, &next))
        }
        None => response,
    })
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

#[derive(Default)]
struct ImportOptions {
    format: Option<Format>,
    dry_run: bool,
    on_conflict: OnConflict,
    skip_errors: bool,
}

impl ImportOptions {
    fn read(query: &str) -> Result<ImportOptions, String> {
        let mut options = ImportOptions::default();
        let mut seen = Vec::new();
        for (name, value) in target::parameters(query)? {
            let read = match name.as_str() {
                "format" => Format::parse(&value).map(|format| options.format = Some(format)),
                "dry_run" => boolean(&value).map(|yes| options.dry_run = yes),
                "on_conflict" => OnConflict::parse(&value).map(|rule| options.on_conflict = rule),
                "skip_errors" => boolean(&value).map(|yes| options.skip_errors = yes),
                _ => {
                    return Err(format!(
                        "query parameter {name:?} is unknown; an import takes format, dry_run, on_conflict, skip_errors"
                    ));
                }
            };
            read.map_err(|error| format!("query parameter {name} {error}"))?;
            if seen.contains(&name) {
                return Err(format!("query parameter {name} is given twice"));
            }
            seen.push(name);
        }
        Ok(options)
    }
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

/// `POST /tasks/import`
pub fn import(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let options = ImportOptions::read(call.query).map_err(|text| Error::BadRequest(text.into()))?;
    check_encoding(call.request)?;
    let format = match options.format {
        Some(format) => format,
        None => format_of(call.request)?,
    };
    let FileTasks {
        tasks,
        wrong,
        errors,
    } = read(call.request, format, user)?;
    if !(errors.is_empty() || options.skip_errors) {
        return Err(Error::Validation(errors.into_iter().map(in_line).collect()));
    }
    let mut count = app
        .store
        .import_tasks(user, &tasks, options.on_conflict, options.dry_run)?;
    count.skipped += wrong;
    Ok(Response::json(
        200,
        &ImportResult {
            count,
            errors,
            dry_run: options.dry_run,
        },
    ))
}

fn read(request: &Request, format: Format, user: &UserId) -> Result<FileTasks, Error> {
    let mut read = FileTasks::default();
    for task in TaskReader::new(&*request.body, format, user, Timestamp::now()) {
        read.add(task.map_err(|error| Error::BadRequest(error.to_string().into()))?);
        if read.tasks.len() + read.wrong > IMPORT_MAX {
            let message = "must have at most 5000 tasks; send the rest in another request";
            return Err(BodyError::in_field("body", message).into());
        }
    }
    Ok(read)
}

/// The format that the Content-Type names. A missing one is read as JSON.
fn format_of(request: &Request) -> Result<Format, Error> {
    let content_type = request.headers.get("Content-Type");
    let Some(content_type) = content_type else {
        return Ok(Format::Jsonl);
    };
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Ok(Format::Csv),
        "application/jsonl" | "application/x-jsonlines" | "application/x-ndjson" => {
            Ok(Format::Jsonl)
        }
        _ if is_json(content_type) => Ok(Format::Jsonl),
        _ => Err(MEDIA_TYPES),
    }
}

/// The error as one of a body: `lines[3].title`.
fn in_line(error: LineError) -> FieldError {
    let LineError {
        line,
        field,
        message,
    } = error;
    let field = match &*field {
        "line" => format!("lines[{line}]"),
        field => format!("lines[{line}].{field}"),
    };
    let field = Cow::Owned(field);
    FieldError { field, message }
}
