"""Billing on the in-memory bus: crashes at every edge, repeats, and owners that were overtaken; then planted bugs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.accounts import FAILED_DELIVERIES
from services.billing.domain import postings, totals_of
from services.billing.memory_store import MemoryLedger, Tables, _write
from services.billing.rows import Postings, TransferKind, TransferRow
from services.billing.step import Billing
from services.bus.log_reader import LogReader, Move
from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka
from services.bus.ports import Message, Stopped, TopicPartition
from services.contract.codec import NotReadable, codec
from services.contract.entries import EventBody
from services.contract.ids import account_id_of
from tests.support.ledger_checks import assert_billed_as_told
from tests.support.log_builder import (
    TOPIC,
    LogBuilder,
    delivery_failed,
    lead_id,
    listed,
    logs,
    money_moved,
    reported,
    return_approved,
    return_requested,
    sold,
    upgraded,
)
from tests.unit.billing.test_memory_ledger import contents_of

MakeLedger: TypeAlias = Callable[[], MemoryLedger]
examples = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def published(log: LogBuilder) -> MemoryKafka:
    """Put the log on the in-memory bus."""
    kafka = MemoryKafka(partitions={TOPIC: log.partitions})
    for record in log.records:
        assert record.value is not None
        kafka.append(Message(record.topic, record.partition, record.key, record.value))
    return kafka


def worker(kafka: MemoryKafka, ledger: MemoryLedger, *, batch_max: int = 3) -> MemoryHost:
    """Start a worker with all partitions."""
    reader = LogReader(Billing(ledger, codec()), codec(), topic=TOPIC, monotonic_s=kafka.clock.monotonic_s)
    host = MemoryHost(kafka, reader, batch_max=batch_max)
    host.assign([TopicPartition(TOPIC, at) for at in range(kafka.partitions[TOPIC])])
    return host


def story() -> LogBuilder:
    """A log with all that billing reads, in several batches."""
    log = LogBuilder(partitions=2)
    for name in range(4):
        log.sell_out(lead_id(name))
    first, late = lead_id("failed"), lead_id("late")
    log.add(first, listed(), sold(first), delivery_failed(sold(first)))
    log.add(late, listed(), sold(late, buyer_id="elm"))
    log.sell_out(lead_id("between"))
    log.add(late, delivery_failed(sold(late, buyer_id="elm")))
    upgrade, back = lead_id("upgraded"), lead_id("returned")
    sale = sold(upgrade, payout_cents=2_401)
    log.add(upgrade, listed(), sale)
    log.add(upgrade, upgraded(sale, fee_cents=7_501, payout_cents=4_501))
    log.add(upgrade, reported(sale))
    sale = sold(back)
    log.add(back, listed(payout_cents=1_201), sale, return_requested(sale))
    log.add(back, return_approved(sale, payout_cents=1_201, automatic=False))
    log.add(account_id_of("oak"), money_moved())
    return log


def crashed_at_every_edge(log: LogBuilder, make_ledger: MakeLedger = MemoryLedger) -> Iterator[MemoryLedger]:
    """Give the ledger after a crash at the first edge and a new worker, then the second, until there is none."""
    for crash_at in range(1, 1_000):
        kafka, ledger = published(log), make_ledger()
        ledger.faults = Faults(crash_at=crash_at)
        try:
            worker(kafka, ledger).drain()
            return
        except Crash:
            ledger.faults = Faults()
            worker(kafka, ledger).drain()
            yield ledger
    raise AssertionError("edges without end")


def test_bills_a_log_as_it_is_told() -> None:
    log, ledger = story(), MemoryLedger()
    worker(published(log), ledger).drain()
    assert_billed_as_told(contents_of(ledger), log)


def test_a_crash_at_any_edge_loses_nothing_and_bills_nothing_twice() -> None:
    log, undisturbed = story(), MemoryLedger()
    worker(published(log), undisturbed).drain()
    ledgers = list(crashed_at_every_edge(log))
    assert len(ledgers) >= 12
    for ledger in ledgers:
        assert contents_of(ledger) == contents_of(undisturbed)


@examples
@given(logs())
def test_any_log_is_billed_as_it_is_told_whatever_crashes(log: LogBuilder) -> None:
    for ledger in crashed_at_every_edge(log):
        assert_billed_as_told(contents_of(ledger), log)


@examples
@given(logs(), st.data())
def test_entries_published_again_change_nothing(log: LogBuilder, data: st.DataObject) -> None:
    kafka, ledger = published(log), MemoryLedger()
    for record in data.draw(st.lists(st.sampled_from(log.records), max_size=6)):
        assert record.value is not None
        kafka.append(Message(record.topic, record.partition, record.key, record.value))
    worker(kafka, ledger).drain()
    assert_billed_as_told(contents_of(ledger), log)


@examples
@given(logs(), st.lists(st.booleans(), max_size=12))
def test_two_owners_at_once_bill_everything_once(log: LogBuilder, turns: list[bool]) -> None:
    kafka, ledger = published(log), MemoryLedger()
    zombie, owner = worker(kafka, ledger), worker(kafka, ledger)
    for zombies_turn in turns:
        (zombie if zombies_turn else owner).turn()
    zombie.drain()
    owner.drain()
    assert_billed_as_told(contents_of(ledger), log)


def test_an_owner_that_was_overtaken_commits_nothing_and_starts_again_from_the_database() -> None:
    log, ledger = story(), MemoryLedger()
    kafka = published(log)
    zombie, owner = worker(kafka, ledger), worker(kafka, ledger)
    owner.drain()
    before = contents_of(ledger)
    zombie.turn()
    assert contents_of(ledger) == before
    zombie.drain()
    assert contents_of(ledger) == before
    assert zombie.positions == {
        TopicPartition(TOPIC, at): position.offset for at, position in log.positions.items()
    }


def test_an_event_of_an_unknown_type_stops_the_worker_and_is_not_passed_over() -> None:
    log = LogBuilder(partitions=1)
    value = log.add(lead_id("1"), listed()).value
    entry = codec().decode_entry(value)
    unknown = replace(entry, events=(*entry.events, EventBody(schema_id=999, body=b"")))
    kafka, ledger = MemoryKafka(partitions={TOPIC: 1}), MemoryLedger()
    kafka.append(Message(TOPIC, 0, None, codec().encode(unknown)))
    with pytest.raises(NotReadable, match="999"):
        worker(kafka, ledger).drain()
    assert contents_of(ledger).positions == {}


# Planted bugs: each must be caught by the checks above, or these have never been seen to fail.


class MovesPositionsLater(MemoryLedger):
    """Commits the rows, and only then the positions."""

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store in two transactions."""
        positions = self.tables.positions
        super().record(rows, moves)
        stored, self.tables = self.tables, replace(self.tables, positions=positions)
        self.faults.edge("positions")
        self.tables = stored


