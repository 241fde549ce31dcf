//! Register, log in, go on, log out.
//!
//! What hashes a password is done in two steps: the worker reads and checks, and hands the rest over to the hashing threads.

use super::body::{form, is_form, json};
use super::{App, Call, Job};
use crate::auth::caller::Caller;
use crate::auth::guessing::Attempt;
use crate::auth::issuer::TokenPair;
use crate::auth::opaque;
use crate::auth::password::{self, Match};
use crate::domain::account::{Account, Login, Password, Registration};
use crate::domain::fields::{BodyError, Field, Fields, string};
use crate::domain::session::Origin;
use crate::domain::user::UserId;
use crate::http::error::{Error, Unauthorized};
use crate::http::request::Request;
use crate::http::response::Response;
use crate::metrics;
use crate::store::{Credential, NewAccount, Refreshed, Registered};

/// For so long a refresh token may be presented again: its answer may have been lost, or another tab holds it too.
const GRACE: std::time::Duration = std::time::Duration::from_secs(30);

const WRONG: Error = Error::Unauthorized(Unauthorized::Refused("Wrong email address or password"));
const DISABLED: Error = Error::Forbidden("this account is disabled; ask whoever runs this server");
/// What is said to whoever takes an address that somebody has.
pub const EMAIL_TAKEN: Error = Error::Conflict("an account with this email address exists already");

/// `POST /api/auth/register`
pub fn register(app: &App, call: &Call) -> Result<Job, Error> {
    if !app.registration_is_open {
        return Err(Error::Forbidden(
            "registration is closed here; ask whoever runs this server for an account",
        ));
    }
    let registration = json(call.request, Registration::from_json)?;
    app.guessing.registration(call.request.client)?;
    let origin = origin(call.request);
    Ok(Box::new(move |app| {
        let password_hash = password::hash(&registration.password).map_err(Error::Internal)?;
        let (session, refresh_token) = app.issuer.begin(origin).map_err(Error::Internal)?;
        let account = NewAccount {
            id: &UserId::new_local(),
            email: &registration.email,
            name: registration.name.as_ref(),
            password_hash: &password_hash,
        };
        match app.store.register(&account, &session)? {
            Registered::EmailTaken => Err(EMAIL_TAKEN),
            Registered::Account(account) => {
                log::info!(user = account.id.as_str(); "registered");
                tokens(201, app.issuer.first(&session, refresh_token, account))
            }
        }
    }))
}

/// `POST /api/auth/login`, in JSON or as the password form of OAuth 2.
pub fn login(app: &App, call: &Call) -> Result<Job, Error> {
    let login = if is_form(call.request) {
        Login::from_form(&form(call.request)?)?
    } else {
        json(call.request, Login::from_json)?
    };
    let attempt = app
        .guessing
        .attempt(login.email.as_ref(), call.request.client)?;
    let (origin, failure) = (origin(call.request), Failure::of(call.request, &login));
    Ok(Box::new(move |app| {
        let credential = match &login.email {
            Some(email) => app.store.credential_by_email(email.as_str())?,
            None => None,
        };
        let Some(credential) = matching(app, credential, &login.password)? else {
            failure.log();
            attempt.failed();
            return Err(WRONG);
        };
        drop(attempt);
        if !credential.active {
            return Err(DISABLED);
        }
        let (session, refresh_token) = app.issuer.begin(origin).map_err(Error::Internal)?;
        let account = credential.account;
        // The password may have been changed, or its owner been disabled, since we looked.
        if !app
            .store
            .open_session(&account.id, &credential.password_hash, &session)?
        {
            return Err(WRONG);
        }
        tokens(200, app.issuer.first(&session, refresh_token, account))
    }))
}

/// `POST /api/auth/refresh`
pub fn refresh(app: &App, call: &Call) -> Result<Response, Error> {
    let RefreshToken(presented) = json(call.request, RefreshToken::from_json)?;
    app.guessing.refresh(call.request.client)?;
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
            log::warn!(
                user = user.as_str(), client:% = call.request.client, request_id = call.request.id.as_str();
                "a refresh token was used again: its session is ended"
            );
            Err(Error::Unauthorized(Unauthorized::Refused(
                "The refresh token was used before, so its session has been ended; log in again",
            )))
        }
    }
}

