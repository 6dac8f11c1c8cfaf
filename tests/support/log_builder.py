"""What the router might have written about leads and money: events with sensible defaults, and whole valid logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

from services.bus.ports import Record
from services.contract.codec import Codec, codec
from services.contract.entries import Cause, CauseKind, Entry, Position, hash_of
from services.contract.events import (
    DeliveryFailed,
    Disposition,
    DispositionReported,
    Event,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    MoneyKind,
    MoneyMoved,
    Outcome,
    ReturnApproved,
    ReturnReason,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    WindowKind,
    WindowOpened,
)
from services.contract.ids import account_id_of, lead_id_of, partition_of, sale_id_of
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
    payout_cents: int = 0,
) -> LeadListed:
    """Accept a lead; `payout_cents` is what its source is paid for that."""
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
        payout_cents=payout_cents,
        currency="USD" if payout_cents else None,
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
    payout_cents: int = 0,
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
        payout_cents=payout_cents,
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


def delivery_failed(
    sale: LeadSold, *, price_cents: int | None = None, payout_cents: int | None = None
) -> DeliveryFailed:
    """Give a sale's delivery up; by default all that it cost and earned goes back."""
    return DeliveryFailed(
        sale_number=sale.sale_number,
        sale_id=sale.sale_id,
        buyer_id=sale.buyer_id,
        price_cents=sale.price_cents if price_cents is None else price_cents,
        currency=sale.currency,
        reason=FailureReason.RECIPIENT_GONE,
        is_test=sale.is_test,
        source_id=sale.source_id,
        payout_cents=sale.payout_cents if payout_cents is None else payout_cents,
    )


def upgraded(sale: LeadSold, *, fee_cents: int = 7_500, payout_cents: int = 0) -> LeadUpgraded:
    """Let the only holder close the remaining slots."""
    return LeadUpgraded(
        sale_number=sale.sale_number,
        sale_id=sale.sale_id,
        buyer_id=sale.buyer_id,
        order_id=sale.order_id,
        source_id=sale.source_id,
        slots_closed=sale.sales_max - 1,
        fee_cents=fee_cents,
        currency=sale.currency,
        payout_cents=payout_cents,
        draws=(),
        is_test=sale.is_test,
    )


def return_requested(
    sale: LeadSold, *, reason: ReturnReason = ReturnReason.INVALID_CONTACT
) -> ReturnRequested:
    """Ask to give a lead back."""
    return ReturnRequested(
        sale_number=sale.sale_number, sale_id=sale.sale_id, buyer_id=sale.buyer_id, reason=reason
    )


def return_approved(
    sale: LeadSold, *, price_cents: int | None = None, payout_cents: int = 0, automatic: bool = True
) -> ReturnApproved:
    """Take a lead back; by default for its price, and nothing from its source."""
    return ReturnApproved(
        sale_number=sale.sale_number,
        sale_id=sale.sale_id,
        buyer_id=sale.buyer_id,
        source_id=sale.source_id,
        price_cents=sale.price_cents if price_cents is None else price_cents,
        currency=sale.currency,
        automatic=automatic,
        payout_cents=payout_cents,
        draws=(),
        is_test=sale.is_test,
    )


def return_refused(sale: LeadSold, *, reason: ReturnRefusal = ReturnRefusal.QUOTA_USED_UP) -> ReturnRefused:
    """Do not take a lead back."""
    return ReturnRefused(
        sale_number=sale.sale_number, sale_id=sale.sale_id, buyer_id=sale.buyer_id, reason=reason
    )


def reported(sale: LeadSold, disposition: Disposition = Disposition.DEAL) -> DispositionReported:
    """Tell what became of the lead."""
    return DispositionReported(sale_number=sale.sale_number, buyer_id=sale.buyer_id, disposition=disposition)


