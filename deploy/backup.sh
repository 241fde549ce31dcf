#!/usr/bin/env bash
# Backs up todo-api's tables into a file, and proves the file by restoring it into a scratch database and comparing every row with
# the moment it was taken. Only a file that has passed is kept. Needs psql, pg_dump and pg_restore of the server's version or newer,
# and a user that may create databases (ALTER ROLE … CREATEDB).
#
# DATABASE_URL (or DATABASE_URL_UNPOOLED, where DATABASE_URL leads through a pooler), or the systemd credential of that name
# DB_SCHEMA       the schema, "todo" by default
# BACKUP_DIR      where the files lie, /var/backups/todo-api by default
# BACKUP_KEEP     how many of them are kept, 14 by default
# BACKUP_CHECK    "off" leaves the proof out, where no scratch database can be made
set -euo pipefail
umask 077

fail() {
    printf 'backup: %s\n' "$*" >&2
    exit 1
}

# shellcheck source=deploy/database.sh
. "$(dirname "$(readlink -f "$0")")/database.sh"

use_database DATABASE_URL_UNPOOLED DATABASE_URL
directory=${BACKUP_DIR:-/var/backups/todo-api}
keep=${BACKUP_KEEP:-14}
[[ $keep =~ ^[1-9][0-9]*$ ]] || fail "BACKUP_KEEP must be a whole number from 1."
[ -d "$directory" ] || mkdir -p "$directory"

work=$(mktemp -d)
scratch=
finish() {
    if [ -n "$scratch" ]; then
        printf 'DROP DATABASE IF EXISTS "%s";\n' "$scratch" | query || true
    fi
    rm -rf "$work"
    rm -f "${file:-$work/none}.part"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# The address of another database on the same server.
for_database() {
    local scheme=${url%%://*} place=${url#*://} parameters=
    case $place in *\?*) parameters="?${place#*\?}" place=${place%%\?*} ;; esac
    printf '%s://%s/%s%s' "$scheme" "${place%%/*}" "$1" "$parameters"
}

# psql on this address, with what stands in standard input.
query_at() { psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$1"; }
query() { query_at "$url"; }

# Counts and hashes every row of every table, whatever their order: one line a table.
fingerprint="SELECT coalesce(string_agg(format(
        'SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM %I.%I AS t', relname, '$schema', relname),
        ' UNION ALL ' ORDER BY relname) || ' ORDER BY 1', 'SELECT 0')
    FROM pg_class WHERE relnamespace = to_regnamespace('$schema') AND relkind = 'r' \\gexec"
session="SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET statement_timeout = 0; SET lock_timeout = 0;
    SET idle_in_transaction_session_timeout = 0;"

file=$directory/todo-api-$(date -u +%Y%m%dT%H%M%SZ).dump
[ ! -e "$file" ] || fail "$file is there already."

# A session that holds one moment of the database for as long as it is looked at.
mkfifo "$work/ask" "$work/answer"
query <"$work/ask" >"$work/answer" &
holder=$!
exec 3>"$work/ask" 4<"$work/answer"
printf '%s BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n' "$session" >&3
read -r snapshot <&4 || fail "the database cannot be read; what it says is above."
pg_dump --dbname="$url" --format=custom --schema="$schema" --snapshot="$snapshot" --no-owner --no-privileges --file="$file.part"
printf "%s\nSELECT 'end';\n" "$fingerprint" >&3
while read -r line <&4 && [ "$line" != end ]; do printf '%s\n' "$line"; done >"$work/taken"
printf 'COMMIT;\n' >&3
exec 3>&- 4<&-
wait "$holder"
grep -q '^schema_migrations|' "$work/taken" || fail "there are no tables of todo-api in schema $schema."

if [ "${BACKUP_CHECK:-on}" != off ]; then
    scratch=todo_backup_check_$$_$(date +%s)
    printf 'CREATE DATABASE "%s" TEMPLATE template0 ENCODING %s;\n' "$scratch" "'UTF8'" | query ||
        fail "no scratch database can be made: ALTER ROLE … CREATEDB lets this user do it, BACKUP_CHECK=off does without."
    there=$(for_database "$scratch")
    pg_restore --dbname="$there" --exit-on-error --single-transaction --no-owner --no-privileges "$file.part"
    printf '%s\n%s\n' "$session" "$fingerprint" | query_at "$there" >"$work/restored"
    cmp -s "$work/taken" "$work/restored" ||
        fail "what comes out of the backup is not what went in: $(diff "$work/taken" "$work/restored" | head -n 5)"
fi

sync "$file.part"
mv "$file.part" "$file"
# The newest stay.
find "$directory" -maxdepth 1 -name 'todo-api-*.dump' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -f "$old"
done
printf 'backup: %s, %s bytes, tables: %s\n' "$file" "$(stat -c %s "$file")" "$(cut -d '|' -f 1,2 "$work/taken" | tr '|\n' '= ')"
