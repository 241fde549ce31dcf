//! The tags of all tasks.

use serde::Serialize;

use super::body::json;
use super::{App, Call};
use crate::domain::draft::tag_from_json;
use crate::domain::tag::{Tag, TagCount};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;

const NO_SUCH_TAG: Error = Error::NotFound("Tag not found");

#[derive(Serialize)]
struct TagList {
    count: usize,
    tags: Vec<TagCount>,
}

/// `GET /tags`
pub fn list(app: &App, _: &Call, user: &UserId) -> Result<Response, Error> {
    let tags = app.store.list_tags(user)?;
    let list = TagList {
        count: tags.len(),
        tags,
    };
    Ok(Response::json(200, &list))
}

/// `PUT /tags/{name}`
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
