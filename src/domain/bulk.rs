//! Many operations on tasks in one request.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::etag::EntityTags;
use super::fields::{BodyError, Field, FieldError, Fields};
use super::task::COMPLETED_ALIASES;
use super::task::draft::Draft;

/// Most operations of one request.
pub const OPERATIONS_MAX: usize = 500;
/// Most wrong fields that one answer names.
pub const ERRORS_MAX: usize = 100;

/// What was done to the tasks that match.
#[derive(Debug, Serialize)]
pub struct MatchingResult {
    /// How many tasks were changed or deleted, or would be with `dry_run`.
    pub count: u16,
    /// Whether more tasks match; the same request changes them next.
    pub has_more: bool,
}

/// What an operation does to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Creates it.
    Create,
    /// Changes it.
    Update,
    /// Sets whether it is done.
    Complete,
    /// Moves it to the trash.
    Delete,
    /// Moves it back from the trash.
    Restore,
}

/// The operations of a request, in their order.
#[derive(Debug)]
pub struct Bulk {
    /// 1 to 500.
    pub operations: Vec<Operation>,
    /// A new task without an id gets this id plus the operation's place.
    pub first_id: Uuid,
}

/// One operation.
#[derive(Debug, Default)]
pub struct Operation {
    /// `None` if it cannot be read, or the task is not known.
    pub op: Option<Op>,
    /// The task; `None` for a new one without an id of the client's.
    pub id: Option<Uuid>,
    /// The states of the task in which it is done; `None` for all.
    pub if_match: Option<EntityTags>,
    /// The fields of a new task, or those that change.
    pub draft: Draft,
    /// The wrong fields, with the operation's place in their names.
    pub errors: Vec<FieldError>,
}

impl Bulk {
    /// Reads `{"operations": […]}`. The errors of an operation stay with it, because an earlier one may be refused first.
    ///
    /// # Errors
    /// The body, or `operations`, is something else.
    pub fn from_json(body: &[u8]) -> Result<Bulk, BodyError> {
        let mut fields = Fields::of(body)?;
        let (mut operations, mut seen) = (Vec::new(), HashSet::new());
        fields.read(("operations", &[]), true, false, |json| {
            let sent: Vec<&RawValue> =
                serde_json::from_str(json).map_err(|_| "must be an array")?;
            if !(1..=OPERATIONS_MAX).contains(&sent.len()) {
                return Err("must have 1 to 500 entries");
            }
            let sent = sent.iter().enumerate();
            operations.extend(sent.map(|(at, json)| Operation::read(json.get(), at, &mut seen)));
            Ok(())
        });
        fields.finish()?;
        Ok(Bulk {
            operations,
            // Its last 16 bits are random. They are cleared, so that adding a place changes no others.
            first_id: Uuid::from_u128(Uuid::now_v7().as_u128() & !0xffff),
        })
    }

    /// The task of each operation.
    pub fn ids(&self, first_id: Uuid) -> Vec<Uuid> {
        let new_ids = (first_id.as_u128()..).map(Uuid::from_u128);
        let operations = self.operations.iter().zip(new_ids);
        operations
            .map(|(operation, new_id)| operation.id.unwrap_or(new_id))
            .collect()
    }

    /// The wrong fields of all operations, as many as an answer names.
    pub fn errors(&self) -> Vec<FieldError> {
        let errors = self.operations.iter().flat_map(|all| &all.errors);
        errors.take(ERRORS_MAX).cloned().collect()
    }
}

impl Operation {
    /// Reads the operation at a place. `seen` has the ids of the operations before.
    fn read(json: &str, at: usize, seen: &mut HashSet<Uuid>) -> Operation {
        let place = format!("operations[{at}]");
        let mut operation = Operation::default();
        match Fields::nested(json, &place).map(|fields| operation.fill(fields)) {
            None => operation.complain(place, "must be a JSON object"),
            Some(Err(BodyError::Invalid(errors))) => operation.errors = errors,
            Some(_) => {}
        }
        if operation.id.is_some_and(|id| !seen.insert(id)) {
            operation.op = None;
            operation.complain(
                format!("operations[{at}].id"),
                "is in another operation, too; an id may occur once",
            );
        }
        operation
    }

    fn complain(&mut self, field: String, message: &'static str) {
        self.errors.push(FieldError {
            field: field.into(),
            message: message.into(),
        });
    }

    /// Takes the fields that its kind has.
    fn fill(&mut self, mut fields: Fields) -> Result<(), BodyError> {
        let op = fields.required::<Op>("op");
        if op.is_some_and(|op| op != Op::Create) {
            self.id = fields.required("id");
            self.if_match = fields.optional("if_match");
        }
        let draft = match op {
            Some(Op::Create) => fields.object("task", |task| Draft::read(task, true)),
            Some(Op::Update) => fields.object("changes", |changes| Draft::read(changes, false)),
            Some(Op::Complete) => {
                let mut draft = None;
                fields.read(("completed", COMPLETED_ALIASES), true, false, |json| {
                    draft = Some(Draft::completion(bool::from_json(json)?));
                    Ok(())
                });
                draft
            }
            Some(Op::Delete | Op::Restore) | None => None,
        };
        self.draft = draft.unwrap_or_default();
        if self.draft.sends("id") {
            self.id = Some(self.draft.task().id);
        }
        self.op = op.filter(|op| *op == Op::Create || self.id.is_some());
        fields.finish()
    }
}

