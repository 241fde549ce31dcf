//! Registration, login, refresh, logout.
//!
//! A worker reads and checks a request that hashes a password. A thread for hashing does the rest.

use super::body::{form, is_form, json};
use super::guessing::Attempt;
use super::{App, Call, HandlerOutcome};
use crate::audit::{Event, Trail};
use crate::auth::caller::{self, Caller};
use crate::auth::issuer::TokenPair;
use crate::auth::opaque;
use crate::auth::password::{Hasher, Match};
use crate::domain::account::{Account, Login, LogoutAll, Password, Registration};
use crate::domain::fields::{BodyError, Fields};
use crate::domain::session::{Revoked, SessionOrigin};
use crate::domain::user::UserId;
use crate::http::error::{Error, Unauthorized};
use crate::http::request::Request;
use crate::http::response::Response;
use crate::metrics;
use crate::store::{Everywhere, NewAccount, PasswordCredential, Refreshed, Registered};

/// For so long a used refresh token is accepted again: its answer may have been lost, or another tab may have it too.
const GRACE: std::time::Duration = std::time::Duration::from_secs(30);

const WRONG: Error = Error::Unauthorized(Unauthorized::Refused("Wrong email address or password"));
const DISABLED: Error =
    Error::Forbidden("this account is disabled; ask the operator of this server");
/// The answer if another account has the email address.
pub const EMAIL_TAKEN: Error = Error::Conflict("an account with this email address exists already");

/// `POST /api/auth/register`
pub fn register(app: &App, call: &Call) -> Result<HandlerOutcome, Error> {
    if !app.accounts.registration_is_open {
        return Err(Error::Forbidden(
            "registration is closed here; ask the operator of this server for an account",
        ));
    }
    app.guessing.registration(call.request.client)?;
    let registration = json(call.request, Registration::from_json)?;
    let (origin, trail) = (origin(call.request), call.request.trail());
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        let password_hash = Hasher::take()
            .map_err(Error::Unavailable)?
            .hash(&registration.password)
            .map_err(Error::Internal)?;
        let (session, refresh_token) = app.issuer.begin(origin).map_err(Error::Internal)?;
        let account = NewAccount {
            id: &UserId::new_local(),
            email: &registration.email,
            name: registration.name.value(),
            password_hash: &password_hash,
        };
        match app.store.register(&account, &session)? {
            Registered::EmailTaken => Err(EMAIL_TAKEN),
            Registered::Account { account, at } => {
                trail.record(&account.id, Event::AccountCreated);
                tokens(201, app.issuer.first(&session, refresh_token, at, account))
            }
        }
    })))
}

/// `POST /api/auth/login`, in JSON or as the password form of OAuth 2.
pub fn login(_: &App, call: &Call) -> Result<HandlerOutcome, Error> {
    let login = if is_form(call.request) {
        Login::from_form(&form(call.request)?)?
    } else {
        json(call.request, Login::from_json)?
    };
    let client = call.request.client;
    let account = login.email.as_ref().map_or("", |email| email.as_str());
    let (origin, failure) = (origin(call.request), FailedLogin::of(call.request, account));
    let trail = call.request.trail();
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        let (credential, network_is_known) = match &login.email {
            Some(email) => {
                let network = client.network().to_string();
                app.store.credential_by_email(email.as_str(), &network)?
            }
            None => (None, false),
        };
        let attempt = || app.guessing.attempt(login.email, client, network_is_known);
        let proven = prove(attempt, credential, &login.password, &failure)?.ok_or(WRONG)?;
        let user = proven.credential.account.id.clone();
        let opened = open_session(app, proven, &login.password, origin, &trail)?;
        trail.record(&user, Event::Login);
        Ok(opened)
    })))
}

