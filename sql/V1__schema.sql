-- The tables of todo-api, from the user down to what belongs to a user.
--
-- The key of every table that holds data of users starts with the user, where it can. So no statement can mix two users by mistake,
-- the rows of one user are stored close together, and the tables can be distributed by user.
--
-- Ids are compared byte by byte (COLLATE "C"). This is fast, and gives the same order on every machine.
--
-- No column holds a secret that a client could present. Passwords are hashed with Argon2id. Refresh tokens and API tokens are random,
-- so SHA-256 is enough for them.

-- Accounts ------------------------------------------------------------------------------------------------------------------------

-- Everybody who owns something here. A user known only from a token has a row with an id and nothing else.
CREATE TABLE users (
    id            text COLLATE "C" NOT NULL,
    -- The address to log in with, in lower case. Null without an account here.
    email         text COLLATE "C",
    -- An Argon2id hash in PHC string format. Null without an account here.
    password_hash text,
    -- False: the user is disabled, and no token of this user is accepted.
    active        boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    name          text,
    -- When the user deleted the account. Maintenance deletes the rows a minute later.
    deleted_at    timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_key UNIQUE (email),
    CONSTRAINT users_id_length CHECK (char_length(id) BETWEEN 1 AND 255),
    CONSTRAINT users_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 100)
);

