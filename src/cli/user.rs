//! `todo-api user`: looks after users.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal, Read};

use super::{Failure, print, setup};
use crate::audit::{Event, Trail};
use crate::auth::password;
use crate::config::Config;
use crate::domain::account::{Account, AccountChanges, Email, Name, PASSWORD_MAX, Password};
use crate::domain::fields::Patch;
use crate::domain::user::UserId;
use crate::store::{self, NewAccount, Registered, Store, Updated, UserRow};

/// Users read from the database at once.
const PAGE: i64 = 1_000;

/// The words and options of the command.
#[derive(Default)]
pub struct Options {
    /// What to do, and with whom.
    pub words: Vec<String>,
    /// `--name`
    pub name: Option<String>,
    /// `--id`: the user is named by an id, even where it looks like an address or nobody is known by it
    pub id: bool,
    /// `--yes`
    pub yes: bool,
}

/// Does what the words say.
pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    let name = options.name.as_deref();
    match (words.as_slice(), name, options.yes) {
        (["add", email], name, false) => add(config, email, name),
        (["list"], None, false) => list(config),
        (["password", user], None, false) => set_password(config, user, options.id),
        (["email", user, email], None, false) => set_email(config, user, options.id, email),
        (["disable", user], None, false) => set_active(config, user, options.id, false),
        (["enable", user], None, false) => set_active(config, user, options.id, true),
        (["delete", user], None, true) => delete(config, user, options.id),
        (["delete", _], None, false) => Err(Failure::Usage(
            "this deletes the user with all tasks; say --yes when that is what you want".to_owned(),
        )),
        _ => Err(Failure::Usage(
            "user needs one of: add EMAIL, list, password USER, email USER EMAIL, disable USER, enable USER, delete USER"
                .to_owned(),
        )),
    }
}

fn add(config: &Config, email: &str, name: Option<&str>) -> Result<(), Failure> {
    let email = address(email)?;
    let name = name
        .map(Name::parse)
        .transpose()
        .map_err(|problem| Failure::Usage(format!("--name {problem}")))?;
    let hash = hash(&ask_for_password()?)?;
    let (store, _private) = setup::open_store(config)?;
    let account = NewAccount {
        id: &UserId::new_local(),
        email: &email,
        name: name.as_ref(),
        password_hash: &hash,
    };
    match store.add_account(&account)? {
        Registered::Account { account, .. } => {
            Trail::of_command().record(&account.id, Event::AccountCreated);
            print(&format!(
                "added {} with the id {}\n",
                email.as_str(),
                account.id
            ))
        }
        Registered::EmailTaken => Err(taken(&email)),
    }
}

fn address(text: &str) -> Result<Email, Failure> {
    Email::parse(text).map_err(|problem| Failure::Usage(format!("the address {problem}")))
}

fn taken(email: &Email) -> Failure {
    Failure::Failed(format!("{} has an account already", email.as_str()))
}

fn list(config: &Config) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    let mut after = String::new();
    loop {
        let users = store.list_users(&after, PAGE)?;
        let Some(last) = users.last() else {
            return Ok(());
        };
        after = last.account.id.as_str().to_owned();
        let mut text = String::new();
        for user in &users {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line(user));
        }
        print(&text)?;
    }
}

/// Id, state, address and name, with tabs between them. None of them holds a control character.
fn line(user: &UserRow) -> String {
    let Account {
        id,
        email,
        name,
        created_at,
    } = &user.account;
    let state = match (user.active, user.has_password) {
        (false, _) => "disabled",
        (true, true) => "active",
        (true, false) => "outside",
    };
    let since = created_at.map(|at| at.to_string()).unwrap_or_default();
    format!(
        "{id}\t{state}\t{since}\t{}\t{}",
        email.as_deref().unwrap_or("-"),
        name.as_deref().unwrap_or("-")
    )
}

fn set_password(config: &Config, user: &str, id: bool) -> Result<(), Failure> {
    let hash = hash(&ask_for_password()?)?;
    let (store, _private) = setup::open_store(config)?;
    let found = find(&store, user, id)?;
    let ended = store
        .set_password(&found.account.id, None, &hash, None, None)?
        .ok_or_else(|| no_password(user))?;
    Trail::of_command().record(&found.account.id, Event::PasswordChanged);
    print(&format!(
        "the password is set; {} sessions ended\n",
        ended.len()
    ))
}