class ChargesOnReplay(MovesPositionsLater):
    """Gives a transfer another id each time, so that no constraint can tell a repeat."""

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store whatever comes."""
        had = len(self.tables.transfers)
        again = [row._replace(transfer_id=f"{had + n}") for n, row in enumerate(rows.transfers)]
        self.tables = replace(self.tables, leads={}, sales={}, sale_numbers=set())
        added = replace(rows, transfers=again, closes=(), changes=(), returns=(), return_decisions=())
        super().record(added, moves)


class IgnoresOtherOwners(MemoryLedger):
    """Moves the positions without comparing them, and stores what it can."""

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store without a look."""
        tables = self.tables.copy()
        added = replace(rows, closes=(), changes=(), returns=(), return_decisions=())
        _write(Tables(totals=tables.totals), added)
        tables.transfers.update({row.transfer_id: row for row in rows.transfers})
        tables.positions.update({at: move.after for at, move in moves.items()})
        self.tables = tables


class CreditsTwice(MemoryLedger):
    """Gives back twice what was charged."""

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Double the credits."""
        changes = [row._replace(credited_cents=2 * row.credited_cents) for row in rows.changes]
        super().record(replace(rows, changes=changes), moves)


class TakesBackTwice(MemoryLedger):
    """Takes back from sources twice what they earned."""

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Double what is taken back."""
        changes = [row._replace(payout_back_cents=2 * row.payout_back_cents) for row in rows.changes]
        super().record(replace(rows, changes=changes), moves)


