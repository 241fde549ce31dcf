//! The caller's own account.

use super::auth::{EMAIL_TAKEN, FailedLogin, NO_ACCOUNT, prove};
use super::body::json;
use super::{App, Call, HandlerOutcome};
use crate::audit::{Event, Trail};
use crate::auth::caller::Caller;
use crate::auth::password::Hasher;
use crate::domain::account::{Account, AccountChanges, Confirmation, Password, PasswordChange};
use crate::domain::fields::BodyError;
use crate::domain::user::UserId;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::{Everywhere, PasswordCredential, Updated};

/// `GET /api/auth/me`
pub fn show(app: &App, _: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let mut account = app.store.account(&caller.user)?.unwrap_or_else(|| Account {
        id: caller.user.clone(),
        email: None,
        name: None,
        created_at: None,
    });
    // The address of a user who logs in elsewhere is not stored, but may be in the token.
    account.email = account.email.or_else(|| caller.email.clone());
    Ok(Response::json(200, &account).into())
}

/// `PATCH /api/auth/me`
pub fn update(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let changes = json(call.request, AccountChanges::from_json)?;
    if changes.email.is_none() {
        return save(app, &call.request.trail(), &caller.user, &changes, None).map(Into::into);
    }
    if !app.accounts.registration_is_open {
        return Err(Error::Forbidden(
            "registration is closed here, and so only the operator of this server changes an email address",
        ));
    }
    let credential = credential(app, caller)?;
    let confirm = confirm_current(call, credential, changes.current_password.clone())?;
    let (client, trail) = (call.request.client, call.request.trail());
    let user = caller.user.clone();
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        let hash = confirm(app)?.password_hash;
        // The answer says whether an address is taken, as the answer to a registration does.
        app.guessing.registration(client)?;
        save(app, &trail, &user, &changes, Some(&hash))
    })))
}

fn save(
    app: &App,
    trail: &Trail,
    user: &UserId,
    changes: &AccountChanges,
    hash: Option<&str>,
) -> Result<Response, Error> {
    match app.store.update_account(user, changes, hash)? {
        Updated::Account(account) => {
            if changes.name.is_sent() {
                trail.record(user, Event::NameChanged);
            }
            if changes.email.is_some() {
                trail.record(user, Event::EmailChanged);
            }
            Ok(Response::json(200, &account))
        }
        Updated::EmailTaken => Err(EMAIL_TAKEN),
        Updated::NoAccount if hash.is_some() => Err(PASSWORD_CHANGED),
        Updated::NoAccount => Err(NO_ACCOUNT),
    }
}

/// `PUT /api/auth/password`: ends all other sessions.
pub fn change_password(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let change = json(call.request, PasswordChange::from_json)?;
    let wrong = wrong_in("current_password");
    let confirm = confirmation(
        call,
        credential(app, caller)?,
        change.current_password,
        wrong,
    );
    let (caller, trail) = (caller.clone(), call.request.trail());
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        let credential = confirm(app)?;
        let hash = Hasher::take()
            .map_err(Error::Unavailable)?
            .hash(&change.new_password)
            .map_err(Error::Internal)?;
        let everywhere = change.api_tokens.then(|| Everywhere {
            presented: caller.sessionless(),
            api_tokens: true,
        });
        // A stolen copy of this session's token must end too.
        let keep = caller.session().filter(|_| !change.api_tokens);
        let old = Some(credential.password_hash.as_str());
        let ended = app
            .store
            .set_password(&caller.user, old, &hash, keep, everywhere)?
            .ok_or(PASSWORD_CHANGED)?;
        app.guard.revoke(&ended);
        trail.record(&caller.user, Event::PasswordChanged);
        if change.api_tokens {
            app.guard.forget_api_tokens(&caller.user);
            trail.record(&caller.user, Event::ApiTokensDeleted);
        }
        Ok(Response::empty(204))
    })))
}

/// `DELETE /api/auth/me`: the account, its tasks, and everything else of the user.
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<HandlerOutcome, Error> {
    let sent = json(call.request, Confirmation::from_json)?;
    let wrong = wrong_in("password");
    let confirm = confirmation(call, credential(app, caller)?, sent.password, wrong);
    let (user, trail) = (caller.user.clone(), call.request.trail());
    Ok(HandlerOutcome::Job(Box::new(move |app| {
        confirm(app)?;
        let ended = app.store.begin_deletion(&user)?.unwrap_or_default();
        app.guard.revoke(&ended);
        app.guard.forget_api_tokens(&user);
        trail.record(&user, Event::AccountDeleted);
        if let Err(error) = app.store.finish_deletion(&user) {
            // The account is marked as deleted; the hourly upkeep goes on.
            log::warn!(user = user.as_str(); "not all of a deleted account is gone yet: {error}");
        }
        Ok(Response::empty(204))
    })))
}

/// The answer if the password changes between its check and the write.
pub const PASSWORD_CHANGED: Error =
    Error::Conflict("another request has changed the password; try again with the new one");

fn credential(app: &App, caller: &Caller) -> Result<PasswordCredential, Error> {
    app.store.credential_of(&caller.user)?.ok_or(NO_ACCOUNT)
}

fn wrong_in(field: &'static str) -> Error {
    BodyError::in_field(field, "is not the password of this account").into()
}

/// As [`confirmation`], for a field `current_password` that may be absent: without the right password the answer is 403.
pub fn confirm_current(
    call: &Call,
    credential: PasswordCredential,
    sent: Option<Password>,
) -> Result<impl FnOnce(&App) -> Result<PasswordCredential, Error> + Send + use<>, Error> {
    let password = sent.ok_or(Error::Forbidden(
        "this needs the password of the account: send it as current_password",
    ))?;
    let wrong = Error::Forbidden("current_password is not the password of this account");
    Ok(confirmation(call, credential, password, wrong))
}

/// Compares a password with the caller's own, on a thread for hashing. Wrong ones are counted, so that a stolen token cannot be used
/// to guess the password.
fn confirmation(
    call: &Call,
    credential: PasswordCredential,
    password: Password,
    wrong: Error,
) -> impl FnOnce(&App) -> Result<PasswordCredential, Error> + Send + use<> {
    let (user, client) = (credential.account.id.clone(), call.request.client);
    let failure = FailedLogin::of(call.request, user.as_str());
    move |app| {
        let attempt = || app.guessing.own_attempt(&user, client);
        prove(attempt, Some(credential), &password, &failure)?
            .map(|proven| proven.credential)
            .ok_or(wrong)
    }
}
