#!/usr/bin/env bash
# Puts a backup of backup.sh into a database: restore.sh FILE, or - for standard input. The schema must not exist there yet:
# create a new database and name it in DATABASE_URL. For the installed service: todo-apictl restore FILE
#
# DATABASE_URL  the database, or the systemd credential of that name
# DB_SCHEMA     the schema, "todo" by default
set -euo pipefail
umask 077

fail() {
    printf 'restore: %s\n' "$*" >&2
    exit 1
}

file=${1:-}
[ "$file" = - ] || [ -f "$file" ] || fail "name the file to restore: restore.sh FILE"
# shellcheck source=deploy/database.sh
. "$(dirname "$(readlink -f "$0")")/database.sh"

use_database DATABASE_URL
exists=$(query <<<"SELECT to_regnamespace('\"$schema\"') IS NOT NULL")
[ "$exists" = f ] || fail "that database has a schema $schema already: restore into a new database, and nothing is lost."
[ "$file" = - ] || exec <"$file"
restore_into "${PGDATABASE:-}"
# Clients of the feed of changes may know more than the backup. The server repairs the feed when it finds this counter of transactions.
feed=$(query <<<"SELECT to_regclass('\"$schema\".feed')")
[ -z "$feed" ] || query <<<"UPDATE \"$schema\".feed SET id = gen_random_uuid(), noted = '18446744073709551615'"
printf 'restore: done, with %s tasks\n' "$(query <<<"SELECT count(*) FROM \"$schema\".tasks")"
