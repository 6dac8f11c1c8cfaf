#!/bin/sh
# Moves the primary of a cluster's database, and makes the other one its standby again. Each database is named as in
# docker-compose.yml; COMPOSE names the command where it is not `docker compose`.
#
#   deploy/docker/database.sh fail-over [postgres-2]   it becomes the primary, and runs alone
#   deploy/docker/database.sh rejoin [postgres]        its data is thrown away; it becomes the other's synchronous standby
set -eu
cd "$(dirname "$0")/../.."

COMPOSE="${COMPOSE:-docker compose} --env-file deploy/docker/cluster.env"
WITHIN_S=${WITHIN_S:-120}

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }

partner() {
  case $1 in
    postgres) echo postgres-2 ;;
    postgres-2) echo postgres ;;
    *) usage ;;
  esac
}

# sql DATABASE STATEMENT...: each by itself, since some can't share a transaction.
sql() {
  database=$1
  shift
  for statement; do
    $COMPOSE exec -T "$database" psql --no-psqlrc --quiet --tuples-only --no-align \
      --username=gavel --dbname=gavel --command="$statement"
  done
}

await() { # WHAT DATABASE CONDITION
  deadline=$(($(date +%s) + WITHIN_S))
  until [ "$(sql "$2" "select $3" 2> /dev/null)" = t ]; do
    [ "$(date +%s)" -lt "$deadline" ] || { echo "error: $1 has not come about in $WITHIN_S s." >&2; exit 1; }
    sleep 1
  done
}

standby() { echo "(select from pg_stat_replication where application_name = '$1'"; }

fail_over() {
  other=$(partner "$1")
  [ "$(sql "$1" "select pg_is_in_recovery()")" = t ] || { echo "error: $1 is no standby." >&2; exit 1; }
  # First, so that the two are never primaries at once. One that hangs, or is cut off, must be ended, too.
  $COMPOSE stop "$other"
  sql "$1" "alter system set synchronous_standby_names = ''" "select pg_reload_conf()" "select pg_promote()" > /dev/null
  await "its promotion" "$1" "not pg_is_in_recovery()"
  echo "$1 is the primary, and alone: deploy/docker/database.sh rejoin $other"
}

rejoin() {
  other=$(partner "$1")
  [ "$(sql "$other" "select pg_is_in_recovery()")" = f ] || { echo "error: $other is not the primary." >&2; exit 1; }
  $COMPOSE rm --stop --force "$1"
  $COMPOSE run --rm -T --no-deps --entrypoint bash "$1" -c 'rm -rf "$PGDATA"'
  $COMPOSE up --detach --no-deps "$1"
  await "a copy of $other" "$other" "exists $(standby "$1") and state = 'streaming')"
  sql "$other" "alter system set synchronous_standby_names = '\"$1\"'" "select pg_reload_conf()" > /dev/null
  await "a synchronous standby" "$other" "exists $(standby "$1") and sync_state = 'sync')"
  echo "$1 has on its disk whatever $other commits."
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
case $1 in
  fail-over) fail_over "${2:-postgres-2}" ;;
  rejoin) rejoin "${2:-postgres}" ;;
  *) usage ;;
esac