impl Field for Op {
    fn from_json(json: &str) -> Result<Op, &'static str> {
        serde_json::from_str(json)
            .map_err(|_| "must be create, update, complete, delete or restore")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(operation: &str) -> Vec<String> {
        let body = format!(r#"{{"operations":[{{"op":"delete","id":"{ID}"}},{operation}]}}"#);
        let errors = Bulk::from_json(body.as_bytes()).unwrap().errors();
        let errors = errors.into_iter();
        errors
            .map(|error| format!("{} {}", error.field, error.message))
            .collect()
    }

    const ID: &str = "0190b7c6-0000-7000-8000-000000000000";
    const OTHER: &str = r#""id":"0190b7c6-0000-7000-8000-000000000001""#;

    #[test]
    fn wrong_fields_are_named_with_their_place() {
        for (operation, named) in [
            ("1".to_owned(), "operations[1] must be a JSON object"),
            ("{}".to_owned(), "operations[1].op is required"),
            (
                r#"{"op":"drop"}"#.to_owned(),
                "operations[1].op must be create,",
            ),
            (
                r#"{"op":"create"}"#.to_owned(),
                "operations[1].task is required",
            ),
            (
                r#"{"op":"create","task":[]}"#.to_owned(),
                "operations[1].task must be a JSON object",
            ),
            (
                r#"{"op":"create","task":{"\ud800":1}}"#.to_owned(),
                "operations[1].task must be a JSON object",
            ),
            (
                r#"{"op":"create","task":{"title":""}}"#.to_owned(),
                "operations[1].title must have",
            ),
            (
                r#"{"op":"update","changes":{}}"#.to_owned(),
                "operations[1].id is required",
            ),
            (
                r#"{"op":"delete","id":7}"#.to_owned(),
                "operations[1].id must be",
            ),
            (
                format!(r#"{{"op":"update",{OTHER},"changes":{{"title":null}}}}"#),
                "operations[1].title must not be null",
            ),
            (
                format!(r#"{{"op":"update",{OTHER}}}"#),
                "operations[1].changes is required",
            ),
            (
                format!(r#"{{"op":"complete",{OTHER}}}"#),
                "operations[1].completed is required",
            ),
            (
                format!(r#"{{"op":"delete",{OTHER},"if_match":"1"}}"#),
                "operations[1].if_match must be *",
            ),
            (
                format!(r#"{{"op":"restore","id":"{ID}"}}"#),
                "operations[1].id is in another",
            ),
            (
                format!(r#"{{"op":"create","task":{{"title":"t","id":"{ID}"}}}}"#),
                "operations[1].id is in another",
            ),
        ] {
            let errors = errors(&operation);
            assert!(
                errors.len() == 1 && errors[0].starts_with(named),
                "{operation}: {errors:?}"
            );
        }
    }

    #[test]
    fn new_ids_rise_and_those_of_clients_stay() {
        let new = r#"{"op":"create","task":{"title":"t"}}"#;
        let body = format!(r#"{{"operations":[{new},{{"op":"delete","id":"{ID}"}},{new}]}}"#);
        let bulk = Bulk::from_json(body.as_bytes()).unwrap();
        let ids = bulk.ids(bulk.first_id);
        assert!(ids[0] < ids[2] && ids[1].to_string() == ID);
        assert!(ids[2].get_version_num() == 7 && ids[2].get_variant() == uuid::Variant::RFC4122);
    }

    #[test]
    fn there_are_1_to_500_operations() {
        let body = |number: usize| format!(r#"{{"operations":[{}]}}"#, vec!["1"; number].join(","));
        for (number, good) in [(0, false), (1, true), (500, true), (501, false)] {
            assert_eq!(
                Bulk::from_json(body(number).as_bytes()).is_ok(),
                good,
                "{number}"
            );
        }
        assert_eq!(
            Bulk::from_json(body(500).as_bytes())
                .unwrap()
                .errors()
                .len(),
            ERRORS_MAX
        );
        for body in ["{}", r#"{"operations":{}}"#, r#"{"operations":null}"#, "[]"] {
            assert!(
                matches!(Bulk::from_json(body.as_bytes()), Err(BodyError::Invalid(_))),
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_operation_makes_the_reader_panic(text in any::<String>(), json in "[\\[\\]{}\"a-z:,0-9]{0,40}") {
            let text = serde_json::json!(text);
            for value in [json, text.to_string()] {
                for op in ["create", "update", "complete", "delete", "restore"] {
                    let operation = format!(r#"{{"op":"{op}","id":{value},"task":{value},"changes":{value},"if_match":{value}}}"#);
                    let _ = Bulk::from_json(format!(r#"{{"operations":[{operation}]}}"#).as_bytes());
                }
            }
        }
    }
}
