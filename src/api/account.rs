//! The caller's own account.

use super::auth::{EMAIL_TAKEN, Failure, NO_ACCOUNT, confirmed};
use super::body::json;
use super::{App, Call, Job};
use crate::auth::caller::Caller;
use crate::auth::password;
use crate::domain::account::{Account, AccountChanges, Confirmation, Email, PasswordChange};
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::Updated;

/// `GET /api/auth/me`
pub fn show(app: &App, _: &Call, caller: &Caller) -> Result<Response, Error> {
    let mut account = app.store.account(&caller.user)?.unwrap_or_else(|| Account {
        id: caller.user.clone(),
        email: None,
        name: None,
        created_at: None,
    });
    // Of a user who logs in elsewhere no address is stored; their token may tell.
    account.email = account.email.or_else(|| caller.email.clone());
    Ok(Response::json(200, &account))
}

/// `PATCH /api/auth/me`
pub fn update(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    let changes = json(call.request, AccountChanges::from_json)?;
    match app.store.update_account(&caller.user, &changes)? {
        Updated::Account(account) => Ok(Response::json(200, &account)),
        Updated::EmailTaken => Err(EMAIL_TAKEN),
        Updated::NoAccount => Err(NO_ACCOUNT),
    }
}

/// `PUT /api/auth/password`: ends all other sessions.
pub fn change_password(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let change = json(call.request, PasswordChange::from_json)?;
    let (caller, attempt, failure) = attempt(app, call, caller)?;
    Ok(Box::new(move |app| {
        let field = "current_password";
        let credential = confirmed(app, &caller, field, &change.current, attempt, &failure)?;
        let hash = password::hash(&change.new).map_err(Error::Internal)?;
        let old = Some(credential.password_hash.as_str());
        let ended = app
            .store
            .set_password(&caller.user, old, &hash, caller.session())?
            .ok_or(Error::Conflict(
                "the password has been changed meanwhile; log in with the new one",
            ))?;
        app.guard.revoke(&ended);
        Ok(Response::empty(204))
    }))
}

/// `DELETE /api/auth/me`: the account, its tasks, and everything else of the user.
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let confirmation = json(call.request, Confirmation::from_json)?;
    let (caller, attempt, failure) = attempt(app, call, caller)?;
    Ok(Box::new(move |app| {
        let field = "password";
        confirmed(
            app,
            &caller,
            field,
            &confirmation.password,
            attempt,
            &failure,
        )?;
        let ended = app.store.delete_user(&caller.user)?.unwrap_or_default();
        app.guard.revoke(&ended);
        app.guard.forget_api_tokens(&caller.user);
        log::info!(user = caller.user.as_str(); "account deleted");
        Ok(Response::empty(204))
    }))
}

/// A stolen token must not be good for guessing the password it was made with: that counts as failed logins do.
fn attempt(
    app: &App,
    call: &Call,
    caller: &Caller,
) -> Result<(Caller, crate::auth::guessing::Attempt, Failure), Error> {
    // The token's address is only what is counted under and logged.
    let email = caller
        .email
        .as_deref()
        .and_then(|email| Email::parse(email).ok());
    let attempt = app.guessing.attempt(email.as_ref(), call.request.client)?;
    let failure = Failure::named(call.request, email.as_ref().map_or("", Email::as_str));
    Ok((caller.clone(), attempt, failure))
}