fn open_session(
    app: &App,
    proven: Proven,
    password: &Password,
    origin: SessionOrigin,
    trail: &Trail,
) -> Result<Response, Error> {
    let Proven {
        mut credential,
        renewed,
    } = proven;
    if !credential.active {
        return Err(DISABLED);
    }
    let (session, refresh_token) = app.issuer.begin(origin).map_err(Error::Internal)?;
    let id = credential.account.id.clone();
    let outdated = credential.password_hash.clone();
    let mut opened = app.store.open_session(&id, &outdated, &session)?;
    if opened.is_none() {
        // The hash has changed since the look-up. If another login has renewed it, the password is still the same.
        credential = app.store.credential_of(&id)?.ok_or(WRONG)?;
        let hash = credential.password_hash.as_str();
        let mut hasher = Hasher::take().map_err(Error::Unavailable)?;
        let matched = hasher.verify(password, Some(hash));
        if matches!(matched, Match::Yes | Match::YesOutdated) {
            opened = app.store.open_session(&id, hash, &session)?;
        }
    }
    let opened = opened.ok_or(WRONG)?;
    app.guard.revoke(&opened.revoked);
    for revocation in &opened.revoked {
        if let Revoked::Session(session) = revocation.whose {
            trail.record(&id, Event::SessionReplaced(session));
        }
    }
    if let Some(new) = renewed {
        app.store.rehash_password(&id, &outdated, &new)?;
    }
    tokens(
        200,
        app.issuer
            .first(&session, refresh_token, opened.at, credential.account),
    )
}

/// `POST /api/auth/refresh`
pub fn refresh(app: &App, call: &Call) -> Result<HandlerOutcome, Error> {
    app.guessing.refresh(call.request.client)?;
    let RefreshToken {
        refresh_token: presented,
    } = json(call.request, RefreshToken::from_json)?;
    let successor = app.issuer.successor(&presented);
    let refreshed = app.store.refresh_session(
        &opaque::hash(&presented),
        &opaque::hash(&successor.refresh_token),
        GRACE,
        app.issuer.lifetimes(),
        &origin(call.request),
    )?;
    match refreshed {
        Refreshed::Session(session) => {
            let account = Account {
                id: session.user,
                email: session.email,
                name: session.name,
                created_at: Some(session.created_at),
            };
            tokens(
                200,
                app.issuer
                    .pair(session.id, successor, session.used_at, account),
            )
            .map(Into::into)
        }
        Refreshed::Unknown => {
            log::warn!(
                client:% = call.request.client, request_id = call.request.id.as_str();
                "refresh refused"
            );
            Err(Error::Unauthorized(Unauthorized::Refused(
                "The refresh token is not known or has expired; log in again",
            )))
        }
        Refreshed::Reused { user, revoked } => {
            app.guard.revoke(&revoked);
            call.request
                .trail()
                .record(&user, Event::RefreshTokenReused);
            Err(Error::Unauthorized(Unauthorized::Refused(
                "The refresh token was used before, so its session has been ended; log in again",
            )))
        }
    }
}

/// `POST /api/auth/logout`
pub fn logout(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let ended = match &caller.credential {
        caller::Credential::Session(id) => app.store.end_session(&caller.user, *id)?,
        caller::Credential::Token(token) => {
            let refused = app.store.refuse_token(&caller.user, token)?;
            if refused.no_room {
                return log_out_everywhere(app, &call.request.trail(), caller, false);
            }
            refused.revocations
        }
        // No route of accounts accepts an API token.
        caller::Credential::ApiToken(_) => Vec::new(),
    };
    app.guard.revoke(&ended);
    call.request.trail().record(&caller.user, Event::Logout);
    Ok(Response::empty(204).into())
}

/// `POST /api/auth/logout-all`
pub fn logout_all(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let wanted = json(call.request, LogoutAll::from_json)?;
    log_out_everywhere(app, &call.request.trail(), caller, wanted.api_tokens)
}

