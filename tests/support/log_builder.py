"""What the router might have written about leads and money: events with sensible defaults, and whole valid logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from services.bus.ports import Record
from services.contract.codec import Codec, codec
from services.contract.entries import Cause, CauseKind, Entry, Position, hash_of
from services.contract.events import (
    DeliveryFailed,
    Event,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    Outcome,
    WindowKind,
    WindowOpened,
)
from services.contract.ids import lead_id_of, partition_of, sale_id_of
from services.contract.market import Mode

DECIDED_AT_MS = 1_790_000_000_000
TOPIC = "leads.log"
BUYERS = ("harbor", "oak", "pine", "elm")


def lead_id(reference: object) -> str:
    """Name a lead."""
    return lead_id_of("quotehub", str(reference))


def listed(
    *,
    plan: str | None = "three-at-40",
    source_id: str = "quotehub",
    lead_type: str = "insurance",
    sales_max: int = 3,
    is_test: bool = False,
) -> LeadListed:
    """Accept a lead."""
    return LeadListed(
        source_id=source_id,
        lead_type=lead_type,
        plan=plan,
        quality=50,
        fields={"state": "NY", "cars": "2"},
        sales_max=sales_max,
        never_to=(),
        created_at_ms=DECIDED_AT_MS - 1_000,
        market_version=1,
        is_test=is_test,
    )


def sold(
    lead: str,
    number: int = 1,
    *,
    buyer_id: str | None = None,
    price_cents: int = 4_000,
    currency: str = "USD",
    plan: str = "three-at-40",
    source_id: str = "quotehub",
    lead_type: str = "insurance",
    mode: Mode = Mode.SHARED,
    sales_max: int = 3,
    exclusive_until_ms: int | None = None,
    is_test: bool = False,
) -> LeadSold:
    """Sell a lead; by default to another buyer with each number."""
    buyer = buyer_id or BUYERS[number - 1]
    return LeadSold(
        sale_number=number,
        sale_id=sale_id_of(lead, number),
        buyer_id=buyer,
        order_id=f"{buyer}/auto",
        source_id=source_id,
        lead_type=lead_type,
        plan=plan,
        stage=0,
        mode=mode,
        price_cents=price_cents,
        currency=currency,
        sales_max=sales_max,
        exclusive_until_ms=exclusive_until_ms,
        others_may_follow=mode is Mode.SHARED,
        others_from_ms=None,
        holders=BUYERS[: number - 1],
        held_since_ms=None if number == 1 else DECIDED_AT_MS,
        offer_number=None,
        quality=50,
        created_at_ms=DECIDED_AT_MS - 1_000,
        is_test=is_test,
    )


def closed(
    outcome: Outcome = Outcome.SOLD_OUT,
    *,
    plan: str | None = "three-at-40",
    source_id: str = "quotehub",
    lead_type: str = "insurance",
    is_test: bool = False,
) -> LeadClosed:
    """End the selling of a lead."""
    return LeadClosed(
        outcome=outcome, source_id=source_id, lead_type=lead_type, plan=plan, holders=(), is_test=is_test
    )


def delivery_failed(sale: LeadSold, *, price_cents: int | None = None) -> DeliveryFailed:
    """Give a sale's delivery up."""
    return DeliveryFailed(
        sale_number=sale.sale_number,
        sale_id=sale.sale_id,
        buyer_id=sale.buyer_id,
        price_cents=sale.price_cents if price_cents is None else price_cents,
        currency=sale.currency,
        reason=FailureReason.RECIPIENT_GONE,
        is_test=sale.is_test,
    )


def window_opened() -> WindowOpened:
    """Something that means nothing in money."""
    return WindowOpened(window_number=1, kind=WindowKind.RETRY, due_at_ms=DECIDED_AT_MS + 900_000)


@dataclass(slots=True)
class LogBuilder:
    """Chains entries as the router does; `records` is the topic, in the order of writing."""

    partitions: int = 4
    codec: Codec = field(default_factory=codec)
    decided_at_ms: int = DECIDED_AT_MS
    records: list[Record] = field(default_factory=list)
    positions: dict[int, Position] = field(default_factory=dict)

    def add(self, lead: str, *events: Event) -> Record:
        """Write one entry, a second after the one before."""
        self.decided_at_ms += 1_000
        partition = partition_of(lead, self.partitions)
        before = self.positions.get(partition, Position())
        value = self.codec.encode(self._entry(before, lead, events))
        record = Record(TOPIC, partition, before.offset, lead.encode(), value, (), self.decided_at_ms)
        self.positions[partition] = Position(
            offset=before.offset + 1, seq=before.seq + 1, hash=hash_of(value)
        )
        self.records.append(record)
        return record

    def sell_out(self, lead: str, sales: int = 3) -> Record:
        """List a lead, sell it shared and close it, all in one entry: the commonest there is."""
        return self.add(lead, listed(), *(sold(lead, k) for k in range(1, sales + 1)), closed())

    def _entry(self, before: Position, lead: str, events: Sequence[Event]) -> Entry:
        return Entry(
            seq=before.seq + 1,
            prev_hash=before.hash,
            cause=Cause(kind=CauseKind.QUALIFIED, offset=before.offset),
            market_version=1,
            no_room=(),
            lead_id=lead,
            decided_at_ms=self.decided_at_ms,
            events=tuple(self.codec.encode_body(event) for event in events),
        )


@st.composite
def stories(draw: st.DrawFn, name: int) -> list[tuple[str, tuple[Event, ...]]]:
    """Draw one lead's entries: sold never to four times, some deliveries failed, closed at once, late or not."""
    lead = lead_id(name)
    is_test = draw(st.booleans()) and draw(st.booleans())
    source_id = draw(st.sampled_from(("quotehub", "sunform")))
    sales = draw(st.integers(0, 4))
    mode = Mode.EXCLUSIVE if sales == 1 and draw(st.booleans()) else Mode.SHARED
    price_cents = draw(st.sampled_from((0, 1, 4_000, 9_000)))
    events: list[Event] = [listed(source_id=source_id, sales_max=4, is_test=is_test), window_opened()]
    for number in range(1, sales + 1):
        sale = sold(
            lead,
            number,
            mode=mode,
            price_cents=price_cents,
            source_id=source_id,
            sales_max=4,
            is_test=is_test,
        )
        events.append(sale)
        if draw(st.integers(0, 4)) == 0:
            events.append(delivery_failed(sale))
    if draw(st.booleans()):
        outcome = draw(st.sampled_from(Outcome))
        events.insert(
            draw(st.integers(1, len(events))), closed(outcome, source_id=source_id, is_test=is_test)
        )
    cuts = sorted(draw(st.sets(st.integers(1, len(events) - 1), max_size=3)))
    return [
        (lead, tuple(events[start:end])) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)
    ]


@st.composite
def logs(draw: st.DrawFn, leads_max: int = 8, partitions: int = 3) -> LogBuilder:
    """Draw a valid log of a few leads, their entries interleaved in any order."""
    told = [draw(stories(name)) for name in range(draw(st.integers(1, leads_max)))]
    turns = draw(st.permutations([at for at, story in enumerate(told) for _ in story]))
    log = LogBuilder(partitions=partitions)
    for turn in turns:
        lead, events = told[turn].pop(0)
        log.add(lead, *events)
    return log