/// `POST /api/auth/logout`
pub fn logout(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    let session = caller.session().ok_or(Error::Forbidden(
        "this token belongs to no session of this server; it ends where it was made",
    ))?;
    app.guard
        .revoke(&app.store.end_session(&caller.user, session)?);
    Ok(Response::empty(204))
}

/// `POST /api/auth/logout-all`
pub fn logout_all(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    app.guard.revoke(&app.store.end_all_sessions(&caller.user)?);
    Ok(Response::empty(204))
}

/// Lets a password be held against an account's, once its turn to try has been taken. The account, where it is right; a hash that
/// is out of date is renewed.
pub fn matching(
    app: &App,
    credential: Option<Credential>,
    password: &Password,
) -> Result<Option<Credential>, Error> {
    let hash = credential
        .as_ref()
        .map(|credential| credential.password_hash.as_str());
    let matched = password::verify(password, hash).map_err(Error::Internal)?;
    Ok(match (matched, credential) {
        (Match::Yes, Some(credential)) => Some(credential),
        (Match::YesOutdated, Some(credential)) => Some(renewed(app, credential, password)?),
        _ => None,
    })
}

fn renewed(
    app: &App,
    mut credential: Credential,
    password: &Password,
) -> Result<Credential, Error> {
    let new = password::hash(password).map_err(Error::Internal)?;
    app.store
        .rehash_password(&credential.account.id, &credential.password_hash, &new)?;
    credential.password_hash = new;
    Ok(credential)
}

/// Holds a password against the caller's own; answers the account.
pub fn confirmed(
    app: &App,
    caller: &Caller,
    field: &'static str,
    password: &Password,
    attempt: Attempt,
    failure: &Failure,
) -> Result<Credential, Error> {
    let Some(credential) = app.store.credential_of(&caller.user)? else {
        return Err(NO_ACCOUNT);
    };
    match matching(app, Some(credential), password)? {
        Some(credential) => Ok(credential),
        None => {
            failure.log();
            attempt.failed();
            Err(BodyError::in_field(field, "is not the password of this account").into())
        }
    }
}

/// What is said to a user whose password is somewhere else.
pub const NO_ACCOUNT: Error =
    Error::Conflict("this user has no password here; their account is where their token was made");

/// What is logged when a password was wrong. The line is stable: tools that ban addresses read it.
pub struct Failure {
    account: String,
    client: String,
    request_id: String,
}

impl Failure {
    fn of(request: &Request, login: &Login) -> Failure {
        Failure::named(
            request,
            login.email.as_ref().map_or("", |email| email.as_str()),
        )
    }

    /// A failure that names this account.
    pub fn named(request: &Request, account: &str) -> Failure {
        Failure {
            account: account.to_owned(),
            client: request.client.to_string(),
            request_id: request.id.as_str().to_owned(),
        }
    }

    fn log(&self) {
        metrics::login_failed();
        log::warn!(
            client = self.client, account = self.account, request_id = self.request_id;
            "login failed:"
        );
    }
}

/// Where a request came from, to be remembered with a session.
fn origin(request: &Request) -> Origin {
    Origin::new(
        request.client.to_string(),
        request.headers.get("User-Agent"),
    )
}

fn tokens(status: u16, pair: Result<TokenPair, String>) -> Result<Response, Error> {
    let pair = pair.map_err(Error::Internal)?;
    Ok(Response::json(status, &pair).header("Cache-Control", "no-store"))
}

/// The body of a refresh.
struct RefreshToken(String);

impl RefreshToken {
    fn from_json(body: &[u8]) -> Result<RefreshToken, BodyError> {
        let mut fields = Fields::of(body)?;
        let token = fields.required("refresh_token");
        fields.finish_with(token)
    }
}

impl Field for RefreshToken {
    fn from_json(json: &str) -> Result<RefreshToken, &'static str> {
        string(json).map(RefreshToken)
    }
}
