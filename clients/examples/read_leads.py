"""A buyer: print each lead that it bought, once.   python clients/examples/read_leads.py brightroof"""

import os
import sys

from gavel_client import LeadReader, SqliteSeen

KAFKA, NAMESPACE = os.environ["GAVEL_KAFKA"], os.environ.get("GAVEL_NAMESPACE", "")

buyer_id = sys.argv[1]
with LeadReader(
    buyer_id, servers=KAFKA, namespace=NAMESPACE, seen=SqliteSeen(f"{buyer_id}.sqlite")
) as reader:
    for lead in reader:
        print(lead.sale_id, lead.price, lead.promise, flush=True)
