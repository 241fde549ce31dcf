//! The caller's own account.

use std::sync::Arc;

use super::auth::{EMAIL_TAKEN, Failure, NO_ACCOUNT, prove};
use super::body::json;
use super::{App, Call, Job};
use crate::auth::caller::Caller;
use crate::auth::password;
use crate::domain::account::{Account, AccountChanges, Confirmation, Password, PasswordChange};
use crate::domain::fields::BodyError;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::{Credential, Updated};

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
    if changes.email.is_some() {
        // Whether an address is taken is what registrations tell, too.
        app.guessing.registration(call.request.client)?;
    }
    match app.store.update_account(&caller.user, &changes)? {
        Updated::Account(account) => Ok(Response::json(200, &account)),
        Updated::EmailTaken => Err(EMAIL_TAKEN),
        Updated::NoAccount => Err(NO_ACCOUNT),
    }
}

/// `PUT /api/auth/password`: ends all other sessions.
pub fn change_password(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let change = json(call.request, PasswordChange::from_json)?;
    let confirm = confirmation(
        app,
        call,
        caller,
        "current_password",
        change.current_password,
    )?;
    let caller = caller.clone();
    Ok(Box::new(move || {
        let credential = confirm()?;
        let hash = password::hash(&change.new_password).map_err(Error::Internal)?;
        Ok(Box::new(move |app| {
            let old = Some(credential.password_hash.as_str());
            let ended = app
                .store
                .set_password(&caller.user, old, &hash, caller.session())?
                .ok_or(Error::Conflict(
                    "the password has been changed meanwhile; try again with the new one",
                ))?;
            app.guard.revoke(&ended);
            Ok(Response::empty(204))
        }))
    }))
}

/// `DELETE /api/auth/me`: the account, its tasks, and everything else of the user.
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let sent = json(call.request, Confirmation::from_json)?;
    let confirm = confirmation(app, call, caller, "password", sent.password)?;
    let user = caller.user.clone();
    Ok(Box::new(move || {
        confirm()?;
        Ok(Box::new(move |app| {
            let ended = app.store.begin_deletion(&user)?.unwrap_or_default();
            app.guard.revoke(&ended);
            app.guard.forget_api_tokens(&user);
            log::info!(user = user.as_str(); "account deleted");
            if let Err(error) = app.store.finish_deletion(&user) {
                // That it is to be deleted is committed; the hourly upkeep goes on.
                log::warn!(user = user.as_str(); "not all of a deleted account is gone yet: {error}");
            }
            Ok(Response::empty(204))
        }))
    }))
}

/// Holds a password against the caller's own, on a hashing thread; answers the account.
///
/// A stolen token must not be good for guessing the password it was made with: wrong ones are counted.
fn confirmation(
    app: &App,
    call: &Call,
    caller: &Caller,
    field: &'static str,
    password: Password,
) -> Result<impl FnOnce() -> Result<Credential, Error> + Send + use<>, Error> {
    let credential = app.store.credential_of(&caller.user)?.ok_or(NO_ACCOUNT)?;
    let (guessing, user) = (Arc::clone(&app.guessing), caller.user.clone());
    let failure = Failure::of(call.request, user.as_str());
    Ok(move || {
        let attempt = guessing.own_attempt(&user);
        let wrong = BodyError::in_field(field, "is not the password of this account");
        match prove(attempt, Some(credential), &password, &failure)? {
            Some(proven) => Ok(proven.credential),
            None => Err(wrong.into()),
        }
    })
}
