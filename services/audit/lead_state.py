"""What the auditor knows of one lead: what the log says happened to it, and which of that its readers were told.

Plain facts, gathered in any order: a delivery may be read before the entry that it follows from. Nothing is judged.
An account, whose moves of money the log tells under an id like a lead's, has a state of the same kind.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from services.audit.avro_times import milliseconds_of


class Listed(NamedTuple):
    """How the log lists a lead."""

    source_id: str
    lead_type: str
    plan: str | None
    quality: int
    fields: dict[str, str]
    sales_max: int
    never_to: tuple[str, ...]
    created_at_ms: int
    market_version: int
    is_test: bool
    payout_cents: int
    currency: str | None
    consented_buyers: tuple[str, ...]


class Terms(NamedTuple):
    """What the log says of a sale, without its id and the times that the lead's own history tells."""

    sale_number: int
    buyer_id: str
    order_id: str
    source_id: str
    lead_type: str
    plan: str
    stage: int
    mode: str
    price_cents: int
    currency: str
    sales_max: int
    exclusive_until_ms: int | None
    others_may_follow: bool
    others_from_ms: int | None
    holders: tuple[str, ...]
    offer_number: int | None
    quality: int
    is_test: bool
    auction_number: int | None
    upgrade_fee_cents: int | None
    upgrade_until_ms: int | None
    payout_cents: int
    draws: tuple[tuple[str, int, int], ...]


class Happened(NamedTuple):
    """An entry, as far as outsiders are told of it.

    `told` is what its source hears, in the order of the events: a sale by its number, the others by their name (what is
    taken back with number and amount). `holders`: how many hold the lead after it. `pings`: for each buyer that is told
    something there, a digest of it. `erasure`: why its holders are to erase it, and until when.
    """

    offset: int
    decided_at_ms: int
    told: tuple[Any, ...]
    sold: tuple[int, ...]
    outcome: str | None
    holders: int
    upgraded: bool
    next_try_ms: int | None
    pings: tuple[tuple[str, bytes], ...]
    erasure: tuple[str, int] | None = None


class Told(NamedTuple):
    """A record to an outsider that waits for its entry to be read.

    `at`: its topic, partition and offset. `contact`: of a delivery, a digest of the contact details and their names, in
    place of what they say.
    """

    seq: int
    n: int
    kind: str
    recipient: str
    body: dict[str, Any]
    digest: bytes
    at: tuple[str, int, int]
    timestamp_ms: int
    contact: tuple[bytes, tuple[str, ...]] | None = None


class Sale:
    """One buyer's purchase, and what became of it.

    `told_from_ms`: others were promised not to follow before. `fee`: cents, payout, draws, seq, offset and time of its
    upgrade. `credits`: kind, cents, payout taken back, seq, offset and time of what was given back.
    """

    fee: tuple[int, int, tuple[tuple[str, int, int], ...], int, int, int] | None = None
    credits: list[tuple[str, int, int, int, int, int]] | None = None
    returned = False
    return_pending = False
    refused = False
    failed = False

    def __init__(self, terms: Terms, sold_at_ms: int, seq: int, offset: int) -> None:
        self.terms = terms
        self.sold_at_ms = sold_at_ms
        self.seq = seq
        self.offset = offset
        self.told_from_ms = terms.others_from_ms


class Accepted:
    """By what a lead is known to be accepted: bits."""

    RECEIPT = 1
    QUALIFIED = 2
    TABLE = 4


class LeadState:
    """All that is known of one lead.

    `place`: seq and offset of the entry that listed it; `close`: of the one that closed it, with time and outcome.
    `auction`, `bids` are of the auction that is open; `windows` are those that are open, by number: kind, end. `moves`
    are an account's: buyer, kind, reference, cents, currency, seq, offset, time. `erasure`: why the holders were asked
    to erase it, and who has. `contact`: a digest of the details that its deliveries have.
    """

    # Most leads never have most of these: so they are the class's until they are a lead's own.
    listed: Listed | None = None
    place: tuple[int, int] | None = None
    close: tuple[int, int, int, str] | None = None
    accepted = 0
    accepted_at: str | None = None
    accepted_at_ms = 0
    waiting: list[Told] | None = None
    auction: tuple[Any, ...] | None = None
    auctions = 0
    bids: dict[str, tuple[Any, ...]] | None = None
    declined: list[str] | None = None
    offer: tuple[Any, ...] | None = None
    windows: dict[int, tuple[str, int]] | None = None
    stage = 0
    stage_from_ms = 0
    upgraded = False
    moves: list[tuple[str, str, str, int, str, int, int, int]] | None = None
    erasure: tuple[str, tuple[str, ...]] | None = None
    contact: bytes | None = None

    def __init__(self) -> None:
        self.sales: list[Sale] = []
        self.happened: dict[int, Happened] = {}
        self.seen: dict[int, bytes] = {}


class UsualLead(NamedTuple):
    """What leads have in common that entries alike have listed, sold and closed at once."""

    listed: Listed
    terms: tuple[Terms, ...]
    told: tuple[Any, ...]
    sold: tuple[int, ...]
    outcome: str


