-- Tokens without a session of ours: one of them refused by itself, and all of a user issued before a second.

ALTER TABLE revocations
    -- Of kind 'token': SHA-256 that names the token among those of the user `id`. Otherwise empty.
    ADD COLUMN token bytea NOT NULL DEFAULT '',
    -- Seconds since 1970. Of kind 'issued_before': tokens of the user `id` issued earlier are refused. Of kind 'token': when it
    -- was issued, where it says so.
    ADD COLUMN issued bigint,
    DROP CONSTRAINT revocations_pkey,
    ADD CONSTRAINT revocations_pkey PRIMARY KEY (kind, id, token),
    DROP CONSTRAINT revocations_kind,
    ADD CONSTRAINT revocations_kind CHECK (kind IN ('session', 'user', 'token', 'issued_before'));
