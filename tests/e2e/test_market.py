"""The market as processes on real Kafka and PostgreSQL: auctions, caps, upgrades and returns hold through faults.

What is checked is checked from the topics and the database alone (`tests/support/checker.py`). Bidders are the client
that buyers install.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.local.stack import Stack
from gavel_client import Answers, Bid, Bidder, LeadReader, NoBid, Ping
from services.contract.ids import draw
from tests.support.auditing import audit_violations
from tests.support.checker import close_delays_ms, gather, leaks, violations
from tests.support.running import Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CANARY = "canary"
STEPS_WITHOUT_ROUTER = ("intake", "resale", "billing", "feed")


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    market = Path(__file__).parent / "market-auctions.yaml"
    with running_gavel(stack, database, tmp_path, market) as running:
        yield running


def _keen(ping: Ping) -> Bid | NoBid | None:
    """Bid by the lead: often well, sometimes under the floor, not at all, or in silence."""
    drawn = draw(ping.lead_id, "keen") % 10
    if drawn == 0:
        return NoBid("capacity")
    if drawn == 1:
        return None
    return Bid(
        exclusive=f"{15 + 10 * drawn}.00", shared=f"{10 + 3 * drawn}.50" if "shared" in ping.modes else None
    )


def _calm(ping: Ping) -> Bid | NoBid | None:
    if "shared" in ping.modes:
        return Bid(shared="30.00")
    return Bid(exclusive="25.00")


@contextmanager
def bidding(gavel: Gavel) -> Iterator[None]:
    """Have two buyers answer pings; a third stays silent."""
    bidders = [
        (Bidder(buyer_id, servers=gavel.kafka, namespace=gavel.namespace), decide)
        for buyer_id, decide in (("keen", _keen), ("calm", _calm))
    ]
    threads = [threading.Thread(target=bidder.run, args=(decide,)) for bidder, decide in bidders]
    for thread in threads:
        thread.start()
    assert all(bidder.wait_joined(60) for bidder, _ in bidders)
    try:
        yield
    finally:
        for bidder, _ in bidders:
            bidder.stop()
        for thread in threads:
            thread.join(30)


def _send(gavel: Gavel, lead_type: str, first: int, count: int) -> None:
    """Send leads as a source does; every name and address says canary."""
    producer = KafkaProducer(bootstrap_servers=gavel.kafka)
    for n in range(first, first + count):
        submission = {
            "lead_type": lead_type,
            "reference": f"{lead_type}-{n}",
            "contact": {
                "first_name": f"{CANARY}-{n}",
                "email": f"{CANARY}{n}@example.com",
                "phone": f"+1212{2_000_000 + n}",
            },
            "details": {"state": "NY"},
        }
        producer.send(gavel.topics.source_leads("web"), json.dumps(submission).encode())
    producer.flush()
    producer.close()


def _count(gavel: Gavel, query: str) -> int:
    ((count,),) = gavel.ask(query)
    return int(str(count))


def _await_end(gavel: Gavel, count: int) -> None:
    def is_told() -> bool:
        ((told,),) = gavel.ask(
            "select (select bool_and(seq = published_seq) from router.heads)"
            " and not exists (select from router.undelivered)"
            " and (select count(*) from router.sales) = (select count(*) from billing.sales)"
            " and not exists (select from billing.leads where outcome is null)"
        )
        return bool(told)

    closed = "select count(*) from router.closes"
    gavel.wait_until(f"{count} leads closed", lambda: _count(gavel, closed) == count, within_s=120)
    gavel.wait_until("all published and billed", is_told)
    gavel.wait_all_read()


def _assert_promises(gavel: Gavel, count: int) -> None:
    assert violations(gavel.kafka, gavel.topics, gavel.market, gavel.database) == []
    evidence = gather(gavel.kafka, gavel.topics, gavel.market)
    assert len(evidence.accepted) == count
    assert leaks(evidence, gavel.database, gavel.folder, [CANARY.encode()]) == []
    assert audit_violations(gavel, CANARY) == []


def _command(gavel: Gavel, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=gavel.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, f"{arguments}: {ran.stdout} {ran.stderr}"
    return ran.stdout


def test_auctions_are_decided_as_promised_and_right_at_their_close(gavel: Gavel) -> None:
    gavel.start_all()
    with bidding(gavel):
        _send(gavel, "auction", 0, 100)
        _send(gavel, "claim", 1_000, 60)
        _await_end(gavel, 160)
    _assert_promises(gavel, 160)
    delays_ms = close_delays_ms(gather(gavel.kafka, gavel.topics, gavel.market))
    assert len(delays_ms) >= 50, "many auctions waited for the silent one"
    assert delays_ms[0] >= 0, "no auction was closed before its time"
    modes = {mode for (mode,) in gavel.ask("select distinct mode from router.sales")}
    assert modes == {"exclusive", "shared"}


def test_routers_that_come_and_go_in_the_middle_of_open_auctions_close_each_once(gavel: Gavel) -> None:
    for step in STEPS_WITHOUT_ROUTER:
        gavel.start(step)
    gavel.start("router", "router-1")
    opened = "select count(*) from router.auctions"
    with bidding(gavel):
        sent = 0
        for change in (_join, _kill_first, _join_again):
            _send(gavel, "auction", sent, 100)
            sent += 100
            gavel.wait_until("auctions are open", lambda: _count(gavel, opened) > 0)
            change(gavel)
        _await_end(gavel, sent)
    _assert_promises(gavel, sent)
    assert _count(gavel, opened) == 0


def _join(gavel: Gavel) -> None:
    gavel.start("router", "router-2")


def _kill_first(gavel: Gavel) -> None:
    gavel.kill("router-1")


def _join_again(gavel: Gavel) -> None:
    gavel.start("router", "router-3")


def test_caps_and_credit_are_used_to_the_last_unit_by_two_routers_and_not_beyond(gavel: Gavel) -> None:
    _run_with_two_routers(gavel, lambda: _send(gavel, "capped", 0, 200), 200)
    bought = _bought(gavel)
    assert bought == {"few": 25}, "nobody has paid anything in yet"
    _command(gavel, "billing", "deposit", "advance", "123.45", "--reference", "first")
    _command(gavel, "billing", "deposit", "advance", "123.45", "--reference", "first")
    _send(gavel, "capped", 200, 100)
    _await_end(gavel, 300)
    bought = _bought(gavel)
    assert bought == {"few": 25, "advance": 12}, "123.45 buys 12 leads at 10.00, and was paid in once"
    _assert_promises(gavel, 300)
    told = _told(gavel, ["few", "advance"])
    assert {(buyer, limit) for buyer, limit in told} == {("few", "leads_total"), ("advance", "account")}


def _bought(gavel: Gavel) -> dict[str, int]:
    rows = gavel.ask("select buyer_id, count(*) from router.sales group by buyer_id")
    return {str(buyer_id): int(str(count)) for buyer_id, count in rows}


def _told(gavel: Gavel, buyers: Sequence[str]) -> list[tuple[str, str]]:
    from tests.support.checker import records_of

    return [
        (buyer, body["limit"])
        for buyer in buyers
        for record in records_of(gavel.kafka, gavel.topics.buyer_pings(buyer))
        if (body := json.loads(record.value))["type"] == "limit_reached"
    ]


def _run_with_two_routers(gavel: Gavel, send: Callable[[], None], count: int) -> None:
    for step in STEPS_WITHOUT_ROUTER:
        gavel.start(step)
    gavel.start("router", "router-1")
    gavel.start("router", "router-2")
    send()
    _await_end(gavel, count)


def test_upgrades_close_the_rest_and_returns_are_credited(gavel: Gavel) -> None:
    gavel.start_all()
    _send(gavel, "upgraded", 0, 40)
    _await_end(gavel, 40)
    # 46.00 and the fee of 37.50 fit 17 times into 1,500.00, which is less than the cap of 20 leads.
    assert (
        _count(gavel, "select count(*) from router.sales where buyer_id = 'alone' and mode = 'exclusive'")
        == 17
    )
    assert (
        _count(gavel, "select count(*) from router.sales where buyer_id = 'alone' and mode = 'shared'") == 0
    )
    answers = Answers("standing", servers=gavel.kafka, namespace=gavel.namespace)
    with LeadReader("standing", servers=gavel.kafka, namespace=gavel.namespace) as reader:
        lead = next(iter(reader))
    answers.give_back(lead.lead_id, "invalid_contact")
    answers.give_back(lead.lead_id, "other")
    answers.close()
    gavel.wait_until(
        "the return is credited",
        lambda: _count(gavel, "select count(*) from billing.transfers where kind = 'return_credit'") == 1,
    )
    _assert_promises(gavel, 40)
