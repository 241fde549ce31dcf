//! The caller's own account.

use std::sync::Arc;

use super::auth::{EMAIL_TAKEN, Failure, NO_ACCOUNT, prove};
use super::body::json;
use super::groups::ACCOUNT;
use super::{App, Call, Job};
use crate::audit::Event;
use crate::auth::caller::Caller;
use crate::auth::password;
use crate::domain::account::{Account, AccountChanges, Confirmation, Password, PasswordChange};
use crate::domain::fields::BodyError;
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::{Credential, Updated};

/// `GET /api/auth/me`
#[utoipa::path(get, path = "/api/auth/me", operation_id = "showAccount", tag = ACCOUNT, summary = "Show who is asking",
    responses((status = 200, description = "The account, or as much as the token says of one", body = Account)))]
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
#[utoipa::path(patch, path = "/api/auth/me", operation_id = "updateAccount", tag = ACCOUNT, summary = "Change name or address",
    request_body = AccountChanges,
    responses(
        (status = 200, description = "The account as it is now", body = Account),
        (status = 409, description = "Somebody has this address already, or there is no account here: the token comes from elsewhere")))]
pub fn update(app: &App, call: &Call, caller: &Caller) -> Result<Response, Error> {
    let changes = json(call.request, AccountChanges::from_json)?;
    if changes.email.is_some() {
        // Whether an address is taken is what registrations tell, too.
        app.guessing.registration(call.request.client)?;
    }
    match app.store.update_account(&caller.user, &changes)? {
        Updated::Account(account) => {
            let trail = call.request.trail();
            if changes.name.is_sent() {
                trail.record(&caller.user, Event::NameChanged);
            }
            if changes.email.is_some() {
                trail.record(&caller.user, Event::EmailChanged);
            }
            Ok(Response::json(200, &account))
        }
        Updated::EmailTaken => Err(EMAIL_TAKEN),
        Updated::NoAccount => Err(NO_ACCOUNT),
    }
}

/// `PUT /api/auth/password`: ends all other sessions.
#[utoipa::path(put, path = "/api/auth/password", operation_id = "changePassword", tag = ACCOUNT, summary = "Change the password",
    description = "Ends all other sessions. Wrong current passwords count as failed logins do.",
    request_body = PasswordChange,
    responses(
        (status = 204, description = "The new password holds"),
        (status = 409, description = "The password has been changed meanwhile, or there is none here: the token comes from elsewhere")))]
pub fn change_password(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let change = json(call.request, PasswordChange::from_json)?;
    let confirm = confirmation(app, call, caller, "current_password", change.current)?;
    let (caller, trail) = (caller.clone(), call.request.trail());
    Ok(Box::new(move || {
        let credential = confirm()?;
        let hash = password::hash(&change.new).map_err(Error::Internal)?;
        Ok(Box::new(move |app| {
            let old = Some(credential.password_hash.as_str());
            let ended = app
                .store
                .set_password(&caller.user, old, &hash, caller.session())?
                .ok_or(Error::Conflict(
                    "the password has been changed meanwhile; try again with the new one",
                ))?;
            app.guard.revoke(&ended);
            trail.record(&caller.user, Event::PasswordChanged);
            Ok(Response::empty(204))
        }))
    }))
}

/// `DELETE /api/auth/me`: the account, its tasks, and everything else of the user.
#[utoipa::path(delete, path = "/api/auth/me", operation_id = "deleteAccount", tag = ACCOUNT, summary = "Delete the account with all its tasks",
    request_body = Confirmation,
    responses(
        (status = 204, description = "Nothing of the user is left"),
        (status = 409, description = "There is no account here: the token comes from elsewhere")))]
pub fn delete(app: &App, call: &Call, caller: &Caller) -> Result<Job, Error> {
    let sent = json(call.request, Confirmation::from_json)?;
    let confirm = confirmation(app, call, caller, "password", sent.password)?;
    let (user, trail) = (caller.user.clone(), call.request.trail());
    Ok(Box::new(move || {
        confirm()?;
        Ok(Box::new(move |app| {
            let ended = app.store.begin_deletion(&user)?.unwrap_or_default();
            app.guard.revoke(&ended);
            app.guard.forget_api_tokens(&user);
            trail.record(&user, Event::AccountDeleted);
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
