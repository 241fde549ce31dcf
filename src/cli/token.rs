//! `todo-api token`: prints a bearer token.

use std::time::Duration;

use super::user::find;
use super::{Call, Command, Failure, print, setup};
use crate::auth::token::Minter;
use crate::domain::account::Email;
use crate::domain::user::UserId;

pub const COMMAND: Command = Command {
    usage: "token --user USER [--id] [--email EMAIL] [--hours N]",
    about: "Print a bearer token for a user",
    help: "
  --user USER    whose token it is: an id, or the email address of an account
  --id           USER is an id, even if it looks like an address
  --email EMAIL  the address to name in it
  --hours N      how long it is valid (default: JWT_EXPIRATION_HOURS)
",
    run,
};

fn run(call: &Call) -> Result<(), Failure> {
    let name = call.value("user").unwrap_or_default();
    let id = UserId::parse(name).map_err(|problem| Failure::Usage(format!("--user {problem}")))?;
    let hours = call.value("hours").map(hours).transpose()?;
    let config = call.config()?;
    let secret = setup::existing_secret(&config)?;
    let id = if call.has("id") || Email::parse(name).is_err() {
        id
    } else {
        find(&setup::open_store(&config)?.store, name, false)?
            .account
            .id
    };
    let lifetime = hours.unwrap_or(config.tokens.lifetime);
    let token = Minter::new(&secret).mint(&id, call.value("email"), lifetime)?;
    print(&format!("{token}\n"))
}

fn hours(text: &str) -> Result<Duration, Failure> {
    text.parse()
        .ok()
        .filter(|hours| (1.0 / 3600.0..=24.0 * 366.0 * 10.0).contains(hours))
        .map(|hours: f64| Duration::from_secs_f64(hours * 3600.0))
        .ok_or_else(|| {
            Failure::Usage(
                "--hours must be a number from 0.0003 (a second) to 87840 (ten years)".to_owned(),
            )
        })
}
