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
url=${DATABASE_URL:-}
if [ -z "$url" ] && [ -n "${CREDENTIALS_DIRECTORY:-}" ] && [ -r "$CREDENTIALS_DIRECTORY/DATABASE_URL" ]; then
    url=$(tr -d '\r\n' <"$CREDENTIALS_DIRECTORY/DATABASE_URL")
fi
[ -n "$url" ] || fail "DATABASE_URL is not set."
schema=${DB_SCHEMA:-todo}
[[ $schema =~ ^[a-z_][a-z0-9_]*$ ]] || fail "DB_SCHEMA is no name of a schema."
# As in backup.sh.
url=$(printf '%s' "$url" | sed -E 's,^(postgres(ql)?)\+[a-z0-9_]+://,\1://,')
case $url in
postgres://* | postgresql://*) ;;
*) fail "DATABASE_URL must be written as postgresql://…" ;;
esac
if [[ $url =~ ^([a-z]+://[^:/@?]*):([^/@?]*)@(.*)$ ]]; then
    url=${BASH_REMATCH[1]}@${BASH_REMATCH[3]}
    PGPASSWORD=${BASH_REMATCH[2]//\\/\\\\}
    PGPASSWORD=$(printf '%b' "${PGPASSWORD//%/\\x}")
    export PGPASSWORD
fi
case $url in *[?\&]password=*) fail "the password must stand before the host in DATABASE_URL: postgresql://user:password@host/…" ;; esac
# libpq has to be told where the authorities are; the server brings Mozilla's list along.
authorities=/etc/ssl/certs/ca-certificates.crt
case $url in
*sslrootcert=*) ;;
*sslmode=verify-*) [ ! -r "$authorities" ] || export PGSSLROOTCERT="${PGSSLROOTCERT:-$authorities}" ;;
esac

there=$(psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$url" -c "SELECT to_regnamespace('\"$schema\"') IS NOT NULL")
[ "$there" = f ] || fail "there is a schema $schema in that database already: restore into a new database, and nothing is lost."
# The index for searches needs extensions that are not ours and so not in the backup.
contents=$(mktemp)
trap 'rm -f "$contents"' EXIT
pg_restore --list "$file" >"$contents"
for extension in btree_gin pg_trgm; do
    psql -X -q -v ON_ERROR_STOP=1 --dbname="$url" -c "CREATE EXTENSION IF NOT EXISTS $extension WITH SCHEMA public" && continue
    echo "restore: without the extension $extension searches read tasks one by one, without an index." >&2
    sed -i '/ INDEX .* tasks_search /d' "$contents"
done
# All of it, or nothing.
pg_restore --dbname="$url" --exit-on-error --single-transaction --no-owner --no-privileges --use-list="$contents" "$file"
tasks=$(psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$url" -c "SELECT count(*) FROM \"$schema\".tasks")
printf 'restore: %s is in place, with %s tasks\n' "$file" "$tasks"
