#!/usr/bin/env bash
# The same with kcat: send a lead, read receipts, read leads, answer a ping.   GAVEL_KAFKA=host:port clients/examples/kcat.sh
set -euo pipefail
kafka=${GAVEL_KAFKA:?set it to a broker, as in localhost:9092}
lead='{"lead_type":"roofing","reference":"KCAT-1","contact":{"first_name":"Ada","last_name":"Finch","email":"ada.finch@example.com","phone":"602-555-0123","street":"12 Cedar Street"},"details":{"state":"AZ","zip":"85004","storm_damage":"yes"}}'
echo "$lead" | kcat -b "$kafka" -P -t sources.sunform.leads
kcat -b "$kafka" -C -t sources.sunform.receipts -o beginning -e
kcat -b "$kafka" -C -t buyers.brightroof.pings -o beginning -e
kcat -b "$kafka" -C -t buyers.brightroof.leads -o beginning -e
# An answer to an offer or a ping is one line:
#   {"type":"accept_offer","lead_id":"...","offer_number":1}
#   {"type":"bid","lead_id":"...","auction_number":1,"exclusive":"85.00"}
