-- The trash, and the feed of changes.
--
-- A change is found by the transaction that wrote it. A client names the snapshot that it knows completely, and gets the rows whose
-- transaction that snapshot does not contain. So a transaction that commits late is not missed, and a long one delays nothing.

-- The transaction that made the last real change of the task. The default does not depend on the row, so PostgreSQL stores it once and
-- does not rewrite the table.
ALTER TABLE tasks ADD COLUMN written_by xid8 NOT NULL DEFAULT pg_current_xact_id();

-- The feed of changes. Every real change of a task costs an entry here.
CREATE INDEX tasks_changes ON tasks (user_id, written_by);

-- Deleted tasks: first with their content, in the trash, then as tombstones, for the feed of changes. A tombstone has only the columns of
-- the key, `deleted_at` and `written_by`. An id may be both here and in `tasks`, if a client used it again.
--
-- There is no foreign key: each deletion would lock the user's row. The deletion of an account removes these rows, too.
CREATE TABLE deleted_tasks (
    user_id            text COLLATE "C" NOT NULL,
    id                 uuid NOT NULL,
    title              text COLLATE "C",
    description        text COLLATE "C",
    completed_at       timestamptz,
    priority           smallint,
    due_at             timestamptz,
    due_on             date,
    created_at         timestamptz,
    updated_at         timestamptz,
    version            bigint,
    tags               text[] COLLATE "C",
    title_folded       text COLLATE "C",
    description_folded text COLLATE "C",
    -- The transaction that deleted the task.
    written_by         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    deleted_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deleted_tasks_pkey PRIMARY KEY (user_id, id)
);

CREATE INDEX deleted_tasks_changes ON deleted_tasks (user_id, written_by);
-- For maintenance: contents that have been in the trash for too long, and tombstones that are old enough to go. A row is in one of them.
-- A BRIN index would make a deletion cheaper, but maintenance would read the whole table, which a single user can fill.
CREATE INDEX deleted_tasks_contents ON deleted_tasks (deleted_at) WHERE title IS NOT NULL;
CREATE INDEX deleted_tasks_tombstones ON deleted_tasks (deleted_at) WHERE title IS NULL;

-- The feed of changes: one row. Clients continue only with the same id; with another one, they copy all tasks again.
CREATE TABLE feed (
    id        uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The counter of transactions at the last maintenance. A counter that is lower belongs to another cluster: the tables were restored
    -- there, and the feed gets a new id.
    noted     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- The newest transaction whose tombstone may have been removed. Clients that do not know it copy all tasks again.
    forgotten xid8 NOT NULL DEFAULT '0',
    -- At most one row.
    one       boolean NOT NULL DEFAULT true,
    CONSTRAINT feed_pkey PRIMARY KEY (one),
    CONSTRAINT feed_one_check CHECK (one)
);

INSERT INTO feed DEFAULT VALUES;

-- The foreign key took a fifth of PostgreSQL's time for a new task, because a trigger checks it. The statements that insert a task read
-- the user FOR KEY SHARE instead. That is the same lock: the deletion of a user waits for them, and then deletes what they inserted.
ALTER TABLE tasks DROP CONSTRAINT tasks_user_id_fkey;

-- The timeline of the cluster, as text. A standby that becomes the primary begins a new one, and may not have the last transactions of the
-- old one. Empty on services that do not show it.
CREATE FUNCTION timeline() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END;
EXCEPTION WHEN OTHERS THEN
    RETURN '';
END
$$;
