-- Filters, order, tags, versions and idempotency keys.

ALTER TABLE tasks
    -- Goes up with every real change.
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    -- That they are few, the program sees to: PostgreSQL reads a constraint anew for every statement, and creating tasks
    -- bears this one badly.
    ADD COLUMN tags text[] COLLATE "C" NOT NULL DEFAULT '{}',
    -- Title, newline, description, folded by the program: case and accents gone. Null in rows written before this migration, until
    -- the program has folded them, which it does when it starts.
    ADD COLUMN search text COLLATE "C";

-- An index starts with the user and ends with the order of a list, so that a page costs what it holds and not what its user
-- owns. There is none on updated_at: every change would then touch all indexes.
--
-- The due date at the end is read in the index, for lists by due date that come newest first.
DROP INDEX tasks_newest_first;
CREATE INDEX tasks_newest_first ON tasks (user_id, created_at DESC, id DESC, due_at);
-- A list of some states and priorities merges as many stretches of this index.
CREATE INDEX tasks_by_state ON tasks (user_id, completed, priority, created_at DESC, id DESC);
CREATE INDEX tasks_by_due_date ON tasks (user_id, due_at, id);
-- For the numbers of the last days.
CREATE INDEX tasks_by_completion ON tasks (user_id, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX tasks_not_folded ON tasks (user_id, id) WHERE search IS NULL;

-- The tags once more, in the order of lists: an index on the array would find a tag, but not its newest tasks.
CREATE TABLE task_tags (
    user_id    text COLLATE "C" NOT NULL,
    tag        text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    task_id    uuid NOT NULL,
    CONSTRAINT task_tags_pkey PRIMARY KEY (user_id, tag, created_at, task_id)
);

-- Kept by triggers, under the lock on the task's row, so that no two writers can leave the two apart.
CREATE FUNCTION note_tags() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM task_tags
        WHERE user_id = OLD.user_id AND tag = ANY (OLD.tags) AND created_at = OLD.created_at AND task_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO task_tags (user_id, tag, created_at, task_id)
        SELECT NEW.user_id, tag, NEW.created_at, NEW.id FROM unnest(NEW.tags) AS tag;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER tasks_tags_made AFTER INSERT ON tasks
    FOR EACH ROW WHEN (NEW.tags <> '{}') EXECUTE FUNCTION note_tags();
CREATE TRIGGER tasks_tags_changed AFTER UPDATE OF tags ON tasks
    FOR EACH ROW WHEN (OLD.tags IS DISTINCT FROM NEW.tags) EXECUTE FUNCTION note_tags();
CREATE TRIGGER tasks_tags_gone AFTER DELETE ON tasks
    FOR EACH ROW WHEN (OLD.tags <> '{}') EXECUTE FUNCTION note_tags();

-- What was made under an Idempotency-Key. The answer follows from the body and from these, so it is not kept itself.
CREATE TABLE idempotency_keys (
    user_id    text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    -- SHA-256 of the body.
    digest     bytea NOT NULL,
    task_id    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX idempotency_keys_oldest_first ON idempotency_keys (created_at);

-- Trigrams find words in the middle of others. Both extensions come with PostgreSQL and may be made by whoever owns the database;
-- where they cannot be, searches read the user's tasks one by one.
DO $$
DECLARE
    extension text;
    place text;
BEGIN
    FOREACH extension IN ARRAY ARRAY['btree_gin', 'pg_trgm'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = extension);
        BEGIN
            -- Not ours alone: another schema of this program in the same database uses them, too.
            EXECUTE format('CREATE EXTENSION %I WITH SCHEMA public', extension);
        EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN
            EXECUTE format('CREATE EXTENSION %I', extension);
        END;
    END LOOP;
    SELECT nspname INTO STRICT place
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
    EXECUTE format('CREATE INDEX tasks_search ON tasks USING gin (user_id, search %I.gin_trgm_ops)', place);
EXCEPTION
    -- Among them: not allowed, not installed, not offered by this service.
    WHEN OTHERS THEN
        RAISE NOTICE 'searches will read tasks one by one, without an index: %', SQLERRM;
END
$$;
