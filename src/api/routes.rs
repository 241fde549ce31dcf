//! Every route of the program. A part in square brackets may be left out.

use super::Handler::{
    self, Account, AccountHashing, AtOnce, Public, PublicHashing, Unlimited, User,
};
use super::{
    account, api_tokens, auth, health, lists, metrics, pages, root, sessions, stats, tags, tasks,
};
use crate::http::request::Method::{Delete, Get, Patch, Post, Put};
use crate::http::router::Route;

/// The routing table: method, pattern, who may call it, handler.
pub fn routes() -> Vec<Route<Handler>> {
    vec![
        Route::new(Get, "/", Unlimited(root::show)),
        Route::new(Get, "/health", AtOnce(health::alive)),
        Route::new(Get, "/health/ready", Unlimited(health::ready)),
        Route::new(Get, "/metrics", Unlimited(metrics::show)),
        Route::new(Get, "/openapi.json", Unlimited(pages::openapi)),
        Route::new(Get, "/docs", Unlimited(pages::docs)),
        Route::new(Get, "/docs/{file}", Unlimited(pages::asset)),
        Route::new(Get, "/redoc", Unlimited(pages::reference)),
        Route::new(Get, "/api/[{user_id}/]tasks", User(lists::list)),
        Route::new(Post, "/api/[{user_id}/]tasks", User(tasks::create)),
        Route::new(Get, "/api/[{user_id}/]tasks/stats", User(stats::show)),
        Route::new(Get, "/api/[{user_id}/]tasks/{id}", User(tasks::show)),
        Route::new(Put, "/api/[{user_id}/]tasks/{id}", User(tasks::update)),
        Route::new(Patch, "/api/[{user_id}/]tasks/{id}", User(tasks::update)),
        Route::new(Delete, "/api/[{user_id}/]tasks/{id}", User(tasks::delete)),
        Route::new(
            Patch,
            "/api/[{user_id}/]tasks/{id}/complete",
            User(tasks::complete),
        ),
        Route::new(Get, "/api/[{user_id}/]tags", User(tags::list)),
        Route::new(Put, "/api/[{user_id}/]tags/{name}", User(tags::rename)),
        Route::new(Delete, "/api/[{user_id}/]tags/{name}", User(tags::delete)),
        Route::new(Post, "/api/auth/register", PublicHashing(auth::register)),
        Route::new(Post, "/api/auth/login", PublicHashing(auth::login)),
        Route::new(Post, "/api/auth/refresh", Public(auth::refresh)),
        Route::new(Post, "/api/auth/logout", Account(auth::logout)),
        Route::new(Post, "/api/auth/logout-all", Account(auth::logout_all)),
        Route::new(Get, "/api/auth/me", Account(account::show)),
        Route::new(Patch, "/api/auth/me", AccountHashing(account::update)),
        Route::new(Delete, "/api/auth/me", AccountHashing(account::delete)),
        Route::new(
            Put,
            "/api/auth/password",
            AccountHashing(account::change_password),
        ),
        Route::new(Get, "/api/auth/sessions", Account(sessions::list)),
        Route::new(Delete, "/api/auth/sessions/{id}", Account(sessions::end)),
        Route::new(Post, "/api/auth/tokens", AccountHashing(api_tokens::create)),
        Route::new(Get, "/api/auth/tokens", Account(api_tokens::list)),
        Route::new(Delete, "/api/auth/tokens/{id}", Account(api_tokens::delete)),
    ]
}
