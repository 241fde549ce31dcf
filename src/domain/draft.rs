//! What a client sends: a new task, changes to one, a completion.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::fields::{BodyError, Field, Fields, Patch, string};
use super::tag::{Tag, Tags};
use super::task::{Description, Due, Priority, Task, Title};
use super::timestamp::Timestamp;
use super::user::UserId;

/// A task to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// The client's own id, or one of ours (version 7).
    pub id: Uuid,
    /// What it is called.
    pub title: Title,
    /// What there is to say about it.
    pub description: Option<Description>,
    /// Whether it is done already.
    pub completed: bool,
    /// How much it matters.
    pub priority: Priority,
    /// When it is due.
    pub due_date: Option<Due>,
    /// What it is grouped by.
    pub tags: Tags,
}

impl NewTask {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<NewTask, BodyError> {
        let mut fields = Fields::of(body)?;
        let title = fields.required("title");
        let description = fields.patch("description");
        let completed = fields.optional("completed");
        let priority = fields.optional("priority");
        let due_date: Patch<Due> = fields.patch("due_date");
        let tags: Patch<Tags> = fields.patch("tags");
        let id = fields.optional("id");
        Ok(NewTask {
            title: fields.finish_with(title)?,
            id: id.unwrap_or_else(Uuid::now_v7),
            description: description.value().cloned(),
            completed: completed.unwrap_or(false),
            priority: priority.unwrap_or_default(),
            due_date: due_date.value().copied(),
            tags: tags.value().cloned().unwrap_or_default(),
        })
    }

    /// The task that this made under an id at a moment, as it was then.
    pub fn made(&self, user: &UserId, id: Uuid, at: Timestamp) -> Task {
        Task {
            id,
            user_id: user.clone(),
            title: self.title.as_str().to_owned(),
            description: self
                .description
                .as_ref()
                .map(|text| text.as_str().to_owned()),
            completed: self.completed,
            completed_at: self.completed.then_some(at),
            priority: self.priority,
            due_date: self.due_date,
            created_at: at,
            updated_at: at,
            version: 1,
            tags: self.tags.texts().into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Changes to a task: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskChanges {
    /// A new title.
    pub title: Option<Title>,
    /// A new description, or none.
    pub description: Patch<Description>,
    /// Done or not.
    pub completed: Option<bool>,
    /// A new priority.
    pub priority: Option<Priority>,
    /// A new due date, or none.
    pub due_date: Patch<Due>,
    /// New tags in place of the old, or none.
    pub tags: Patch<Tags>,
}

impl TaskChanges {
    /// Reads the body of a PUT or PATCH.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<TaskChanges, BodyError> {
        let mut fields = Fields::of(body)?;
        let changes = TaskChanges {
            title: fields.optional("title"),
            description: fields.patch("description"),
            completed: fields.optional("completed"),
            priority: fields.optional("priority"),
            due_date: fields.patch("due_date"),
            tags: fields.patch("tags"),
        };
        fields.finish()?;
        Ok(changes)
    }
}

/// What to do with a task's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Turn it over.
    Toggle,
    /// Make it so.
    Set(bool),
}

impl Completion {
    /// Reads the body of a PATCH to `/complete`: none at all toggles, an object must have `completed`.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_json(body: &[u8]) -> Result<Completion, BodyError> {
        if body.is_empty() {
            return Ok(Completion::Toggle);
        }
        let mut fields = Fields::of(body)?;
        let completed = fields.required("completed");
        fields.finish_with(completed).map(Completion::Set)
    }
}

impl Field for Title {
    fn from_json(json: &str) -> Result<Title, &'static str> {
        Title::parse(&string(json)?)
    }
}

impl Field for Description {
    fn from_json(json: &str) -> Result<Description, &'static str> {
        Description::parse(&string(json)?)
    }
}

impl Field for Priority {
    fn from_json(json: &str) -> Result<Priority, &'static str> {
        Priority::parse(&string(json)?)
    }
}

impl Field for Due {
    fn from_json(json: &str) -> Result<Due, &'static str> {
        Due::parse(&string(json)?)
    }
}

impl Field for Tag {
    fn from_json(json: &str) -> Result<Tag, &'static str> {
        Tag::parse(&string(json)?)
    }
}

impl Field for Tags {
    fn from_json(json: &str) -> Result<Tags, &'static str> {
        let texts: Vec<&RawValue> =
            serde_json::from_str(json).map_err(|_| "must be a list of strings")?;
        let texts: Vec<String> = texts
            .iter()
            .map(|text| string(text.get()))
            .collect::<Result<_, _>>()
            .map_err(|_| "must be a list of strings in valid Unicode")?;
        Tags::parse(&texts)
    }
}

impl Field for Uuid {
    fn from_json(json: &str) -> Result<Uuid, &'static str> {
        Uuid::try_parse(&string(json)?).map_err(|_| "must be a UUID")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_alone_makes_a_task() {
        let task = NewTask::from_json(br#"{"title":" milk "}"#).unwrap();
        assert_eq!(task.title.as_str(), "milk");
        assert_eq!(
            (task.description, task.completed, task.due_date),
            (None, false, None)
        );
        assert_eq!(task.priority, Priority::Medium);
        assert_eq!(task.id.get_version_num(), 7);
    }

    #[test]
    fn every_bad_field_is_named() {
        let body = br#"{"title":"","description":1,"completed":null,"priority":"urgent","due_date":"soon","tags":["a",1],"id":"7"}"#;
        let Err(BodyError::Invalid(errors)) = NewTask::from_json(body) else {
            panic!()
        };
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(
            names,
            [
                "title",
                "description",
                "completed",
                "priority",
                "due_date",
                "tags",
                "id"
            ]
        );
    }

    #[test]
    fn changes_tell_absent_from_null() {
        let changes =
            TaskChanges::from_json(br#"{"description":null,"user_id":"x","completed_at":1}"#)
                .unwrap();
        assert_eq!(
            changes,
            TaskChanges {
                description: Patch::Clear,
                ..TaskChanges::default()
            }
        );
        assert!(TaskChanges::from_json(br#"{"title":null}"#).is_err());
    }

    #[test]
    fn no_body_toggles_and_an_empty_object_does_not() {
        assert_eq!(Completion::from_json(b""), Ok(Completion::Toggle));
        assert_eq!(
            Completion::from_json(br#"{"completed":true}"#),
            Ok(Completion::Set(true))
        );
        for body in [
            "{}",
            r#"{"completed":null}"#,
            r#"{"completed":"true"}"#,
            r#"{"completed":1}"#,
            "[]",
        ] {
            assert!(
                matches!(
                    Completion::from_json(body.as_bytes()),
                    Err(BodyError::Invalid(_))
                ),
                "{body}"
            );
        }
    }
}
