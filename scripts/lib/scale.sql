-- Four users with 1,000, 10,000, 100,000 and 1,000,000 tasks, called user1000 and so on, beside 200 with 1,000: psql -v
-- most=1000000 -f scale.sql, into an empty schema todo. `most` is the size of the largest user.
--
-- The 500 oldest tasks of each user are open, all others are done: without an index, the first page of open tasks needs a long
-- scan. 49 % have priority low, 50 % medium, 1 % high; 50 % have the tag half, 1 % rare; 50 % have the word milk, 1 % the word
-- zebra, 10 % are not ASCII; due dates are on 99 days from 2030-01-01 on, 1 % have none. The tasks of all users are interleaved
-- in the table, as when many users work at the same time.
\set ON_ERROR_STOP on
SET search_path = todo;
SET synchronous_commit = off;
SET maintenance_work_mem = '1GB';

CREATE TEMPORARY TABLE owners AS
SELECT 'other' || n AS id, 1000 AS size FROM generate_series(1, 200) AS n
UNION ALL SELECT 'user' || size, size FROM unnest(ARRAY[1000, 10000, 100000, :most]) AS size;
INSERT INTO users (id) SELECT id FROM owners;

-- Building the indexes after the rows is faster.
CREATE TEMPORARY TABLE made_later AS
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indrelid = 'tasks'::regclass AND NOT indisprimary;
SELECT 'DROP INDEX ' || name FROM made_later \gexec
ALTER TABLE tasks DROP CONSTRAINT tasks_pkey;

INSERT INTO tasks (user_id, id, title, title_folded, description, completed_at, priority, due_at, tags, created_at, updated_at)
SELECT owner, gen_random_uuid(), title, CASE WHEN n % 10 = 3 THEN replace(lower(title), 'é', 'e') END,
       CASE WHEN n % 3 > 0 THEN 'Remember to do the thing numbered ' || n || ', before the end of the week if at all possible.' END,
       CASE WHEN n > 500 THEN at END,
       CASE WHEN n % 100 = 2 THEN 2 ELSE n % 2 END,
       CASE WHEN n * 37 % 100 < 99 THEN timestamptz '2030-01-01T12:00Z' + n * 37 % 100 * interval '1 day' END,
       CASE WHEN n % 100 = 7 THEN '{half,rare}'::text[] WHEN n % 2 = 1 THEN '{half}' ELSE '{}' END,
       at, at
FROM (
    SELECT id AS owner, n, timestamptz '2026-01-01T00:00Z' + n * (interval '100 days' / size) AS at
    FROM owners, generate_series(1, size) AS n
) AS task,
LATERAL (SELECT (ARRAY['Call', 'Write to', 'Ask', 'Thank', 'Remind', 'Visit', 'Meet'])[1 + n % 7] || ' '
                || CASE WHEN n % 10 = 3 THEN 'Chloé'
                        ELSE (ARRAY['Anna', 'Boris', 'David', 'Emma', 'Farid', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kira'])[1 + n % 10] END
                || ' about ' || (ARRAY['the garden', 'a report', 'the invoice', 'our holidays', 'the new kitchen'])[1 + n % 5]
                || CASE WHEN n % 2 = 1 THEN ' and milk' WHEN n % 100 = 12 THEN ' and a zebra' ELSE '' END AS title) AS text
ORDER BY at;

ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id);
SELECT definition FROM made_later \gexec
VACUUM ANALYZE tasks, users;
