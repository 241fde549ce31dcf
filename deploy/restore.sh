#!/usr/bin/env bash
# Puts a backup that backup.sh has made into a database: restore.sh FILE. The schema must not be there yet: create a new database
# and name it in DATABASE_URL, look at it with `todo-api doctor`, then let the server use it.
#
# DATABASE_URL  where to, or the systemd credential of that name
# DB_SCHEMA     the schema, "todo" by default
set -euo pipefail

fail() {
    printf 'restore: %s\n' "$*" >&2
    exit 1
}

file=${1:-}
[ -f "$file" ] || fail "name the file to restore: restore.sh FILE"
# shellcheck source=deploy/database.sh
. "$(dirname "$(readlink -f "$0")")/database.sh"

use_database DATABASE_URL
there=$(psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$url" -c "SELECT to_regnamespace('\"$schema\"') IS NOT NULL")
[ "$there" = f ] || fail "there is a schema $schema in that database already: restore into a new database, and nothing is lost."
# All of it, or nothing.
pg_restore --dbname="$url" --exit-on-error --single-transaction --no-owner --no-privileges "$file"
tasks=$(psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$url" -c "SELECT count(*) FROM \"$schema\".tasks")
printf 'restore: %s is in place, with %s tasks\n' "$file" "$tasks"
