"""Webhooks as buyers get them: signed, again after a failure, never to a machine of the house, nobody held up."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deploy.local.stack import Stack
from services.contract.times import iso_time
from services.gateway.key_store import call_again, rotate_secret
from tests.support.gateway import (
    BUYER,
    GatewayOnKafka,
    Received,
    Reply,
    WebhookReceiver,
    market_with,
    receivers,
)

SLOW = "gridwatt"


class Buyers:
    """Two buyers' machines, and a gateway that calls them."""

    def __init__(self, gavel: GatewayOnKafka, quick: WebhookReceiver, other: WebhookReceiver) -> None:
        self.gavel = gavel
        self.quick = quick
        self.other = other

    def wait(self, what: str, receiver: WebhookReceiver, count: int) -> list[Received]:
        self.gavel.wait_until(what, lambda: len(receiver.received) >= count)
        return receiver.received

    def rows(self) -> list[tuple[Any, ...]]:
        return self.gavel.rows("select attempts, given_up_at_ms, last_error from gateway.webhooks")


@pytest.fixture
def buyers(stack: Stack, database: str, tmp_path: Path) -> Iterator[Buyers]:
    with receivers(lambda _: Reply(), lambda _: Reply()) as (quick, other):
        gavel = GatewayOnKafka(stack, database, tmp_path, market_with(acme=quick.url, gridwatt=other.url))
        yield Buyers(gavel, quick, other)
        gavel.close()


def _lead(**more: Any) -> dict[str, Any]:
    return {
        "type": "lead",
        "lead_id": str(uuid.uuid4()),
        "lead": {"contact": {"email": "é@mail.example"}},
        **more,
    }


def _ping(lasts_s: float = 600.0) -> dict[str, Any]:
    answer_by = iso_time(int((time.time() + lasts_s) * 1_000))
    return {"type": "ping", "lead_id": str(uuid.uuid4()), "auction_number": 2, "answer_by": answer_by}


@contextmanager
def _signed_by(gavel: GatewayOnKafka, *numbers: int) -> Iterator[list[Webhook]]:
    yield [Webhook(gavel.webhook_secrets.secret(BUYER, number)) for number in numbers]


