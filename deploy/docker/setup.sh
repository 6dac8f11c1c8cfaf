#!/bin/sh
# Brings database and topics to what this release expects; gives the first market. A later one is the operator's to apply:
# what is in force may have been changed since, as by `gavel buyer pause`.
set -eu

gavel setup
applied=$(gavel market history)
if [ -n "$applied" ]; then
  echo "A market is in force, and stays."
else
  gavel market apply "$GAVEL_FIRST_MARKET"
fi
