#!/usr/bin/env bash
# Backs up the tables of todo-api into a file. It restores the file into a scratch database, compares every row with the moment
# of the dump, and keeps the file only if all are equal. It needs psql, pg_dump and pg_restore of the server's version or newer,
# and a user that may create databases (ALTER ROLE … CREATEDB).
#
# DATABASE_URL  the database, or the systemd credential of that name. DATABASE_URL_UNPOOLED comes first, for a database behind a
#               pooler. Without both: the private database in DATA_DIR (./data) of a server that runs.
# DB_SCHEMA     the schema, "todo" by default
# BACKUP_DIR    the directory of the files, /var/backups/todo-api by default. After a failure it holds the file last-failure.
# BACKUP_KEEP   how many files are kept, 14 by default
# BACKUP_CHECK  "off" skips the comparison, for servers where no scratch database can be made
set -euo pipefail
umask 077

problem='see the log of the backup'
fail() {
    problem=$*
    printf 'backup: %s\n' "$problem" >&2
    exit 1
}

# shellcheck source=deploy/database.sh
. "$(dirname "$(readlink -f "$0")")/database.sh"

directory=${BACKUP_DIR:-/var/backups/todo-api}
keep=${BACKUP_KEEP:-14}
[ -d "$directory" ] || mkdir -p "$directory"

work=$(mktemp -d)
scratch=
finish() {
    local status=$?
    [ -z "$scratch" ] || query <<<"DROP DATABASE IF EXISTS \"$scratch\"" || true
    rm -rf "$work"
    rm -f "${file:-$work/none}.part"
    # `todo-api doctor` reports this file.
    [ "$status" -eq 0 ] || printf '%s: %s\n' "$(date -u +%FT%TZ)" "$problem" >"$directory/last-failure"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

use_database DATABASE_URL_UNPOOLED DATABASE_URL
[[ $keep =~ ^[1-9][0-9]*$ ]] || fail "BACKUP_KEEP must be a whole number from 1."

# Counts the rows of every table and adds up their hashes, in one line for each table. The order of rows does not matter.
fingerprint="SELECT coalesce(string_agg(format(
        'SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM %I.%I AS t', relname, '$schema', relname),
        ' UNION ALL ' ORDER BY relname) || ' ORDER BY 1', 'SELECT 0')
    FROM pg_class WHERE relnamespace = to_regnamespace('$schema') AND relkind = 'r' \\gexec"
session="SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET statement_timeout = 0; SET lock_timeout = 0;
    SET idle_in_transaction_session_timeout = 0;"

file=$directory/todo-api-$(date -u +%Y%m%dT%H%M%SZ).dump
[ ! -e "$file" ] || fail "$file exists already."

# A session that holds the snapshot of which the dump is made.
mkfifo "$work/ask" "$work/answer"
query <"$work/ask" >"$work/answer" &
holder=$!
exec 3>"$work/ask" 4<"$work/answer"
printf '%s BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n' "$session" >&3
read -r snapshot <&4 || fail "the database cannot be read; the reason is above."
pg_dump --dbname="$url" --format=custom --schema="$schema" --snapshot="$snapshot" --no-owner --no-privileges --file="$file.part"
printf "%s\nSELECT 'end';\n" "$fingerprint" >&3
while read -r line <&4 && [ "$line" != end ]; do printf '%s\n' "$line"; done >"$work/taken"
printf 'COMMIT;\n' >&3
exec 3>&- 4<&-
wait "$holder"
grep -q '^schema_migrations|' "$work/taken" || fail "schema $schema has no tables of todo-api."

if [ "${BACKUP_CHECK:-on}" != off ]; then
    scratch=todo_backup_check_$$_$(date +%s)
    query <<<"CREATE DATABASE \"$scratch\" TEMPLATE template0 ENCODING 'UTF8'" ||
        fail "a scratch database cannot be made: ALTER ROLE … CREATEDB allows it, BACKUP_CHECK=off skips it."
    restore_into "$scratch" <"$file.part"
    printf '%s\n%s\n' "$session" "$fingerprint" | PGDATABASE=$scratch query >"$work/restored"
    cmp -s "$work/taken" "$work/restored" ||
        fail "the restored rows differ from the rows that were backed up: $(diff "$work/taken" "$work/restored" | head -n 5)"
fi

sync "$file.part"
mv "$file.part" "$file"
rm -f "$directory/last-failure"
find "$directory" -maxdepth 1 -name 'todo-api-*.dump' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
done
printf 'backup: %s, %s bytes, tables: %s\n' "$file" "$(stat -c %s "$file")" "$(cut -d '|' -f 1,2 "$work/taken" | tr '|\n' '= ')"
