-- The foreign key cost a third of the time of every new task: PostgreSQL looked the user up again, and locked the row. The
-- program inserts a task by a SELECT of its user. Maintenance deletes the tasks of a deleted account first, a minute after its
-- tokens were revoked, and no statement runs that long.
ALTER TABLE tasks DROP CONSTRAINT tasks_user_id_fkey;
