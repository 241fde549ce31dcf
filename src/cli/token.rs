//! `todo-api token`: prints a bearer token.

use std::time::Duration;

use super::user::find;
use super::{CommandLine, Failure, print, setup};
use crate::auth::token::Minter;
use crate::domain::account::Email;
use crate::domain::user::UserId;

/// A second.
const HOURS_MIN: f64 = 1.0 / 3600.0;
/// Ten years.
const HOURS_MAX: f64 = 24.0 * 366.0 * 10.0;

commands! {
    "token --user USER [--id] [--email EMAIL] [--hours N]", "Print a bearer token for a user",
        "
  --user USER    the user: an id, or the email address of an account
  --id           USER is an id, even if it looks like an address
  --email EMAIL  an email address to write into the token
  --hours N      how long it is valid (default: JWT_EXPIRATION_HOURS)
", run;
}

fn run(line: &CommandLine) -> Result<(), Failure> {
    let user = line.user();
    let mut id =
        UserId::parse(user).map_err(|problem| Failure::usage(format!("--user {problem}")))?;
    let hours = line.value("hours").map(hours).transpose()?;
    let config = line.config()?;
    let secret = setup::existing_secret(&config)?;
    if !line.has("id") && Email::parse(user).is_ok() {
        let open = setup::open_store(&config)?;
        id = find(&open.store, user, false)?.account.id;
    }
    let lifetime = hours.unwrap_or(config.tokens.lifetime);
    let token = Minter::new(&secret).mint(&id, line.value("email"), lifetime)?;
    print(&format!("{token}\n"))
}

fn hours(text: &str) -> Result<Duration, Failure> {
    let hours = text.parse().ok();
    hours
        .filter(|hours| (HOURS_MIN..=HOURS_MAX).contains(hours))
        .map(|hours: f64| Duration::from_secs_f64(hours * 3600.0))
        .ok_or_else(|| {
            Failure::usage("--hours must be a number from 0.0003 (a second) to 87840 (ten years)")
        })
}
