-- Accounts with a password here, their sessions, personal API tokens, and what has been revoked.
--
-- No column holds what could be presented: passwords are hashed with Argon2id, refresh and API tokens, which are random, with SHA-256.

-- The address to log in with, in lower case; only of accounts made here.
ALTER TABLE users
    ALTER COLUMN email TYPE text COLLATE "C",
    ADD COLUMN name text,
    -- Since when nothing but its deletion is left to do.
    ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT users_email_key UNIQUE (email),
    ADD CONSTRAINT users_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    ADD CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 100);

-- A login and all that was refreshed from it.
CREATE TABLE sessions (
    user_id           text COLLATE "C" NOT NULL,
    id                uuid NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    last_used_at      timestamptz NOT NULL DEFAULT now(),
    -- Of its newest refresh token.
    expires_at        timestamptz NOT NULL,
    -- Of the access token of it that lives longest: so long a revocation has to be remembered.
    access_expires_at timestamptz NOT NULL,
    -- Who logged in or refreshed last, as the request said.
    address           text NOT NULL,
    user_agent        text,
    CONSTRAINT sessions_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

-- Used ones are kept until they expire: presented again, they tell that somebody has a copy.
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

-- Ids whose tokens are refused although they have not expired.
CREATE TABLE revocations (
    -- 'session' or 'user'
    kind       text NOT NULL,
    id         text COLLATE "C" NOT NULL,
    -- Until then, or for good; in the past where it was lifted.
    until      timestamptz,
    -- The transaction that wrote it. Whoever has read everything below the oldest transaction that was running then needs to
    -- read only what is not below it: a late commit cannot slip through, however late it is.
    written_by bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    CONSTRAINT revocations_pkey PRIMARY KEY (kind, id),
    CONSTRAINT revocations_kind CHECK (kind IN ('session', 'user'))
);

CREATE INDEX revocations_written_by ON revocations (written_by);
CREATE INDEX revocations_until ON revocations (until);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- Tokens that users make for their scripts.
CREATE TABLE api_tokens (
    user_id      text COLLATE "C" NOT NULL,
    id           uuid NOT NULL,
    name         text NOT NULL,
    token_hash   bytea NOT NULL,
    -- The token's first characters, by which its owner knows it again.
    prefix       text NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- To the minute.
    last_used_at timestamptz,
    expires_at   timestamptz,
    CONSTRAINT api_tokens_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT api_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT api_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT api_tokens_name_length CHECK (char_length(name) BETWEEN 1 AND 100)
);
