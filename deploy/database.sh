# Sourced by backup.sh and restore.sh: prepares the address of the database for psql, pg_dump and pg_restore.
# The sourcing script defines `fail`.

# setting NAME: its value, from the environment or from a systemd credential.
setting() {
    if [ -n "${!1:-}" ]; then
        printf '%s' "${!1}"
    elif [ -n "${CREDENTIALS_DIRECTORY:-}" ] && [ -r "$CREDENTIALS_DIRECTORY/$1" ]; then
        tr -d '\r\n' <"$CREDENTIALS_DIRECTORY/$1"
    fi
}

# use_database NAME…: sets `url` to the first of these settings that has a value, and `schema`.
use_database() {
    local name authorities=/etc/ssl/certs/ca-certificates.crt
    url=
    for name in "$@"; do url=${url:-$(setting "$name")}; done
    [ -n "$url" ] || fail "DATABASE_URL is not set."
    schema=${DB_SCHEMA:-todo}
    [[ $schema =~ ^[a-z_][a-z0-9_]*$ ]] || fail "DB_SCHEMA is no name of a schema."
    # libpq does not know driver names in the scheme.
    url=$(printf '%s' "$url" | sed -E 's,^(postgres(ql)?)\+[a-z0-9_]+://,\1://,')
    case $url in
    postgres://* | postgresql://*) ;;
    *) fail "DATABASE_URL must be written as postgresql://…" ;;
    esac
    # The password goes through the environment, because every user of this machine can read the arguments of programs.
    if [[ $url =~ ^([a-z]+://[^:/@?]*):([^/@?]*)@(.*)$ ]]; then
        url=${BASH_REMATCH[1]}@${BASH_REMATCH[3]}
        PGPASSWORD=${BASH_REMATCH[2]//\\/\\\\}
        PGPASSWORD=$(printf '%b' "${PGPASSWORD//%/\\x}")
        export PGPASSWORD
    fi
    case $url in *[?\&]password=*) fail "the password must stand before the host in DATABASE_URL: postgresql://user:password@host/…" ;; esac
    # libpq needs a file of authorities. The server has Mozilla's list compiled in.
    case $url in
    *sslrootcert=*) ;;
    *sslmode=verify-*) [ ! -r "$authorities" ] || export PGSSLROOTCERT="${PGSSLROOTCERT:-$authorities}" ;;
    esac
}
