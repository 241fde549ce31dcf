//! `todo-api user`: looks after users.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal, Read};

use super::{Call, Command, Failure, print, setup};
use crate::audit::{Event, Trail};
use crate::auth::password::Hasher;
use crate::domain::account::{Account, AccountChanges, Email, Name, PASSWORD_MAX, Password};
use crate::domain::fields::Patch;
use crate::domain::user::UserId;
use crate::store::{NewAccount, Registered, Store, Updated, UserRow};

/// Users read from the database at once.
const PAGE: i64 = 1_000;

const PASSWORD: &str =
    "\nThe password is read from standard input, or asked for when that is a terminal.\n";
const BY_ID: &str = "\n  --id  USER is an id, even if it looks like an address or is unknown\n";

pub const COMMANDS: &[Command] = &[
    Command {
        usage: "user add EMAIL [--name NAME]",
        about: "Make an account; asks for the password",
        help: PASSWORD,
        run: add,
    },
    Command {
        usage: "user list",
        about: "List all users",
        help: "",
        run: list,
    },
    Command {
        usage: "user password USER [--id]",
        about: "Set a user's password and end the user's sessions; asks for the password",
        help: PASSWORD,
        run: set_password,
    },
    Command {
        usage: "user email USER EMAIL [--id]",
        about: "Change the address a user logs in with",
        help: BY_ID,
        run: set_email,
    },
    Command {
        usage: "user disable USER [--id]",
        about: "Refuse all tokens of a user, of every issuer",
        help: BY_ID,
        run: |call| set_active(call, false),
    },
    Command {
        usage: "user enable USER [--id]",
        about: "Accept a disabled user's tokens again",
        help: BY_ID,
        run: |call| set_active(call, true),
    },
    Command {
        usage: "user delete USER --yes [--id]",
        about: "Delete a user with all tasks",
        help: BY_ID,
        run: delete,
    },
];

fn add(call: &Call) -> Result<(), Failure> {
    let (email, name) = (call.word(0), call.value("name"));
    let email = address(email)?;
    let name = name
        .map(Name::parse)
        .transpose()
        .map_err(|problem| Failure::Usage(format!("--name {problem}")))?;
    let hash = hash(&ask_for_password()?)?;
    let open = setup::open_store(&call.config()?)?;
    let account = NewAccount {
        id: &UserId::new_local(),
        email: &email,
        name: name.as_ref(),
        password_hash: &hash,
    };
    match open.store.add_account(&account)? {
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

fn list(call: &Call) -> Result<(), Failure> {
    let open = setup::open_store(&call.config()?)?;
    let mut after = String::new();
    loop {
        let users = open.store.list_users(&after, PAGE)?;
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

fn set_password(call: &Call) -> Result<(), Failure> {
    let user = call.word(0);
    let hash = hash(&ask_for_password()?)?;
    let open = setup::open_store(&call.config()?)?;
    let found = find(&open.store, user, call.has("id"))?;
    let ended = open
        .store
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

fn set_email(call: &Call) -> Result<(), Failure> {
    let (user, email) = (call.word(0), address(call.word(1))?);
    let open = setup::open_store(&call.config()?)?;
    let found = find(&open.store, user, call.has("id"))?;
    let changes = AccountChanges {
        email: Some(email.clone()),
        name: Patch::Keep,
        current_password: None,
    };
    match open
        .store
        .update_account(&found.account.id, &changes, None)?
    {
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

fn set_active(call: &Call, active: bool) -> Result<(), Failure> {
    let (user, by_id) = (call.word(0), call.has("id"));
    let open = setup::open_store(&call.config()?)?;
    let id = match search(&open.store, user, by_id)? {
        Some(found) => found.account.id,
        // A user known only to another issuer has no row here yet.
        None if by_id => {
            UserId::parse(user).map_err(|problem| Failure::Usage(format!("the id {problem}")))?
        }
        None => {
            return Err(Failure::Failed(format!(
                "there is no user {user:?}; add --id for the id of a user that only another issuer knows"
            )));
        }
    };
    open.store.set_active(&id, active)?;
    let event = if active {
        Event::AccountEnabled
    } else {
        Event::AccountDisabled
    };
    Trail::of_command().record(&id, event);
    print(&if active {
        format!("{id} is enabled again\n")
    } else {
        format!("{id} is disabled; running servers refuse their tokens within two seconds\n")
    })
}

fn delete(call: &Call) -> Result<(), Failure> {
    let user = call.word(0);
    let open = setup::open_store(&call.config()?)?;
    let found = find(&open.store, user, call.has("id"))?;
    open.store.begin_deletion(&found.account.id)?;
    Trail::of_command().record(&found.account.id, Event::AccountDeleted);
    open.store.finish_deletion(&found.account.id)?;
    let back = if found.has_password {
        ""
    } else {
        "; a token made elsewhere lets them begin anew, unless you disable them"
    };
    print(&format!("{} is deleted{back}\n", found.account.id))
}

/// The user that a command line names, by id or address, or by `id` alone.
pub fn find(store: &Store, user: &str, id: bool) -> Result<UserRow, Failure> {
    search(store, user, id)?.ok_or_else(|| unknown(user))
}

fn search(store: &Store, user: &str, id: bool) -> Result<Option<UserRow>, Failure> {
    let mut found = store.find_users(user)?;
    if id {
        found.retain(|found| found.account.id.as_str() == user);
    }
    if found.len() > 1 {
        return Err(Failure::Failed(format!(
            "{user:?} is one user's id and another's address; add --id for the first, or name the second by id"
        )));
    }
    Ok(found.pop())
}

fn unknown(user: &str) -> Failure {
    Failure::Failed(format!(
        "there is no user {user:?}; `todo-api user list` lists all"
    ))
}

fn hash(password: &Password) -> Result<String, Failure> {
    Hasher::take().hash(password).map_err(Failure::Failed)
}

/// Asks for a password on a terminal, else reads the first line of standard input.
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
