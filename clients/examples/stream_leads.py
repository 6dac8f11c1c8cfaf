"""A source: stream leads, then print what became of them.   python stream_leads.py sunform leads.jsonl"""

import json
import os
import sys

from gavel_client import LeadSource

KAFKA, NAMESPACE = os.environ["GAVEL_KAFKA"], os.environ.get("GAVEL_NAMESPACE", "")

source_id, path = sys.argv[1:3]
with LeadSource(source_id, servers=KAFKA, namespace=NAMESPACE) as source, open(path) as leads:
    for line in leads:
        source.send(json.loads(line))
    source.flush()
    for receipt in source.receipts(quiet_s=10):
        print(receipt["lead_id"], receipt["happened"])
