//! `todo-api user`: manages users.

use std::io::{self, BufRead, IsTerminal, Read};

use super::setup::OpenStore;
use super::{CommandLine, Failure, print, setup};
use crate::audit::{Event, Trail};
use crate::auth::password::Hasher;
use crate::domain::account::{Account, AccountChanges, Email, Name, PASSWORD_MAX, Password};
use crate::domain::fields::Patch;
use crate::domain::user::UserId;
use crate::store::{NewAccount, Registered, Store, Updated, UserRow};

/// Users read from the database at once.
const PAGE: i64 = 1_000;

const ADD: &str = "
  --name NAME  the user's name

The password is read from standard input, or asked for when that is a terminal.
";
const LIST: &str = "
The columns are id, state, time of creation, address and name. The states are active, disabled
and outside: the user has no password here, and comes with tokens of another issuer.
";
const PASSWORD: &str = "
  --id  USER is an id, even if it looks like an address

The password is read from standard input, or asked for when that is a terminal.
";
const ID: &str = "\n  --id  USER is an id, even if it looks like an address\n";
const ANY_ID: &str =
    "\n  --id  USER is an id, even if it looks like an address or is not known here\n";
const DELETE: &str = "
  --yes  confirm that the tasks are deleted too, and cannot be restored
  --id   USER is an id, even if it looks like an address
";

commands! {
    "user add EMAIL [--name NAME]", "Make an account; asks for the password", ADD, add;
    "user list", "List all users", LIST, list;
    "user password USER [--id]", "Set a user's password and end the user's sessions; asks for the password",
        PASSWORD, set_password;
    "user email USER EMAIL [--id]", "Change the address a user logs in with", ID, set_email;
    "user disable USER [--id]", "Refuse all tokens of a user, of every issuer", ANY_ID, |line| set_active(line, false);
    "user enable USER [--id]", "Accept a disabled user's tokens again", ANY_ID, |line| set_active(line, true);
    "user delete USER --yes [--id]", "Delete a user with all tasks", DELETE, delete;
}

/// The open store, and the user with this id or address, or with `--id` only the user with this id.
pub fn open_and_find(line: &CommandLine, user: &str) -> Result<(OpenStore, UserRow), Failure> {
    let open = setup::open_store(&line.config()?)?;
    let found = find(&open.store, user, line.has("id"))?;
    let problem = || format!("there is no user {user:?}; `todo-api user list` lists all");
    Ok((open, found.ok_or_else(problem)?))
}

fn store_and_user(line: &CommandLine) -> Result<(OpenStore, UserRow), Failure> {
    open_and_find(line, line.argument(0))
}

fn add(line: &CommandLine) -> Result<(), Failure> {
    let email = address(line.argument(0))?;
    let name = line.parsed("name", Name::parse)?;
    let open = setup::open_store(&line.config()?)?;
    let hash = hash(&ask_for_password()?)?;
    let account = NewAccount {
        id: &UserId::new_local(),
        email: &email,
        name: name.as_ref(),
        password_hash: &hash,
    };
    match open.store.add_account(&account)? {
        Registered::Account { account, .. } => {
            let id = account.id;
            Trail::of_command().record(&id, Event::AccountCreated);
            print(&format!("added {} with the id {id}\n", email.as_str()))
        }
        Registered::EmailTaken => Err(taken(&email)),
    }
}

fn address(text: &str) -> Result<Email, Failure> {
    Email::parse(text).map_err(|problem| Failure::usage(format!("the address {problem}")))
}

fn taken(email: &Email) -> Failure {
    format!("{} has an account already", email.as_str()).into()
}

fn list(line: &CommandLine) -> Result<(), Failure> {
    let open = setup::open_store(&line.config()?)?;
    let mut after = String::new();
    loop {
        let users = open.store.list_users(&after, PAGE)?;
        let Some(last) = users.last() else {
            return Ok(());
        };
        after = last.account.id.as_str().to_owned();
        print(&users.iter().map(row).collect::<String>())?;
    }
}

/// Id, state, time of creation, address and name, separated by tabs. None of them holds a control character.
fn row(user: &UserRow) -> String {
    let Account { id, .. } = &user.account;
    let state = match (user.active, user.has_password) {
        (false, _) => "disabled",
        (true, true) => "active",
        (true, false) => "outside",
    };
    let since = user.account.created_at;
    let since = since.map_or(String::new(), |at| at.to_string());
    let texts = [&user.account.email, &user.account.name];
    let [email, name] = texts.map(|text| text.as_deref().unwrap_or("-"));
    format!("{id}\t{state}\t{since}\t{email}\t{name}\n")
}

