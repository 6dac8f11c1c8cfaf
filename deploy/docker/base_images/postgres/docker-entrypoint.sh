#!/bin/bash
# Starts PostgreSQL as the entry point of postgres:18 does: POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE and
# POSTGRES_DB make the data in PGDATA, once. It knows no POSTGRES_INITDB_ARGS and no folder of scripts. Called
# docker-ensure-initdb.sh, it makes the data and starts nothing.
set -o errexit -o nounset

if [[ $(id -u) = 0 ]]; then
  mkdir -p "$PGDATA"
  chown -R postgres "$PGDATA"
  if [[ -n ${POSTGRES_PASSWORD_FILE:-} ]]; then
    POSTGRES_PASSWORD=$(< "$POSTGRES_PASSWORD_FILE")
    export POSTGRES_PASSWORD
    unset POSTGRES_PASSWORD_FILE
  fi
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi

password() {
  if [[ -n ${POSTGRES_PASSWORD_FILE:-} ]]; then cat "$POSTGRES_PASSWORD_FILE"; else echo "$POSTGRES_PASSWORD"; fi
}

make_data() {
  local user=${POSTGRES_USER:-postgres}
  initdb --pgdata="$PGDATA" --username="$user" --pwfile=<(password) --auth-host=scram-sha-256 --auth-local=trust \
    --encoding=UTF8 --locale=C
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses='' -c unix_socket_directories=$PGHOST" start
  [[ ${POSTGRES_DB:-$user} = postgres ]] || createdb --username="$user" --maintenance-db=postgres "${POSTGRES_DB:-$user}"
  pg_ctl --pgdata="$PGDATA" --wait stop
}

if [[ $1 = postgres ]]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  [[ -s $PGDATA/PG_VERSION ]] || make_data
  [[ ${0##*/} != docker-ensure-initdb.sh ]] || exit 0
  set -- "$@" -c listen_addresses='*' -c unix_socket_directories="$PGHOST"
fi
exec "$@"