class KeepsOnly(MemoryLedger):
    """Posts some transfers otherwise, or not at all, with totals to match."""

    @staticmethod
    def spoil(row: TransferRow) -> TransferRow | None:
        """Leave it as it is."""
        return row

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Spoil the transfers."""
        kept = [spoiled for row in rows.transfers if (spoiled := self.spoil(row)) is not None]
        super().record(replace(rows, transfers=kept, totals=totals_of(kept)), moves)


class ForgetsFees(KeepsOnly):
    """Upgrades for nothing."""

    @staticmethod
    def spoil(row: TransferRow) -> TransferRow | None:
        """Drop the fees."""
        return None if row.kind is TransferKind.UPGRADE_FEE else row


class LosesRoundedCents(KeepsOnly):
    """Pays sources whole units of currency."""

    @staticmethod
    def spoil(row: TransferRow) -> TransferRow | None:
        """Round payouts down."""
        if row.kind is TransferKind.PAYOUT:
            return row._replace(amount_cents=row.amount_cents // 100 * 100)
        return row


class CreditsReturnsAsFailures(KeepsOnly):
    """Mistakes one credit for another."""

    @staticmethod
    def spoil(row: TransferRow) -> TransferRow | None:
        """Change the kind."""
        if row.kind is TransferKind.RETURN_CREDIT:
            return row._replace(kind=TransferKind.FAILED_DELIVERY_CREDIT, debit_account=FAILED_DELIVERIES)
        return row


def test_planted_position_outside_the_transaction_is_stopped_by_the_transfer_id() -> None:
    with pytest.raises(Stopped, match="_pkey"):
        list(crashed_at_every_edge(story(), MovesPositionsLater))


def test_planted_charge_on_replay_is_seen_from_outside() -> None:
    log = LogBuilder(partitions=1)
    log.sell_out(lead_id("1"))
    crashed = [contents_of(ledger) for ledger in crashed_at_every_edge(log, ChargesOnReplay)]
    twice = max(crashed, key=lambda contents: len(contents.transfers))
    with pytest.raises(AssertionError, match="what is charged is not what was sold"):
        assert_billed_as_told(twice, log)


def test_planted_blindness_to_other_owners_is_seen_from_outside() -> None:
    log, ledger = LogBuilder(partitions=1), IgnoresOtherOwners()
    log.sell_out(lead_id("1"))
    kafka = published(log)
    zombie, owner = worker(kafka, ledger), worker(kafka, ledger)
    owner.drain()
    zombie.drain()
    with pytest.raises(AssertionError, match="totals are not the sums of the transfers"):
        assert_billed_as_told(contents_of(ledger), log)


def test_planted_credit_above_the_charge_is_stopped() -> None:
    with pytest.raises(Stopped, match="credited_within_charge"):
        worker(published(story()), CreditsTwice()).drain()


def test_planted_reversal_above_the_payout_is_stopped() -> None:
    with pytest.raises(Stopped, match="taken_back_within_earned"):
        worker(published(story()), TakesBackTwice()).drain()


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (ForgetsFees, "what was upgraded"),
        (LosesRoundedCents, "what they earned"),
        (CreditsReturnsAsFailures, "what failed"),
    ],
)
def test_planted_wrong_transfers_are_seen_from_outside(planted: MakeLedger, complaint: str) -> None:
    log, ledger = story(), planted()
    worker(published(log), ledger).drain()
    with pytest.raises(AssertionError, match=complaint):
        assert_billed_as_told(contents_of(ledger), log)


def test_planted_return_credited_again_is_stopped_by_its_transfer_id() -> None:
    log, sale = LogBuilder(partitions=1), sold(lead_id("1"))
    log.add(lead_id("1"), listed(), sale, return_requested(sale), return_approved(sale))
    ledger = MemoryLedger()
    worker(published(log), ledger).drain()
    (credit,) = (row for row in ledger.tables.transfers.values() if row.kind is TransferKind.RETURN_CREDIT)
    with pytest.raises(Stopped, match="transfers_pkey"):
        ledger.record(replace(postings([]), transfers=[credit]), {})
