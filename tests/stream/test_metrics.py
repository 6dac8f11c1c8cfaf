"""What the steps count is what happened: whole steps on the in-memory bus, and the metrics that they end with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.billing.memory_store import MemoryLedger
from services.billing.metrics import BillingMetrics
from services.billing.rows import Total, TotalKey
from services.billing.step import Billing
from services.billing.weighing import WEIGHS_EACH_S, WeighedFold
from services.bus.log_reader import LogReader
from services.bus.memory import MemoryHost, MemoryKafka
from services.bus.ports import Message, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.events import WindowOpened
from services.contract.inputs import PlaceBid, TimerDue
from services.contract.market import Account, Cap, Market, Mode, Period, Sell, Unit
from services.contract.times import MINUTE_MS
from services.resale.domain import DueWindow
from services.resale.metrics import ResaleMetrics
from services.router.ports import NEVER_CLOSED, SaleRow
from services.router.step import LIMITS_EACH_S, LIMITS_SHOWN_MAX
from tests.stream.test_billing import published, story
from tests.support.deciding import (
    BID_WINDOW_MS,
    bid_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
)
from tests.support.log_builder import TOPIC
from tests.support.routing import TOPICS, World, world

pytestmark = pytest.mark.stream

FIVE_A_DAY = Cap(unit=Unit.LEADS, period=Period.DAY, most=5)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    return 0.0 if found is None else found


def shown_limits(given: World) -> dict[str, float]:
    return {
        sample.labels["limit"]: sample.value
        for metric in given.registry.collect()
        for sample in metric.samples
        if metric.name == "gavel_router_limit_used_ratio"
    }


def sold_exclusive(*caps: Cap, buyers: int = 1) -> Market:
    orders = tuple(order(f"b{n}", exclusive=9500 - n, caps=caps) for n in range(buyers))
    return market(plan(exclusive_stage(9000), sales_max=1), orders=orders)


def test_leads_sales_and_closes_are_counted_by_outcome() -> None:
    given = world(sold_exclusive(FIVE_A_DAY))
    given.send(*(lead(f"lead-{n}") for n in range(7)))
    given.worker().drain()
    assert value(given.registry, "gavel_router_leads_total") == 7
    assert value(given.registry, "gavel_router_sales_total", mode="exclusive") == 5
    assert value(given.registry, "gavel_router_sales_total", mode="shared") == 0
    assert value(given.registry, "gavel_router_closes_total", outcome="sold_out") == 5
    assert value(given.registry, "gavel_router_closes_total", outcome="unsold") == 2


def test_an_auction_is_counted_by_its_end_and_its_bids_by_their_kind() -> None:
    orders = (order("a", exclusive="bid"), order("b", exclusive="bid"))
    given = world(market(plan(bid_stage(Sell.EXCLUSIVE, exclusive=5000), sales_max=1), orders=orders))
    host = given.worker()
    item = lead("lead-1")
    given.send(item)
    host.drain()
    given.send(
        PlaceBid(
            lead_id=item.lead_id,
            buyer_id="a",
            auction_number=1,
            exclusive_cents=6000,
            shared_cents=None,
            answered_at_ms=given.clock.now_ms,
        )
    )
    host.drain()
    given.clock.advance(BID_WINDOW_MS + 50)
    host.drain()
    assert value(given.registry, "gavel_router_bids_total", answer="price") == 1
    assert value(given.registry, "gavel_router_auctions_total", end="time_up") == 1
    assert value(given.registry, "gavel_router_auction_close_seconds_count") == 1


def test_an_input_that_was_decided_before_is_counted_as_a_repeat() -> None:
    given = world(sold_exclusive())
    given.send(lead("lead-1"))
    host = given.worker()
    host.drain()
    assert value(given.registry, "gavel_router_repeats_total") == 0
    records = given.kafka.topic(TOPICS.qualified)
    assert host.step.handle(records) == []
    assert value(given.registry, "gavel_router_repeats_total") == len(records)


def test_how_late_a_window_is_decided_is_observed_once() -> None:
    offered = plan(exclusive_stage(9000, accept_within_ms=MINUTE_MS), sales_max=1)
    given = world(market(offered, orders=(order("a", exclusive="list"),)))
    host = given.worker()
    item = lead("lead-1")
    given.send(item)
    host.drain()
    (window,) = (event for _, event in given.events() if isinstance(event, WindowOpened))
    given.clock.advance(window.due_at_ms - given.clock.now_ms + 2_000)
    timer = TimerDue(lead_id=item.lead_id, window_number=window.window_number)
    given.send(timer, timer)
    host.drain()
    assert value(given.registry, "gavel_router_timer_late_seconds_count") == 1
    assert value(given.registry, "gavel_router_timer_late_seconds_sum") == pytest.approx(2.0, abs=0.1)


def test_limits_are_shown_by_their_used_share_and_without_their_period() -> None:
    credit = sold_exclusive(FIVE_A_DAY)
    buyer = replace(credit.buyers["b0"], account=Account(credit_limit_cents=95_000))
    given = world(replace(credit, buyers={"b0": buyer}))
    host = given.worker()
    given.send(*(lead(f"lead-{n}") for n in range(4)))
    host.drain()
    given.clock.advance(round(LIMITS_EACH_S * 1_000))
    given.send(lead("later"))
    host.drain()
    cap = next(name for name in given.tables.counters if name.startswith("order:")).rpartition(":")[0]
    assert shown_limits(given) == {cap: 0.8, "account:b0": pytest.approx(0.4)}


def test_no_more_limits_are_shown_than_are_used_most() -> None:
    given = world(
        sold_exclusive(Cap(unit=Unit.LEADS, period=Period.DAY, most=1), buyers=LIMITS_SHOWN_MAX + 9)
    )
    host = given.worker()
    given.send(*(lead(f"lead-{n}") for n in range(LIMITS_SHOWN_MAX + 5)))
    host.drain()
    given.clock.advance(round(LIMITS_EACH_S * 1_000))
    given.send(lead("later"))
    host.drain()
    assert len(shown_limits(given)) == LIMITS_SHOWN_MAX


def test_recipients_with_undelivered_records_are_counted_until_they_have_them() -> None:
    given = world(sold_exclusive())
    to_buyer = TOPICS.buyer_leads("b0")

    def refuses(message: Message) -> Unacknowledged | None:
        return Unacknowledged(0, None, "silent") if message.topic == to_buyer else None

    given.refuses = refuses
    host = given.worker()
    given.send(lead("lead-1"))
    host.drain()
    assert value(given.registry, "gavel_router_recipients_behind") == 1
    given.refuses = lambda _: None
    for _ in range(40):
        given.clock.advance(1_000)
        host.turn()
    assert value(given.registry, "gavel_router_recipients_behind") == 0


def test_a_promise_that_the_database_refuses_is_counted() -> None:
    given = world(sold_exclusive())
    item = lead("lead-1")
    given.tables.sales[item.lead_id, 1] = SaleRow(
        item.lead_id, 1, "planted", "planted/all", Mode.SHARED, 3, 1, given.clock.now_ms, NEVER_CLOSED
    )
    given.send(item)
    given.worker().drain()
    assert value(given.registry, "gavel_router_promises_broken_total") == 1
    assert value(given.registry, "gavel_router_closes_total", outcome="failed") == 1


def test_first_sends_and_repeats_of_windows_are_told_apart() -> None:
    registry = CollectorRegistry()
    metrics = ResaleMetrics(registry)
    metrics.count([DueWindow(0, "a", 1, 0, 4_000), DueWindow(0, "b", 1, 0, 7_500)], 8_000)
    metrics.count([DueWindow(0, "a", 1, 1, 1_000)], 64_000)
    assert value(registry, "gavel_resale_sent_total", again="no") == 2
    assert value(registry, "gavel_resale_sent_total", again="yes") == 1
    assert value(registry, "gavel_resale_late_seconds_count") == 1
    assert value(registry, "gavel_resale_late_seconds_sum") == pytest.approx(4.0)


def weighed(kafka: MemoryKafka, ledger: MemoryLedger, registry: CollectorRegistry) -> MemoryHost:
    clock_s = kafka.clock.monotonic_s
    fold = WeighedFold(Billing(ledger, codec()), ledger, BillingMetrics(registry), monotonic_s=clock_s)
    host = MemoryHost(kafka, LogReader(fold, codec(), topic=TOPIC, monotonic_s=clock_s, registry=registry))
    host.assign([TopicPartition(TOPIC, at) for at in range(kafka.partitions[TOPIC])])
    return host


def test_a_ledger_that_does_not_balance_is_seen_within_a_minute() -> None:
    kafka, ledger, registry = published(story()), MemoryLedger(), CollectorRegistry()
    host = weighed(kafka, ledger, registry)
    host.drain()
    kafka.clock.advance(round(WEIGHS_EACH_S * 1_000))
    host.turn()
    (currency,) = {key.currency for key in ledger.tables.totals}
    assert value(registry, "gavel_billing_imbalance_cents", currency=currency) == 0
    assert value(registry, "gavel_billing_weighed_timestamp_seconds") > 0
    ledger.tables.totals[TotalKey("planted", currency, 0)] = Total(1, 0)
    kafka.clock.advance(round(WEIGHS_EACH_S * 1_000))
    host.turn()
    assert value(registry, "gavel_billing_imbalance_cents", currency=currency) == 1


def test_a_reader_counts_the_entries_that_it_drops() -> None:
    kafka, registry = published(story()), CollectorRegistry()
    repeated = kafka.topic(TOPIC)[0]
    assert repeated.value is not None
    kafka.append(Message(TOPIC, repeated.partition, repeated.key, repeated.value))
    weighed(kafka, MemoryLedger(), registry).drain()
    assert value(registry, "gavel_reader_repeats_total") == 1
    assert value(registry, "gavel_reader_ahead_total") == 0
