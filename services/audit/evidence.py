"""What the auditor is given: records as they stand in the topics, and rows as they stand in the tables.

The same auditor judges real servers (rows by SQL, records by a Kafka client) and the simulator's twins in memory, so
nothing of either is here. It shares no code with the steps but the contract, and no rows either: these are its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol


class HeadRow(NamedTuple):
    """A partition as the router's table has it."""

    partition: int
    seq: int
    hash: bytes
    published_seq: int


class SaleRow(NamedTuple):
    """A sale as the router's table has it. `closed_until_ms`: so long a lead's first sale closes it to others.

    That of later sales is the first one's, by a foreign key and in the archive, and not read: None.
    """

    lead_id: str
    sale_number: int
    buyer_id: str
    order_id: str
    mode: str
    sales_max: int
    price_cents: int
    closed_until_ms: int | None


class CloseRow(NamedTuple):
    """A lead's close as the router's table has it."""

    lead_id: str
    outcome: str


class TransferRow(NamedTuple):
    """A transfer of billing's ledger: an amount from one account to another, and what it is about.

    `kind` is the ledger's own word. `sale_id` and `lead_id` are empty where the transfer is about neither.
    """

    transfer_id: str
    kind: str
    debit_account: str
    credit_account: str
    amount_cents: int
    currency: str
    sale_id: str
    lead_id: str


class Tables(Protocol):
    """The tables as of one moment, read as streams: nothing that grows with history is handed over at once."""

    def heads(self) -> Mapping[int, HeadRow]:
        """Give each partition's head."""
        ...

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Give what is used of, and granted to, each limit that the router still keeps."""
        ...

    def sales(self) -> Iterator[SaleRow]:
        """Give the router's sales by lead and number, archived ones included."""
        ...

    def closes(self) -> Iterator[CloseRow]:
        """Give the router's closes, archived ones included."""
        ...

    def transfers(self) -> Iterator[TransferRow]:
        """Give the ledger in the order of its writing."""
        ...

    def accepted(self) -> Iterator[tuple[str, int]]:
        """Give each lead that intake accepted, and when, in milliseconds."""
        ...

    def undelivered(self) -> Iterator[tuple[int, int, int, str]]:
        """Give what the router has not been able to deliver: partition, seq, n, and the recipient's topic."""
        ...