def usual_of(state: LeadState, seq: int) -> UsualLead | None:
    """Take out of a lead's state what it has in common with others, if all of it is by the entry `seq`."""
    listed, happened = state.listed, state.happened.get(seq)
    if listed is None or happened is None or happened.outcome is None:
        return None
    # The fields of a closed lead are not asked for any more.
    alike = listed._replace(fields={}, created_at_ms=0)
    terms = tuple([sale.terms for sale in state.sales])
    return UsualLead(alike, terms, happened.told, happened.sold, happened.outcome)


PLACE: Final = struct.Struct(">QQ6s6s")
"""What such a lead has of its own: seq and offset of its entry, and when that was decided and the lead created."""


def usual_state(usual: UsualLead, place: bytes) -> LeadState:
    """Make the state of such a lead."""
    seq, offset, decided, created = PLACE.unpack(place)
    decided_at_ms = milliseconds_of(decided)
    state = LeadState()
    state.listed = usual.listed._replace(created_at_ms=milliseconds_of(created))
    state.place, state.stage_from_ms = (seq, offset), decided_at_ms
    state.sales = [Sale(terms, decided_at_ms, seq, offset) for terms in usual.terms]
    state.close = (seq, offset, decided_at_ms, usual.outcome)
    state.happened[seq] = Happened(
        offset, decided_at_ms, usual.told, usual.sold, usual.outcome, len(usual.terms), False, None, ()
    )
    return state


def letters_of(state: LeadState, happened: Happened) -> list[tuple[str, str, Any]]:
    """Say who is told of an entry, in the order of their records: kind of record, recipient, and what it is about.

    A delivery is about its sale's number, a ping about its digest.
    """
    sales = state.sales
    letters: list[tuple[str, str, Any]] = [
        (LEAD, sales[number - 1].terms.buyer_id, number) for number in happened.sold
    ]
    if happened.upgraded and not happened.sold:
        letters.append((UPGRADED, sales[0].terms.buyer_id, 1))
    if happened.sold or happened.outcome is not None or happened.erasure is not None:
        before = happened.sold[0] - 1 if happened.sold else happened.holders
        told = happened.upgraded and not happened.sold
        letters += [(NOTICE, sale.terms.buyer_id, None) for sale in sales[int(told) : before]]
    letters += [(PING, buyer_id, digest) for buyer_id, digest in happened.pings]
    if happened.told and state.listed is not None:
        letters.append((RECEIPT, state.listed.source_id, None))
    return letters


def is_settled(state: LeadState) -> bool:
    """Tell whether nothing is to come of a lead: accepted, listed, closed, and all told that there was to tell.

    What is not accepted by a record of intake may be by its table, which is asked at the end.
    """
    if state.waiting or (state.listed is None) == bool(state.accepted):
        return False
    if state.listed is not None and state.close is None:
        return False
    seen = state.seen
    return all(
        (seq << N_BITS | n) in seen
        for seq, happened in state.happened.items()
        for n in range(len(letters_of(state, happened)))
    )


LEAD, UPGRADED, NOTICE, PING, RECEIPT = "lead", "upgraded", "notice", "ping", "receipt"
"""Kinds of records to outsiders."""

N_BITS = 16
"""An entry has fewer than 2**16 records to outsiders."""

_SALE = (
    "terms", "sold_at_ms", "seq", "offset", "told_from_ms", "fee", "credits", "returned", "return_pending", "refused",
    "failed",
)  # fmt: skip
_LEAD = (
    "place", "close", "accepted", "accepted_at", "accepted_at_ms", "auction", "auctions", "bids", "declined", "offer",
    "windows", "stage", "stage_from_ms", "upgraded", "moves", "seen", "erasure",
    "contact",
)  # fmt: skip


def plain(state: LeadState) -> list[Any]:
    """Give a state as values that `marshal` can write."""
    values = [getattr(state, name) for name in _LEAD]
    return [
        values,
        [[_plain(getattr(sale, name)) for name in _SALE] for sale in state.sales],
        None if state.listed is None else tuple(state.listed),
        {seq: tuple(happened) for seq, happened in state.happened.items()},
        None if state.waiting is None else [tuple(told) for told in state.waiting],
    ]


def from_plain(values: list[Any]) -> LeadState:
    """Make the state that `plain` gave."""
    state = LeadState()
    of_lead, sales, listed, happened, waiting = values
    for name, value in zip(_LEAD, of_lead, strict=True):
        setattr(state, name, value)
    state.sales = [_sale(sale) for sale in sales]
    state.listed = None if listed is None else Listed._make(listed)
    state.happened = {seq: Happened._make(told) for seq, told in happened.items()}
    state.waiting = None if waiting is None else [Told._make(told) for told in waiting]
    return state


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Terms) else value


def _sale(values: list[Any]) -> Sale:
    sale = Sale.__new__(Sale)
    for name, value in zip(_SALE, values, strict=True):
        setattr(sale, name, Terms._make(value) if name == "terms" else value)
    return sale


def plain_usual(usual: UsualLead) -> tuple[Any, ...]:
    """Give it as values that `marshal` can write."""
    listed, terms, *happened = usual
    return (tuple(listed), tuple(map(tuple, terms)), *happened)


def usual_from_plain(values: tuple[Any, ...]) -> UsualLead:
    """Make what `plain_usual` gave."""
    listed, terms, *happened = values
    return UsualLead(Listed._make(listed), tuple(map(Terms._make, terms)), *happened)
