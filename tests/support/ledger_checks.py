"""What the ledger must say of a log, worked out from the log's events alone, by other means than billing's."""

from __future__ import annotations

from collections import Counter, defaultdict

from services.contract.codec import codec
from services.contract.events import DeliveryFailed, LeadSold
from tests.support.ledger_suite import Contents
from tests.support.log_builder import LogBuilder

Money = dict[tuple[str, str], int]


def assert_billed_as_told(contents: Contents, log: LogBuilder) -> None:
    """Check that each sale is charged once, credited at most that, and that every total is its transfers' sum."""
    sales, failed = _told(log)
    _assert_charged_once(contents, sales)
    _assert_credited_within_charges(contents, failed)
    assert _balances(contents) == _moved(contents), "totals are not the sums of the transfers"
    assert sum(_balances(contents).values()) == 0, "the ledger does not balance"


def _told(log: LogBuilder) -> tuple[list[LeadSold], list[DeliveryFailed]]:
    events = [
        event
        for record in log.records
        for event in codec().events_of(codec().decode_entry(record.value))
        if isinstance(event, LeadSold | DeliveryFailed) and event.price_cents and not event.is_test
    ]
    return (
        [event for event in events if isinstance(event, LeadSold)],
        [event for event in events if isinstance(event, DeliveryFailed)],
    )


def _assert_charged_once(contents: Contents, sales: list[LeadSold]) -> None:
    charged = Counter(
        (row["sale_id"], row["amount_cents"], row["debit_account"])
        for row in contents.transfers
        if row["kind"] == "sale_charge"
    )
    told = Counter((sale.sale_id, sale.price_cents, f"buyer:{sale.buyer_id}") for sale in sales)
    assert charged == told, "what is charged is not what was sold"


def _assert_credited_within_charges(contents: Contents, failed: list[DeliveryFailed]) -> None:
    charges: dict[str, int] = defaultdict(int)
    credits: dict[str, int] = defaultdict(int)
    for row in contents.transfers:
        moved = charges if row["kind"] == "sale_charge" else credits
        moved[row["sale_id"]] += row["amount_cents"]
    assert set(credits) == {event.sale_id for event in failed}, "what is credited is not what failed"
    assert all(cents <= charges[sale_id] for sale_id, cents in credits.items()), "credited above the charge"


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
