-- Users and their tasks. Every key starts with the user, so that no statement can cross users by mistake, one user's rows lie
-- together, and the tables can be distributed by user.
--
-- Ids are compared byte by byte (COLLATE "C"): it is faster, and the same on every machine.

CREATE TABLE users (
    id            text COLLATE "C" NOT NULL,
    email         text,
    password_hash text,
    active        boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_id_length CHECK (char_length(id) BETWEEN 1 AND 255)
);

CREATE TABLE tasks (
    user_id      text COLLATE "C" NOT NULL,
    id           uuid NOT NULL,
    title        text NOT NULL,
    description  text,
    -- Whether a task is done follows from when it was: the two cannot disagree.
    completed_at timestamptz,
    completed    boolean NOT NULL GENERATED ALWAYS AS (completed_at IS NOT NULL) STORED,
    -- 0 low, 1 medium, 2 high: sorted by rank, not by letter.
    priority     smallint NOT NULL DEFAULT 1,
    -- The moment a task is due. For a plain date, due_on, it is the last microsecond of that day in UTC.
    due_at       timestamptz,
    due_on       date,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT tasks_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT tasks_description_length CHECK (char_length(description) <= 2000),
    CONSTRAINT tasks_priority_rank CHECK (priority BETWEEN 0 AND 2),
    CONSTRAINT tasks_due_on_has_due_at CHECK (due_on IS NULL OR due_at IS NOT NULL)
);

CREATE INDEX tasks_newest_first ON tasks (user_id, created_at DESC, id DESC);
