//! Audit lines: one for each event that concerns an account, at `info`, with the target [`AUDIT_LOG`].

use std::fmt::Display;

use log::{Level, Log, Record};
use uuid::Uuid;

use crate::domain::session::TokenRefusal;
use crate::domain::user::{USER_ID_MAX, UserId};
use crate::logging::AUDIT_LOG;

/// What happened to a user's account, sessions or tokens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// An account was created.
    AccountCreated,
    /// The account was deleted.
    AccountDeleted,
    /// The account was disabled.
    AccountDisabled,
    /// The account was enabled.
    AccountEnabled,
    /// The user logged in with the password.
    Login,
    /// One session ended.
    Logout,
    /// All sessions ended.
    LogoutAll,
    /// A login ended the session that was used longest ago, because an account has at most 100; its id.
    SessionReplaced(Uuid),
    /// A used refresh token was presented again, and its session ended.
    RefreshTokenReused,
    /// The password changed.
    PasswordChanged,
    /// The name changed.
    NameChanged,
    /// The email address changed.
    EmailChanged,
    /// An API token was created; its id.
    ApiTokenCreated(Uuid),
    /// An API token was deleted; its id.
    ApiTokenDeleted(Uuid),
    /// All API tokens were deleted.
    ApiTokensDeleted,
    /// A token of the user, with a valid signature, was refused.
    TokenRefused(TokenRefusal),
    /// The user named another user in the path.
    ForeignPath(&'e str),
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Event::AccountCreated => "account_created",
            Event::AccountDeleted => "account_deleted",
            Event::AccountDisabled => "account_disabled",
            Event::AccountEnabled => "account_enabled",
            Event::Login => "login",
            Event::Logout => "logout",
            Event::LogoutAll => "logout_all",
            Event::SessionReplaced(_) => "session_replaced",
            Event::RefreshTokenReused => "refresh_token_reused",
            Event::PasswordChanged => "password_changed",
            Event::NameChanged => "name_changed",
            Event::EmailChanged => "email_changed",
            Event::ApiTokenCreated(_) => "api_token_created",
            Event::ApiTokenDeleted(_) => "api_token_deleted",
            Event::ApiTokensDeleted => "api_tokens_deleted",
            Event::TokenRefused(TokenRefusal::Expired) => "expired_token_refused",
            Event::TokenRefused(TokenRefusal::Revoked) => "revoked_token_refused",
            Event::TokenRefused(TokenRefusal::Invalid(_)) => "invalid_token_refused",
            Event::ForeignPath(_) => "foreign_path",
        }
    }

    fn detail(&self) -> Option<(&'static str, String)> {
        match self {
            Event::ApiTokenCreated(id) | Event::ApiTokenDeleted(id) => {
                Some(("api_token", id.to_string()))
            }
            Event::SessionReplaced(id) => Some(("session", id.to_string())),
            Event::TokenRefused(TokenRefusal::Invalid(why)) => Some(("reason", (*why).to_owned())),
            // Longer text names no user, and the length of a line is limited.
            Event::ForeignPath(user) => {
                Some(("other_user", user.chars().take(USER_ID_MAX).collect()))
            }
            _ => None,
        }
    }
}

/// Writes the audit lines of a request or of a command.
#[derive(Clone, Debug)]
pub struct Trail {
    client: String,
    request_id: String,
}

impl Trail {
    /// The trail of a request of this client.
    pub fn new(client: impl Display, request_id: &str) -> Trail {
        Trail {
            client: client.to_string(),
            request_id: request_id.to_owned(),
        }
    }

    /// The trail of a command that an operator runs.
    pub fn of_command() -> Trail {
        Trail::new("command", "")
    }

    /// Writes the line of an event.
    pub fn record(&self, user: &UserId, event: Event) {
        self.record_in(log::logger(), user, event);
    }

    /// As [`Trail::record`], in this log.
    pub fn record_in(&self, log: &dyn Log, user: &UserId, event: Event) {
        let detail = event.detail();
        let mut fields = vec![
            ("event", event.name()),
            ("user", user.as_str()),
            ("client", &self.client),
            ("request_id", &self.request_id),
        ];
        fields.extend(detail.as_ref().map(|(name, value)| (*name, value.as_str())));
        // The macros of `log` take a fixed list of fields only.
        log.log(
            &Record::builder()
                .level(Level::Info)
                .target(AUDIT_LOG)
                .args(format_args!(""))
                .key_values(&fields)
                .build(),
        );
    }
}