def money_moved(
    amount_cents: int = 50_000,
    *,
    buyer_id: str = "oak",
    kind: MoneyKind = MoneyKind.DEPOSIT,
    reference: str = "wire-1",
) -> MoneyMoved:
    """Pay into a buyer's account, or adjust it."""
    return MoneyMoved(
        buyer_id=buyer_id,
        kind=kind,
        reference=reference,
        amount_cents=amount_cents,
        currency="USD",
        draws=(),
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


AMOUNTS_CENTS = (0, 1, 333, 4_000, 9_000)
Story: TypeAlias = list[tuple[str, tuple[Event, ...]]]
"""What is told of one lead or account, entry by entry."""


@st.composite
def stories(draw: st.DrawFn, name: int) -> Story:
    """Draw one lead's entries: sold never to four times, and whatever may follow; closed at once, late or not."""
    lead = lead_id(name)
    is_test = draw(st.booleans()) and draw(st.booleans())
    source_id = draw(st.sampled_from(("quotehub", "sunform")))
    per_lead_cents = 0 if is_test else draw(st.sampled_from((0, 0, 1_201)))
    sales = draw(st.integers(0, 4))
    mode = Mode.EXCLUSIVE if sales == 1 and draw(st.booleans()) else Mode.SHARED
    events: list[Event] = [
        listed(source_id=source_id, sales_max=4, is_test=is_test, payout_cents=per_lead_cents),
        window_opened(),
    ]
    for number in range(1, sales + 1):
        price_cents = draw(st.sampled_from(AMOUNTS_CENTS))
        share_cents = 0 if is_test or per_lead_cents else price_cents * draw(st.sampled_from((0, 6))) // 10
        sale = sold(
            lead,
            number,
            mode=mode,
            price_cents=price_cents,
            source_id=source_id,
            sales_max=4,
            is_test=is_test,
            payout_cents=share_cents,
        )
        upgrades = sales == 1 and mode is Mode.SHARED and draw(st.booleans())
        last_cents = per_lead_cents if number == 1 else 0
        events += [sale, *draw(_consequences(sale, upgrades=upgrades, back_cents=last_cents))]
    if draw(st.booleans()):
        outcome = draw(st.sampled_from(Outcome))
        events.insert(
            draw(st.integers(1, len(events))), closed(outcome, source_id=source_id, is_test=is_test)
        )
    return [(lead, told) for told in draw(_cut(events))]


@st.composite
def _consequences(draw: st.DrawFn, sale: LeadSold, *, upgrades: bool, back_cents: int) -> list[Event]:
    """Draw what follows a sale; `back_cents` is what its lead earned, and may be taken back once."""
    events: list[Event] = []
    price_cents, payout_cents = sale.price_cents, sale.payout_cents
    if upgrades:
        fee_cents = draw(st.sampled_from(AMOUNTS_CENTS))
        share_cents = fee_cents * 6 // 10 if payout_cents else 0
        events.append(upgraded(sale, fee_cents=fee_cents, payout_cents=share_cents))
        price_cents, payout_cents = price_cents + fee_cents, payout_cents + share_cents
    if draw(st.integers(0, 2)) == 0:
        events.append(reported(sale, draw(st.sampled_from(Disposition))))
    match draw(st.integers(0, 5)):
        case 0:
            events.append(delivery_failed(sale, price_cents=price_cents, payout_cents=payout_cents))
        case 1:
            back_cents = draw(st.sampled_from((0, payout_cents or back_cents)))
            events += [
                return_requested(sale),
                return_approved(
                    sale, price_cents=price_cents, payout_cents=back_cents, automatic=draw(st.booleans())
                ),
            ]
        case 2:
            events += [
                return_requested(sale),
                return_refused(sale, reason=draw(st.sampled_from(ReturnRefusal))),
            ]
            if draw(st.booleans()):
                events.append(return_requested(sale, reason=ReturnReason.OTHER))
        case _:
            pass
    return events


@st.composite
def _payments(draw: st.DrawFn, buyer_id: str) -> Story:
    """Draw what a buyer pays in and is given, an entry each."""
    amounts_cents = draw(st.lists(st.integers(-5_000, 50_000), max_size=3))
    return [
        (
            account_id_of(buyer_id),
            (
                money_moved(
                    cents,
                    buyer_id=buyer_id,
                    kind=MoneyKind.DEPOSIT if cents > 0 and draw(st.booleans()) else MoneyKind.ADJUSTMENT,
                    reference=f"move-{at}",
                ),
            ),
        )
        for at, cents in enumerate(amounts_cents)
    ]


@st.composite
def _cut(draw: st.DrawFn, events: list[Event]) -> list[tuple[Event, ...]]:
    """Cut into entries: an entry decides one command, so it has one request of a return at most."""
    requests = {at for at, event in enumerate(events) if isinstance(event, ReturnRequested)}
    cuts = sorted(requests | draw(st.sets(st.integers(1, len(events) - 1), max_size=3)))
    return [tuple(events[start:end]) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]


@st.composite
def logs(draw: st.DrawFn, leads_max: int = 8, partitions: int = 3) -> LogBuilder:
    """Draw a valid log of a few leads and accounts, their entries interleaved in any order."""
    told = [draw(stories(name)) for name in range(draw(st.integers(1, leads_max)))]
    told += [draw(_payments(buyer_id)) for buyer_id in draw(st.sets(st.sampled_from(BUYERS), max_size=2))]
    turns = draw(st.permutations([at for at, story in enumerate(told) for _ in story]))
    log = LogBuilder(partitions=partitions)
    for turn in turns:
        lead, events = told[turn].pop(0)
        log.add(lead, *events)
    return log