fn set_password(line: &CommandLine) -> Result<(), Failure> {
    let (open, user) = store_and_user(line)?;
    if !user.has_password {
        return Err(no_password(line));
    }
    let id = &user.account.id;
    let hash = hash(&ask_for_password()?)?;
    let ended = open.store.set_password(id, None, &hash, None, None)?;
    let ended = ended.ok_or_else(|| no_password(line))?.len();
    Trail::of_command().record(id, Event::PasswordChanged);
    print(&format!("the password is set; {ended} sessions ended\n"))
}

fn no_password(line: &CommandLine) -> Failure {
    let user = line.argument(0);
    format!("{user} has no password here: the user comes with tokens of another issuer").into()
}

fn set_email(line: &CommandLine) -> Result<(), Failure> {
    let email = address(line.argument(1))?;
    let (open, user) = store_and_user(line)?;
    let changes = AccountChanges {
        email: Some(email.clone()),
        name: Patch::Keep,
        current_password: None,
    };
    let (id, store) = (&user.account.id, &open.store);
    match store.update_account(id, &changes, None)? {
        Updated::Account(Account { id, .. }) => {
            Trail::of_command().record(&id, Event::EmailChanged);
            let email = email.as_str();
            print(&format!("{id} logs in with {email} from now on\n"))
        }
        Updated::EmailTaken => Err(taken(&email)),
        Updated::NoAccount => Err(no_password(line)),
    }
}

fn set_active(line: &CommandLine, active: bool) -> Result<(), Failure> {
    let (user, by_id) = (line.argument(0), line.has("id"));
    let open = setup::open_store(&line.config()?)?;
    let id = find_or_take_id(&open.store, user, by_id)?;
    open.store.set_active(&id, active)?;
    let refused = "disabled; running servers refuse their tokens within two seconds";
    let (event, result) = match active {
        true => (Event::AccountEnabled, "enabled again"),
        false => (Event::AccountDisabled, refused),
    };
    Trail::of_command().record(&id, event);
    print(&format!("{id} is {result}\n"))
}

fn delete(line: &CommandLine) -> Result<(), Failure> {
    let (open, user) = store_and_user(line)?;
    let id = &user.account.id;
    open.store.begin_deletion(id)?;
    Trail::of_command().record(id, Event::AccountDeleted);
    open.store.finish_deletion(id)?;
    let warning = match user.has_password {
        true => "",
        false => "; with a token of another issuer they can start again, unless you disable them",
    };
    print(&format!("{id} is deleted{warning}\n"))
}

/// The id of the user with this id or address. With `--id` it may be one that is not known here: a user of another issuer has no row before
/// the first write.
pub fn find_or_take_id(store: &Store, user: &str, by_id: bool) -> Result<UserId, Failure> {
    match find(store, user, by_id)? {
        Some(found) => Ok(found.account.id),
        None if by_id => {
            UserId::parse(user).map_err(|problem| Failure::usage(format!("the id {problem}")))
        }
        None => Err(format!(
            "there is no user {user:?}; add --id for the id of a user that only another issuer knows"
        )
        .into()),
    }
}

fn find(store: &Store, user: &str, by_id: bool) -> Result<Option<UserRow>, Failure> {
    let mut found = store.find_users(user)?;
    if by_id {
        found.retain(|found| found.account.id.as_str() == user);
    }
    if found.len() > 1 {
        Err(format!(
            "{user:?} is one user's id and another's address; add --id for the first, or name the second by id"
        ))?;
    }
    Ok(found.pop())
}

fn hash(password: &Password) -> Result<String, Failure> {
    Hasher::take()
        .and_then(|mut hasher| hasher.hash(password))
        .map_err(Failure::from)
}

/// Asks for a password on a terminal, else reads the first line of standard input.
fn ask_for_password() -> Result<Password, Failure> {
    let unreadable = |error: io::Error| format!("cannot read the password: {error}");
    let text = if io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(unreadable)?;
        let again = rpassword::prompt_password("Again: ").map_err(unreadable)?;
        match first == again {
            true => first,
            false => Err("the two passwords are not the same")?,
        }
    } else {
        // No password has more bytes than this.
        let most = 4 * (PASSWORD_MAX as u64 + 1) + 2;
        let mut line = Vec::new();
        let mut stdin = io::stdin().lock().take(most);
        stdin.read_until(b'\n', &mut line).map_err(unreadable)?;
        let line = String::from_utf8(line).map_err(|_| "the password must be UTF-8")?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    Ok(Password::parse(&text).map_err(|problem| format!("the password {problem}"))?)
}
