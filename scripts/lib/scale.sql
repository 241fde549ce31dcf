-- A user with many tasks beside many users with a thousand: psql -v users=10000 -v many=1000000 -f scale.sql, into an empty
-- schema todo of the newest version. 50 % of each user's tasks are low and open, 49 % medium and done, 1 % high and done; 50 % are
-- tagged half, 1 % rare; 50 % have the word milk, 1 % the word zebra; due dates lie on 99 days from 2030-01-01 on, 1 % have none.
-- All users write at the same time, so that one user's tasks lie scattered, as they do where many people work.
\set ON_ERROR_STOP on
SET search_path = todo;
SET synchronous_commit = off;
SET maintenance_work_mem = '1GB';
SET max_parallel_maintenance_workers = 2;

INSERT INTO users (id) SELECT 'small' || n FROM generate_series(1, :users) AS n;
INSERT INTO users (id) VALUES ('big');

-- Indexes are quicker made afterwards.
CREATE TEMPORARY TABLE made_later AS
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indrelid = 'tasks'::regclass AND NOT indisprimary;
SELECT 'DROP INDEX ' || name FROM made_later \gexec
ALTER TABLE tasks DROP CONSTRAINT tasks_pkey, DROP CONSTRAINT tasks_user_id_fkey, DISABLE TRIGGER USER;
ALTER TABLE task_tags DROP CONSTRAINT task_tags_pkey;

INSERT INTO tasks (user_id, id, title, search, completed_at, priority, due_at, tags, created_at, updated_at)
SELECT owner, id, title, lower(title) || E'\n',
       CASE WHEN n % 2 = 0 THEN at END,
       CASE WHEN n % 2 = 1 THEN 0 WHEN n % 100 = 2 THEN 2 ELSE 1 END,
       CASE WHEN day < 99 THEN timestamptz '2030-01-01T12:00Z' + day * interval '1 day' END,
       CASE WHEN n % 100 = 7 THEN '{half,rare}'::text[] WHEN n % 2 = 1 THEN '{half}' ELSE '{}' END,
       at, at
FROM (
    SELECT CASE WHEN slot <= :users THEN 'small' || slot ELSE 'big' END AS owner,
           lpad(to_hex(1767225600000 + round * 1000000), 12, '0') || '70008000' || lpad(to_hex(slot), 12, '0') AS hex,
           CASE WHEN slot <= :users THEN round ELSE (round - 1) * :many / 1000 + slot - :users END AS n,
           timestamptz '2026-01-01T00:00Z' + round * interval '1000 s' + slot * interval '1 ms' AS at
    FROM generate_series(1, 1000) AS round, generate_series(1, :users + :many / 1000) AS slot
) AS task,
LATERAL (SELECT hex::uuid AS id, n * 37 % 100 AS day,
                (ARRAY['Call', 'Write to', 'Ask', 'Thank', 'Remind', 'Visit', 'Meet'])[1 + n % 7] || ' '
                || (ARRAY['Anna', 'Boris', 'Chloe', 'David', 'Emma', 'Farid', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kira'])[1 + n % 11]
                || ' about ' || (ARRAY['the garden', 'a report', 'the invoice', 'our holidays', 'the new kitchen'])[1 + n % 5]
                || CASE WHEN n % 2 = 1 THEN ' and milk' WHEN n % 100 = 12 THEN ' and a zebra' ELSE '' END AS title) AS text;
INSERT INTO task_tags (user_id, tag, created_at, task_id)
SELECT user_id, tag, created_at, id FROM tasks, unnest(tags) AS tag;

ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id);
ALTER TABLE task_tags ADD CONSTRAINT task_tags_pkey PRIMARY KEY (user_id, tag, created_at, task_id);
SELECT definition FROM made_later \gexec
ALTER TABLE tasks ADD CONSTRAINT tasks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE NOT VALID,
    ENABLE TRIGGER USER;
VACUUM ANALYZE tasks, task_tags, users;