-- A session is one login and all tokens refreshed from it.
CREATE TABLE sessions (
    user_id           text COLLATE "C" NOT NULL,
    id                uuid NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    last_used_at      timestamptz NOT NULL DEFAULT now(),
    -- When the newest refresh token of the session expires.
    expires_at        timestamptz NOT NULL,
    -- When the last access token of the session expires. A revocation of the session must be kept until then.
    access_expires_at timestamptz NOT NULL,
    -- The client of the last login or refresh.
    address           text NOT NULL,
    user_agent        text,
    CONSTRAINT sessions_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- The networks that each account had a session from: an IPv4 address, an IPv6 /64, or `local`. A flood of failed logins does not
-- block an account for its own networks.
--
-- There is no foreign key: its lock on the user would be taken while the session is locked, and ending all sessions of a user locks
-- them in the other order.
CREATE TABLE session_networks (
    user_id      text COLLATE "C" NOT NULL,
    network      text NOT NULL,
    -- To the day. Rows are deleted 30 days later, and with the account.
    last_used_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT session_networks_pkey PRIMARY KEY (user_id, network)
);

-- A used refresh token is kept until it expires. If it is presented again, somebody has a copy, and the session is revoked.
CREATE TABLE refresh_tokens (
    token_hash bytea NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    session_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (token_hash),
    CONSTRAINT refresh_tokens_session_fkey FOREIGN KEY (user_id, session_id) REFERENCES sessions (user_id, id) ON DELETE CASCADE
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (user_id, session_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- Tokens that are refused before they expire. There is no foreign key, because a revocation must outlive the row it names.
CREATE TABLE revocations (
    -- 'session': the tokens of session `id`. 'user': all tokens of user `id`. 'token': one token of user `id` that belongs to no
    -- session. 'issued_before': the JWTs of user `id` issued before a second.
    kind       text NOT NULL,
    id         text COLLATE "C" NOT NULL,
    -- Of kind 'token': the SHA-256 that names the token. Otherwise empty.
    token      bytea NOT NULL DEFAULT '',
    -- Seconds since 1970. Of kind 'issued_before': that second. Of kind 'token': the token's claim `iat`, if it has one.
    issued     bigint,
    -- When the revocation ends. Null: never. A revocation that was lifted ends in the past.
    until      timestamptz,
    -- The id of the transaction that wrote the row. An instance remembers the oldest transaction that was still running at its last
    -- read, and then reads only rows of that one and later ones. So it also sees rows whose transaction committed late.
    written_by bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    CONSTRAINT revocations_pkey PRIMARY KEY (kind, id, token),
    CONSTRAINT revocations_kind CHECK (kind IN ('session', 'user', 'token', 'issued_before'))
);

CREATE INDEX revocations_written_by ON revocations (written_by);
CREATE INDEX revocations_until ON revocations (until);

-- Tokens that users create for their scripts.
CREATE TABLE api_tokens (
    user_id      text COLLATE "C" NOT NULL,
    id           uuid NOT NULL,
    name         text NOT NULL,
    token_hash   bytea NOT NULL,
    -- The first characters of the token, so that its owner can recognize it.
    prefix       text NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Accurate to the minute.
    last_used_at timestamptz,
    expires_at   timestamptz,
    CONSTRAINT api_tokens_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT api_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT api_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT api_tokens_name_length CHECK (char_length(name) BETWEEN 1 AND 100)
);

-- Tasks ---------------------------------------------------------------------------------------------------------------------------

CREATE TABLE tasks (
    user_id      text COLLATE "C" NOT NULL,
    id           uuid NOT NULL,
    title        text NOT NULL,
    description  text,
    -- `completed` is derived from `completed_at`, so the two always agree.
    completed_at timestamptz,
    completed    boolean NOT NULL GENERATED ALWAYS AS (completed_at IS NOT NULL) STORED,
    -- 0 low, 1 medium, 2 high, so that tasks sort by rank.
    priority     smallint NOT NULL DEFAULT 1,
    -- When the task is due. A due date without a time is also in `due_on`; `due_at` is then the last microsecond of that day in UTC.
    due_at       timestamptz,
    due_on       date,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- `updated_at` and `version` move with every real change.
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      bigint NOT NULL DEFAULT 1,
    -- The program limits their number: PostgreSQL prepares a CHECK anew for every statement, which made creating tasks slower.
    tags         text[] COLLATE "C" NOT NULL DEFAULT '{}',
    -- Title, newline, description, without case and accents. The program writes it.
    search       text COLLATE "C" NOT NULL,
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT tasks_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT tasks_description_length CHECK (char_length(description) <= 2000),
    CONSTRAINT tasks_priority_rank CHECK (priority BETWEEN 0 AND 2),
    CONSTRAINT tasks_due_on_has_due_at CHECK (due_on IS NULL OR due_at IS NOT NULL)
);

-- Each index starts with the user and ends with the order of a list. So the cost of a page depends on the page, not on the number of
-- tasks the user has. No index contains `updated_at`, because then every change would write to every index.

-- `due_at` at the end lets a list filtered by due date read the index alone.
CREATE INDEX tasks_newest_first ON tasks (user_id, created_at DESC, id DESC, due_at);
-- A list filtered by state and priority merges one range of this index for each combination.
CREATE INDEX tasks_by_state ON tasks (user_id, completed, priority, created_at DESC, id DESC);
CREATE INDEX tasks_by_due_date ON tasks (user_id, due_at, id);
-- For the statistics of the last days.
CREATE INDEX tasks_by_completion ON tasks (user_id, completed_at) WHERE completed_at IS NOT NULL;

-- The tags of tasks once more, one row per tag, in the order of lists. An index on the array finds a tag, but not the newest tasks
-- with it.
CREATE TABLE task_tags (
    user_id    text COLLATE "C" NOT NULL,
    tag        text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    task_id    uuid NOT NULL,
    CONSTRAINT task_tags_pkey PRIMARY KEY (user_id, tag, created_at, task_id)
);

-- Triggers keep the two equal. They run while the statement holds the lock on the task's row, so concurrent writers cannot make them
-- differ.
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

-- Which task was created under an Idempotency-Key. The answer is not stored: it follows from the request body and this row.
CREATE TABLE idempotency_keys (
    user_id    text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    -- SHA-256 of the request body.
    digest     bytea NOT NULL,
    task_id    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX idempotency_keys_oldest_first ON idempotency_keys (created_at);

-- The search index ----------------------------------------------------------------------------------------------------------------

-- An index of trigrams finds text in the middle of words. It needs two extensions. Both come with PostgreSQL, and the owner of the
-- database may create them. Where they cannot be created, searches read the user's tasks one by one.
DO $$
DECLARE
    extension text;
    place text;
BEGIN
    FOREACH extension IN ARRAY ARRAY['btree_gin', 'pg_trgm'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = extension);
        BEGIN
            -- In `public`, because another schema of todo-api in the same database uses them too.
            EXECUTE format('CREATE EXTENSION %I WITH SCHEMA public', extension);
        EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN
            EXECUTE format('CREATE EXTENSION %I', extension);
        END;
    END LOOP;
    SELECT nspname INTO STRICT place
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
    EXECUTE format('CREATE INDEX tasks_search ON tasks USING gin (user_id, search %I.gin_trgm_ops)', place);
EXCEPTION
    -- For example: not allowed, not installed, not offered by this service.
    WHEN OTHERS THEN
        RAISE NOTICE 'searches read tasks one by one, without an index: %', SQLERRM;
END
$$;
