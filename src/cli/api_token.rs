//! `todo-api api-token`: manages users' personal API tokens.

use time::OffsetDateTime;
use uuid::Uuid;

use super::setup::OpenStore;
use super::user::open_and_find;
use super::{CommandLine, Failure, print};
use crate::audit::{Event, Trail};
use crate::auth::opaque;
use crate::domain::account::Name;
use crate::domain::api_token::{NewApiToken, Scopes};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::UserId;
use crate::store::ApiTokenAdded;

const USER: &str = "
  --user USER  the user: an id or an email address
  --id         USER is an id, even if it looks like an address
";

commands! {
    "api-token create --user USER --name NAME [--id] [--scopes LIST] [--expires-at TIME]",
        "Make a personal API token and print it",
        "
  --user USER        the user: an id or an email address
  --id               USER is an id, even if it looks like an address
  --name NAME        what it is for
  --scopes LIST      what it may do, if not everything: tasks:read
  --expires-at TIME  when it ends, such as 2030-01-31T09:00:00Z
", create;
    "api-token list --user USER [--id]", "List a user's API tokens", USER, list;
    "api-token revoke ID --user USER [--id]", "Refuse an API token from now on", USER, revoke;
}

fn store_and_user(line: &CommandLine) -> Result<(OpenStore, UserId), Failure> {
    let (open, user) = open_and_find(line, line.value("user").unwrap_or_default())?;
    Ok((open, user.account.id))
}

fn create(line: &CommandLine) -> Result<(), Failure> {
    let name = line.parsed("name", Name::parse)?;
    let name = name.ok_or("--name is missing")?;
    let scopes = line.parsed("scopes", |list| {
        Scopes::parse(list.split(',').map(str::trim))
    })?;
    let expires_at = line.parsed("expires-at", |text| {
        Timestamp::parse(text)
            .filter(|time| time.as_utc() > OffsetDateTime::now_utc())
            .ok_or("must be a timestamp in the future, such as 2030-01-31T09:00:00Z")
    })?;
    let wanted = NewApiToken {
        name,
        scopes: scopes.unwrap_or_else(Scopes::all),
        expires_at,
        current_password: None,
    };
    let token = opaque::new_api_token()?;
    let (hash, prefix) = (opaque::hash(&token), opaque::shown_part(&token));
    let (open, user) = store_and_user(line)?;
    let store = &open.store;
    match store.add_api_token(&user, &wanted, &hash, prefix, None)? {
        ApiTokenAdded::Token(added) => {
            Trail::of_command().record(&user, Event::ApiTokenCreated(added.id));
            print(&format!("{token}\n"))
        }
        // The command gives no password hash to compare.
        ApiTokenAdded::TooMany | ApiTokenAdded::PasswordChanged => {
            Err("the user already has 100 API tokens, the maximum; revoke one first".into())
        }
    }
}

fn list(line: &CommandLine) -> Result<(), Failure> {
    let (open, user) = store_and_user(line)?;
    let or_never = |time: Option<Timestamp>| time.map_or("never".to_owned(), |it| it.to_string());
    let tokens = open.store.list_api_tokens(&user)?;
    let rows = tokens.iter().map(|token| {
        let scopes = token.scopes.names().join(",");
        let (expires, used) = (or_never(token.expires_at), or_never(token.last_used_at));
        let (id, prefix, name) = (&token.id, &token.prefix, &token.name);
        format!("{id}\t{prefix}…\t{scopes}\texpires {expires}\tlast used {used}\t{name}\n")
    });
    print(&rows.collect::<String>())
}

fn revoke(line: &CommandLine) -> Result<(), Failure> {
    let (open, user) = store_and_user(line)?;
    let id = line.argument(0);
    match Uuid::try_parse(id) {
        Ok(id) if open.store.delete_api_token(&user, id)? => {
            Trail::of_command().record(&user, Event::ApiTokenDeleted(id));
            print("revoked; running servers refuse it within two seconds\n")
        }
        _ => Err(format!(
            "the user has no API token {id:?}; `todo-api api-token list` shows all of them"
        ))?,
    }
}
