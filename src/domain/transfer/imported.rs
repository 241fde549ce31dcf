//! One task of a file.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use crate::domain::fields::{BodyError, Field, FieldError, Fields};
use crate::domain::task::{Kept, Sent, TASK_FIELDS, Task};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;

/// Random. Ids of tasks without a UUID follow from it (RFC 9562, section 5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x5f0c_7a61_3d0e_4b8b_9a57_c2a4_86d1_e93b);

/// A task of a file, with the fields that the server sets otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportedTask {
    /// The fields that clients send. Those that the file does not have are the default.
    pub task: Task,
    /// The fields that the server sets.
    pub kept: Kept,
    /// Names of the fields that the file has. If the task is there already, an import leaves all others as they are.
    pub sent: Vec<&'static str>,
}

/// Gives ids to the tasks of one source that have no UUID, the same ones each time.
pub struct Ids {
    space: Uuid,
    /// How often each content without an id has come. 1,000,000 take about 50 MB.
    seen: HashMap<Uuid, u64>,
}

impl Ids {
    /// For this user's tasks of a source, such as a format.
    pub fn new(user: &UserId, source: &str) -> Ids {
        let user = Uuid::new_v5(&NAMESPACE, user.as_str().as_bytes());
        Ids {
            space: Uuid::new_v5(&user, source.as_bytes()),
            seen: HashMap::new(),
        }
    }

    /// The id of a task, which may have an id of its source. Tasks without one and with the same content get different ids.
    fn make(&mut self, own: Option<&str>, content: &str) -> Uuid {
        if let Some(own) = own {
            return Uuid::new_v5(&self.space, format!("id {own}").as_bytes());
        }
        let first = Uuid::new_v5(&self.space, format!("content {content}").as_bytes());
        let ordinal = self.seen.entry(first).or_default();
        *ordinal += 1;
        Uuid::new_v5(&first, &ordinal.to_be_bytes())
    }
}

impl ImportedTask {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn read(json: &str, ids: &mut Ids) -> Result<ImportedTask, Vec<FieldError>> {
        let mut fields = Fields::of(json.as_bytes()).map_err(errors)?;
        let mut read = ImportedTask::default();
        let (mut own_id, mut content) = (None, String::new());
        for field in TASK_FIELDS {
            let required = matches!(field.sent, Sent::Required(_));
            let (task, kept) = (&mut read.task, &mut read.kept);
            let there = fields.read((field.name, field.aliases), required, true, |json| {
                content.extend([field.name, json, "\n"]);
                match field.sent {
                    Sent::Required(set) | Sent::Clearable(set) => return set(task, json),
                    _ if json == "null" => {}
                    Sent::Never => {}
                    Sent::Optional(set) => return set(task, json),
                    Sent::Imported(set) => return set(kept, json),
                    Sent::Created(set) if set(task, json).is_ok() => {}
                    Sent::Created(_) => own_id = own(json)?,
                }
                Ok(())
            });
            read.sent.extend(there.then_some(field.name));
        }
        fields.finish().map_err(errors)?;
        // `completed` follows from `completed_at` if the file has only that.
        let is_done = read.kept.completed_at.is_some();
        if read.sent.contains(&"completed_at") && !read.sent.contains(&"completed") {
            read.task.completed = is_done;
            read.sent.push("completed");
        } else if is_done && !read.task.completed {
            let message = "must be null, because completed is false";
            return Err(errors(BodyError::in_field("completed_at", message)));
        }
        if read.task.id.is_nil() {
            read.task.id = ids.make(own_id.as_deref(), &content);
        }
        Ok(read)
    }

    /// The same, created at this moment if the file has none.
    pub fn created_at(mut self, moment: Timestamp) -> ImportedTask {
        self.kept.created_at.get_or_insert(moment);
        self
    }
}

/// The id that a task has in its source: a text or a number. None if it is empty.
fn own(json: &str) -> Result<Option<String>, &'static str> {
    let id = match json.as_bytes().first() {
        Some(b'"') => String::from_json(json)?,
        Some(b'-' | b'0'..=b'9') => json.to_owned(),
        _ => return Err("must be a UUID, or a text or number"),
    };
    Ok(Some(id).filter(|id| !id.is_empty()))
}

fn errors(error: BodyError) -> Vec<FieldError> {
    match error {
        BodyError::Invalid(errors) => errors,
        BodyError::Malformed(text) => vec![FieldError {
            field: Cow::Borrowed("json"),
            message: Cow::Owned(text),
        }],
    }
}
