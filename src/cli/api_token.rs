//! `todo-api api-token`: looks after users' personal API tokens.

use std::fmt::Write;

use time::OffsetDateTime;
use uuid::Uuid;

use super::user::find;
use super::{Failure, print, setup};
use crate::audit::{Event, Trail};
use crate::auth::opaque;
use crate::config::Config;
use crate::domain::account::Name;
use crate::domain::api_token::{NewApiToken, Scopes};
use crate::domain::timestamp::Timestamp;
use crate::store::ApiTokenAdded;

/// The words and options of the command.
#[derive(Default)]
pub struct Options {
    /// What to do, and with which token.
    pub words: Vec<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--name`
    pub name: Option<String>,
    /// `--scopes`
    pub scopes: Option<String>,
    /// `--expires-at`
    pub expires_at: Option<String>,
}

/// Does what the words say.
pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match (words.as_slice(), options.user.as_deref()) {
        (["create"], Some(user)) => create(config, user, options),
        (["list"], Some(user)) => list(config, user),
        (["revoke", id], Some(user)) => revoke(config, user, id),
        _ => Err(Failure::Usage(
            "api-token needs one of: create --user USER --name NAME, list --user USER, revoke --user USER ID"
                .to_owned(),
        )),
    }
}

fn create(config: &Config, user: &str, options: &Options) -> Result<(), Failure> {
    let usage = |option: &str, problem: &str| Failure::Usage(format!("{option} {problem}"));
    let name = Name::parse(options.name.as_deref().unwrap_or_default())
        .map_err(|problem| usage("--name", problem))?;
    let scopes = match &options.scopes {
        None => Scopes::all(),
        Some(list) => Scopes::parse(list.split(',').map(str::trim))
            .map_err(|problem| usage("--scopes", problem))?,
    };
    let expires_at = match &options.expires_at {
        None => None,
        Some(text) => Some(
            Timestamp::parse(text)
                .filter(|moment| moment.as_utc() > OffsetDateTime::now_utc())
                .ok_or_else(|| {
                    usage(
                        "--expires-at",
                        "must be a timestamp in the future, such as 2030-01-31T09:00:00Z",
                    )
                })?,
        ),
    };
    let wanted = NewApiToken {
        name,
        scopes,
        expires_at,
        current_password: None,
    };
    let token = opaque::new_api_token().map_err(Failure::Failed)?;
    let (store, _private) = setup::open_store(config)?;
    let user = find(&store, user, false)?.account.id;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    match store.add_api_token(&user, &wanted, &hash, prefix, None)? {
        ApiTokenAdded::Token(made) => {
            Trail::of_command().record(&user, Event::ApiTokenCreated(made.id));
            print(&format!("{token}\n"))
        }
        // The command gives no password hash to compare.
        ApiTokenAdded::TooMany | ApiTokenAdded::PasswordChanged => Err(Failure::Failed(
            "the user has 100 API tokens, and there may not be more; revoke one".to_owned(),
        )),
    }
}

fn list(config: &Config, user: &str) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    let user = find(&store, user, false)?.account.id;
    let mut text = String::new();
    for token in store.list_api_tokens(&user)? {
        let moment = |moment: Option<Timestamp>, none: &str| {
            moment.map_or_else(|| none.to_owned(), |moment| moment.to_string())
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}\t{}…\t{}\texpires {}\tlast used {}\t{}",
            token.id,
            token.prefix,
            token.scopes.names().join(","),
            moment(token.expires_at, "never"),
            moment(token.last_used_at, "never"),
            token.name,
        );
    }
    print(&text)
}

fn revoke(config: &Config, user: &str, id: &str) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    let user = find(&store, user, false)?.account.id;
    let none = || {
        Failure::Failed(format!(
            "the user has no API token {id:?}; `todo-api api-token list` shows those there are"
        ))
    };
    let id = Uuid::try_parse(id).map_err(|_| none())?;
    if !store.delete_api_token(&user, id)? {
        return Err(none());
    }
    Trail::of_command().record(&user, Event::ApiTokenDeleted(id));
    print("revoked; running servers refuse it within two seconds\n")
}
