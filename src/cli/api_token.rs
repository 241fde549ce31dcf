//! `todo-api api-token`: looks after users' personal API tokens.

use std::fmt::Write;

use time::OffsetDateTime;
use uuid::Uuid;

use super::setup::OpenStore;
use super::user::find;
use super::{Call, Command, Failure, print, setup};
use crate::audit::{Event, Trail};
use crate::auth::opaque;
use crate::domain::account::Name;
use crate::domain::api_token::{NewApiToken, Scopes};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::store::ApiTokenAdded;

const USER: &str = "
  --user USER  whose token it is: an id or an email address
  --id         USER is an id, even if it looks like an address
";

pub const COMMANDS: &[Command] = &[
    Command {
        usage: "api-token create --user USER --name NAME [--id] [--scopes LIST] [--expires-at TIME]",
        about: "Make a personal API token and print it",
        help: "
  --user USER        whose token it is: an id or an email address
  --id               USER is an id, even if it looks like an address
  --name NAME        what it is for
  --scopes LIST      for less than everything: tasks:read
  --expires-at TIME  when it ends, such as 2030-01-31T09:00:00Z
",
        run: create,
    },
    Command {
        usage: "api-token list --user USER [--id]",
        about: "List a user's API tokens",
        help: USER,
        run: list,
    },
    Command {
        usage: "api-token revoke ID --user USER [--id]",
        about: "Refuse an API token from now on",
        help: USER,
        run: revoke,
    },
];

/// The open store, and the user that `--user` names.
fn store_and_user(call: &Call) -> Result<(OpenStore, UserId), Failure> {
    let open = setup::open_store(&call.config()?)?;
    let user = call.value("user").unwrap_or_default();
    let user = find(&open.store, user, call.has("id"))?.account.id;
    Ok((open, user))
}

fn create(call: &Call) -> Result<(), Failure> {
    let usage = |option: &str, problem: &str| Failure::Usage(format!("{option} {problem}"));
    let name = Name::parse(call.value("name").unwrap_or_default())
        .map_err(|problem| usage("--name", problem))?;
    let scopes = match call.value("scopes") {
        None => Scopes::all(),
        Some(list) => Scopes::parse(list.split(',').map(str::trim))
            .map_err(|problem| usage("--scopes", problem))?,
    };
    let expires_at = match call.value("expires-at") {
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
    let token = opaque::new_api_token()?;
    let (open, user) = store_and_user(call)?;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    match open
        .store
        .add_api_token(&user, &wanted, &hash, prefix, None)?
    {
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

fn list(call: &Call) -> Result<(), Failure> {
    let (open, user) = store_and_user(call)?;
    let mut text = String::new();
    for token in open.store.list_api_tokens(&user)? {
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

fn revoke(call: &Call) -> Result<(), Failure> {
    let (open, user) = store_and_user(call)?;
    let id = call.word(0);
    let none = || {
        Failure::Failed(format!(
            "the user has no API token {id:?}; `todo-api api-token list` shows those there are"
        ))
    };
    let id = Uuid::try_parse(id).map_err(|_| none())?;
    if !open.store.delete_api_token(&user, id)? {
        return Err(none());
    }
    Trail::of_command().record(&user, Event::ApiTokenDeleted(id));
    print("revoked; running servers refuse it within two seconds\n")
}
