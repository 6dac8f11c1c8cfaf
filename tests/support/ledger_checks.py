"""What the ledger must say of a log, worked out from the log's events alone, by other means than billing's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from services.contract.codec import codec
from services.contract.events import (
    DeliveryFailed,
    Event,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    MoneyMoved,
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
)
from tests.support.ledger_suite import Contents
from tests.support.log_builder import LogBuilder

Money = dict[tuple[str, str], int]

GROUPS = {
    "what is charged is not what was sold": ("sale_charge",),
    "what is charged is not what was upgraded": ("upgrade_fee",),
    "what is credited is not what failed": ("failed_delivery_credit",),
    "what is credited is not what was returned": ("return_credit",),
    "what sources are paid is not what they earned": ("payout",),
    "what sources lose is not what was taken back": ("payout_reversal",),
    "what is booked is not what was paid in": ("deposit", "adjustment"),
}


class Told(NamedTuple):
    """A movement of money that the log tells of: about a sale, a lead, or an operator's reference."""

    kind: str
    about: str
    cents: int
    debit: str
    credit: str


def assert_billed_as_told(contents: Contents, log: LogBuilder) -> None:
    """Check that each amount told is moved once, that no more goes back than came, and that totals are sums."""
    told = Counter(fact for fact in _told(log) if fact.cents)
    moved = Counter(map(_moved_by, contents.transfers))
    for complaint, kinds in GROUPS.items():
        assert _of(moved, kinds) == _of(told, kinds), complaint
    _assert_no_more_back_than_came(contents)
    _assert_returns(contents, log)
    assert _balances(contents) == _moved(contents), "totals are not the sums of the transfers"
    assert sum(_balances(contents).values()) == 0, "the ledger does not balance"


def _of(facts: Counter[Told], kinds: Sequence[str]) -> Counter[Told]:
    return Counter({fact: count for fact, count in facts.items() if fact.kind in kinds})


def _events(log: LogBuilder) -> Iterator[tuple[str, Event]]:
    for record in log.records:
        entry = codec().decode_entry(record.value)
        for event in codec().events_of(entry):
            yield entry.lead_id, event


def _told(log: LogBuilder) -> Iterator[Told]:
    for lead_id, event in _events(log):
        if not getattr(event, "is_test", False):
            yield from _facts(lead_id, event)


def _facts(lead_id: str, event: Event) -> Iterator[Told]:
    match event:
        case LeadListed(source_id=source, payout_cents=cents):
            yield Told("payout", lead_id, cents, f"payouts:{source}", f"source:{source}")
        case LeadSold(sale_id=sale, buyer_id=buyer, source_id=source):
            yield Told("sale_charge", sale, event.price_cents, f"buyer:{buyer}", f"revenue:{source}")
            yield Told("payout", sale, event.payout_cents, f"payouts:{source}", f"source:{source}")
        case LeadUpgraded(sale_id=sale, buyer_id=buyer, source_id=source):
            yield Told("upgrade_fee", sale, event.fee_cents, f"buyer:{buyer}", f"revenue:{source}")
            yield Told("payout", sale, event.payout_cents, f"payouts:{source}", f"source:{source}")
        case DeliveryFailed(sale_id=sale, buyer_id=buyer, source_id=source):
            yield Told(
                "failed_delivery_credit",
                sale,
                event.price_cents,
                "allowance:failed_delivery",
                f"buyer:{buyer}",
            )
            yield Told("payout_reversal", sale, event.payout_cents, f"source:{source}", f"payouts:{source}")
        case ReturnApproved(sale_id=sale, buyer_id=buyer, source_id=source):
            yield Told("return_credit", sale, event.price_cents, "allowance:return", f"buyer:{buyer}")
            yield Told("payout_reversal", sale, event.payout_cents, f"source:{source}", f"payouts:{source}")
        case MoneyMoved(buyer_id=buyer, reference=reference, amount_cents=cents):
            ours = "cash:deposits" if event.kind == "deposit" else "allowance:adjustment"
            path = (ours, f"buyer:{buyer}") if cents > 0 else (f"buyer:{buyer}", ours)
            yield Told(str(event.kind), reference, abs(cents), *path)
        case _:
            pass


def _moved_by(row: Any) -> Told:
    about = row["sale_id"] or row["lead_id"] or row["reference"]
    return Told(str(row["kind"]), about, row["amount_cents"], row["debit_account"], row["credit_account"])


def _assert_no_more_back_than_came(contents: Contents) -> None:
    charged: dict[str, int] = defaultdict(int)
    credited: dict[str, int] = defaultdict(int)
    earned: dict[str, int] = defaultdict(int)
    taken_back: dict[str, int] = defaultdict(int)
    lead_of = {row["sale_id"]: row["lead_id"] for row in contents.sales}
    for row in contents.transfers:
        lead_id = row["lead_id"] or lead_of.get(row["sale_id"], "")
        match row["kind"]:
            case "sale_charge" | "upgrade_fee":
                charged[row["sale_id"]] += row["amount_cents"]
            case "failed_delivery_credit" | "return_credit":
                credited[row["sale_id"]] += row["amount_cents"]
            case "payout":
                earned[lead_id] += row["amount_cents"]
            case "payout_reversal":
                taken_back[lead_id] += row["amount_cents"]
            case _:
                pass
    assert all(cents <= charged[sale] for sale, cents in credited.items()), "credited above the charge"
    assert all(cents <= earned[lead] for lead, cents in taken_back.items()), "taken back above the payout"


def _assert_returns(contents: Contents, log: LogBuilder) -> None:
    events = [event for _, event in _events(log)]
    told = Counter(
        (event.sale_id, decision)
        for event in events
        for kind, decision in (
            (ReturnRequested, "asked"),
            (ReturnApproved, "approved"),
            (ReturnRefused, "refused"),
        )
        if isinstance(event, kind)
    )
    kept = Counter((row["sale_id"], "asked") for row in contents.returns)
    kept += Counter(
        (row["sale_id"], str(row["decision"])) for row in contents.returns if row["decision"] != "pending"
    )
    assert kept == told, "what is kept of returns is not what was asked and decided"


def _balances(contents: Contents) -> Money:
    balances: Money = defaultdict(int)
    for row in contents.totals:
        balances[row["account"], row["currency"]] += row["debits_cents"] - row["credits_cents"]
    return dict(balances)


def _moved(contents: Contents) -> Money:
    moved: Money = defaultdict(int)
    for row in contents.transfers:
        moved[row["debit_account"], row["currency"]] += row["amount_cents"]
        moved[row["credit_account"], row["currency"]] -= row["amount_cents"]
    return dict(moved)
