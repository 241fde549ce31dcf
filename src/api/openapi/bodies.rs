//! Bodies and parameters of tasks, as the description shows them.

use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::domain::fields::Patch;
use crate::domain::tag::{Tag, Tags};
use crate::domain::task::{Description, Due, Priority, Title};

/// A task to be made.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it is only described")]
pub struct NewTask {
    /// The client's own id, or one of ours (version 7).
    #[schema(required = false, example = "0190b7c6-5d20-7c3a-9f1e-2b6d1c0e4a55")]
    pub id: Uuid,
    /// What it is called.
    pub title: Title,
    /// What there is to say about it.
    pub description: Option<Description>,
    /// Whether it is done already.
    #[schema(required = false, default = false)]
    pub completed: bool,
    /// How much it matters.
    #[schema(required = false, default = "medium")]
    pub priority: Priority,
    /// When it is due.
    #[schema(example = "2030-01-31")]
    pub due_date: Option<Due>,
    /// What it is grouped by.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 20)]
    pub tags: Tags,
}

/// Changes to a task: what is absent stays.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it is only described")]
pub struct TaskChanges {
    /// A new title.
    #[schema(value_type = Title, required = false)]
    pub title: Option<Title>,
    /// A new description, or none.
    #[schema(value_type = Option<Description>)]
    pub description: Patch<Description>,
    /// Done or not.
    #[schema(value_type = bool, required = false, example = true)]
    pub completed: Option<bool>,
    /// A new priority.
    #[schema(value_type = Priority, required = false)]
    pub priority: Option<Priority>,
    /// A new due date, or none.
    #[schema(value_type = Option<Due>, example = "2030-02-01")]
    pub due_date: Patch<Due>,
    /// New tags in place of the old, or none.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 20)]
    pub tags: Patch<Tags>,
}

/// What a list takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(
    dead_code,
    reason = "it is only described: ListQuery::from_parameters reads it"
)]
pub struct ListParameters {
    /// Done or not.
    completed: Option<bool>,
    /// The same in words: `all`, `pending`, `active`, `incomplete`, `completed` or `complete`.
    #[param(
        inline,
        pattern = "^(all|pending|active|incomplete|completed|complete)$"
    )]
    status: Option<String>,
    /// One of these; may be given several times, or several separated by commas.
    priority: Option<Vec<Priority>>,
    /// Having this tag; may be given up to 20 times, and all must be there.
    tag: Option<Vec<Tag>>,
    /// The same, separated by commas.
    tags: Option<String>,
    /// Due earlier; a plain date stands for the whole day.
    due_before: Option<Due>,
    /// Due later.
    due_after: Option<Due>,
    /// Not done and past, or the contrary.
    overdue: Option<bool>,
    /// Due at some time, or at none.
    has_due_date: Option<bool>,
    /// Made earlier.
    created_before: Option<Due>,
    /// Made later.
    created_after: Option<Due>,
    /// Last changed earlier.
    updated_before: Option<Due>,
    /// Last changed later.
    updated_after: Option<Due>,
    /// Up to 16 words that all occur in title or description, whatever their case and accents; also `q`.
    search: Option<String>,
    /// The zone in which days begin and end: an IANA name or an offset; UTC unless said otherwise.
    tz: Option<String>,
    /// What comes first: `created_at`, `updated_at`, `due_date`, `priority`, `title` or `completed`; descending as `-title` or
    /// `title:desc`. Also `sort_by`.
    #[param(
        pattern = "^(-?(created|updated|created_at|updated_at|due_date|priority|title|completed)|(created|updated|created_at|updated_at|due_date|priority|title|completed):(asc|desc))$"
    )]
    sort: Option<String>,
    /// The direction of `sort`: `asc` or `desc`; also `sort_order`, `sort_direction`.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// Most tasks in the answer, 1,000 unless said otherwise; also `page_size`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next_cursor` of the answer before; the other parameters must be the same.
    cursor: Option<String>,
    /// How many to leave out first; also `skip`.
    #[param(minimum = 0, maximum = 1_000_000_000)]
    offset: Option<u32>,
    /// Which page of `limit` tasks, from 1.
    #[param(minimum = 1, maximum = 1_000_000_000)]
    page: Option<u32>,
    /// Whether `total` is wanted.
    include_total: Option<bool>,
}
