//! The tags of all tasks.

use serde::Serialize;

use super::body::json;
use super::{App, Call};
use crate::domain::fields::{BodyError, Fields};
use crate::domain::tag::{Tag, TagCount};
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;

const NO_SUCH_TAG: Error = Error::NotFound("Tag not found");

/// A user's tags.
#[derive(Serialize)]
pub struct TagList {
    /// How many there are.
    count: usize,
    tags: Vec<TagCount>,
}

/// The body of a request to rename a tag.
struct TagName {
    /// The new name.
    name: Tag,
}

impl TagName {
    fn from_json(body: &[u8]) -> Result<TagName, BodyError> {
        let mut fields = Fields::of(body)?;
        let name = fields.required("name");
        let name = fields.finish_with(name)?;
        Ok(TagName { name })
    }
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
    let to = match json(call.request, TagName::from_json) {
        Ok(to) => to.name,
        // 404 comes before 422.
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

/// A name that cannot be a tag is on no task.
fn tag(call: &Call) -> Result<Tag, Error> {
    let name = call.path.parameter("name").unwrap_or_default();
    Tag::parse(name).map_err(|_| NO_SUCH_TAG)
}
