"""What each recipient is told about an entry, all a function of the log: who hears of it, and in which record.

`react` is pure. It names the lead's sealed part without having it: the shell joins the vault's row to a delivery.
One record goes to each recipient's topic for an entry (protocol.md, rule 19), numbered in the order of the events, so
that a record sent again has the same id and the same content. What the records say is in the modules by reader:
`deliveries`, `pings` and `receipts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from services.contract.entries import Entry
from services.contract.events import (
    Event,
    LeadClosed,
    LeadErased,
    LeadSold,
    LeadUpgraded,
    WindowKind,
    WindowOpened,
)
from services.contract.records import quickly_made
from services.contract.times import iso_time
from services.router.deliveries import delivery, erasure_briefly, notice, sold_briefly, upgrade
from services.router.pings import PINGED, pinged
from services.router.promises import Standing
from services.router.receipts import RECEIPTED, receipted


class Channel(StrEnum):
    """Which of an outsider's topics a record goes to."""

    BUYER_LEADS = "buyer_leads"
    BUYER_PINGS = "buyer_pings"
    SOURCE_RECEIPTS = "source_receipts"


@quickly_made
@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record for one recipient, without what only the vault knows.

    `sale_number` is set where the record is a delivery: the lead's sealed part then belongs under `lead`.
    """

    n: int
    channel: Channel
    recipient: str
    type: str
    body: dict[str, Any]
    sale_number: int | None = None


def react(entry: Entry, events: Sequence[Event], partition: int) -> Sequence[Outgoing]:
    """Say who is told what about an entry that stands in `partition` of the log."""
    happened = _Happened(events)
    letters = _Letters(entry, partition)
    if happened.concerns_holders:
        _tell_holders(letters, happened)
    if happened.pinged:
        for buyer_id, bodies in pinged(happened.pinged).items():
            letters.ping(buyer_id, bodies)
    if happened.receipted:
        _tell_source(letters, happened.receipted)
    return letters.written


_WAITS = (WindowKind.WAIT, WindowKind.RETRY)


class _Happened:
    """The events of an entry, by whom they concern."""

    __slots__ = ("closed", "erased", "next_try_ms", "pinged", "receipted", "sold", "upgraded")

    def __init__(self, events: Iterable[Event]) -> None:
        self.sold: list[LeadSold] = []
        self.closed: LeadClosed | None = None
        self.upgraded: LeadUpgraded | None = None
        self.erased: LeadErased | None = None
        self.next_try_ms: int | None = None
        self.pinged: list[Event] = []
        self.receipted: list[Event] = []
        for event in events:
            if isinstance(event, LeadSold):
                self.sold.append(event)
            elif isinstance(event, LeadClosed):
                self.closed = event
            elif isinstance(event, LeadUpgraded):
                self.upgraded = event
            elif isinstance(event, LeadErased):
                self.erased = event
            elif isinstance(event, WindowOpened) and event.kind in _WAITS and self.next_try_ms is None:
                self.next_try_ms = event.due_at_ms
            kind = type(event)
            if kind in RECEIPTED:
                self.receipted.append(event)
            if kind in PINGED:
                self.pinged.append(event)

    @property
    def concerns_holders(self) -> bool:
        """Tell whether a buyer got the lead, or those that have it will remain the only ones, or are to erase it."""
        return bool(self.sold) or any(
            event is not None for event in (self.closed, self.upgraded, self.erased)
        )

    @property
    def holders(self) -> int:
        """How many hold the lead after the entry."""
        if self.sold:
            return len(self.sold[-1].holders) + 1
        return len(self.holders_before) if self.upgraded is None else 1

    @property
    def holders_before(self) -> Sequence[str]:
        """Name those that may have it from an earlier entry."""
        if self.closed is not None:
            return self.closed.holders
        if self.erased is not None:
            return self.erased.holders
        return self.sold[0].holders if self.sold else ()


def _tell_holders(letters: _Letters, happened: _Happened) -> None:
    """Deliver to those that bought, and tell the others that hold the lead what that means for them."""
    lead_id, at_ms = letters.entry.lead_id, letters.entry.decided_at_ms
    standing = Standing(
        holders=happened.holders,
        is_closed=happened.closed is not None,
        next_try_ms=happened.next_try_ms,
    )
    upgraded = happened.upgraded
    told = set()
    for sold in happened.sold:
        alone = upgraded if upgraded is not None and upgraded.sale_id == sold.sale_id else None
        body = delivery(lead_id, at_ms, sold, standing, alone)
        letters.write(Channel.BUYER_LEADS, sold.buyer_id, body, sold.sale_number)
        told.add(sold.buyer_id)
    if upgraded is not None and upgraded.buyer_id not in told:
        letters.write(Channel.BUYER_LEADS, upgraded.buyer_id, upgrade(lead_id, at_ms, upgraded))
        told.add(upgraded.buyer_id)
    for buyer_id in happened.holders_before:
        if buyer_id not in told:
            since = _happened_since(happened)
            letters.write(Channel.BUYER_LEADS, buyer_id, notice(lead_id, at_ms, standing.holders, since))


def _happened_since(happened: _Happened) -> list[dict[str, Any]]:
    since = [sold_briefly(sold) for sold in happened.sold]
    if happened.closed is not None:
        since.append({"type": "closed", "outcome": happened.closed.outcome})
    if happened.erased is not None:
        since.append(erasure_briefly(happened.erased))
    return since


def _tell_source(letters: _Letters, events: Iterable[Event]) -> None:
    """Put all that a source hears of an entry into one receipt; a lead has one source."""
    happened = []
    source_id = ""
    for event in events:
        told = receipted(event)
        if told is not None:
            source_id, item = told
            happened.append(item)
    if happened:
        entry = letters.entry
        body = {
            "type": "receipt",
            "lead_id": entry.lead_id,
            "at": iso_time(entry.decided_at_ms),
            "happened": happened,
        }
        letters.write(Channel.SOURCE_RECEIPTS, source_id, body)


class _Letters:
    """The records of an entry, numbered as they are written."""

    __slots__ = ("_log", "entry", "written")

    def __init__(self, entry: Entry, partition: int) -> None:
        self.entry = entry
        self.written: list[Outgoing] = []
        self._log = {"partition": partition, "seq": entry.seq}

    def write(
        self, channel: Channel, recipient: str, body: dict[str, Any], sale_number: int | None = None
    ) -> None:
        body["log"] = self._log
        type = _ce_type(body["type"])
        self.written.append(Outgoing(len(self.written), channel, recipient, type, body, sale_number))

    def ping(self, buyer_id: str, bodies: Sequence[dict[str, Any]]) -> None:
        """Write the first of what a buyer is told, and the others, if any, inside it."""
        first, *others = bodies
        subject = "account_id" if first["type"] == "account" else "lead_id"
        body = {subject: self.entry.lead_id, "at": iso_time(self.entry.decided_at_ms), **first}
        if others:
            body["also"] = others
        self.write(Channel.BUYER_PINGS, buyer_id, body)


@lru_cache
def _ce_type(type: str) -> str:
    return f"gavel.{type}.v1"
