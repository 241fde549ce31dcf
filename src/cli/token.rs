//! `todo-api token`: prints a bearer token, so that a person with curl can start at once.

use std::time::Duration;

use super::{Failure, print, setup};
use crate::auth::token::Minter;
use crate::config::Config;
use crate::domain::user::UserId;

/// The options of the command.
#[derive(Default)]
pub struct Options {
    /// `--user`
    pub user: Option<String>,
    /// `--email`
    pub email: Option<String>,
    /// `--hours`
    pub hours: Option<String>,
}

/// Prints a token.
pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let user = options
        .user
        .as_deref()
        .ok_or_else(|| Failure::Usage("token needs --user ID".to_owned()))?;
    let user =
        UserId::parse(user).map_err(|problem| Failure::Usage(format!("--user {problem}")))?;
    let lifetime = match &options.hours {
        None => config.token_lifetime,
        Some(hours) => hours
            .parse()
            .ok()
            .filter(|hours| (1.0 / 3600.0..=24.0 * 366.0 * 10.0).contains(hours))
            .map(|hours: f64| Duration::from_secs_f64(hours * 3600.0))
            .ok_or_else(|| {
                Failure::Usage(
                    "--hours must be a number from 0.0003 (a second) to 87840 (ten years)"
                        .to_owned(),
                )
            })?,
    };
    let secret = setup::signing_secret(config)?;
    let token = Minter::new(&secret)
        .mint(&user, options.email.as_deref(), lifetime)
        .map_err(Failure::Failed)?;
    print(&format!("{token}\n"))
}
