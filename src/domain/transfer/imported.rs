//! One task of a file.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use crate::domain::fields::{BodyError, Field, FieldError, Fields};
use crate::domain::task::{Kept, Sent, TASK_FIELDS, Task};
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

    /// For a task with this id in its source.
    pub fn of_own(&self, id: &str) -> Uuid {
        Uuid::new_v5(&self.space, format!("id {id}").as_bytes())
    }

    /// For a task without an id. Of several with the same content each gets another one.
    fn of_content(&mut self, content: &str) -> Uuid {
        let first = Uuid::new_v5(&self.space, format!("content {content}").as_bytes());
        let count = self.seen.entry(first).or_default();
        *count += 1;
        match *count {
            1 => first,
            ordinal => Uuid::new_v5(&first, &ordinal.to_be_bytes()),
        }
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
            let (required, clearable) = match field.sent {
                Sent::Never => continue,
                Sent::Required(_) => (true, false),
                Sent::Optional(_) => (false, false),
                Sent::Created(_) | Sent::Clearable(_) => (false, true),
                Sent::Imported(_) => (false, field.nullable),
            };
            let (task, kept) = (&mut read.task, &mut read.kept);
            let there = fields.read((field.name, field.aliases), required, clearable, |json| {
                content.extend([field.name, json, "\n"]);
                match field.sent {
                    Sent::Created(set) => set(task, json).or_else(|_| {
                        own_id = own(json)?;
                        Ok(())
                    }),
                    Sent::Required(set) | Sent::Optional(set) | Sent::Clearable(set) => {
                        set(task, json)
                    }
                    Sent::Imported(set) if json != "null" => set(kept, json),
                    Sent::Imported(_) | Sent::Never => Ok(()),
                }
            });
            if there {
                read.sent.push(field.name);
            }
        }
        fields.finish().map_err(errors)?;
        read.settle_completion()?;
        if read.task.id.is_nil() {
            read.task.id = match own_id {
                Some(own) => ids.of_own(&own),
                None => ids.of_content(&content),
            };
        }
        Ok(read)
    }

    /// `completed` follows from `completed_at` where the file has only that.
    fn settle_completion(&mut self) -> Result<(), Vec<FieldError>> {
        let sends = |name| self.sent.contains(&name);
        let at = self.kept.completed_at;
        if sends("completed_at") && !sends("completed") {
            self.task.completed = at.is_some();
            self.sent.push("completed");
        } else if at.is_some() && !self.task.completed {
            let message = "must be null, because completed is false";
            return Err(errors(BodyError::in_field("completed_at", message)));
        }
        Ok(())
    }
}

/// The id that a task has in its source: a text or a number. None if it is null or empty.
fn own(json: &str) -> Result<Option<String>, &'static str> {
    let id = match json.as_bytes().first() {
        Some(b'"') => String::from_json(json)?,
        Some(b'-' | b'0'..=b'9') => json.to_owned(),
        _ if json == "null" => return Ok(None),
        _ => return Err("must be a UUID, or a text or number"),
    };
    Ok(Some(id).filter(|id| !id.is_empty()))
}

fn errors(error: BodyError) -> Vec<FieldError> {
    match error {
        BodyError::Invalid(errors) => errors,
        BodyError::Malformed(text) => vec![FieldError {
            field: Cow::Borrowed("line"),
            message: Cow::Owned(text),
        }],
    }
}
