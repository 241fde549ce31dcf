//! What a client sends: a new task, changes to one, a completion.

use uuid::Uuid;

use super::{COMPLETED_ALIASES, Sent, TASK_FIELDS, Task};
use crate::domain::fields::{BodyError, Field, Fields};

/// The fields of a task that a client sent, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    // Fields that were not sent have their default.
    task: Task,
    sent: Vec<&'static str>,
}

impl Draft {
    /// Reads the body of a POST: a new task.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn new_task(body: &[u8]) -> Result<Draft, BodyError> {
        Draft::read(Fields::of(body)?, true)
    }

    /// Reads the body of a PUT or PATCH: changes to a task. Absent fields stay.
    ///
    /// # Errors
    /// As [`Draft::new_task`].
    pub fn changes(body: &[u8]) -> Result<Draft, BodyError> {
        Draft::read(Fields::of(body)?, false)
    }

    /// That a task is done, or not.
    pub fn completion(completed: bool) -> Draft {
        let task = Task {
            completed,
            ..Task::default()
        };
        Draft {
            task,
            sent: vec!["completed"],
        }
    }

    /// Reads a new task, or changes to one.
    ///
    /// # Errors
    /// As [`Draft::new_task`].
    pub fn read(mut fields: Fields, new: bool) -> Result<Draft, BodyError> {
        let (mut task, mut sent) = (Task::default(), Vec::new());
        if new {
            task.id = Uuid::now_v7();
        }
        for field in TASK_FIELDS {
            let (read, required, clearable) = match field.sent {
                Sent::Created(read) if new => (read, false, false),
                Sent::Never | Sent::Imported(_) | Sent::Created(_) => continue,
                Sent::Required(read) => (read, new, false),
                Sent::Optional(read) => (read, false, false),
                Sent::Clearable(read) => (read, false, true),
            };
            let read = |json: &str| read(&mut task, json);
            if fields.read((field.name, field.aliases), required, clearable, read) {
                sent.push(field.name);
            }
        }
        fields.finish()?;
        Ok(Draft { task, sent })
    }

    /// The names of the fields that were sent.
    pub fn sent(&self) -> &[&'static str] {
        &self.sent
    }

    /// The fields that were sent; all others have their default.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Whether a field was sent.
    pub fn sends(&self, field: &str) -> bool {
        self.sent.contains(&field)
    }

    /// Whether no field was sent.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

/// What to do with a task's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The opposite of what it is.
    Toggle,
    /// This.
    Set(bool),
}

impl Completion {
    /// The completion to set; `None` to toggle it.
    pub fn state(self) -> Option<bool> {
        match self {
            Completion::Toggle => None,
            Completion::Set(completed) => Some(completed),
        }
    }

    /// Reads the body of a PATCH to `/complete`: none and an empty object toggle, another object must have `completed`.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub fn from_json(body: &[u8]) -> Result<Completion, BodyError> {
        if body.is_empty() {
            return Ok(Completion::Toggle);
        }
        let mut fields = Fields::of(body)?;
        if fields.is_empty() {
            return Ok(Completion::Toggle);
        }
        let mut completed = None;
        fields.read(("completed", COMPLETED_ALIASES), true, false, |json| {
            completed = Some(bool::from_json(json)?);
            Ok(())
        });
        fields.finish_with(completed).map(Completion::Set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::Priority;

    fn changes(body: &str) -> Result<Draft, BodyError> {
        Draft::changes(body.as_bytes())
    }

    #[test]
    fn a_title_alone_makes_a_task() {
        let draft = Draft::new_task(br#"{"title":" milk "}"#).unwrap();
        let task = draft.task();
        assert_eq!(task.title.as_str(), "milk");
        assert_eq!((&task.description, task.due_date), (&None, None));
        assert!(!task.completed);
        assert_eq!(task.priority, Priority::Medium);
        assert_eq!(task.id.get_version_num(), 7);
        assert!(draft.sends("title") && !draft.sends("id"));
    }

    #[test]
    fn every_bad_field_is_named() {
        let body = br#"{"title":"","description":1,"completed":null,"priority":"urgent","due_date":"soon","tags":["a",1],"id":"7"}"#;
        let Err(BodyError::Invalid(errors)) = Draft::new_task(body) else {
            panic!()
        };
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(
            names,
            [
                "id",
                "title",
                "description",
                "completed",
                "priority",
                "due_date",
                "tags"
            ]
        );
    }

    #[test]
    fn changes_tell_absent_from_null() {
        let draft =
            changes(r#"{"description":null,"user_id":"x","completed_at":1,"id":1}"#).unwrap();
        assert_eq!(draft.sent, ["description"]);
        assert!(changes(r#"{"user_id":"x"}"#).unwrap().is_empty());
        assert!(changes(r#"{"title":null}"#).is_err());
    }

    #[test]
    fn no_body_and_an_empty_object_toggle_and_another_object_sets() {
        for (body, completion) in [
            ("", Completion::Toggle),
            (" {} ", Completion::Toggle),
            (r#"{"completed":true}"#, Completion::Set(true)),
            (r#"{"is_completed":false}"#, Completion::Set(false)),
            (
                r#"{"is_complete":true,"completed":true}"#,
                Completion::Set(true),
            ),
        ] {
            assert_eq!(Completion::from_json(body.as_bytes()), Ok(completion));
        }
        for body in [
            r#"{"done":true}"#,
            r#"{"is_completed":"yes"}"#,
            r#"{"is_completed":true,"completed":false}"#,
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
