"""Gathers what the demo's guarantees are checked by, and what its tables show: from topics and tables, read anew.

It judges nothing. Topics are read through kafka-python, which shares no code with what wrote them; tables with roles
that can change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from services.bus.settings import StepSettings
from services.cli.demo_checks import Evidence
from services.cli.demo_limits import over_limits
from services.cli.demo_sales import Bill, Delivery, delivery_of
from services.cli.demo_sources import Receipts
from services.cli.log_commands import verify_log
from services.cli.outsiders import Received, read
from services.cli.surroundings import connect_as_auditor
from services.contract.market import Market
from services.contract.outside_records import read_body
from services.contract.times import decimal_amount
from services.contract.topics import Topics

CONTACT = re.compile(
    rb"@example\.(?:com|org|net)|\+1[2-9][0-9]{9}|(?<![0-9a-f])[2-9][0-9]{2}-?555-?01[0-9]{2}(?![0-9a-f])"
)
"""How contact details of the demo's people look, in any spelling that they were sent or delivered in; no part of an
id looks so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finances:
    """What the finance views say, row by row."""

    outcomes: Sequence[Mapping[str, Any]]
    plans: Sequence[Mapping[str, Any]]
    buyers: Sequence[Mapping[str, Any]]
    sources: Sequence[Mapping[str, Any]]
    returns: Sequence[Mapping[str, Any]]


def gather(found: StepSettings, market: Market, receipts: Receipts, leads: Sequence[Received]) -> Evidence:
    """Gather everything, once the demo has come to its end."""
    verified = verify_log(found)
    leaks, records_inside = _leaks(found)
    with connect_as_auditor(found.database) as connection:
        bills = _bills(connection)
        discrepancies, unbalanced = _discrepancies(connection), _unbalanced(connection)
        returned, paid_in = _returned(connection), _paid_in(connection)
    delivered = deliveries(leads, found.topics)
    sales = {delivery.sale_id: delivery for delivery in delivered}.values()
    return Evidence(
        accepted=frozenset(receipts.accepted),
        closes={lead_id: frozenset(places) for lead_id, places in receipts.closes.items()},
        deliveries=delivered,
        bills=bills,
        discrepancies=discrepancies,
        unbalanced=unbalanced,
        leaks=leaks,
        broken=[
            *(f"partition {at}: entry {broken.seq}: {broken.why}" for at, broken in verified.breaks.items()),
            *(f"partition {at}: {difference}" for at, difference in verified.differences.items()),
        ],
        over_limits=tuple(over_limits(market, sales, returned=returned, paid_in_cents=paid_in)),
        records_inside=records_inside,
        entries=sum(reader.position.seq for reader in verified.readers.values()),
    )


def deliveries(records: Iterable[Received], topics: Topics) -> list[Delivery]:
    """Pick the leads out of what buyers got, with the upgrades that followed; the rest are notices."""
    read_once = [(topics.owner_of(record.topic), read_body(record.value), record.value) for record in records]
    fees = {body["sale_id"]: body["fee"] for _, body, _ in read_once if body["type"] == "upgraded"}
    return [
        delivery_of(owner[1], body, value, fees.get(body["sale_id"]))
        for owner, body, value in read_once
        if owner is not None and body["type"] == "lead"
    ]


def billed(database: str) -> tuple[int, int]:
    """Count the leads that billing has as closed, and the sales that it has."""
    with connect_as_auditor(database) as connection:
        row = connection.execute(
            "select (select count(*) from billing.leads where outcome is not null), "
            "(select count(*) from billing.sales)"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def finances(database: str) -> Finances:
    """Read the finance views."""
    with connect_as_auditor(database) as connection:
        return Finances(
            outcomes=_rows(
                connection,
                "select lead_type, outcome, count(*) as leads from finance.leads group by lead_type, outcome "
                "order by lead_type, outcome",
            ),
            plans=_rows(
                connection,
                "select lead_type, plan, leads_accepted, leads_sold, sales, revenue, revenue_per_accepted_lead, "
                "currency from finance.revenue_by_plan order by lead_type, plan",
            ),
            buyers=_rows(
                connection,
                "select buyer, leads, exclusive_leads, shared_leads, spend, owes, currency from finance.buyers "
                "order by spend desc, buyer",
            ),
            sources=_rows(
                connection,
                "select source, sum(revenue) as revenue, sum(payouts) as payouts, sum(margin) as margin, currency "
                "from finance.margin group by source, currency order by source",
            ),
            returns=_rows(
                connection,
                "select decision, count(*) as returns, sum(refund) as refund from finance.returns "
                "group by decision order by decision",
            ),
        )


def staggered_lead(database: str) -> str | None:
    """Choose the lead whose story is told: one sold exclusive for a time first, and then to as many as possible."""
    with connect_as_auditor(database) as connection:
        row = connection.execute(
            "select lead_id::text from billing.sales where not is_test group by lead_id "
            "order by bool_or(mode = 'exclusive' and exclusive_until is not null) desc, count(distinct stage) desc, "
            "count(*) desc, min(sold_at), lead_id limit 1"
        ).fetchone()
    return None if row is None else str(row[0])


def _leaks(found: StepSettings) -> tuple[list[str], int]:
    topics = found.topics
    inside = [topics.qualified, topics.commands, topics.timers, topics.log, topics.events]
    leaking: dict[str, int] = {}
    count = 0
    for batch in read(found.connection(), inside):
        for record in batch:
            count += 1
            if CONTACT.search(record.value) or any(
                CONTACT.search(value) for value in record.headers.values()
            ):
                leaking[record.topic] = leaking.get(record.topic, 0) + 1
    return [
        f"{topic} has {records} records with contact details" for topic, records in leaking.items()
    ], count


def _bills(connection: psycopg.Connection) -> list[Bill]:
    rows = connection.execute(
        "select sale_id::text, lead_id::text, buyer_id, price_cents, upgrade_fee_cents from billing.sales"
    )
    return [
        Bill(
            sale_id=sale_id,
            lead_id=lead_id,
            buyer_id=buyer_id,
            price=decimal_amount(cents),
            fee=decimal_amount(fee_cents),
        )
        for sale_id, lead_id, buyer_id, cents, fee_cents in rows
    ]


def _returned(connection: psycopg.Connection) -> frozenset[str]:
    rows = connection.execute("select sale_id::text from billing.returns where decision = 'approved'")
    return frozenset(sale_id for (sale_id,) in rows)


def _paid_in(connection: psycopg.Connection) -> Mapping[str, int]:
    rows = connection.execute(
        "select split_part(credit_account, ':', 2), sum(amount_cents)::bigint from billing.transfers "
        "where kind = 'deposit' group by 1"
    )
    return dict(rows.fetchall())


def _discrepancies(connection: psycopg.Connection) -> list[str]:
    return [
        f"{what}: {which}"
        for what, which in connection.execute("select what, which from billing.discrepancies")
    ]


def _unbalanced(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "select currency, sum(balance) from finance.balances group by currency having sum(balance) <> 0"
    )
    return [f"all balances in {currency} add up to {balance}" for currency, balance in rows]


def _rows(connection: psycopg.Connection, query: str) -> list[Mapping[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return list(cursor.execute(query.encode()).fetchall())
