"""What the router decides, the ledger can hold: real decisions around sales, billed in whatever batches."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.memory_store import MemoryLedger
from services.contract.market import Market
from services.contract.times import MINUTE_MS
from tests.stream.test_billing import published, worker
from tests.support.deciding import Story, lead
from tests.support.ledger_checks import assert_billed_as_told
from tests.support.log_builder import LogBuilder
from tests.unit.billing.test_memory_ledger import contents_of
from tests.unit.router.test_aftermath_properties import MOVES, ROOM, Move, _markets, _play

examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def log_of(story: Story) -> LogBuilder:
    """Write the log of a lead's decisions, an entry each."""
    log = LogBuilder(partitions=1, decided_at_ms=story.entries[0][0] - MINUTE_MS)
    for _, events in story.entries:
        if events:
            log.add(story.lead.lead_id, *events)
    return log


@examples
@given(
    _markets(),
    st.lists(st.tuples(MOVES, ROOM), min_size=6, max_size=16),
    st.booleans(),
    st.integers(1, 5),
)
def test_ledger_holds_whatever_the_router_decides_around_a_sale(
    market: Market, moves: list[tuple[Move, frozenset[str]]], is_test: bool, batch_max: int
) -> None:
    story, ledger = Story(market), MemoryLedger()
    story.when(lead(is_test=is_test))
    _play(story, moves)
    log = log_of(story)
    worker(published(log), ledger, batch_max=batch_max).drain()
    assert_billed_as_told(contents_of(ledger), log)
    if is_test:
        assert contents_of(ledger).transfers == ()


def test_these_decisions_move_money_of_every_kind_but_deposits() -> None:
    kinds: Counter[str] = Counter()

    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    @given(_markets(), st.lists(st.tuples(MOVES, ROOM), min_size=6, max_size=16))
    def count(market: Market, moves: list[tuple[Move, frozenset[str]]]) -> None:
        story, ledger = Story(market), MemoryLedger()
        story.when(lead())
        _play(story, moves)
        worker(published(log_of(story)), ledger, batch_max=50).drain()
        kinds.update(str(row["kind"]) for row in contents_of(ledger).transfers)

    count()
    assert set(kinds) == {
        "sale_charge",
        "upgrade_fee",
        "failed_delivery_credit",
        "return_credit",
        "payout",
        "payout_reversal",
    }