def test_a_record_is_posted_as_it_is_and_its_signature_holds(buyers: Buyers) -> None:
    gavel, lead = buyers.gavel, _lead()
    with gavel.worker():
        gavel.tell_buyer(lead)
        (received,) = buyers.wait("it is posted", buyers.quick, 1)
        gavel.wait_until("its row is gone", lambda: buyers.rows() == [])
        with psycopg.connect(gavel.database, autocommit=True) as connection:
            rotate_secret(connection, BUYER, time.time_ns() // 1_000_000)
        gavel.tell_buyer(_lead(), first=2)
        gavel.wait_until(
            "both secrets sign",
            lambda: " " in (buyers.quick.received[-1].headers["webhook-signature"]) or _more(gavel, buyers),
        )
    assert received.told == lead
    assert received.headers["webhook-id"] == "0:1:leads"
    assert received.headers["content-type"] == "application/json"
    with _signed_by(gavel, 1) as (first,):
        assert first.verify(received.body, dict(received.headers)) == lead
        with pytest.raises(WebhookVerificationError):
            first.verify(received.body + b" ", dict(received.headers))
    last = buyers.quick.received[-1]
    with _signed_by(gavel, 1, 2) as both:
        assert [each.verify(last.body, dict(last.headers)) for each in both] == [last.told, last.told]


def _more(gavel: GatewayOnKafka, buyers: Buyers) -> bool:
    """Send another, until the gateway has looked who signs with what."""
    if len(buyers.quick.received) >= 2:
        gavel.tell_buyer(_lead(), first=len(buyers.quick.received) + 1)
    return False


def test_a_reply_to_a_ping_is_a_bid_on_the_buyers_topic(buyers: Buyers) -> None:
    gavel, pings = buyers.gavel, [_ping(), _ping(), _ping(), _ping(lasts_s=-1.0)]
    replies = {
        pings[0]["lead_id"]: Reply(body=b'{"exclusive": "85.00", "shared": "34.00"}'),
        pings[1]["lead_id"]: Reply(status=204),
        pings[2]["lead_id"]: Reply(body=b'{"exclusive": 85.0}'),
    }
    buyers.quick.reply = lambda received: replies[received.told["lead_id"]]
    with gavel.worker():
        gavel.tell_buyer(*pings, kind="pings")
        answers = gavel.read_until(lambda found: len(found) == 2, gavel.topics.buyer_answers(BUYER))
        gavel.wait_until("nothing waits", lambda: buyers.rows() == [])
    about = [{"lead_id": ping["lead_id"], "auction_number": 2} for ping in pings]
    said = {
        orjson.loads(answer.value or b"")["type"]: orjson.loads(answer.value or b"") for answer in answers
    }
    assert said["bid"] == {"type": "bid", **about[0], "exclusive": "85.00", "shared": "34.00"}
    assert said["no_bid"] == {"type": "no_bid", **about[1], "reason": "other"}
    assert len(buyers.quick.received) == 3, "a ping whose time is over is not posted"


def test_a_slow_buyer_delays_nobody_else_and_a_kill_loses_nothing(buyers: Buyers) -> None:
    gavel, open_again = buyers.gavel, threading.Event()
    buyers.other.reply = lambda _: Reply(until=open_again)
    with gavel.worker() as process:
        gavel.tell_buyer(*(_lead() for _ in range(50)), buyer=SLOW)
        buyers.wait("the slow one is called", buyers.other, 8)
        gavel.tell_buyer(*(_lead() for _ in range(50)))
        buyers.wait("the quick one has all", buyers.quick, 50)
        assert len(buyers.other.received) == 8, "it has its own places only"
        process.send_signal(signal.SIGKILL)
        process.wait()
    buyers.other.reply = lambda _: Reply()
    open_again.set()
    with gavel.worker():
        gavel.wait_until("nothing waits", lambda: buyers.rows() == [])
    ids = [received.headers["webhook-id"] for received in buyers.other.received]
    assert set(ids) == {f"0:{number}:leads" for number in range(1, 51)}
    assert set(ids[:8]) <= set(ids[8:]), "posted again, under the same ids"


def test_what_failed_is_tried_again_and_redirects_are_failures(buyers: Buyers) -> None:
    gavel = buyers.gavel
    replies = iter([Reply(status=500), Reply(status=302, headers={"Location": buyers.other.url})])
    buyers.quick.reply = lambda _: next(replies, Reply())
    with gavel.worker():
        gavel.tell_buyer(_lead(), _lead())
        gavel.wait_until(
            "both have failed once",
            lambda: {row[2] for row in buyers.rows()} == {"answered 500", "answered 302"},
        )
        received = buyers.wait("both are posted again", buyers.quick, 4)
        gavel.wait_until("nothing waits", lambda: buyers.rows() == [])
    assert sorted(each.headers["webhook-id"] for each in received) == ["0:1:leads"] * 2 + ["0:2:leads"] * 2
    assert buyers.other.received == []


def test_a_url_that_is_gone_is_called_no_more_until_somebody_says_so(buyers: Buyers) -> None:
    gavel = buyers.gavel
    buyers.quick.reply = lambda _: Reply(status=410)
    with gavel.worker():
        gavel.tell_buyer(_lead())
        gavel.wait_until(
            "it is disabled",
            lambda: gavel.rows("select disabled_url from gateway.endpoints") == [(buyers.quick.url,)],
        )
        gavel.tell_buyer(_lead(), first=2)
        gavel.tell_buyer(_lead(), buyer=SLOW)
        buyers.wait("others are posted to", buyers.other, 1)
        assert len(buyers.quick.received) == 1
        buyers.quick.reply = lambda _: Reply()
        with psycopg.connect(gavel.database, autocommit=True) as connection:
            call_again(connection, BUYER)
        gavel.wait_until("nothing waits", lambda: buyers.rows() == [])
    ids = [each.headers["webhook-id"] for each in buyers.quick.received]
    assert ids[0] == "0:1:leads"
    assert sorted(ids[1:]) == ["0:1:leads", "0:2:leads"]


def test_no_machine_of_the_house_is_called_unless_it_may_be(buyers: Buyers) -> None:
    gavel = buyers.gavel
    with ExitStack() as workers:
        workers.enter_context(gavel.worker(GAVEL_WEBHOOK_NETWORKS="10.0.0.0/8"))
        gavel.tell_buyer(_lead())
        gavel.wait_until("it is refused", lambda: [row[0] for row in buyers.rows()] == [1])
        ((_, _, error),) = buyers.rows()
    assert error == "must not be called: the name stands for an address that is not the internet's"
    assert buyers.quick.received == []
