//! Every route of the program, described once. The router reads method, pattern and handler; the generator of the API's description
//! (`tests/it/documents`) reads the whole row.
//!
//! A row has four parts:
//! 1. the method, the pattern (a part in square brackets may be left out), another path after `|`, who may call it with the handler,
//!    and the operation's id;
//! 2. a summary and a description;
//! 3. `takes`: parameters beside those of the path; `body` or `optional_body`: the types of the body;
//! 4. its own answers: status, type of the body, meaning, and header fields. The generator adds errors that follow from the rest of the
//!    row (401 if a token is needed, 422 if a body is read).

use super::Handler::{self, Account, AtOnce, Grouped, Public, Unlimited, User};
use super::{
    Resource, account, api_tokens, auth, bulk, changes, health, lists, metrics, pages, root,
    sessions, stats, tags, tasks, transfer, trash,
};
use crate::domain::api_token::Scope;
use crate::http::request::Method::{self, Delete, Get, Patch, Post, Put};
use crate::http::router::Route;

/// One row of the table.
pub struct RouteRow {
    /// The method. GET answers HEAD, too.
    pub method: Method,
    /// The paths.
    pub pattern: &'static str,
    /// Other paths, which front ends of this family use.
    pub aliases: &'static [&'static str],
    /// Who may call it, and the function that answers.
    pub handler: Handler,
    /// The group in which the description shows it.
    pub group: &'static str,
    /// The operation's id in the description.
    pub id: &'static str,
    /// A title.
    pub summary: &'static str,
    /// One or two sentences.
    pub description: &'static str,
    /// Names of the parameters that are not in the path.
    pub takes: &'static [&'static str],
    /// The types of the body.
    pub body: &'static [&'static str],
    /// Whether the body may be absent.
    pub body_is_optional: bool,
    /// Its own answers.
    pub answers: &'static [RouteAnswer],
}

/// An answer of a route.
pub struct RouteAnswer {
    /// The status.
    pub status: u16,
    /// The type of the body, where there is one.
    pub body: &'static [&'static str],
    /// When the route answers this.
    pub meaning: &'static str,
    /// Its own header fields.
    pub fields: &'static [&'static str],
}

/// The groups of operations in the order they are shown, and what is in them.
pub const GROUPS: &[(&str, &str)] = &[
    ("Tasks", "The caller's tasks."),
    ("Tags", "Words by which the caller groups tasks."),
    (
        "Account",
        "Registration, login, and the caller's own account. Users of other systems need none.",
    ),
    ("Sessions", "Where the caller is logged in."),
    (
        "API tokens",
        "Tokens for scripts. They work on the routes of tasks and tags only.",
    ),
    (
        "Service",
        "The state and the documentation of the service. No token is needed.",
    ),
    (
        WITH_USER,
        "The same routes with the user in the path. It must be the token's user; another one is answered 403 before any look-up.",
    ),
];

/// The group of the second form of paths.
pub const WITH_USER: &str = "With the user in the path";

/// Tasks and their tags.
static TASKS: Resource = Resource {
    read: Scope::TasksRead,
    write: Scope::TasksWrite,
    other_user: "Forbidden: not authorized to access another user's tasks",
};

macro_rules! table {
    ($($group:literal {$(
        $method:ident $pattern:literal $(| $alias:literal)? $access:ident ($($handler:tt)*) $id:ident
        $summary:literal $description:literal
        $(takes [$($parameter:literal),*])? $(body [$($body:ident),*])? $(optional_body [$($optional:ident),*])?
        $($status:literal $($answer:ident)? $meaning:literal $(fields [$($field:literal),*])?),+ ;
    )*})*) => {
        /// The routing table.
        pub static ROUTES: &[RouteRow] = &[$($(RouteRow {
            method: $method,
            pattern: $pattern,
            aliases: &[$($alias)?],
            handler: $access($($handler)*),
            group: $group,
            id: stringify!($id),
            summary: $summary,
            description: $description,
            takes: &[$($($parameter),*)?],
            body: &[$($(stringify!($body)),*)? $($(stringify!($optional)),*)?],
            body_is_optional: false $($(|| !stringify!($optional).is_empty())*)?,
            answers: &[$(RouteAnswer {
                status: $status,
                body: &[$(stringify!($answer))?],
                meaning: $meaning,
                fields: &[$($($field),*)?],
            }),+],
        }),*),*];
    };
}

