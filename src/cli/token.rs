//! `todo-api token`: prints a bearer token.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::user::open_and_find;
use super::{CommandLine, Failure, print, setup};
use crate::auth::token::Minter;
use crate::domain::account::Email;
use crate::domain::user::UserId;

/// From a second to ten years.
const HOURS: RangeInclusive<f64> = 1.0 / 3600.0..=24.0 * 366.0 * 10.0;

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
    let user = line.parsed("user", UserId::parse)?;
    let mut id = user.ok_or("--user is missing")?;
    let hours = line.parsed("hours", hours)?;
    let config = line.config()?;
    let secret = setup::existing_secret(&config)?;
    if !line.has("id") && Email::parse(id.as_str()).is_ok() {
        let (_open, user) = open_and_find(line, id.as_str())?;
        id = user.account.id;
    }
    let lifetime = hours.unwrap_or(config.tokens.lifetime);
    let token = Minter::new(&secret).mint(&id, line.value("email"), lifetime)?;
    print(&format!("{token}\n"))
}

fn hours(text: &str) -> Result<Duration, &'static str> {
    let hours = text.parse().ok().filter(|hours| HOURS.contains(hours));
    hours
        .map(|hours| Duration::from_secs_f64(hours * 3600.0))
        .ok_or("must be a number from 0.0003 (a second) to 87840 (ten years)")
}
