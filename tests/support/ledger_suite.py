"""What any ledger must do, in memory as in PostgreSQL: one suite, which both run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.rows import ReturnDecision
from services.billing.step import Billing, Ledger
from services.billing.weighing import WeighableLedger
from services.bus.log_reader import LogReader
from services.bus.patience import PatientStep
from services.bus.ports import Stopped, TopicPartition
from services.contract.codec import codec
from services.contract.entries import Position
from services.contract.events import Disposition, Event, Outcome, ReturnRefusal
from services.contract.ids import account_id_of
from tests.support.log_builder import (
    TOPIC,
    LogBuilder,
    closed,
    delivery_failed,
    lead_id,
    listed,
    logs,
    money_moved,
    reported,
    return_approved,
    return_refused,
    return_requested,
    sold,
    upgraded,
)

LEAD, OTHER = lead_id("1"), lead_id("2")


SALE_FIELDS = [
    "sale_id",
    "sale_number",
    "sales_max",
    "mode",
    "price_cents",
    "currency",
    "buyer_id",
    "order_id",
    "source_id",
    "lead_type",
    "plan",
    "stage",
    "exclusive_until_ms",
    "is_test",
    "payout_cents",
]
"""What a sale's row has of its event."""

Rows: TypeAlias = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a ledger holds, by names, ordered by ids: the same for the same rows."""

    leads: Rows
    sales: Rows
    returns: Rows
    transfers: Rows
    totals: Rows
    positions: Mapping[int, Position]


class LedgerWorld(Protocol):
    """Makes ledgers: each `fresh` one is empty, `another` is a second owner of the latest."""

    def fresh(self) -> WeighableLedger:
        """Make an empty ledger."""
        ...

    def another(self) -> Ledger:
        """Open the latest ledger a second time."""
        ...

    def contents(self) -> Contents:
        """Read all that the latest ledger holds."""
        ...


class Reading:
    """A reader of the log with a ledger behind it, batch by batch."""

    def __init__(self, ledger: Ledger, log: LogBuilder) -> None:
        self.log = log
        reader = LogReader(Billing(ledger, codec()), codec(), topic=TOPIC, monotonic_s=lambda: 0.0)
        self.reader = PatientStep(reader, monotonic_s=lambda: 0.0)
        self.partitions = [TopicPartition(TOPIC, at) for at in range(log.partitions)]
        self.reader.take_over(self.partitions)

    def read(self, start: int = 0, end: int | None = None) -> bool:
        """Handle the records from `start` to `end`; tell whether they must begin again."""
        again = self.reader.handle(self.log.records[start:end])
        if again:
            self.reader.take_over(again)
        return bool(again)


class LedgerSuite:
    """The rules. `world` is a fixture of the class that runs them."""

    def test_keeps_every_row_and_how_far_the_log_is_folded(self, world: LedgerWorld) -> None:
        log = LogBuilder()
        log.sell_out(LEAD)
        Reading(world.fresh(), log).read()
        found = world.contents()
        assert [len(rows) for rows in (found.leads, found.sales, found.transfers)] == [1, 3, 3]
        assert {at: position for at, position in found.positions.items() if position.seq} == log.positions

    def test_balances_in_each_currency(self, world: LedgerWorld) -> None:
        log = LogBuilder()
        log.sell_out(LEAD)
        ledger = world.fresh()
        assert ledger.imbalance_cents() == {}
        Reading(ledger, log).read()
        assert ledger.imbalance_cents() == {"USD": 0}

    def test_closes_a_lead_listed_in_an_earlier_batch(self, world: LedgerWorld) -> None:
        log = LogBuilder()
        log.add(LEAD, listed())
        log.add(LEAD, closed(Outcome.UNSOLD))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        assert world.contents().leads[0]["outcome"] is None
        reading.read(1, 2)
        assert world.contents().leads[0]["outcome"] == Outcome.UNSOLD

    def test_credits_a_sale_of_an_earlier_batch(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(), sold(LEAD)
        log.add(LEAD, listed(), sale)
        log.add(LEAD, delivery_failed(sale))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        reading.read(1, 2)
        (row,) = world.contents().sales
        assert (row["credited_cents"], row["delivery_failed_at_ms"]) == (4_000, log.decided_at_ms)
        assert [row["amount_cents"] for row in world.contents().transfers] == [4_000, 4_000]

    def test_upgrades_a_sale_of_an_earlier_batch(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(), sold(LEAD, payout_cents=2_400)
        log.add(LEAD, listed(), sale)
        log.add(LEAD, upgraded(sale, fee_cents=7_500, payout_cents=4_500))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        reading.read(1, 2)
        (row,) = world.contents().sales
        assert (row["upgrade_fee_cents"], row["payout_cents"]) == (7_500, 6_900)
        assert row["upgraded_at_ms"] == log.decided_at_ms

    def test_refunds_price_and_fee_of_a_return_decided_later(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(), sold(LEAD, payout_cents=2_400)
        log.add(LEAD, listed(), sale, upgraded(sale, fee_cents=7_500, payout_cents=4_500))
        log.add(LEAD, return_requested(sale))
        log.add(LEAD, return_approved(sale, price_cents=11_500, payout_cents=6_900, automatic=False))
        reading = Reading(world.fresh(), log)
        reading.read(0, 2)
        (pending,) = world.contents().returns
        assert (pending["decision"], pending["decided_at_ms"]) == (ReturnDecision.PENDING, None)
        reading.read(2)
        (row,), (asked,) = world.contents().sales, world.contents().returns
        assert (row["credited_cents"], row["payout_back_cents"]) == (11_500, 6_900)
        assert row["returned_at_ms"] == asked["decided_at_ms"] == log.decided_at_ms
        assert (asked["decision"], asked["refund_cents"], asked["automatic"]) == (
            ReturnDecision.APPROVED,
            11_500,
            False,
        )

    def test_refused_return_is_asked_for_again_in_the_batch_of_the_refusal(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(partitions=1), sold(LEAD)
        log.add(LEAD, listed(), sale, return_requested(sale))
        log.add(LEAD, return_refused(sale, reason=ReturnRefusal.OPERATOR))
        log.add(LEAD, return_requested(sale))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        reading.read(1)
        assert [(row["seq"], row["decision"]) for row in world.contents().returns] == [
            (1, ReturnDecision.REFUSED),
            (3, ReturnDecision.PENDING),
        ]

    def test_takes_back_what_the_lead_earned_where_its_sale_earned_nothing(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(), sold(LEAD)
        log.add(LEAD, listed(payout_cents=1_200), sale)
        log.add(LEAD, return_requested(sale), return_approved(sale, payout_cents=1_200))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        reading.read(1)
        found = world.contents()
        assert (found.leads[0]["payout_cents"], found.leads[0]["payout_back_cents"]) == (1_200, 1_200)
        assert (found.sales[0]["payout_cents"], found.sales[0]["payout_back_cents"]) == (0, 0)

    def test_money_paid_in_is_booked_by_its_reference(self, world: LedgerWorld) -> None:
        log = LogBuilder(partitions=1)
        odd = "wire\t1\\N"
        log.add(account_id_of("oak"), money_moved(50_000, reference=odd))
        Reading(world.fresh(), log).read()
        (row,) = world.contents().transfers
        assert (row["reference"], row["sale_id"], row["lead_id"]) == (odd, None, None)
        assert [tuple(row.values()) for row in world.contents().totals] == [
            ("buyer:oak", "USD", 0, 0, 50_000),
            ("cash:deposits", "USD", 0, 50_000, 0),
        ]

    def test_latest_outcome_of_a_sale_counts_and_contact_is_none(self, world: LedgerWorld) -> None:
        log, sale = LogBuilder(), sold(LEAD)
        log.add(LEAD, listed(), sale)
        for disposition in (Disposition.NO_DEAL, Disposition.DEAL, Disposition.CONTACTED):
            log.add(LEAD, reported(sale, disposition))
        reading = Reading(world.fresh(), log)
        for at in range(4):
            reading.read(at, at + 1)
        (row,) = world.contents().sales
        assert (row["disposition"], row["disposition_at_ms"]) == (
            Disposition.DEAL,
            log.decided_at_ms - 1_000,
        )

    def test_adds_to_the_totals_of_earlier_batches(self, world: LedgerWorld) -> None:
        log = LogBuilder(partitions=1)
        log.add(LEAD, listed(), sold(LEAD, buyer_id="oak"))
        log.add(OTHER, listed(), sold(OTHER, buyer_id="oak", price_cents=100))
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        reading.read(1, 2)
        assert [tuple(row.values()) for row in world.contents().totals] == [
            ("buyer:oak", "USD", 0, 4_100, 0),
            ("revenue:quotehub", "USD", 0, 0, 4_100),
        ]

    def test_text_that_copy_reads_otherwise_arrives_as_it_is(self, world: LedgerWorld) -> None:
        log = LogBuilder()
        odd = "a\\N\tb\nc\r\\.é"
        log.add(LEAD, listed(plan=odd), sold(LEAD, plan=odd))
        log.add(OTHER, listed(plan=r"\N"))
        Reading(world.fresh(), log).read()
        assert {row["plan"] for row in world.contents().leads} == {odd, r"\N"}
        assert world.contents().sales[0]["plan"] == odd

    def test_a_batch_read_again_changes_nothing(self, world: LedgerWorld) -> None:
        log = LogBuilder()
        log.sell_out(LEAD)
        log.sell_out(OTHER)
        reading = Reading(world.fresh(), log)
        reading.read()
        before = world.contents()
        reading.read()
        Reading(world.another(), log).read()
        assert world.contents() == before

    def test_an_owner_that_was_overtaken_stores_nothing(self, world: LedgerWorld) -> None:
        log = LogBuilder(partitions=1)
        log.sell_out(LEAD)
        log.sell_out(OTHER)
        overtaken, owner = Reading(world.fresh(), log), Reading(world.another(), log)
        owner.read()
        before = world.contents()
        assert overtaken.read(0, 1)
        assert world.contents() == before

    def test_a_batch_is_stored_for_all_its_partitions_or_for_none(self, world: LedgerWorld) -> None:
        log = LogBuilder(partitions=4)
        records = [log.sell_out(lead_id(name)) for name in range(8)]
        assert len({record.partition for record in records}) > 1
        overtaken, owner = Reading(world.fresh(), log), Reading(world.another(), log)
        owner.read(0, 1)
        before = world.contents()
        assert overtaken.read()
        assert world.contents() == before

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param((listed(),), (listed(),), id="a-lead-listed-twice"),
            pytest.param((listed(), sold(LEAD)), (sold(LEAD),), id="a-sale-charged-twice"),
            pytest.param((listed(), closed()), (closed(),), id="a-lead-closed-twice"),
            pytest.param((), (closed(),), id="a-close-of-an-unknown-lead"),
            pytest.param((listed(),), (delivery_failed(sold(LEAD)),), id="a-credit-of-an-unknown-sale"),
            pytest.param(
                (listed(), sold(LEAD)),
                (delivery_failed(sold(LEAD), price_cents=4_001),),
                id="more-credited-than-charged",
            ),
            pytest.param(
                (listed(), sold(LEAD)),
                (delivery_failed(sold(LEAD, buyer_id="elm")),),
                id="a-credit-to-another-buyer",
            ),
            pytest.param(
                (listed(), sold(LEAD), delivery_failed(sold(LEAD))),
                (delivery_failed(sold(LEAD)),),
                id="a-sale-credited-twice",
            ),
            pytest.param(
                (listed(), sold(LEAD), upgraded(sold(LEAD))),
                (upgraded(sold(LEAD)),),
                id="a-sale-upgraded-twice",
            ),
            pytest.param((listed(),), (upgraded(sold(LEAD)),), id="an-upgrade-of-an-unknown-sale"),
            pytest.param(
                (listed(), sold(LEAD), delivery_failed(sold(LEAD))),
                (return_requested(sold(LEAD)), return_approved(sold(LEAD))),
                id="a-return-of-what-was-credited",
            ),
            pytest.param(
                (listed(), sold(LEAD), return_requested(sold(LEAD)), return_approved(sold(LEAD))),
                (return_requested(sold(LEAD)), return_approved(sold(LEAD), price_cents=0)),
                id="a-sale-returned-twice",
            ),
            pytest.param(
                (listed(), sold(LEAD)), (return_approved(sold(LEAD)),), id="a-return-never-asked-for"
            ),
            pytest.param(
                (listed(), sold(LEAD), return_requested(sold(LEAD))),
                (return_requested(sold(LEAD)),),
                id="a-return-asked-for-while-pending",
            ),
            pytest.param(
                (listed(), sold(LEAD, payout_cents=100)),
                (delivery_failed(sold(LEAD), payout_cents=101),),
                id="more-taken-back-than-the-sale-earned",
            ),
            pytest.param(
                (
                    listed(payout_cents=100),
                    sold(LEAD),
                    sold(LEAD, 2),
                    return_requested(sold(LEAD)),
                    return_approved(sold(LEAD), payout_cents=100),
                ),
                (return_requested(sold(LEAD, 2)), return_approved(sold(LEAD, 2), payout_cents=1)),
                id="more-taken-back-than-the-lead-earned",
            ),
            pytest.param((listed(),), (reported(sold(LEAD)),), id="an-outcome-of-an-unknown-sale"),
            pytest.param(
                (listed(), sold(LEAD)),
                (reported(sold(LEAD, buyer_id="elm")),),
                id="an-outcome-of-another-buyer",
            ),
            pytest.param((listed(), money_moved()), (money_moved(1),), id="a-reference-used-twice"),
            pytest.param((listed(),), (sold(LEAD, 2, sales_max=1),), id="a-sale-number-above-sales-max"),
            pytest.param((listed(),), (sold(LEAD, price_cents=-1),), id="a-price-below-nothing"),
            pytest.param((listed(),), (sold(LEAD, currency="usd"),), id="a-currency-that-is-none"),
        ],
    )
    def test_stops_and_stores_nothing_when_the_log_says(
        self, world: LedgerWorld, first: tuple[Event, ...], second: tuple[Event, ...]
    ) -> None:
        log = LogBuilder(partitions=1)
        log.add(LEAD, *first)
        log.add(OTHER, listed(), sold(OTHER), closed())
        log.add(LEAD, *second)
        reading = Reading(world.fresh(), log)
        reading.read(0, 1)
        before = world.contents()
        with pytest.raises(Stopped):
            reading.read(1)
        assert world.contents() == before

    @settings(
        max_examples=25,
        deadline=None,
        # `world` makes a fresh ledger for each example, and two classes run this on purpose.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(log=logs(), data=st.data())
    def test_holds_the_same_however_the_log_is_cut_into_batches(
        self, world: LedgerWorld, log: LogBuilder, data: st.DataObject
    ) -> None:
        Reading(world.fresh(), log).read()
        whole = world.contents()
        cuts = data.draw(st.lists(st.integers(0, len(log.records)), max_size=5))
        reading = Reading(world.fresh(), log)
        for start, end in pairwise([0, *sorted(cuts), len(log.records)]):
            reading.read(max(0, start - data.draw(st.integers(0, 2))), end)
        assert world.contents() == whole
