#!/bin/sh
# Tries the composed system: starts it with the market in a hurry, sends the leads of examples/leads, waits until nothing is
# under way, and has every guarantee judged. Exit code 0: all hold. It stays up; `docker compose down --volumes` ends it,
# data included. COMPOSE names the command where it is not `docker compose`.
set -eu
cd "$(dirname "$0")/../.."

COMPOSE=${COMPOSE:-docker compose}
WITHIN_S=${WITHIN_S:-600}
export GAVEL_MARKET="${GAVEL_MARKET:-./examples/market-demo.yaml}"

operator() { $COMPOSE run --rm operator "$@"; }

deploy/docker/secrets.sh
$COMPOSE up --detach

for leads in examples/leads/*.jsonl; do
  source=$(basename "$leads" .jsonl)
  operator source add "$source" --save
  operator source send "$source" "$leads"
done

# 2 is: something is still under way. The auditor itself waits for a minute each time.
deadline=$(($(date +%s) + WITHIN_S))
while found=0; operator audit run --once --at-rest || found=$?; [ "$found" -eq 2 ]; do
  [ "$(date +%s)" -lt "$deadline" ] || { echo "error: not at rest after $WITHIN_S s." >&2; exit 1; }
done
operator billing balance
exit "$found"
