# shellcheck shell=bash
# Sourced by backup.sh and restore.sh: finds the database and prepares the connection of psql, pg_dump and pg_restore.
# The sourcing script defines `fail`.

# setting NAME: its value, from the environment or from a systemd credential.
setting() {
    if [ -n "${!1:-}" ]; then
        printf '%s' "${!1}"
    elif [ -n "${CREDENTIALS_DIRECTORY:-}" ] && [ -r "$CREDENTIALS_DIRECTORY/$1" ]; then
        tr -d '\r\n' <"$CREDENTIALS_DIRECTORY/$1"
    fi
}

# unescape TEXT: decodes %-escapes.
unescape() {
    local text=${1//\\/\\\\}
    printf '%b' "${text//%/\\x}"
}

# use_database NAME…: takes the first of these settings that has a value, else the private database of a running server. Sets
# `url`, which names no database and no password, PGDATABASE and PGPASSWORD, and `schema`.
use_database() {
    local name address='' authorities=/etc/ssl/certs/ca-certificates.crt
    for name in "$@"; do address=${address:-$(setting "$name")}; done
    schema=${DB_SCHEMA:-todo}
    [[ $schema =~ ^[a-z_][a-z0-9_]*$ ]] || fail "DB_SCHEMA is not the name of a schema."
    if [ -z "$address" ]; then
        use_private_database
        return
    fi
    # Drivers of other languages add their name to the scheme; libpq does not know it.
    [[ $address =~ ^postgres(ql)?(\+[a-z0-9_]+)?://(([^:/@?]*)(:([^/@?]*))?@)?([^/@?]*)(/([^?]*))?(\?(.*))?$ ]] ||
        fail "DATABASE_URL must be written as postgresql://user:password@host/database"
    local user=${BASH_REMATCH[4]} password=${BASH_REMATCH[6]} host=${BASH_REMATCH[7]} database=${BASH_REMATCH[9]} parameters=${BASH_REMATCH[11]}
    case "&$parameters" in
    *\&password=* | *\&dbname=*)
        fail "DATABASE_URL must name password and database before the parameters: postgresql://user:password@host/database?…"
        ;;
    esac
    url=postgresql://${user:+$user@}$host/${parameters:+?$parameters}
    # Every user of this machine can read the arguments of programs, but not their environment.
    if [ -n "$password" ]; then PGPASSWORD=$(unescape "$password") && export PGPASSWORD; fi
    if [ -n "$database" ]; then PGDATABASE=$(unescape "$database") && export PGDATABASE; fi
    # libpq needs a file of authorities. The server has Mozilla's list compiled in.
    case $parameters in
    *sslrootcert=*) ;;
    *sslmode=verify-*) [ ! -r "$authorities" ] || export PGSSLROOTCERT="${PGSSLROOTCERT:-$authorities}" ;;
    esac
}

# The private database in DATA_DIR. The pid file of PostgreSQL has the port in line 4 and the directory of the socket in line 5.
use_private_database() {
    local directory=${DATA_DIR:-./data}
    local pid_file=$directory/postgres/postmaster.pid
    [ -e "$directory/postgres" ] || fail "DATABASE_URL is not set, and there is no private database in $directory."
    [ -r "$pid_file" ] || fail "the private database in $directory is not running: start the server first (scripts/run)."
    url=postgresql://todo@/
    export PGDATABASE=todo
    PGPORT=$(sed -n 4p "$pid_file") PGHOST=$(sed -n 5p "$pid_file")
    export PGPORT PGHOST
}

# psql with the statements of standard input.
query() { psql -X -q -A -t -v ON_ERROR_STOP=1 --dbname="$url"; }

# restore_into DATABASE: all of the backup on standard input, or nothing.
restore_into() {
    PGDATABASE=$1 pg_restore --dbname="$url" --exit-on-error --single-transaction --no-owner --no-privileges
}