fn log_out_everywhere(
    app: &App,
    trail: &Trail,
    caller: &Caller,
    api_tokens: bool,
) -> Result<HandlerOutcome, Error> {
    let everywhere = Everywhere {
        presented: caller.sessionless(),
        api_tokens,
    };
    let refused = app.store.log_out_everywhere(&caller.user, everywhere)?;
    app.guard.revoke(&refused.revocations);
    trail.record(&caller.user, Event::LogoutAll);
    if api_tokens {
        app.guard.forget_api_tokens(&caller.user);
        trail.record(&caller.user, Event::ApiTokensDeleted);
    }
    if refused.no_room {
        return Err(Error::Conflict(
            "this token cannot be refused: it does not say before now when it was issued (iat), and 1,000 such tokens are refused already",
        ));
    }
    Ok(Response::empty(204).into())
}

/// An account with the right password.
pub struct Proven {
    /// The account.
    pub credential: PasswordCredential,
    /// A new hash of the password, if the stored one is out of date.
    pub renewed: Option<String>,
}

/// Compares a password with that of an account; `None` if it is wrong. The attempt begins when the password is hashed, so that right
/// logins that wait do not count.
///
/// # Errors
/// There were too many attempts, or a password cannot be hashed, or not now.
pub fn prove(
    attempt: impl FnOnce() -> Result<Attempt, Error>,
    credential: Option<PasswordCredential>,
    password: &Password,
    failure: &FailedLogin,
) -> Result<Option<Proven>, Error> {
    let mut hasher = Hasher::take().map_err(Error::Unavailable)?;
    let attempt = attempt().inspect_err(|_| failure.log("login refused:"))?;
    let hash = credential
        .as_ref()
        .map(|credential| credential.password_hash.as_str());
    let matched = hasher.verify(password, hash);
    if let (Match::Unreadable, Some(credential)) = (matched, &credential) {
        let user = credential.account.id.as_str();
        log::error!(user; "the stored password hash cannot be read: the user needs a new password");
    }
    let (Match::Yes | Match::YesOutdated, Some(credential)) = (matched, credential) else {
        failure.log("login failed:");
        attempt.failed();
        return Ok(None);
    };
    let renewed = match matched {
        Match::YesOutdated => Some(hasher.hash(password).map_err(Error::Internal)?),
        _ => None,
    };
    Ok(Some(Proven {
        credential,
        renewed,
    }))
}

/// The answer to a user without a password here.
pub const NO_ACCOUNT: Error =
    Error::Conflict("this user has no password here; their account is where their token was made");

/// The log line about a wrong password. Tools that ban addresses read it, so it never changes.
pub struct FailedLogin {
    account: String,
    client: String,
    request_id: String,
}

impl FailedLogin {
    /// A failure that names this account.
    pub fn of(request: &Request, account: &str) -> FailedLogin {
        FailedLogin {
            account: account.to_owned(),
            client: request.client.to_string(),
            request_id: request.id.as_str().to_owned(),
        }
    }

    fn log(&self, what: &str) {
        metrics::login_failed();
        // The client's address comes first: the account is text that the client sent, quoted.
        log::warn!(
            client = self.client, account = self.account, request_id = self.request_id;
            "{what}"
        );
    }
}

/// Where a request came from, to be stored with a session.
fn origin(request: &Request) -> SessionOrigin {
    SessionOrigin::new(
        request.client.to_string(),
        request.client.network().to_string(),
        request.headers.get("User-Agent"),
    )
}

fn tokens(status: u16, pair: Result<TokenPair, String>) -> Result<Response, Error> {
    let pair = pair.map_err(Error::Internal)?;
    Ok(Response::json(status, &pair))
}

/// The body of a refresh.
pub struct RefreshToken {
    /// The newest refresh token of the session.
    refresh_token: String,
}

impl RefreshToken {
    fn from_json(body: &[u8]) -> Result<RefreshToken, BodyError> {
        let mut fields = Fields::of(body)?;
        let token = fields.required("refresh_token");
        let refresh_token = fields.finish_with(token)?;
        Ok(RefreshToken { refresh_token })
    }
}
