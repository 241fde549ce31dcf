//! API tokens, which users make for their scripts, and their scopes.

use std::collections::BTreeSet;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::{Claimed, Name, Password};
use super::fields::{BodyError, Field, Fields, Patch};
use super::timestamp::Timestamp;

/// A permission of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Scope {
    /// Reading tasks.
    #[serde(rename = "tasks:read")]
    TasksRead,
    /// Creating, changing and deleting tasks.
    #[serde(rename = "tasks:write")]
    TasksWrite,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 2] = [Scope::TasksRead, Scope::TasksWrite];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::TasksRead => "tasks:read",
            Scope::TasksWrite => "tasks:write",
        }
    }

    /// The scope with this name.
    pub fn parse(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// All scopes.
    pub fn all() -> Scopes {
        Scopes(Scope::ALL.into())
    }

    /// Those of these names.
    ///
    /// # Errors
    /// Says what scopes must be, as the end of a sentence.
    pub fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Scopes, &'static str> {
        names
            .into_iter()
            .map(Scope::parse)
            .collect::<Option<BTreeSet<Scope>>>()
            .filter(|scopes| !scopes.is_empty())
            .map(Scopes)
            .ok_or("must be a list of tasks:read and tasks:write, with at least one of them")
    }

    /// Those of these names that are known.
    pub fn known<'n>(names: impl IntoIterator<Item = &'n str>) -> Scopes {
        Scopes(names.into_iter().filter_map(Scope::parse).collect())
    }

    /// Whether the set has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|scope| scope.as_str()).collect()
    }
}

/// An API token as its owner sees it, without the token itself.
#[derive(Clone, Debug, Serialize)]
pub struct ApiToken {
    /// The id, with which it is deleted.
    pub id: Uuid,
    /// The name that its owner gave it.
    pub name: String,
    /// The first characters of the token.
    pub prefix: String,
    /// Its scopes.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// A new API token.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// The name that its owner gave it.
    pub name: Name,
    /// Its scopes.
    pub scopes: Scopes,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// The account's password; needed if the user has one here.
    pub current_password: Option<Password>,
}

impl NewApiToken {
    /// Reads the body of a POST. Without `scopes` it has all scopes.
    ///
    /// # Errors
    /// See [`BodyError`]; every bad field is named at once.
    pub fn from_json(body: &[u8]) -> Result<NewApiToken, BodyError> {
        let mut fields = Fields::of(body)?;
        let name = fields.required("name");
        let scopes = fields.optional("scopes");
        let expires_at: Patch<Expiry> = fields.patch("expires_at");
        let current_password = fields.optional("current_password").map(Claimed::into_inner);
        Ok(NewApiToken {
            name: fields.finish_with(name)?,
            scopes: scopes.unwrap_or_else(Scopes::all),
            expires_at: expires_at.value().map(|expiry| expiry.0),
            current_password,
        })
    }
}

/// A moment in the future.
struct Expiry(Timestamp);

impl Field for Expiry {
    fn from_json(json: &str) -> Result<Expiry, &'static str> {
        let text: String = serde_json::from_str(json).unwrap_or_default();
        Timestamp::parse(&text)
            .filter(|moment| moment.as_utc() > OffsetDateTime::now_utc())
            .map(Expiry)
            .ok_or("must be a timestamp in the future, such as 2030-01-31T09:00:00Z")
    }
}

impl Field for Scopes {
    fn from_json(json: &str) -> Result<Scopes, &'static str> {
        let names: Vec<String> = serde_json::from_str(json).unwrap_or_default();
        Scopes::parse(names.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_only_a_name_has_every_scope() {
        let token = NewApiToken::from_json(br#"{"name":" backup "}"#).unwrap();
        assert_eq!(
            (token.name.as_str(), token.scopes, token.expires_at),
            ("backup", Scopes::all(), None)
        );
        let token = NewApiToken::from_json(br#"{"name":"b","scopes":["tasks:read","tasks:read"]}"#)
            .unwrap();
        assert_eq!(token.scopes.names(), ["tasks:read"]);
    }

    #[test]
    fn every_bad_field_is_named() {
        for scopes in ["[]", "null", "\"tasks:read\"", "[\"admin\"]", "[1]"] {
            let body =
                format!(r#"{{"name":"","scopes":{scopes},"expires_at":"2001-01-01T00:00:00Z"}}"#);
            let Err(BodyError::Invalid(errors)) = NewApiToken::from_json(body.as_bytes()) else {
                panic!()
            };
            let names: Vec<&str> = errors.iter().map(|error| error.field.as_ref()).collect();
            assert_eq!(names, ["name", "scopes", "expires_at"], "{scopes}");
        }
    }
}
