"""The ledger made again from the log's first entry: identical, or the difference named, while billing goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from services.billing import rebuild
from services.billing.rebuild import REBUILT, Rebuild, RebuildRunning, Verdict, drop_tables, only_one
from services.bus.ports import Record, Stopped
from services.contract.codec import codec
from services.contract.ids import account_id_of
from tests.support.billing_database import as_billing, bill
from tests.support.log_builder import (
    TOPIC,
    LogBuilder,
    delivery_failed,
    lead_id,
    listed,
    money_moved,
    reported,
    return_approved,
    return_requested,
    sold,
    upgraded,
)

pytest_plugins = ["tests.support.billing_fixtures"]


@dataclass(slots=True)
class ListedLog:
    """A log in memory, read in small batches; `between` is called before each."""

    log: LogBuilder
    between: Callable[[], None] = lambda: None
    batches: list[int] = field(default_factory=list)

    def read(self, spans: Mapping[int, range]) -> Iterator[Sequence[Record]]:
        """Read these offsets."""
        wanted = [
            record for record in self.log.records if record.offset in spans.get(record.partition, range(0))
        ]
        for start in range(0, len(wanted), 7):
            self.between()
            self.batches.append(len(wanted[start : start + 7]))
            yield wanted[start : start + 7]


def story(log: LogBuilder, name: str) -> None:
    """Add all that billing reads."""
    for number in range(8):
        log.sell_out(lead_id(f"{name}-{number}"))
    late = lead_id(f"{name}-late")
    log.add(late, listed(), sold(late))
    log.add(late, delivery_failed(sold(late)))
    upgrade, back, buyer = lead_id(f"{name}-upgraded"), lead_id(f"{name}-returned"), account_id_of("oak")
    sale = sold(upgrade, payout_cents=2_401)
    log.add(upgrade, listed(), sale, reported(sale))
    log.add(upgrade, upgraded(sale, payout_cents=4_501))
    sale = sold(back)
    log.add(back, listed(payout_cents=1_201), sale, return_requested(sale))
    log.add(back, return_approved(sale, payout_cents=1_201, automatic=False))
    log.add(buyer, money_moved(reference=name))


@pytest.fixture(scope="module")
def log(billed: str) -> LogBuilder:
    """A log of 30 entries that the ledger has billed; a test may add to both."""
    log = LogBuilder()
    story(log, "first")
    story(log, "second")
    bill(billed, log)
    return log


@contextmanager
def rebuilding(url: str, source: ListedLog) -> Iterator[Rebuild]:
    with as_billing(url)() as connection, only_one(connection):
        yield Rebuild(connection, source, codec(), topic=TOPIC)
        drop_tables(connection, REBUILT)


def verified(url: str, log: LogBuilder) -> Verdict:
    with rebuilding(url, ListedLog(log)) as made:
        made.make()
        return made.compare()


def test_ledger_is_identical_to_the_one_made_again(billed: str, log: LogBuilder) -> None:
    verdict = verified(billed, log)
    assert verdict.identical
    assert verdict.entries == len(log.records)
    assert {table.table: table.rows > 0 for table in verdict.tables} == dict.fromkeys(rebuild.TABLES, True)
    (total,) = verdict.totals
    assert total.debits_cents == total.rebuilt_credits_cents > 0


TAMPERED = [
    pytest.param("transfers", "update billing.transfers set amount_cents = amount_cents + 1", id="an-amount"),
    pytest.param(
        "transfers", "delete from billing.transfers where kind = 'failed_delivery_credit'", id="a-credit"
    ),
    pytest.param(
        "sales", "update billing.sales set buyer_id = 'elm' where sale_number = 1", id="a-sale-to-another"
    ),
    pytest.param(
        "sales", "update billing.sales set sold_at = sold_at + interval '1 millisecond'", id="a-time"
    ),
    pytest.param("leads", "update billing.leads set plan = null", id="a-plan"),
    pytest.param(
        "sales", "update billing.sales set disposition = null, disposition_at = null", id="an-outcome"
    ),
    pytest.param("returns", "update billing.returns set refund_cents = refund_cents - 1", id="a-refund"),
    pytest.param("returns", "delete from billing.returns", id="a-return"),
    pytest.param("transfers", "delete from billing.transfers where kind = 'payout'", id="a-payout"),
    pytest.param("leads", "delete from billing.leads where outcome is null", id="a-lead-lost"),
    pytest.param("account_totals", "update billing.account_totals set credits_cents = 0", id="a-total"),
    pytest.param(
        "positions", "update billing.positions set hash = sha256(hash) where seq > 0", id="a-log-rewritten"
    ),
]


@pytest.mark.parametrize(("table", "statement"), TAMPERED)
def test_names_the_difference_when_somebody_has_changed(
    billed: str, billing_owner: psycopg.Connection, log: LogBuilder, table: str, statement: str
) -> None:
    with _changed(billing_owner, table, statement):
        verdict = verified(billed, log)
    assert not verdict.identical
    found = next(comparison for comparison in verdict.tables if comparison.table == table)
    assert found.only_in_ledger + found.only_in_rebuilt > 0
    assert 0 < len(found.differences) <= 2 * rebuild.NAMED_MAX
    assert verified(billed, log).identical


def test_a_total_that_no_transfer_made_is_a_discrepancy_of_the_ledger_itself(
    billed: str, billing_owner: psycopg.Connection, log: LogBuilder
) -> None:
    with _changed(billing_owner, "account_totals", "update billing.account_totals set debits_cents = 1"):
        assert any(text.startswith("account total: buyer:") for text in verified(billed, log).discrepancies)


def test_holds_while_billing_goes_on(billed: str, log: LogBuilder) -> None:
    turns = iter(range(1_000))

    def bill_more() -> None:
        if (turn := next(turns)) < 4:
            story(log, f"meanwhile-{turn}")
            bill(billed, log)

    source = ListedLog(log, between=bill_more)
    before = len(log.records)
    with rebuilding(billed, source) as made:
        made.make()
        bill_more()
        verdict = made.compare()
    assert verdict.identical
    assert verdict.entries == len(log.records) >= before + 40


def test_compares_as_of_one_snapshot(billed: str, log: LogBuilder) -> None:
    def bill_more() -> None:
        if source.batches and source.batches[-1] != 0:
            source.batches.append(0)
            story(log, f"in-the-snapshot-{len(source.batches)}")
            bill(billed, log)

    source = ListedLog(log)
    with rebuilding(billed, source) as made:
        made.make()
        story(log, "before-the-snapshot")
        bill(billed, log)
        source.between = bill_more
        verdict = made.compare()
    assert verdict.identical
    assert verdict.entries < len(log.records)


def test_folds_in_batches_and_tells_how_far_it_is(billed: str, log: LogBuilder) -> None:
    source, told = ListedLog(log), []
    with rebuilding(billed, source) as made:
        made.make(lambda done, total: told.append((done, total)))
    assert max(source.batches) <= 7
    assert told[-1] == (len(log.records), len(log.records))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_log_whose_entries_do_not_follow_each_other_stops_it(billed: str, log: LogBuilder) -> None:
    other = LogBuilder()
    story(other, "other")
    forged = LogBuilder()
    forged.records = [log.records[0], *(_forged(record, other) for record in log.records[1:])]
    with (
        rebuilding(billed, ListedLog(forged)) as made,
        pytest.raises(Stopped, match="does not follow its predecessor"),
    ):
        made.make()


def test_a_log_that_lacks_an_entry_is_a_difference(billed: str, log: LogBuilder) -> None:
    lacking = LogBuilder()
    lacking.records = [record for at, record in enumerate(log.records) if at != 3]
    verdict = verified(billed, lacking)
    assert not verdict.identical
    assert {table.table for table in verdict.tables if table.only_in_ledger} >= {
        "leads",
        "sales",
        "positions",
    }


def test_only_one_at_a_time(billed: str) -> None:
    with (
        as_billing(billed)() as first,
        as_billing(billed)() as second,
        only_one(first),
        pytest.raises(RebuildRunning),
        only_one(second),
    ):
        pass


def _forged(record: Record, other: LogBuilder) -> Record:
    """Put the entry of another log with the same number in a record's place, if there is one."""
    found = (at for at in other.records if (at.partition, at.offset) == (record.partition, record.offset))
    return next(found, record)


@contextmanager
def _changed(owner: psycopg.Connection, table: str, statement: str) -> Iterator[None]:
    """Change a table behind everybody's back, and put it right again."""
    owner.execute("set session_replication_role = replica")
    owner.execute(f"create temporary table kept as select * from billing.{table}".encode())
    owner.execute(statement.encode())
    try:
        yield
    finally:
        owner.execute(f"delete from billing.{table}".encode())
        owner.execute(f"insert into billing.{table} select * from kept".encode())
        owner.execute("drop table kept")
        owner.execute("reset session_replication_role")