fn no_password(user: &str) -> Failure {
    Failure::Failed(format!(
        "{user} does not log in here: the user has no password here, and is known only from tokens of another issuer"
    ))
}

fn set_email(config: &Config, user: &str, id: bool, email: &str) -> Result<(), Failure> {
    let email = address(email)?;
    let (store, _private) = setup::open_store(config)?;
    let found = find(&store, user, id)?;
    let changes = AccountChanges {
        email: Some(email.clone()),
        name: Patch::Keep,
        current_password: None,
    };
    match store.update_account(&found.account.id, &changes, None)? {
        Updated::Account(account) => {
            Trail::of_command().record(&account.id, Event::EmailChanged);
            print(&format!(
                "{} logs in with {} from now on\n",
                account.id,
                email.as_str()
            ))
        }
        Updated::EmailTaken => Err(taken(&email)),
        Updated::NoAccount => Err(no_password(user)),
    }
}

fn set_active(config: &Config, user: &str, id: bool, active: bool) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    // Whoever has never written anything here can be kept out all the same.
    let unknown = id || (!active && Email::parse(user).is_err());
    let id = match search(&store, user, id)? {
        Some(found) => found.account.id,
        None if unknown => {
            UserId::parse(user).map_err(|problem| Failure::Usage(format!("the id {problem}")))?
        }
        None => return Err(nobody(user)),
    };
    store.set_active(&id, active)?;
    let event = if active {
        Event::AccountEnabled
    } else {
        Event::AccountDisabled
    };
    Trail::of_command().record(&id, event);
    print(&if active {
        format!("{id} is let in again\n")
    } else {
        format!("{id} is disabled; running servers refuse their tokens within two seconds\n")
    })
}

fn delete(config: &Config, user: &str, id: bool) -> Result<(), Failure> {
    let (store, _private) = setup::open_store(config)?;
    let found = find(&store, user, id)?;
    store.begin_deletion(&found.account.id)?;
    Trail::of_command().record(&found.account.id, Event::AccountDeleted);
    store.finish_deletion(&found.account.id)?;
    let back = if found.has_password {
        ""
    } else {
        "; a token made elsewhere lets them begin anew, unless you disable them"
    };
    print(&format!("{} is deleted{back}\n", found.account.id))
}

/// The user that a command line names, by id or address, or by `id` alone.
pub fn find(store: &Store, user: &str, id: bool) -> Result<UserRow, Failure> {
    search(store, user, id)?.ok_or_else(|| nobody(user))
}

fn search(store: &Store, user: &str, id: bool) -> Result<Option<UserRow>, Failure> {
    let mut found = store.find_users(user)?;
    if id {
        found.retain(|found| found.account.id.as_str() == user);
    }
    if found.len() > 1 {
        return Err(Failure::Failed(format!(
            "{user:?} is one user's id and another's address; say --id for the one, and the other's id for the other"
        )));
    }
    Ok(found.pop())
}

fn nobody(user: &str) -> Failure {
    Failure::Failed(format!(
        "there is no user {user:?}; `todo-api user list` shows who there is"
    ))
}

fn hash(password: &Password) -> Result<String, Failure> {
    password::hash(password).map_err(Failure::Failed)
}

/// Asks for a password where somebody sits at a terminal, else reads it from standard input: the first line.
fn ask_for_password() -> Result<Password, Failure> {
    let unreadable =
        |error: io::Error| Failure::Failed(format!("cannot read the password: {error}"));
    let text = if io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(unreadable)?;
        let again = rpassword::prompt_password("Again: ").map_err(unreadable)?;
        if first != again {
            return Err(Failure::Failed("the two are not the same".to_owned()));
        }
        first
    } else {
        let mut line = Vec::new();
        // No password has more bytes than this.
        let most = 4 * (PASSWORD_MAX as u64 + 1) + 2;
        io::stdin()
            .lock()
            .take(most)
            .read_until(b'\n', &mut line)
            .map_err(unreadable)?;
        let line = String::from_utf8(line)
            .map_err(|_| Failure::Failed("the password must be UTF-8".to_owned()))?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    Password::parse(&text).map_err(|problem| Failure::Failed(format!("the password {problem}")))
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}
