#!/bin/bash
# Starts the image's PostgreSQL. With a partner (GAVEL_POSTGRES_PARTNER) it decides first what this server is:
#
#   no data, the partner is a primary   its standby, with a copy of its data
#   no data, and called `postgres`      a new primary, which commits nothing that its partner does not have on disk
#   data of a standby                   a standby still
#   data of a primary                   a primary still, unless the partner is one by now: two must never be
set -o errexit -o nounset -o pipefail

NAME=${GAVEL_POSTGRES_NAME:?}
PARTNER=${GAVEL_POSTGRES_PARTNER:-}
LOOK_EVERY_S=1

partner_is_primary() {
  [[ $(psql --no-psqlrc --tuples-only --no-align --command="select pg_is_in_recovery()" \
    "host=$PARTNER user=gavel dbname=gavel connect_timeout=3" 2> /dev/null) = f ]]
}

copy_of_partner() {
  rm -rf "$PGDATA.new"
  pg_basebackup --pgdata="$PGDATA.new" --checkpoint=fast --write-recovery-conf \
    --dbname="host=$PARTNER user=gavel passfile=$PGPASSFILE"
  mv "$PGDATA.new" "$PGDATA"
}

new_primary() {
  docker-ensure-initdb.sh "$@"
  echo "synchronous_standby_names = '\"$PARTNER\"'" >> "$PGDATA/postgresql.auto.conf"
}

if [[ -n $PARTNER && ! -s $PGDATA/PG_VERSION ]]; then
  mkdir -p "$(dirname "$PGDATA")"
  until partner_is_primary || [[ $NAME = postgres ]]; do sleep "$LOOK_EVERY_S"; done
  if partner_is_primary; then copy_of_partner; else new_primary "$@"; fi
elif [[ -n $PARTNER && ! -e $PGDATA/standby.signal ]] && partner_is_primary; then
  echo "error: $PARTNER is the primary by now, and the data here is that of one. Two would part for good." \
    "Make this one its standby, with the data anew: deploy/docker/database.sh rejoin $NAME" >&2
  exit 1
fi
# By this name its partner knows it. The copying itself must not go by it: a copy that is not whole yet would count as
# a standby that has the commits.
exec docker-entrypoint.sh "$@" -c cluster_name="$NAME"
