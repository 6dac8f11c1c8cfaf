"""What the feed publishes for an entry of the log: its events, one record each, as they were written.

Pure, and blind to what the events say: no event is decoded here.
"""

from __future__ import annotations

from services.contract.codec import framed
from services.contract.entries import Entry


def values_of(entry: Entry) -> list[bytes]:
    """Give the value of each event's record, in the order of the events."""
    return [framed(event) for event in entry.events]