table! {
    "Service" {
        Get "/" Unlimited(root::show) about
            "Show what this is" "Name, version, and the paths to start from. A browser gets a page."
            200 About "Name, version, links";
        Get "/health" AtOnce(health::alive) health
            "Say whether the server is alive" "Does not ask the database."
            200 Alive "The server is alive";
        Get "/health/ready" Unlimited(health::ready) ready
            "Say whether tasks can be served" "Asks the database. For load balancers."
            200 Ready "Tasks can be served",
            503 Ready "Tasks cannot be served; `checks` names what is not ready" fields ["Retry-After"];
        Get "/metrics" Unlimited(metrics::show) metrics
            "Show the metrics, for Prometheus" "For the addresses in `METRICS_ALLOW`, and for clients that send `METRICS_TOKEN` as a bearer token."
            200 Metrics "Metrics",
            403 "The metrics are not for this client";
        Get "/openapi.json" Unlimited(pages::openapi) openapi
            "Show the API's description" "For client generators."
            200 Json "This description (OpenAPI 3.1)",
            304 "The client has it already (`If-None-Match`)";
        Get "/docs" Unlimited(pages::docs) docs
            "Show a page to try the API on" "Swagger UI. It loads nothing from other servers."
            200 Html "A page for browsers",
            304 "The client has it already (`If-None-Match`)";
        Get "/docs/{file}" Unlimited(pages::asset) docsFile
            "Show a file that the pages load" "Scripts, style sheets and pictures of `/docs` and `/redoc`."
            200 Asset "A script, style sheet or picture",
            304 "The client has it already (`If-None-Match`)";
        Get "/redoc" Unlimited(pages::reference) reference
            "Show the API's reference" "One page for reading and printing."
            200 Html "A page that needs no JavaScript",
            304 "The client has it already (`If-None-Match`)";
    }
    "Tasks" {
        Get "/api/[{user_id}/]tasks" User(&TASKS, lists::list) listTasks
            "List tasks" "The newest first, unless `sort` says otherwise. Only one of `cursor`, `offset` and `page` can be used."
            takes ["list"]
            200 TaskList "The tasks" fields ["Link"];
        Post "/api/[{user_id}/]tasks" Grouped(&TASKS, tasks::create) createTask
            "Create a task" "Only `title` is required. With an `Idempotency-Key` it is safe to send the same request again."
            takes ["Idempotency-Key"] body [NewTask]
            201 Task "The task as it was created" fields ["Location", "ETag", "Idempotency-Replayed"],
            409 "A task with the `id` that was sent exists already, or a request with this key is still running";
        Patch "/api/[{user_id}/]tasks" User(&TASKS, bulk::update_matching) patchMatchingTasks
            "Change all tasks that match filters" "Takes the filters of the list, at least one. Changes at most 1,000 tasks: while `has_more` is true, the same request changes the next. Tasks that have the values already are not counted. With `dry_run=true` tasks are only counted."
            takes ["matching"] body [MatchingChanges]
            200 MatchingResult "How many tasks were changed";
        Delete "/api/[{user_id}/]tasks" User(&TASKS, bulk::delete_matching) deleteMatchingTasks
            "Delete all tasks that match filters" "Takes the filters of the list, at least one. Deletes at most 1,000 tasks: while `has_more` is true, the same request deletes the next. With `dry_run=true` tasks are only counted."
            takes ["matching"]
            200 MatchingResult "How many tasks were deleted";
        Post "/api/[{user_id}/]tasks/bulk" User(&TASKS, bulk::run) bulkTasks
            "Create, change, complete, delete and restore many tasks" "All operations are done, or none. If one cannot be done, the status is that of the first such operation, and `error.index` is its place, from 0. With an `Idempotency-Key` it is safe to send the same request again: the answer then has the tasks as they are now."
            takes ["Idempotency-Key"] body [Bulk]
            200 BulkResults "The results, in the order of the operations" fields ["Idempotency-Replayed"],
            404 "There is no such task, or none in the trash",
            409 "A task with an `id` that was sent exists already, or a request with this key is still running",
            412 "A task is not as `if_match` says";
        Get "/api/[{user_id}/]tasks/stats" User(&TASKS, stats::show) showStats
            "Show the tasks in numbers" "How many tasks there are of each kind, and how many were completed on each of the last 30 days."
            takes ["tz"]
            200 Stats "The numbers";
        Get "/api/[{user_id}/]tasks/export" User(&TASKS, transfer::export) exportTasks
            "Export tasks" "A file in JSON Lines or CSV with every field, for backups, spreadsheets and other programs. One answer has at most 10,000 tasks or 8 MiB and is a whole file; `Link` leads to the next one."
            takes ["export"]
            200 TaskFile "The tasks" fields ["Link", "Content-Disposition"];
        Post "/api/[{user_id}/]tasks/import" User(&TASKS, transfer::import) importTasks
            "Import tasks" "Up to 5,000 tasks in JSON Lines or CSV, or a list as this API returns it. All or none, unless `skip_errors` is true. A task whose id exists is left as it is, or changed with `on_conflict=update`. Importing a file twice changes nothing."
            takes ["import"] body [TaskFile]
            200 ImportResult "What was done";
        Get "/api/[{user_id}/]tasks/changes" User(&TASKS, changes::show) listChanges
            "List changes" "Tasks that have changed since the client asked last, and ids of deleted ones. Without `since`, all tasks in the order of their ids."
            takes ["changes"]
            200 Changes "The changes",
            410 "The changes since the cursor are not stored any more; the client must copy all tasks again";
        Get "/api/[{user_id}/]tasks/trash" User(&TASKS, trash::list) listTrash
            "List deleted tasks" "Those that can be restored, the last deleted first."
            takes ["trash"]
            200 Trash "The deleted tasks" fields ["Link"];
        Delete "/api/[{user_id}/]tasks/trash" User(&TASKS, trash::empty) emptyTrash
            "Empty the trash" "The deleted tasks cannot be restored any more."
            200 TaskCount "How many tasks were removed";
        Delete "/api/[{user_id}/]tasks/trash/{id}" User(&TASKS, trash::purge) purgeTask
            "Remove a task from the trash" "It cannot be restored any more."
            204 "The task is not in the trash any more";
        Post "/api/[{user_id}/]tasks/{id}/restore" User(&TASKS, trash::restore) restoreTask
            "Restore a deleted task" "With the same id, fields and `created_at`; its `version` is one higher."
            200 Task "The task as it is now" fields ["ETag"],
            409 "A new task has this id";
        Get "/api/[{user_id}/]tasks/{id}" Grouped(&TASKS, tasks::show) getTask
            "Show a task" "One task, with its `ETag`."
            200 Task "The task" fields ["ETag"],
            304 "The task is as the client has it (`If-None-Match`)" fields ["ETag"],
            412 "The task is not as `If-Match` says";
        Put "/api/[{user_id}/]tasks/{id}" User(&TASKS, tasks::update) updateTask
            "Change a task" "Fields that are sent change, absent fields stay, `null` clears a field that may be null. PUT and PATCH are the same."
            body [TaskChanges]
            200 Task "The task as it is now" fields ["ETag"],
            412 "The task has changed since; nothing is done";
        Patch "/api/[{user_id}/]tasks/{id}" User(&TASKS, tasks::update) patchTask
            "Change a task, with PATCH" "Fields that are sent change, absent fields stay, `null` clears a field that may be null. PUT and PATCH are the same."
            body [TaskChanges]
            200 Task "The task as it is now" fields ["ETag"],
            412 "The task has changed since; nothing is done";
        Delete "/api/[{user_id}/]tasks/{id}" Grouped(&TASKS, tasks::delete) deleteTask
            "Delete a task" "It goes to the trash, from which it can be restored for `TRASH_DAYS`; with `permanent=true` it does not."
            takes ["permanent"]
            204 "The task is deleted",
            412 "The task has changed since; nothing is done";
        Patch "/api/[{user_id}/]tasks/{id}/complete" Grouped(&TASKS, tasks::complete) completeTask
            "Complete a task, or open it again" "A body sets `completed`; without a body, or with `{}`, it is toggled."
            optional_body [Completion]
            200 Task "The task as it is now" fields ["ETag"],
            412 "The task has changed since; nothing is done";
    }
    "Tags" {
        Get "/api/[{user_id}/]tags" User(&TASKS, tags::list) listTags
            "List tags" "Every tag that a task of the user has."
            200 TagList "The tags, and how many tasks have each";
        Put "/api/[{user_id}/]tags/{name}" User(&TASKS, tags::rename) renameTag
            "Rename a tag" "On all tasks that have it. If a tag with the new name exists, the two become one."
            body [TagName]
            200 TagCount "The tag as it is now";
        Delete "/api/[{user_id}/]tags/{name}" User(&TASKS, tags::delete) deleteTag
            "Remove a tag from all tasks" "The tasks stay."
            204 "No task has the tag any more";
    }
    "Account" {
        Post "/api/auth/register" | "/api/auth/signup" Public(auth::register) register
            "Register, and log in" "Creates an account and its first session."
            body [Registration]
            201 TokenPair "Tokens for the new account",
            403 "Registration is closed",
            409 "Another account has this address";
        Post "/api/auth/login" | "/api/auth/signin" Public(auth::login) login
            "Log in" "In JSON, or as the password form of OAuth 2 (RFC 6749, section 4.3)."
            body [Login, LoginForm]
            200 TokenPair "Tokens",
            401 "Address or password is wrong",
            403 "The account is disabled";
        Post "/api/auth/refresh" Public(auth::refresh) refresh
            "Continue a session" "Gives new tokens for a refresh token, which is used up. For 30 seconds it may be sent again and gives the same tokens; after that its use ends the session."
            body [RefreshToken]
            200 TokenPair "New tokens",
            401 "The refresh token is not known, has expired, or was used before";
        Post "/api/auth/logout" Account(auth::logout) logout
            "Log out of this session" "Ends the session of the token. A token that belongs to no session of this server is refused until it expires; after 1,000 such tokens of one user, this acts as `logout-all`."
            204 "The token is refused from now on";
        Post "/api/auth/logout-all" Account(auth::logout_all) logoutAll
            "Log out everywhere" "Ends all sessions, and refuses the tokens of the user that were issued (`iat`) before this second, and this token."
            optional_body [LogoutAll]
            204 "The tokens are refused from now on";
        Get "/api/auth/me" Account(account::show) showAccount
            "Show the caller's account" "For a user of another system, what the token says of them."
            200 Account "The account";
        Patch "/api/auth/me" Account(account::update) updateAccount
            "Change name or address" "Absent fields stay. A change of the address needs `current_password`, and registration must be open."
            body [AccountChanges]
            200 Account "The account as it is now",
            403 "The password is missing or wrong, or registration is closed",
            409 "Another account has this address, or there is no account here: the token comes from elsewhere";
        Delete "/api/auth/me" Account(account::delete) deleteAccount
            "Delete the account with all its tasks" "Needs the password. Wrong passwords count as failed logins do."
            body [Confirmation]
            204 "The account and its tasks are deleted",
            409 "There is no account here: the token comes from elsewhere";
        Put "/api/auth/password" Account(account::change_password) changePassword
            "Change the password" "Ends all other sessions; with `api_tokens`, also this session, all API tokens and all other tokens issued before. Wrong current passwords count as failed logins do."
            body [PasswordChange]
            204 "The new password holds",
            409 "Another request has changed the password, or there is none here: the token comes from elsewhere";
    }
    "Sessions" {
        Get "/api/auth/sessions" Account(sessions::list) listSessions
            "List sessions" "Where the caller is logged in."
            200 SessionList "The sessions";
        Delete "/api/auth/sessions/{id}" Account(sessions::end) endSession
            "End a session" "It may be the caller's own."
            204 "The session is ended, and its tokens are refused";
    }
    "API tokens" {
        Post "/api/auth/tokens" Account(api_tokens::create) createApiToken
            "Create an API token" "For scripts: it works on all routes of tasks and tags within its scopes, and on no other. Without `scopes` it has all. It needs `current_password`; for a user without a password here, a token issued (`iat`) less than 5 minutes ago."
            body [NewApiToken]
            201 NewApiTokenMade "The token, which is shown only here",
            403 "The password is missing or wrong, or the token was issued too long ago",
            409 "There are 100 already";
        Get "/api/auth/tokens" Account(api_tokens::list) listApiTokens
            "List API tokens" "Without the tokens themselves."
            200 ApiTokenList "The API tokens";
        Delete "/api/auth/tokens/{id}" Account(api_tokens::delete) deleteApiToken
            "Delete an API token" "Requests with it are refused from now on."
            204 "The API token is deleted";
    }
}

/// The table as the router reads it.
pub fn routes() -> Vec<Route<Handler>> {
    let patterns = |row: &'static RouteRow| {
        let patterns = std::iter::once(&row.pattern).chain(row.aliases);
        patterns.map(|pattern| Route::new(row.method, pattern, row.handler))
    };
    ROUTES.iter().flat_map(patterns).collect()
}
