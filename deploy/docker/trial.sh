#!/bin/sh
# Tries the composed system: starts it with the market in a hurry, sends the leads of examples/leads, waits until nothing is
# under way, and has every guarantee judged. Exit code 0: all hold. It stays up; `docker compose down --volumes` ends it,
# data included. COMPOSE names the command where it is not `docker compose`.
#
#   deploy/docker/trial.sh             on one machine's servers, all leads at once
#   deploy/docker/trial.sh cluster     on a cluster: RATE leads a second of each source, while a worker of each step, then a
#                                      broker, then the database's primary are killed
set -eu
cd "$(dirname "$0")/../.."

COMPOSE=${COMPOSE:-docker compose}
export COMPOSE
WITHIN_S=${WITHIN_S:-600}
RATE=${RATE:-4}
KILLED="intake router resale billing feed"
export GAVEL_MARKET="${GAVEL_MARKET:-./examples/market-demo.yaml}"
BEGAN=$(date +%s)
LEADS=examples/leads
PACED=""

composed() { $COMPOSE ${ENV_FILE:+--env-file "$ENV_FILE"} "$@"; }
operator() { composed run --rm -T operator "$@"; }
say() { printf '%4s s  %s\n' "$(($(date +%s) - BEGAN))" "$*"; }

case ${1:-} in
  "") ;;
  cluster)
    ENV_FILE=deploy/docker/cluster.env
    export GAVEL_SECRETS="${GAVEL_SECRETS:-.gavel/cluster}"
    ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

sources() { for file in "$LEADS"/*.jsonl; do basename "$file" .jsonl; done; }

paced() { awk -v rate="$RATE" '{ print; fflush() } NR % rate == 0 { system("sleep 1") }' "$1"; }

container() { composed ps --quiet "$1" | head -n 1; }

kill_for() { # SECONDS SERVICE...
  seconds=$1
  shift
  killed=""
  for service; do killed="$killed $(container "$service")"; done
  docker kill --signal KILL $killed > /dev/null
  say "killed: $*"
  sleep "$seconds"
  docker start $killed > /dev/null
  say "started again: $*"
}

# A fault that nothing was under way for proves nothing.
require_load() {
  for sender in $PACED; do ! kill -0 "$sender" 2> /dev/null || return 0; done
  echo "error: the leads ran out before the faults did: give a RATE below $RATE." >&2
  exit 1
}

kill_everything_once() {
  sleep 15
  kill_for 10 $KILLED
  sleep 15
  kill_for 15 kafka-2
  sleep 20
  require_load
  docker kill --signal KILL "$(container postgres)" > /dev/null
  say "killed: the database's primary"
  deploy/docker/database.sh fail-over postgres-2
  say "the standby is the primary"
  sleep 20
  deploy/docker/database.sh rejoin postgres
  say "the former primary is the standby"
}

deploy/docker/secrets.sh
composed up --detach
say "up"

for source in $(sources); do operator source add "$source" --save; done
for source in $(sources); do
  if [ -n "${ENV_FILE:-}" ]; then
    paced "$LEADS/$source.jsonl" | operator source send "$source" - &
    PACED="$PACED $!"
  else
    operator source send "$source" - < "$LEADS/$source.jsonl"
  fi
done
[ -z "${ENV_FILE:-}" ] || kill_everything_once
for sender in $PACED; do wait "$sender"; done
say "all leads are sent"

# 2 is: something is still under way. The auditor itself waits for a minute each time.
deadline=$(($(date +%s) + WITHIN_S))
while found=0; operator audit run --once --at-rest || found=$?; [ "$found" -eq 2 ]; do
  [ "$(date +%s)" -lt "$deadline" ] || { echo "error: not at rest after $WITHIN_S s." >&2; exit 1; }
done
operator billing balance
say "judged"
exit "$found"
