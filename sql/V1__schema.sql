-- The tables of todo-api, from the user down to what belongs to a user.
--
-- The key of every table that holds data of users starts with the user, where it can. So no statement can mix two users by mistake,
-- the rows of one user are stored close together, and the tables can be distributed by user.
--
-- PostgreSQL keeps keys, uniqueness, ownership (foreign keys) and NOT NULL. The program alone checks lengths, forms and ranges,
-- before it writes: a CHECK would be evaluated again by every statement. `todo-api doctor` finds rows that break such a rule.
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
    CONSTRAINT users_email_key UNIQUE (email)
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
    CONSTRAINT revocations_pkey PRIMARY KEY (kind, id, token)
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
    CONSTRAINT api_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

-- Tasks ---------------------------------------------------------------------------------------------------------------------------

CREATE TABLE tasks (
    user_id            text COLLATE "C" NOT NULL,
    id                 uuid NOT NULL,
    title              text COLLATE "C" NOT NULL,
    description        text COLLATE "C",
    -- Null: the task is open.
    completed_at       timestamptz,
    -- 0 low, 1 medium, 2 high, so that tasks sort by rank.
    priority           smallint NOT NULL DEFAULT 1,
    -- When the task is due. A due date without a time is also in `due_on`; `due_at` is then the last microsecond of that day in UTC.
    due_at             timestamptz,
    due_on             date,
    created_at         timestamptz NOT NULL DEFAULT now(),
    -- `updated_at` and `version` move with every real change.
    updated_at         timestamptz NOT NULL DEFAULT now(),
    version            bigint NOT NULL DEFAULT 1,
    tags               text[] COLLATE "C" NOT NULL DEFAULT '{}',
    -- Title and description without case and accents, for searching and sorting. The program writes them where the text has other
    -- characters than ASCII. Null: `lower` gives the same. Most texts are stored once this way, and a changed task is written once.
    title_folded       text COLLATE "C",
    description_folded text COLLATE "C",
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

-- An index makes every write slower, so there are only those that a budget needs. Both start with the user and end with the order
-- of a list: the cost of a page depends on the page, not on the number of tasks the user has. Every other filter, search and order
-- reads the user's tasks, and only those. `scripts/check scale` has the budgets.

-- The list newest first and, backwards, oldest first.
CREATE INDEX tasks_newest_first ON tasks (user_id, created_at DESC, id DESC);
-- The list of open tasks, also where nearly all are done. It costs every completion a new entry in each index, because PostgreSQL
-- updates a row in place only where no index depends on what changes.
CREATE INDEX tasks_open_newest_first ON tasks (user_id, created_at DESC, id DESC) WHERE completed_at IS NULL;

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

-- Expired keys are deleted oldest first, by maintenance and by new keys.
CREATE INDEX idempotency_keys_oldest_first ON idempotency_keys (created_at);
