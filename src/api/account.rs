//! The caller's own account.

use super::auth::{EMAIL_TAKEN, Failure, NO_ACCOUNT, confirmed};
use super::body::json;
use super::openapi::ACCOUNT;
use super::{App, Call, Job};
use crate::auth::caller::Caller;
use crate::auth::password;
use crate::domain::account::{Account, AccountChanges, Confirmation, Email, PasswordChange};
use crate::http::error::Error;
use crate::http::response::Response;
use crate::store::Updated;

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
    match app.store.update_account(&caller.user, &changes)? {
        Updated::Account(account) => Ok(Response::json(200, &account)),
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
#[utoipa::path(delete, path = "/api/auth/me", operation_id = "deleteAccount", tag = ACCOUNT, summary = "Delete the account with all its tasks",
    request_body = Confirmation,
    responses(
        (status = 204, description = "Nothing of the user is left"),
        (status = 409, description = "There is no account here: the token comes from elsewhere")))]
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
        log::info!("account deleted: user={:?}", caller.user.as_str());
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
