"""A bidder: bid on leads of good credit, pass on others.   python clients/examples/answer_pings.py lendfast"""

import os
import sys

from gavel_client import Bid, Bidder, NoBid, Ping

KAFKA, NAMESPACE = os.environ["GAVEL_KAFKA"], os.environ.get("GAVEL_NAMESPACE", "")


def decide(ping: Ping) -> Bid | NoBid:
    """Say what a lead is worth to us."""
    is_good = ping.fields["credit"] in ("good", "excellent")
    return Bid(exclusive="85.00", shared="34.00") if is_good else NoBid("criteria")


Bidder(sys.argv[1], servers=KAFKA, namespace=NAMESPACE).run(decide, on_other=print)
