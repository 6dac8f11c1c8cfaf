"""For sources and buyers of Gavel: stream leads, read what was bought, answer pings. Speaks Kafka, knows no server."""

from gavel_client.bidder import Bid, Bidder, NoBid, Ping
from gavel_client.buyer import Answers, AvroRecord, Erasure, LeadReader, PurchasedLead
from gavel_client.seen import MemorySeen, Seen, SqliteSeen
from gavel_client.source import LeadSource, NotSent

__all__ = [
    "Answers",
    "AvroRecord",
    "Bid",
    "Bidder",
    "Erasure",
    "LeadReader",
    "LeadSource",
    "MemorySeen",
    "NoBid",
    "NotSent",
    "Ping",
    "PurchasedLead",
    "Seen",
    "SqliteSeen",
]
