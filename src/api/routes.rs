//! Every route of the program. A part in square brackets may be left out.

use super::Handler::{self, AtOnce, Public, User};
use super::{health, lists, root, stats, tags, tasks};
use crate::http::request::Method::{Delete, Get, Patch, Post, Put};
use crate::http::router::Route;

/// The routing table: method, pattern, who may call it, handler.
pub fn routes() -> Vec<Route<Handler>> {
    vec![
        Route::new(Get, "/", Public(root::show)),
        Route::new(Get, "/health", AtOnce(health::alive)),
        Route::new(Get, "/health/ready", Public(health::ready)),
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
    ]
}
