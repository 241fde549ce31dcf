//! The tags of all tasks.

use serde::Serialize;
use utoipa::ToSchema;

use super::body::json;
use super::groups::TAGS;
use super::{App, Call};
use crate::domain::tag::{Tag, TagCount, tag_from_json};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;

const NO_SUCH_TAG: Error = Error::NotFound("Tag not found");

/// A user's tags.
#[derive(Serialize, ToSchema)]
pub struct TagList {
    /// How many there are.
    count: usize,
    tags: Vec<TagCount>,
}

/// What a tag is to be called.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it is only described: tag_from_json reads it")]
struct TagName {
    /// The new name.
    name: Tag,
}

/// `GET /tags`
#[utoipa::path(get, path = "/api/tags", operation_id = "listTags", tag = TAGS, summary = "List tags",
    responses((status = 200, description = "The tags, and how many tasks have each", body = TagList)))]
pub fn list(app: &App, _: &Call, user: &UserId) -> Result<Response, Error> {
    let tags = app.store.list_tags(user)?;
    let list = TagList {
        count: tags.len(),
        tags,
    };
    Ok(Response::json(200, &list))
}

/// `PUT /tags/{name}`
#[utoipa::path(put, path = "/api/tags/{name}", operation_id = "renameTag", tag = TAGS, summary = "Rename a tag",
    description = "On all tasks that have it. A tag of the new name that is there already takes it in.",
    params(("name" = Tag, Path, description = "The tag")), request_body = TagName,
    responses((status = 200, description = "The tag as it is now", body = TagCount)))]
pub fn rename(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    let from = tag(call)?;
    let to = match json(call.request, tag_from_json) {
        Ok(to) => to,
        // That there is no such tag comes before what is wrong with the body.
        Err(_) if app.store.count_tag(user, &from)? == 0 => return Err(NO_SUCH_TAG),
        Err(error) => return Err(error),
    };
    let renamed = app.store.rename_tag(user, &from, &to)?;
    renamed
        .map(|tag| Response::json(200, &tag))
        .ok_or(NO_SUCH_TAG)
}

/// `DELETE /tags/{name}`
#[utoipa::path(delete, path = "/api/tags/{name}", operation_id = "deleteTag", tag = TAGS, summary = "Take a tag off all tasks",
    params(("name" = Tag, Path, description = "The tag")),
    responses((status = 204, description = "No task has it any more")))]
pub fn delete(app: &App, call: &Call, user: &UserId) -> Result<Response, Error> {
    if app.store.delete_tag(user, &tag(call)?)? {
        Ok(Response::empty(204))
    } else {
        Err(NO_SUCH_TAG)
    }
}

/// What can be no tag is on no task.
fn tag(call: &Call) -> Result<Tag, Error> {
    let name = call.path.parameter("name").unwrap_or_default();
    Tag::parse(name).map_err(|_| NO_SUCH_TAG)
}
