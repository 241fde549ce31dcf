//! The groups in which operations are shown to readers of the API's description.

/// The group of the tasks.
pub const TASKS: &str = "Tasks";
/// The group of the tags of all tasks.
pub const TAGS: &str = "Tags";
/// The group of what one does with one's account.
pub const ACCOUNT: &str = "Account";
/// The group of logins.
pub const SESSIONS: &str = "Sessions";
/// The group of tokens for scripts.
pub const API_TOKENS: &str = "API tokens";
/// The group of what the service says of itself.
pub const SERVICE: &str = "Service";
/// The group of the second form of paths.
pub const WITH_USER: &str = "With the user in the path";

/// The groups in the order they are shown, and what is in them.
pub const GROUPS: &[(&str, &str)] = &[
    (TASKS, "The caller's tasks."),
    (TAGS, "Words by which the caller groups tasks."),
    (
        ACCOUNT,
        "Register, log in, go on, log out; the caller's own account. Users of other systems need none.",
    ),
    (SESSIONS, "Where the caller is logged in."),
    (
        API_TOKENS,
        "Tokens for scripts, good for the routes of tasks alone.",
    ),
    (
        SERVICE,
        "What the service says of itself. No token is needed.",
    ),
    (
        WITH_USER,
        "The same as without the user. The user must be the token's own; another one is answered 403 before anything is looked up.",
    ),
];
